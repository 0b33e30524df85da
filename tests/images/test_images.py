"""Decoding: right pixels for every odd kind of image, a named refusal for everything else, nothing else ever."""

import io
import os
import random
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hostile import chunk, encoded, exif, photo, png
from PIL import Image, ImageFile, ImageOps

from depthsieve.core.errors import ImageRejected
from depthsieve.images import decode as images
from depthsieve.images import headers as image_headers
from depthsieve.images.decode import ImageHeader, decode, decoder_versions, read_header
from depthsieve.images.pillow_guard import own_pillow_settings

PHOTOS = Path(__file__).parents[2].parent / "shared" / "photos"
FORMATS_WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF")


def with_exif(image: Image.Image, kind: str, orientation: int, focal_35mm: int | None = None) -> bytes:
    if kind == "TIFF":
        return encoded(image, kind, tiffinfo={0x0112: orientation})
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    return encoded(image, kind, exif=exif(orientation, focal_35mm), **options)


def header_of(data: bytes) -> ImageHeader:
    return read_header(io.BytesIO(data))


def rejection(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        decode(data)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(PHOTOS.glob("*")) or [None], ids=lambda path: path.name if path else "none")
def test_real_photos_are_pillow_s_own_pixels(path: Path | None) -> None:
    if path is None:
        pytest.skip("no ../shared/photos")
    data = path.read_bytes()
    decoded = decode(data)
    expected_HW3 = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(decoded.rgb_HW3, expected_HW3)
    assert decoded.hole_HW is None
    assert decoded.header == read_header(path)
    assert decoded.rgb_HW3.flags.c_contiguous and not decoded.rgb_HW3.flags.writeable


@pytest.mark.parametrize("kind", FORMATS_WITH_EXIF)
@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, "00"), (2, "01"), (3, "11"), (4, "10"), (5, "00"), (6, "01"), (7, "11"), (8, "10")],
)
def test_the_marked_corner_goes_where_the_orientation_says(kind: str, orientation: int, corner: str) -> None:
    """``corner``: bottom?, right? of the upright image, where the upper left corner of the stored one belongs."""
    decoded = decode(with_exif(photo(64, 48), kind, orientation))
    height, width = (48, 64) if orientation < 5 else (64, 48)
    assert decoded.rgb_HW3.shape == (height, width, 3)
    assert (decoded.header.width, decoded.header.height) == (width, height)
    assert decoded.header.orientation == orientation
    assert decoded.rgb_HW3.flags.c_contiguous and not decoded.rgb_HW3.flags.writeable
    for name in ("00", "01", "10", "11"):
        blue = int(decoded.rgb_HW3[-3 if name[0] == "1" else 2, -3 if name[1] == "1" else 2, 2])
        assert (blue > 200) == (name == corner), (name, blue)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_orientation_turns_pixels_exactly_as_pillow_does(orientation: int) -> None:
    for image in (photo(20, 12), photo(20, 12, "L"), photo(20, 12, "P"), photo(20, 12, "1")):
        data = with_exif(image, "PNG", orientation)
        expected_HW3 = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        assert np.array_equal(decode(data).rgb_HW3, expected_HW3)


@pytest.mark.parametrize("kind", FORMATS_WITH_EXIF)
@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_means_nothing_is_upright(kind: str, orientation: int) -> None:
    header = header_of(with_exif(photo(), kind, orientation))
    assert (header.width, header.height, header.orientation) == (64, 48, 1)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0",  # orientation as text
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x02\0\0\0\x06\0\x06\0",  # two orientations
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0",  # a directory in itself
    ],
)
def test_garbage_exif_is_upright_and_costs_nothing(block: bytes) -> None:
    data = encoded(photo(), "JPEG", exif=block) if block else encoded(photo(), "JPEG")
    assert header_of(data) == ImageHeader(64, 48, 1, 0.0)
    assert decode(data).rgb_HW3.shape == (48, 64, 3)


def test_xmp_does_not_turn_an_image() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    for data in (encoded(photo(), "JPEG", xmp=xmp), encoded(photo(), "TIFF", tiffinfo={700: xmp})):
        assert decode(data).header == header_of(data) == ImageHeader(64, 48, 1, 0.0)


def test_focal_length_relates_to_the_diagonal_of_the_source() -> None:
    header = header_of(with_exif(photo(400, 300), "JPEG", 6, focal_35mm=28))
    assert (header.width, header.height) == (300, 400)
    assert header.focal_px == pytest.approx(28 / 43.27 * 500)
    assert header_of(with_exif(photo(), "JPEG", 1, focal_35mm=0)).focal_px == 0.0


def test_16_bit_grey_keeps_its_whole_range() -> None:
    grey_HW = np.linspace(0, 65535, 1200).astype(np.uint16).reshape(4, 300)
    as_png = png(300, 4, 16, 0, b"".join(b"\0" + row.astype(">u2").tobytes() for row in grey_HW))
    as_pgm = b"P5 300 4 65535\n" + grey_HW.astype(">u2").tobytes()
    for data in (as_png, as_pgm, encoded(Image.fromarray(grey_HW), "TIFF")):
        rgb_HW3 = decode(data).rgb_HW3
        assert rgb_HW3.flags.c_contiguous and not rgb_HW3.flags.writeable
        assert rgb_HW3.min() == 0 and rgb_HW3.max() == 255
        assert np.abs(rgb_HW3 - (grey_HW / 257)[:, :, None]).max() < 1


@pytest.mark.parametrize(
    ("white", "high_bytes"),
    [
        (256, [0, 64, 128, 191, 255]),
        (1023, [0, 63, 127, 191, 255]),
        (4095, [0, 63, 127, 191, 255]),
        (65534, [0, 63, 128, 191, 255]),
        (65535, [0, 63, 127, 191, 255]),
    ],
)
@pytest.mark.parametrize("magic", ["P2", "P5"])
def test_grey_pnm_of_more_than_8_bits_is_scaled_by_its_own_white(magic: str, white: int, high_bytes: list[int]) -> None:
    ramp = [0, white // 4, white // 2, 3 * white // 4, white]
    pixels = " ".join(map(str, ramp)).encode() if magic == "P2" else np.array(ramp, ">u2").tobytes()
    decoded = decode(f"{magic} 5 1 {white}\n".encode() + pixels)
    assert decoded.rgb_HW3.tolist() == [[[value] * 3 for value in high_bytes]]


def test_16_bit_colour_and_alpha_are_not_clipped() -> None:
    rgba_HW4 = np.random.default_rng(0).integers(0, 65536, (5, 7, 4)).astype(np.uint16)
    rgba_HW4[:, :, 3] = 65535
    rgba_HW4[0, 0, 3] = 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgba_HW4)
    decoded = decode(png(7, 5, 16, 6, rows))
    assert decoded.hole_HW is not None and np.argwhere(decoded.hole_HW).tolist() == [[0, 0]]
    opaque_HW = ~decoded.hole_HW
    assert np.abs(decoded.rgb_HW3 - rgba_HW4[:, :, :3] / 257)[opaque_HW].max() < 1
    rgb_rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgba_HW4[:, :, :3])
    assert np.abs(decode(png(7, 5, 16, 2, rgb_rows)).rgb_HW3 - rgba_HW4[:, :, :3] / 257).max() < 1


def tiff(width: int, bits: int, photometric: int, data: bytes) -> bytes:
    """An uncompressed grey TIFF of one row."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag == 273 else 3, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + data


def test_tiff_greys() -> None:
    packed = int("".join(f"{value:012b}" for value in (0, 1000, 2048, 4095)), 2).to_bytes(6, "big")
    assert decode(tiff(4, 12, 1, packed)).rgb_HW3[0, :, 1].tolist() == [0, 62, 128, 255]
    assert decode(tiff(3, 16, 1, struct.pack("<3H", 0, 0x8000, 65535))).rgb_HW3[0, :, 0].tolist() == [0, 128, 255]
    white_is_zero = tiff(3, 16, 0, struct.pack("<3H", 0, 0x7FFF, 65535))
    assert decode(white_is_zero).rgb_HW3[0, :, 0].tolist() == [255, 128, 0]
    assert decode(tiff(2, 8, 0, b"\0\xff")).rgb_HW3[0, :, 0].tolist() == [255, 0]


def test_16_bit_planes_which_pillow_misreads_are_refused() -> None:
    tags = {256: 1, 257: 1, 258: 134, 259: 1, 262: 2, 273: 140, 277: 3, 278: 1, 279: 152, 284: 2}
    entries = b"".join(
        struct.pack("<HHII", tag, 3 if tag not in (273, 279) else 4, 3 if tag in (258, 273, 279) else 1, value)
        for tag, value in tags.items()
    )
    arrays = struct.pack("<3H3I3I", 16, 16, 16, 164, 166, 168, 2, 2, 2)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + arrays + b"\1\2\3\4\5\6"
    assert "separate planes" in rejection(data)
    with pytest.raises(ImageRejected, match="separate planes"):
        header_of(data)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_an_agreed_white_are_refused(dtype: type) -> None:
    assert "no agreed white" in rejection(encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))


@pytest.mark.parametrize(
    ("data", "holes"),
    [
        (png(2, 1, 1, 0, b"\0\x40", chunk(b"tRNS", b"\0\1")), [False, True]),
        (png(4, 1, 2, 0, b"\0\x1b", chunk(b"tRNS", b"\0\1")), [False, True, False, False]),
        (png(2, 1, 4, 0, b"\0\x12", chunk(b"tRNS", b"\0\2")), [False, True]),
        (png(2, 1, 8, 0, b"\0\x10\x20", chunk(b"tRNS", b"\0\x10")), [True, False]),
        (png(2, 1, 16, 0, b"\0\x12\x34\x12\x35", chunk(b"tRNS", b"\x12\x35")), [False, True]),
        (png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", chunk(b"tRNS", b"\0\1\0\2\0\3")), [True, False]),
        (png(2, 1, 16, 2, b"\0" + b"\1\0" * 3 + b"\2\0" * 3, chunk(b"tRNS", b"\2\0" * 3)), [False, True]),
        (png(3, 1, 8, 3, b"\0\0\1\2", chunk(b"PLTE", bytes(9)), chunk(b"tRNS", b"\xff\x7f")), [False, True, False]),
    ],
    ids=["1 bit", "2 bits", "4 bits", "8 bits", "16 bits", "RGB", "16-bit RGB", "palette"],
)
def test_a_transparent_colour_is_a_hole(data: bytes, holes: list[bool]) -> None:
    decoded = decode(data)
    assert decoded.hole_HW is not None and decoded.hole_HW[0].tolist() == holes
    if holes.count(True) == 1 and b"\x7f" not in data:
        assert decoded.rgb_HW3[0, holes.index(True)].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_over_white_and_opaque_pixels_stay(kind: str) -> None:
    rgba = photo(64, 48, "RGBA")
    pixels_HW4 = np.array(rgba)
    pixels_HW4[:, 40:, :] = (10, 20, 30, 0)
    pixels_HW4[:, 30:40, 3] = 127
    pixels_HW4[:, 20:30, 3] = 128
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    decoded = decode(encoded(Image.fromarray(pixels_HW4), kind, **options))
    assert np.array_equal(decoded.rgb_HW3[:, :20], pixels_HW4[:, :20, :3])
    assert (decoded.rgb_HW3[:, 40:] == 255).all()
    over_white_HW3 = 255 + (pixels_HW4[:, 20:40, :3].astype(float) - 255) * pixels_HW4[:, 20:40, 3:] / 255
    assert np.abs(decoded.rgb_HW3[:, 20:40] - over_white_HW3).max() <= 0.51
    assert decoded.hole_HW is not None
    assert not decoded.hole_HW[:, :30].any() and decoded.hole_HW[:, 30:].all()


def test_an_image_of_nothing_is_refused() -> None:
    rgba = photo(8, 4, "RGBA")
    rgba.putalpha(127)
    assert rejection(encoded(rgba, "PNG")) == "nothing to see: every pixel is transparent"
    rgba.putpixel((3, 3), (1, 2, 3, 128))
    decoded = decode(encoded(rgba, "PNG"))
    assert decoded.hole_HW is not None and decoded.hole_HW.sum() == 31


def test_exif_of_either_byte_order_is_read() -> None:
    for order, mark in (("<", b"II*\0"), (">", b"MM\0*")):
        first = struct.pack(order + "IH HHIHH HHII I", 8, 2, 0x0112, 3, 1, 8, 0, 0x8769, 4, 1, 38, 0)
        second = struct.pack(order + "H HHIHH I", 1, 0xA405, 3, 1, 35, 0, 0)
        header = header_of(encoded(photo(40, 30), "JPEG", exif=b"Exif\0\0" + mark + first + second))
        assert header == ImageHeader(30, 40, 8, pytest.approx(35 / 43.27 * 50))


def test_alpha_turns_with_the_image() -> None:
    rgba = photo(8, 4, "RGBA")
    rgba.putpixel((0, 0), (1, 2, 3, 0))
    decoded = decode(with_exif(rgba, "PNG", 6))
    assert decoded.hole_HW is not None and np.argwhere(decoded.hole_HW).tolist() == [[0, 3]]
    assert decoded.rgb_HW3[0, 3].tolist() == [255, 255, 255]


def test_cmyk_jpeg_is_not_a_negative() -> None:
    rgb_HW3 = decode(encoded(photo(mode="CMYK"), "JPEG", quality=95, subsampling=0)).rgb_HW3
    assert np.abs(rgb_HW3.astype(int) - np.asarray(photo()).astype(int)).mean() < 3


def test_of_several_frames_the_first_is_taken() -> None:
    first, second = Image.new("RGB", (16, 8), (0, 0, 255)), Image.new("RGB", (16, 8), (255, 0, 0))
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(first, kind, save_all=True, append_images=[second], **options)
        assert np.abs(decode(data).rgb_HW3.astype(int) - (0, 0, 255)).max() <= 2, kind


def test_the_size_is_checked_before_anything_is_allocated() -> None:
    declared = png(100_000, 100_000, 8, 2, b"")
    tracemalloc.start()
    started = time.monotonic()
    for read in (header_of, decode):
        with pytest.raises(
            ImageRejected, match=r"^declares 100000x100000 pixels, more than the 200 megapixels allowed$"
        ):
            read(declared)
    assert time.monotonic() - started < 2
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_the_limit_on_the_size_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_headers, "MAX_PIXELS", 64 * 48)
    assert decode(encoded(photo(64, 48), "PNG")).rgb_HW3.shape == (48, 64, 3)
    assert "declares 64x49" in rejection(encoded(photo(64, 49), "PNG"))


def test_a_header_may_not_be_endless() -> None:
    class Endless(io.RawIOBase):
        """A PNG whose second chunk goes on and on."""

        start = png(8, 8, 8, 2, b"")[:33] + struct.pack(">I", 2**31 - 1) + b"zzZz"
        at = given = 0

        def read(self, size: int = -1) -> bytes:
            data = (self.start[self.at : self.at + size]).ljust(size, b"\0")
            self.at, self.given = self.at + size, self.given + size
            return data

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset
            return offset

        def tell(self) -> int:
            return self.at

    endless = Endless()
    with pytest.raises(ImageRejected, match="its header is longer than 16 MiB"):
        read_header(endless)  # type: ignore[arg-type]
    assert endless.given <= images.MAX_HEADER_BYTES + 100


def test_the_files_own_errors_pass_through() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 64:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(OSError, match="Input/output error") as caught:
        read_header(Failing(encoded(photo(), "JPEG")))
    assert not isinstance(caught.value, ImageRejected)


def test_memory_errors_are_not_a_verdict_on_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", too_much)
    with pytest.raises(MemoryError):
        decode(encoded(photo(), "PNG"))


def test_what_the_process_has_set_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(photo(), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    garbage_exif = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x09\0\0\0\xff\xff\0\0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        assert "truncated" in rejection(whole[: len(whole) - 300])
        for data in (whole, garbage_exif, encoded(photo(), "WEBP")):
            assert decode(data).rgb_HW3.shape == (48, 64, 3)
        assert warnings.filters == before
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 10


def test_damaged_files_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    group4 = bytearray(encoded(photo(mode="1"), "TIFF", compression="group4"))
    group4[len(group4) // 2 :] = b"\xa5" * (len(group4) - len(group4) // 2)
    jpeg = bytearray(encoded(photo(), "JPEG"))
    jpeg[len(jpeg) // 2 :: 3] = b"\x55" * len(jpeg[len(jpeg) // 2 :: 3])
    lzw = encoded(photo(), "TIFF", compression="tiff_lzw").replace(b"\x80", b"\xff")
    for data in (bytes(group4), bytes(jpeg), lzw):
        try:
            decode(data)
        except ImageRejected:
            continue
    assert capfd.readouterr() == ("", "")


def seeds() -> list[bytes]:
    plain = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
    return [
        *(encoded(photo(24, 16), kind) for kind in plain),
        encoded(photo(24, 16, "P"), "GIF"),
        encoded(photo(24, 16, "CMYK"), "JPEG", exif=exif(6)),
        encoded(photo(24, 16, "RGBA"), "PNG", exif=exif(6)),
        encoded(photo(24, 16), "PNG", save_all=True, append_images=[photo(24, 16).rotate(180)]),
        encoded(photo(24, 16), "TIFF", compression="jpeg"),
    ]


def test_spoilt_bytes_give_an_image_or_a_refusal_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_headers, "MAX_PIXELS", 1_000_000)  # a large declared size only costs time here
    rng = random.Random(0)
    good = seeds()
    outcomes = {"image": 0, "refused": 0}
    for _ in range(1500):
        data = bytearray(rng.choice(good))
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.choice((0, 1, 3, 10)) if data else 0):
            data[rng.randrange(min(len(data), rng.choice((40, 100_000))))] = rng.choice((0, 255, rng.randrange(256)))
        try:
            decoded = decode(bytes(data))
        except ImageRejected as error:
            outcomes["refused"] += 1
            reason = str(error)
            assert reason and "\n" not in reason and " at 0x" not in reason
        else:
            outcomes["image"] += 1
            assert decoded.rgb_HW3.shape == (decoded.header.height, decoded.header.width, 3)
            assert decoded.header == header_of(bytes(data))
    assert min(outcomes.values()) > 100, outcomes


def test_every_cut_of_a_file_is_refused() -> None:
    """Whatever is missing from the end of the pixels, no half image gets a label."""
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "PPM"):
        data = encoded(photo(24, 16), kind)
        for length in (0, 1, 8, 30, len(data) // 4, len(data) // 2, len(data) - 40):
            reason = rejection(data[:length])
            assert length < 30 or "truncated" in reason, (kind, length, reason)


def test_threads_decode_at_once_and_leave_the_settings_as_they_were() -> None:
    good, cut = encoded(photo(300, 200), "JPEG"), encoded(photo(300, 200), "PNG")[:-2000]
    expected_HW3 = decode(good).rgb_HW3
    before = (list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(40):
            if not np.array_equal(decode(good).rgb_HW3, expected_HW3):
                wrong.append("pixels")
            try:
                decode(cut)
                wrong.append("accepted")
            except ImageRejected:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == before


def test_the_last_one_out_puts_the_settings_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with own_pillow_settings(7):
        with own_pillow_settings(7):
            pass
        assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (False, 7)
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn_explicit("odd", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
        assert caught == []
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True and Image.MAX_IMAGE_PIXELS != 7


def test_a_forked_child_decodes_although_another_thread_was_inside() -> None:
    script = """
import os, threading
from PIL import Image, ImageFile
from depthsieve.images.pillow_guard import own_pillow_settings
ImageFile.LOAD_TRUNCATED_IMAGES = True
inside, leave = threading.Event(), threading.Event()
def stay():
    with own_pillow_settings(1):
        inside.set(); leave.wait()
thread = threading.Thread(target=stay); thread.start(); inside.wait()
child = os.fork()
if child == 0:
    right = ImageFile.LOAD_TRUNCATED_IMAGES and Image.MAX_IMAGE_PIXELS != 1
    with own_pillow_settings(2):
        right = right and not ImageFile.LOAD_TRUNCATED_IMAGES and Image.MAX_IMAGE_PIXELS == 2
    os._exit(0 if right and ImageFile.LOAD_TRUNCATED_IMAGES else 7)
status = os.waitpid(child, 0)[1]
leave.set(); thread.join()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], timeout=60, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_versions_name_every_decoder() -> None:
    versions = decoder_versions()
    assert set(versions) == {"pillow", "opencv", "libjpeg_turbo", "libtiff", "webp", "zlib"}
    assert all(versions.values()) and versions["pillow"][0].isdigit()


def test_decoding_does_not_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats in which an image can name another file, or run a program, are none of those that are read."""
    monkeypatch.chdir(tmp_path)
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run", b"!<arch>\n", b"gimp xcf file"):
        assert "not an image of a known format" in rejection(data)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
