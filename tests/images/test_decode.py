"""Decoding: the right pixels for every odd kind of image."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from decoding import FORMATS_WITH_EXIF, header_of, rejection, with_exif
from hostile import encoded, photo, png
from PIL import Image, ImageOps

from depthsieve.core.errors import ImageRejected
from depthsieve.images import decode as images
from depthsieve.images.decode import decode, decoder_versions, read_header

PHOTOS = Path(__file__).parents[2].parent / "shared" / "photos"


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


def test_16_bits_of_which_few_are_used_are_told() -> None:
    """A sensor's 12 bits in 16 are nearly black at 8 bits: the high byte is what other readers take too."""
    grey_HW = np.linspace(0, 4095, 1200).astype(np.uint16).reshape(4, 300)

    def dim(factor: int) -> bool:
        rows = b"".join(b"\0" + (row * factor).astype(">u2").tobytes() for row in grey_HW)
        return decode(png(300, 4, 16, 0, rows)).is_dim

    assert dim(1) and dim(4) and not dim(5) and not dim(16)
    assert decode(encoded(Image.fromarray(grey_HW), "TIFF")).is_dim
    assert not decode(b"P5 300 4 65535\n" + grey_HW.astype(">u2").tobytes()).is_dim  # which declares its own white
    assert not decode(encoded(Image.new("RGB", (4, 4), (9, 9, 9)), "PNG")).is_dim


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_an_agreed_white_are_refused(dtype: type) -> None:
    assert "no agreed white" in rejection(encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))


def test_cmyk_jpeg_is_not_a_negative() -> None:
    rgb_HW3 = decode(encoded(photo(mode="CMYK"), "JPEG", quality=95, subsampling=0)).rgb_HW3
    assert np.abs(rgb_HW3.astype(int) - np.asarray(photo()).astype(int)).mean() < 3


def test_of_several_frames_the_first_is_taken() -> None:
    first, second = Image.new("RGB", (16, 8), (0, 0, 255)), Image.new("RGB", (16, 8), (255, 0, 0))
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(first, kind, save_all=True, append_images=[second], **options)
        assert np.abs(decode(data).rgb_HW3.astype(int) - (0, 0, 255)).max() <= 2, kind


def test_memory_errors_are_not_a_verdict_on_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_to_rgb", too_much)
    with pytest.raises(MemoryError):
        decode(encoded(photo(), "PNG"))


def test_versions_name_every_decoder() -> None:
    versions = decoder_versions()
    assert set(versions) == {"pillow", "opencv", "libjpeg_turbo", "libtiff", "webp", "zlib"}
    assert all(versions.values()) and versions["pillow"][0].isdigit()


def test_decoding_does_not_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats in which an image can name another file, or run a program, are none of those that are read."""
    monkeypatch.chdir(tmp_path)
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run", b"!<arch>\n", b"gimp xcf file"):
        assert rejection(data).startswith("not an image")
    assert os.listdir(tmp_path) == []  # noqa: PTH208
