"""A folder with every kind of broken, odd and hostile file beside good ones; all of them made here, none shipped."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SKIPPED = frozenset(
    {".DS_Store", ".hidden.jpg", ".git/inside.jpg", "Thumbs.db", "notes.txt", "film.mpg", "pipe", "loop", "no suffix"}
)
"""What the scan must pass over without a word: neither labelled nor rejected."""
DEPENDS_ON_SHAPE = frozenset({"odd/one pixel wide.png", "odd/one pixel high.png"})
"""Sound images that the label shape rule may refuse, depending on the teacher's size."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def photo(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    """A smooth picture with a blue mark in its upper left corner (8 x 8 pixels)."""
    y_HW, x_HW = np.mgrid[0:height, 0:width]
    rgb_HW3 = np.stack([x_HW * 255 // width, y_HW * 255 // height, (x_HW + y_HW) % 256], axis=2).astype(np.uint8)
    rgb_HW3[:8, :8] = (0, 0, 255)
    return Image.fromarray(rgb_HW3).convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """``image`` as a file's bytes, written by Pillow."""
    buffer = io.BytesIO()
    # Copies: Pillow leaves the settings of one save on the image, and the next save trips over them.
    if "append_images" in options:
        options["append_images"] = [other.copy() for other in options["append_images"]]
    image.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *before_pixels: bytes) -> bytes:
    """A PNG of raw ``rows`` (each with its filter byte), and chunks that stand before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return _PNG_SIGNATURE + head + b"".join(before_pixels) + pixels


def exif(orientation: int, focal_35mm: int | None = None) -> bytes:
    """An EXIF block with this orientation, sound or not."""
    block = Image.Exif()
    block[0x0112] = orientation
    if focal_35mm is not None:
        block.get_ifd(0x8769)[0xA405] = focal_35mm
    return block.tobytes()


def make_hostile_folder(root: Path) -> dict[str, str | None]:
    """Fills ``root`` and gives, for each path as it stands in an id (without the source), what must become of it.

    None: it must be labelled, or skipped where it is in :data:`SKIPPED`. Text: it must be refused, by the scan or the
    decoder, with a reason that contains the text. The targets of links that lead out are put beside ``root``.
    """
    root.mkdir(parents=True, exist_ok=True)
    expected: dict[str, str | None] = {}
    for make in (_odd_names, _odd_images, _orientations, _skipped, _broken, _bombs, _not_files):
        expected |= make(root)
    return expected


def _write(root: Path, name: bytes | str, data: bytes) -> None:
    path = os.path.join(os.fsencode(root), name if isinstance(name, bytes) else os.fsencode(name))  # noqa: PTH118
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(data)


def _odd_names(root: Path) -> dict[str, str | None]:
    jpeg = encoded(photo(), "JPEG", quality=90)
    names: dict[bytes | str, str] = {
        "good.jpg": "good.jpg",
        "with space.jpg": "with space.jpg",
        "quo'te\".jpg": "quo'te\".jpg",
        "new\nline.jpg": "new%0Aline.jpg",
        "tab\tand\x1b[31mred.jpg": "tab%09and%1B[31mred.jpg",
        b"not\xffutf8\xc3.jpg": "not%FFutf8%C3.jpg",
        "100%25.jpg": "100%2525.jpg",
        "a::b.jpg": "a%3A%3Ab.jpg",
        ":-).jpg": "%3A-).jpg",
        "-rf.jpg": "-rf.jpg",
        "back\\slash.jpg": "back\\slash.jpg",
        "caf\u00e9.jpg": "caf\u00e9.jpg",
        "cafe\u0301.jpg": "cafe\u0301.jpg",
        "right\u202egpj.jpg": "right%E2%80%AEgpj.jpg",
        "*?[x].jpg": "*?[x].jpg",
        "UPPER.JPG": "UPPER.JPG",
        "n" * 251 + ".jpg": "n" * 251 + ".jpg",
        "folder.jpg/inside.jpg": "folder.jpg/inside.jpg",
        "deep/" + "d/" * 40 + "down.jpg": "deep/" + "d/" * 40 + "down.jpg",
    }
    for name in names:
        _write(root, name, jpeg)
    return dict.fromkeys(names.values())


def _odd_images(root: Path) -> dict[str, str | None]:
    image, turned = photo(), photo().rotate(90, expand=True).resize((64, 48))
    grey16_HW = (np.asarray(photo(mode="L")).astype(np.uint16) * 257).astype(">u2")
    rgb16_HW3 = (np.asarray(image).astype(np.uint16) * 257).astype(">u2")
    rgba = photo(mode="RGBA")
    rgba.paste((9, 9, 9, 0), (32, 0, 64, 48))
    two = {"save_all": True, "append_images": [turned]}
    files = {
        "a png.jpg": encoded(image, "PNG"),
        "a webp.png": encoded(image, "WEBP"),
        "grey.png": encoded(photo(mode="L"), "PNG"),
        "grey.jpg": encoded(photo(mode="L"), "JPEG"),
        "grey16.png": png(64, 48, 16, 0, b"".join(b"\0" + row.tobytes() for row in grey16_HW)),
        "rgb16.png": png(64, 48, 16, 2, b"".join(b"\0" + row.tobytes() for row in rgb16_HW3)),
        "grey16.tif": encoded(Image.fromarray(grey16_HW.astype(np.uint16)), "TIFF"),
        "bilevel.png": encoded(photo(mode="1"), "PNG"),
        "bilevel.tif": encoded(photo(mode="1"), "TIFF", compression="group4"),
        "palette.png": encoded(photo(mode="P"), "PNG"),
        "palette with transparency.png": encoded(photo(mode="P"), "PNG", transparency=3),
        "grey with alpha.png": encoded(photo(mode="LA"), "PNG"),
        "alpha.png": encoded(rgba, "PNG"),
        "alpha.webp": encoded(rgba, "WEBP", lossless=True),
        "cmyk.jpg": encoded(photo(mode="CMYK"), "JPEG"),
        "cmyk.tif": encoded(photo(mode="CMYK"), "TIFF"),
        "progressive.jpeg": encoded(image, "JPEG", progressive=True),
        "plain.bmp": encoded(image, "BMP"),
        "plain.ppm": encoded(image, "PPM"),
        "moving.gif": encoded(photo(mode="P"), "GIF", **two),
        "moving.webp": encoded(image, "WEBP", **two),
        "moving.png": encoded(image, "PNG", **two),
        "pair.mpo": encoded(image, "MPO", **two),
        "pair.jpg": encoded(image, "MPO", **two),
        "pages.tiff": encoded(image, "TIFF", **two),
        "lzw.tiff": encoded(image, "TIFF", compression="tiff_lzw"),
        "bad profile.jpg": encoded(image, "JPEG", icc_profile=b"no profile" * 900),
        "garbage exif.jpg": encoded(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f garbage"),
        "huge exif.jpg": encoded(image, "JPEG", exif=exif(1) + b"\0" * 60_000),
        "junk behind.jpg": encoded(image, "JPEG") + b"<?php evil() ?>" * 100,
        "one pixel.png": encoded(photo(1, 1), "PNG"),
        "one pixel wide.png": encoded(photo(1, 60), "PNG"),
        "one pixel high.png": encoded(photo(60, 1), "PNG"),
    }
    for name, data in files.items():
        _write(root, "odd/" + name, data)
    return {"odd/" + name: None for name in files}


def _orientations(root: Path) -> dict[str, str | None]:
    for value in range(11):  # 0, 9 and 10 mean nothing
        _write(root, f"turned/{value}.jpg", encoded(photo(), "JPEG", exif=exif(value), quality=95))
    return {f"turned/{value}.jpg": None for value in range(11)}


def _skipped(root: Path) -> dict[str, str | None]:
    jpeg = encoded(photo(), "JPEG")
    for name in sorted(SKIPPED - {"pipe", "loop"}):
        _write(root, name, jpeg)
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to(root, target_is_directory=True)
    return dict.fromkeys(sorted(SKIPPED))


def _broken(root: Path) -> dict[str, str | None]:
    jpeg, whole = encoded(photo(), "JPEG"), encoded(photo(), "PNG")
    files: dict[str, tuple[bytes, str]] = {
        "empty.jpg": (b"", "empty file"),
        "zeros.jpg": (b"\0" * 4096, "begins with zeros"),
        "text.jpg": (b"I am no image at all.\n" * 9, "not an image but text"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12345\n", "git lfs pull"),
        "noise.jpg": (bytes(range(200, 256)) * 9, "not an image of a known format"),
        "page.jpg": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        "drawing.png": (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG is not read"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated JPEG"),
        "truncated early.jpg": (jpeg[:40], "truncated JPEG"),
        "three bytes.jpg": (b"\xff\xd8\xff", "JPEG"),
        "truncated.png": (whole[: len(whole) // 2], "truncated PNG"),
        "truncated.webp": (encoded(photo(), "WEBP")[:-90], "truncated WebP: 90 of"),
        "truncated.gif": (encoded(photo(mode="P"), "GIF")[:900], "truncated GIF"),
        "truncated.tif": (encoded(photo(), "TIFF")[:2000], "TIFF"),
        "truncated.bmp": (encoded(photo(), "BMP")[:2000], "truncated BMP"),
        "wrong checksum.png": (whole[:29] + b"\0\0\0\0" + whole[33:], "damaged PNG"),
        "no palette.png": (png(2, 1, 8, 3, b"\0\1\2"), "palette is missing"),
        "float.tif": (encoded(Image.fromarray(np.ones((48, 64), np.float32)), "TIFF"), "no agreed white"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + b"\0" * 40, "convert to PNG or JPEG"),
        "phone renamed.jpg": (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC is not read"),
        "new.avif": (b"\0\0\0\x18ftypavif" + b"\0" * 40, "convert to PNG or JPEG"),
        "camera.NEF": (b"MM\0*" + b"\0" * 40, ".nef files are not read"),
        "archive.png": (b"PK\3\4" + b"\0" * 40, "not an image but a zip archive"),
    }
    for name, (data, _) in files.items():
        _write(root, "broken/" + name, data)
    return {"broken/" + name: reason for name, (_, reason) in files.items()}


def _bombs(root: Path) -> dict[str, str | None]:
    side = struct.pack("<H", 65535)
    jpeg = bytearray(encoded(photo(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    bmp = bytearray(encoded(photo(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    extended = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xfe\x3f\0" * 2
    files = {
        "bomb.png": png(100_000, 100_000, 8, 2, b""),
        "bomb.gif": b"GIF89a" + side + side + b"\0\0\0," + b"\0\0\0\0" + side + side + b"\0\x08\0;",
        "bomb.jpg": bytes(jpeg),
        "bomb.bmp": bytes(bmp),
        "bomb.webp": b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended,
        "bomb.ppm": b"P6 100000 100000 255\n",
    }
    for name, data in files.items():
        _write(root, "bombs/" + name, data)
    return {"bombs/" + name: "more than the 200 megapixels allowed" for name in files}


def _not_files(root: Path) -> dict[str, str | None]:
    outside = root.parent / f"{root.name}-outside"
    (outside / "folder").mkdir(parents=True, exist_ok=True)
    (outside / "private.jpg").write_bytes(encoded(photo(), "JPEG"))
    os.mkfifo(root / "fifo.jpg")
    links = {
        "link.jpg": ("good.jpg", None),
        "link out.jpg": (outside / "private.jpg", "leads out of the source folder"),
        "link out up.jpg": (f"../{outside.name}/private.jpg", "leads out of the source folder"),
        "link to a device.jpg": ("/dev/zero", "leads out of the source folder"),
        "link to nothing.jpg": ("gone.jpg", "does not exist"),
        "link to itself.jpg": ("link to itself.jpg", "symbolic links"),
        "folder out": (outside / "folder", "leads out of the source folder"),
        "link to fifo.jpg": ("fifo.jpg", "not a file but a FIFO"),
    }
    for name, (target, _) in links.items():
        (root / name).symlink_to(target)
    expected = {name: reason for name, (_, reason) in links.items()}
    expected["folder out/"] = expected.pop("folder out")
    return expected | {"fifo.jpg": "not a file but a FIFO"}
