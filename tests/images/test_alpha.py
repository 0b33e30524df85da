"""Transparency: composited and told where it is meant, passed over where it is not."""

import struct

import numpy as np
import pytest
from decoding import rejection, with_exif
from hostile import chunk, encoded, photo, png
from PIL import Image

from depthsieve.images.decode import decode


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


def coloured(alpha: int) -> np.ndarray:
    """A photo whose alpha is one value throughout."""
    return np.dstack([np.asarray(photo()), np.full((48, 64), alpha, np.uint8)])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("alpha", [0, 100, 200, 255])
def test_alpha_of_one_value_throughout_is_none(kind: str, alpha: int) -> None:
    """Game engines write 0 everywhere, and nobody means a photo that is nowhere."""
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    decoded = decode(encoded(Image.fromarray(coloured(alpha)), kind, **options))
    assert np.array_equal(decoded.rgb_HW3, np.asarray(photo())) and decoded.hole_HW is None


def test_colours_are_taken_as_they_are_where_alpha_is_to_be_ignored() -> None:
    rgba_HW4 = coloured(255)
    rgba_HW4[:20, :, 3] = 0
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        data = encoded(Image.fromarray(rgba_HW4), kind, **options)
        assert (decode(data).rgb_HW3[:20] == 255).all() and decode(data).hole_HW is not None
        ignored = decode(data, alpha="ignore")
        assert np.array_equal(ignored.rgb_HW3, rgba_HW4[:, :, :3]) and ignored.hole_HW is None
    key = png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", chunk(b"tRNS", b"\0\1\0\2\0\3"))
    assert decode(key, alpha="ignore").rgb_HW3.tolist() == [[[1, 2, 3], [4, 5, 6]]]
    grey = png(2, 1, 16, 0, b"\0\x12\x34\x12\x35", chunk(b"tRNS", b"\x12\x35"))
    assert decode(grey, alpha="ignore").rgb_HW3.tolist() == [[[0x12] * 3] * 2]


def test_an_image_of_nothing_is_refused_and_says_what_to_do() -> None:
    empty = Image.new("RGBA", (8, 4), (9, 9, 9, 0))
    assert rejection(encoded(empty, "PNG")) == "nothing to see: every pixel is transparent, and of one colour"
    key = png(2, 1, 8, 2, b"\0\1\2\3\1\2\3", chunk(b"tRNS", b"\0\1\0\2\0\3"))
    assert rejection(key) == "nothing to see: every pixel is transparent, and of one colour"
    faint = photo(mode="RGBA")
    faint.putalpha(Image.fromarray((np.arange(48 * 64).reshape(48, 64) % 128).astype(np.uint8)))
    assert rejection(encoded(faint, "PNG")) == (
        "nothing to see: every pixel is transparent (alpha below 128); --alpha ignore takes the colours"
    )
    assert decode(encoded(faint, "PNG"), alpha="ignore").hole_HW is None
    faint.putpixel((3, 3), (1, 2, 3, 128))
    decoded = decode(encoded(faint, "PNG"))
    assert decoded.hole_HW is not None and decoded.hole_HW.sum() == 48 * 64 - 1


def tiff_of_samples(bits: int, samples_HWS: np.ndarray, extra: list[int]) -> bytes:
    """An uncompressed TIFF with ``samples_HWS`` as they are; ``extra`` is what ExtraSamples says, if anything."""
    height, width, count = samples_HWS.shape
    data = samples_HWS.astype("<u2" if bits == 16 else np.uint8).tobytes()
    entries = [(256, [width]), (257, [height]), (258, [bits] * count), (259, [1]), (262, [2 if count > 2 else 1])]
    entries += [(273, [0]), (277, [count]), (278, [height]), (279, [len(data)]), *([(338, extra)] if extra else [])]
    head = 8 + 2 + 12 * len(entries) + 4
    more = struct.pack(f"<{count}H", *[bits] * count) if count > 2 else b""
    body = b""
    for tag, values in entries:
        kind, number = (4, "I") if tag in (273, 279) else (3, "H")
        if tag == 273:
            values = [head + len(more)]
        packed = struct.pack(f"<{len(values)}{number}", *values)
        body += struct.pack("<HHI", tag, kind, len(values)) + (
            packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", head)
        )
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0\0\0\0" + more + data


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("extra", "is_alpha"), [([], False), ([0], False), ([2], True)])
def test_a_fourth_sample_of_a_tiff_is_alpha_only_where_the_file_says_so(
    bits: int, extra: list[int], is_alpha: bool
) -> None:
    """Aerial photos have infrared there."""
    rgbi_HW4 = np.dstack([np.asarray(photo()), np.asarray(photo())[:, :, :1]])
    data = tiff_of_samples(bits, rgbi_HW4.astype(np.uint16) * (257 if bits == 16 else 1), extra)
    decoded = decode(data)
    if is_alpha:
        assert decoded.hole_HW is not None and decoded.hole_HW[:, :30].all()
    else:
        assert decoded.hole_HW is None and np.array_equal(decoded.rgb_HW3, rgbi_HW4[:, :, :3])
    assert np.array_equal(decode(data, alpha="ignore").rgb_HW3, rgbi_HW4[:, :, :3])


def test_alpha_turns_with_the_image() -> None:
    rgba = photo(8, 4, "RGBA")
    rgba.putpixel((0, 0), (1, 2, 3, 0))
    decoded = decode(with_exif(rgba, "PNG", 6))
    assert decoded.hole_HW is not None and np.argwhere(decoded.hole_HW).tolist() == [[0, 3]]
    assert decoded.rgb_HW3[0, 3].tolist() == [255, 255, 255]
