"""Bytes of an image file to an upright RGB array, or a refusal with a reason a person can read.

Input is hostile: the declared size is checked before anything is allocated, and whatever a codec makes of bad bytes
becomes one :class:`ImageRejected`. Seven formats are read (JPEG, PNG, WebP, GIF, BMP, TIFF, PNM), told from the first
bytes and never from the name; everything else is refused by name. So is a JPEG whose data end early or are overwritten.

Decisions, the same for every image:

* Of several frames or pages (GIF, APNG, WebP, TIFF, the JPEG pairs of phones) the first one is taken.
* EXIF orientation 1..8 is undone; any other value, or EXIF that cannot be read, means upright. Orientation in XMP, and
  EXIF that a PNG puts behind its pixels, are ignored.
* 16-bit channels keep their high byte, as OpenCV's 8-bit reading does. 12-bit grey is scaled likewise. PNM declares its
  own white: grey is scaled to 16 bits by it first; colour, and grey of up to 8 bits, to 8 bits.
* 32-bit and floating-point pixels have no agreed white point: refused.
* CMYK JPEGs are taken as inverted (Adobe's way); conversion to RGB is the plain one. Colour profiles are ignored: the
  published teachers are used without them.
* Where alpha is below 255 the pixel is composited over white, and below 128 it is a hole. Under transparency a file
  holds whatever its writer left there, so if alpha were dropped, two files that look the same could get different
  labels. Opaque pixels keep their exact values: an opaque image is as if alpha were dropped.
* Alpha that has one value throughout, such as the 0 that game engines write, says nothing about where the image is: the
  colours are taken as they are. So they are with ``alpha="ignore"``.
* A fourth sample of a TIFF is alpha only where the file says so (ExtraSamples); else it is infrared, or anything.

Axes: H height, W width, 3 red, green, blue.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, features
from PIL import __version__ as pillow_version
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import Alpha
from depthsieve.images.exif import ORIENTATION_TAG
from depthsieve.images.headers import (
    MAX_HEADER_BYTES,
    MAX_PIXELS,
    ImageHeader,
    LimitedFile,
    kind_of,
    make_header,
    webp_header,
)
from depthsieve.images.jpeg import find_damage
from depthsieve.images.pillow_guard import own_pillow_settings
from depthsieve.images.png import header_only, without_text

__all__ = [
    "DIM_BELOW",
    "HOLE_ALPHA",
    "MAX_HEADER_BYTES",
    "MAX_PIXELS",
    "DecodedImage",
    "ImageHeader",
    "decode",
    "decoder_versions",
    "read_header",
]

HOLE_ALPHA = 128
"""Pixels with alpha below this are holes: there is no image."""

DIM_BELOW = 64
"""A 16-bit image is dim if no channel reaches this value of 255: it uses 14 of its bits at most."""

# Not Image.open, which asks more plugins than these, and whose limit on the size is another one.
_OPENERS: dict[str, Callable[[BinaryIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "PNM": PpmImageFile,
}

_BITS_TAG = 0x0102
_COMPRESSION_TAG, _JPEG_IN_TIFF, _JPEG_TABLES_TAG = 0x0103, 7, 0x015B
_PHOTOMETRIC_TAG = 0x0106
_PLANES_TAG = 0x011C
_STRIPS_AND_TILES = ((0x0111, 0x0117), (0x0144, 0x0145))
_EXTRA_SAMPLES_TAG = 0x0152
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright image. ``rgb_HW3`` is uint8, C-contiguous and read-only.

    ``hole_HW`` is bool, True where alpha says that there is no image, None where every pixel is opaque. ``is_dim``: the
    file has 16 bits a channel and uses a small part of their range (:data:`DIM_BELOW`), so that the image is dark.
    """

    rgb_HW3: npt.NDArray[np.uint8]
    hole_HW: npt.NDArray[np.bool_] | None
    header: ImageHeader
    is_dim: bool = False


def read_header(file: BinaryIO | Path) -> ImageHeader:
    """The header of an image file, without decoding a pixel; at most ``MAX_HEADER_BYTES`` are read.

    ``file`` is a path or a seekable binary file at its start. Raises :class:`ImageRejected` with the reason; an
    ``OSError`` of the file itself passes through.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return read_header(opened)
    limited = LimitedFile(file)
    kind = kind_of(limited.read(64))
    limited.seek(0)
    try:
        with own_pillow_settings(MAX_PIXELS):
            return _open(kind, cast(BinaryIO, limited), pixels=False)[1]
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:
        if limited.failure is not None:
            raise limited.failure from None
        _refuse(kind, error)


def decode(data: bytes, alpha: Alpha = "respect") -> DecodedImage:
    """The image in ``data``, the whole content of a file, upright, as 8-bit RGB.

    With ``alpha`` "ignore" the colours are taken as they are, and nothing is a hole. Raises :class:`ImageRejected` with
    the reason for whatever is wrong with the bytes. May be called by several threads at once.
    """
    kind = kind_of(data[:64])
    if kind == "PNG":
        data = without_text(data)
    try:
        with own_pillow_settings(MAX_PIXELS):
            image, header = _open(kind, io.BytesIO(data), pixels=True)
            assert image is not None
            if kind == "PNG" and image.mode == "P" and image.palette is None:
                raise ImageRejected("damaged PNG: its palette is missing")
            bits = _channel_bits(image)
            image.load()
            for jpeg in _jpegs(image, data):
                if damage := find_damage(jpeg, image.mode == "CMYK"):
                    raise ImageRejected(f"damaged {kind}: {damage}")
            upright: Image.Image = image
            if header.orientation != 1 and kind != "TIFF":  # which Pillow has turned already
                upright = image.transpose(_TO_UPRIGHT[header.orientation])
            if isinstance(image, TiffImageFile) and not image.tag_v2.get(_EXTRA_SAMPLES_TAG):
                alpha = "ignore"
            rgb_HW3, alpha_HW = _to_rgb(upright, kind, bits, alpha)
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:
        _refuse(kind, error)
    hole_HW = alpha_HW < HOLE_ALPHA if alpha_HW is not None else None
    if hole_HW is not None and hole_HW.all():
        raise ImageRejected(
            f"nothing to see: every pixel is transparent (alpha below {HOLE_ALPHA}); --alpha ignore takes the colours"
        )
    if rgb_HW3.shape != (header.height, header.width, 3):
        raise ImageRejected(f"damaged {kind}: it does not hold the {header.width}x{header.height} pixels it declares")
    rgb_HW3.flags.writeable = False
    is_dim = bits == 16 and kind != "PNM" and int(rgb_HW3.max()) < DIM_BELOW
    return DecodedImage(rgb_HW3, hole_HW, header, is_dim)


def decoder_versions() -> dict[str, str]:
    """Versions of what turns a file into pixels and resizes them, for the numerics profile."""
    import cv2  # not on the decoding path

    codecs = {name: features.version(name) or "absent" for name in ("libjpeg_turbo", "libtiff", "webp", "zlib")}
    return {"pillow": pillow_version, "opencv": str(cv2.__version__), **codecs}


def _open(kind: str, file: BinaryIO, *, pixels: bool) -> tuple[ImageFile | None, ImageHeader]:
    """The opened image, nothing decoded yet, and its header; no image for a WebP of which only the header is wanted."""
    if kind == "WebP":
        header = webp_header(file)
        file.seek(0)
        return (WebPImageFile(file) if pixels else None), header
    image = _OPENERS[kind](file if pixels or kind != "PNG" else header_only(file))
    if kind in ("JPEG", "PNG") and not image.tile:
        raise EOFError
    if isinstance(image, TiffImageFile):
        image.info.pop("xmp", None)  # Pillow turns a TIFF upright itself, and would ask XMP too
        if image.tag_v2.get(_PLANES_TAG) == 2 and max(image.tag_v2.get(_BITS_TAG, (8,))) > 8:
            raise ImageRejected("unsupported TIFF: 16-bit channels stored as separate planes")  # Pillow misreads them
        orientation = image.tag_v2.get(ORIENTATION_TAG)
        header = make_header(*image.size)
        if isinstance(orientation, int) and 1 <= orientation <= 8:
            header = ImageHeader(header.width, header.height, orientation, 0.0)
        return image, replace(header, is_deep_grey=image.mode[0] in "IF")
    exif = image.info.get("exif")
    header = make_header(*image.size, exif if isinstance(exif, bytes) else b"")
    return image, replace(header, is_deep_grey=image.mode[0] in "IF")


def _jpegs(image: ImageFile, data: bytes) -> Iterator[bytes]:
    """The JPEGs that a file's pixels are packed in: itself, or the strips or tiles of a TIFF, each with its tables."""
    if isinstance(image, JpegImageFile):
        yield data
    elif isinstance(image, TiffImageFile) and image.tag_v2.get(_COMPRESSION_TAG) == _JPEG_IN_TIFF:
        tables = bytes(image.tag_v2.get(_JPEG_TABLES_TAG, b""))
        for offsets, lengths in _STRIPS_AND_TILES:
            places = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(lengths, ()), strict=False)
            for at, length in places:
                yield tables[:-2] + data[at + 2 : at + length] if tables else data[at : at + length]


def _refuse(kind: str, error: Exception) -> NoReturn:
    """One reason out of the many ways in which a codec says that bytes are bad."""
    if isinstance(error, Image.DecompressionBombError):
        raise ImageRejected(f"damaged {kind}: a part of it declares more pixels than are allowed") from error
    text = (str(error).strip().splitlines() or [""])[0]
    cut = re.search(r"truncated|end of file|unexpected eof|not enough image data", text, re.IGNORECASE)
    if cut or isinstance(error.__cause__ or error, EOFError | struct.error):
        raise ImageRejected(f"truncated {kind}: the file ends before the image does") from error
    if re.search(r"not identified by this driver|invalid literal", text):
        text = "it declares no size"
    text = re.sub(r"<[^>]*>", "", text)[:200]  # no memory addresses: reasons are compared byte for byte
    unsupported = re.search(r"unknown|unsupported|cannot handle|not implemented|not supported", text, re.IGNORECASE)
    word = "unsupported" if unsupported else "damaged"
    raise ImageRejected(f"{word} {kind}: {text or type(error).__name__}") from error


def _channel_bits(image: ImageFile) -> int:
    """Bits a channel, from the name of Pillow's raw mode (``RGB;16B``, ``L;4``, ``1``).

    16 where mode ``I`` names none: a grey PNM whose white is above 255, which Pillow scales to 0..65535.
    """
    arguments: Any = image.tile[0][3] if image.tile else ""
    rawmode = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    found = re.match(r".*;(\d+)", rawmode) if isinstance(rawmode, str) else None
    return int(found[1]) if found else {"1": 1, "I": 16}.get(image.mode, 8)


def _to_rgb(
    image: Image.Image, kind: str, bits: int, alpha: Alpha
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Loaded image as 8-bit RGB [H,W,3] over white, and its alpha [H,W] where it is respected and differs."""
    mode, key = image.mode, image.info.get("transparency")
    if mode == "F" or (mode == "I" and kind == "TIFF"):
        raise ImageRejected("signed, 32-bit or floating-point pixels have no agreed white: convert to 8 or 16 bits")
    if mode.startswith("I"):
        grey_HW = np.asarray(image)
        if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC_TAG) == 0:
            grey_HW = (1 << bits) - 1 - grey_HW  # white is zero, which Pillow heeds up to 8 bits only
        rgb_HW3 = np.repeat((grey_HW >> (bits - 8)).astype(np.uint8)[:, :, None], 3, axis=2)
        return _without_colour(rgb_HW3, None if key is None or alpha == "ignore" else grey_HW == key)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or (mode == "P" and key is not None):
        rgba = (image.convert("LA") if mode == "La" else image).convert("RGBA")
        opacity = rgba.getchannel("A")
        rgb, opacity_HW = rgba.convert("RGB"), np.asarray(opacity)
        if alpha == "ignore" or opacity_HW.min() == opacity_HW.max():
            return _seen(np.asarray(rgb), is_hidden=alpha == "respect" and opacity_HW[0, 0] < HOLE_ALPHA), None
        page = Image.new("RGB", rgba.size, "white")
        page.paste(rgb, mask=opacity)
        return np.asarray(page), opacity_HW
    image.info.pop("transparency", None)
    rgb_HW3 = np.asarray(image if mode == "RGB" else image.convert("RGB"))
    if key is None or alpha == "ignore":
        return rgb_HW3, None
    colour = np.atleast_1d(key)
    colour = colour >> 8 if bits == 16 else np.minimum(colour * (255 // (2**bits - 1)), 255)
    return _without_colour(rgb_HW3, (rgb_HW3 == colour).all(axis=2))


def _without_colour(
    rgb_HW3: npt.NDArray[np.uint8], key_HW: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """``rgb_HW3`` with the pixels of the one colour that a file declares transparent made white, and the alpha."""
    if key_HW is None or not key_HW.any():
        return rgb_HW3, None
    _seen(rgb_HW3, is_hidden=bool(key_HW.all()))
    rgb_HW3 = np.where(key_HW[:, :, None], np.uint8(255), rgb_HW3)
    return rgb_HW3, np.where(key_HW, 0, 255).astype(np.uint8)


def _seen(rgb_HW3: npt.NDArray[np.uint8], is_hidden: bool) -> npt.NDArray[np.uint8]:
    """``rgb_HW3``, unless all of it is hidden and of one colour: then there was never anything to see."""
    if is_hidden and (rgb_HW3 == rgb_HW3[:1, :1]).all():
        raise ImageRejected("nothing to see: every pixel is transparent, and of one colour")
    return rgb_HW3
