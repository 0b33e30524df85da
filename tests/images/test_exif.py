"""Focal lengths of EXIF: what each is made of, and what is not believed."""

import math
import struct
from fractions import Fraction

import pytest
from decoding import header_of
from hostile import encoded, photo

from depthsieve.core.cameras import Camera
from depthsieve.images.exif import FULL_FRAME_DIAGONAL_MM, Exif, read_exif

FOCAL, FOCAL_35MM, PITCH, PITCH_UNIT, WIDTH, HEIGHT = 0x920A, 0xA405, 0xA20E, 0xA210, 0xA002, 0xA003
CANON = {FOCAL: 50.0, PITCH: 4438.356, PITCH_UNIT: 2, WIDTH: 3888, HEIGHT: 2592}
"""Of an EOS 400D, whose sensor is 22.2 mm wide; it writes no 35 mm equivalent."""


def block(tags: dict[int, float], orientation: int = 1) -> bytes:
    """As cameras write it: whole numbers as LONG, fractions as RATIONAL behind the directory."""
    first = struct.pack("<HHHIIHHIII", 2, 0x0112, 3, 1, orientation, 0x8769, 4, 1, 38, 0)
    entries, behind = b"", b""
    for tag, value in sorted(tags.items()):
        if isinstance(value, float):
            place = 38 + 2 + 12 * len(tags) + 4 + len(behind)
            behind += struct.pack("<II", *Fraction(value).limit_denominator(1000).as_integer_ratio())
            entries += struct.pack("<HHII", tag, 5, 1, place)
        else:
            entries += struct.pack("<HHII", tag, 4, 1, value)
    return b"Exif\0\0II*\0\x08\0\0\0" + first + struct.pack("<H", len(tags)) + entries + bytes(4) + behind


def camera(tags: dict[int, float], width: int, height: int, orientation: int = 1) -> Camera | None:
    return header_of(encoded(photo(width, height), "JPEG", exif=block(tags, orientation))).camera


def test_a_35_mm_equivalent_is_by_the_diagonal() -> None:
    assert abs(FULL_FRAME_DIAGONAL_MM - math.hypot(36, 24)) < 0.01
    for width, height in ((400, 300), (300, 400), (360, 240)):
        focal = 28 / FULL_FRAME_DIAGONAL_MM * math.hypot(width, height)
        found = camera({FOCAL_35MM: 28}, width, height)
        assert found is not None and found.intrinsics == pytest.approx((focal, focal, width / 2, height / 2))
        assert found.origin == "exif-35mm"
    turned = camera({FOCAL_35MM: 28}, 400, 300, orientation=6)
    assert turned is not None and (turned.cx, turned.cy) == (150, 200)
    assert turned.fx == pytest.approx(28 / FULL_FRAME_DIAGONAL_MM * 500)


def test_the_pitch_of_a_sensor_gives_a_focal_length_without_an_equivalent() -> None:
    known = read_exif(block(CANON))
    whole, origin = known.focal_px(3888, 2592)
    assert (whole, origin) == (pytest.approx(50 * 4438.356 / 25.4, rel=1e-6), "exif")
    assert whole / 3888 == pytest.approx(50 / 22.25, rel=1e-3)
    in_mm = {**CANON, PITCH: 4438.356 / 25.4, PITCH_UNIT: 4}
    assert read_exif(block(in_mm)).focal_px(3888, 2592)[0] == pytest.approx(whole, rel=1e-3)
    small = camera(CANON, 486, 324)
    assert small is not None and small.fx == small.fy == pytest.approx(whole / 8, rel=1e-3)
    upright = camera(CANON, 486, 324, orientation=8)
    assert upright is not None and (upright.fx, upright.cx) == (pytest.approx(whole / 8, rel=1e-3), 162)


def test_the_equivalent_goes_before_the_sensor() -> None:
    assert read_exif(block({**CANON, FOCAL_35MM: 80})).focal_px(3888, 2592)[1] == "exif-35mm"


@pytest.mark.parametrize("tags", [{**CANON, FOCAL_35MM: 0}, {WIDTH: 3888, HEIGHT: 2592, FOCAL_35MM: 80}])
def test_a_crop_keeps_the_focal_length_of_the_photo(tags: dict[int, float]) -> None:
    known = read_exif(block(tags))
    whole, origin = known.focal_px(3888, 2592)
    assert known.focal_px(3888, 2187) == (pytest.approx(whole), origin), "16:9, of the whole width"
    assert known.focal_px(2592, 2592) == (pytest.approx(whole), origin), "a square, of the whole height"
    assert known.focal_px(648, 648) == (pytest.approx(whole / 4), origin), "and made smaller"
    assert known.focal_px(2592, 3888) == (pytest.approx(whole), origin), "turned by a program that left the sizes"


@pytest.mark.parametrize(
    "known",
    [
        Exif(),
        Exif(focal_mm=50),
        Exif(pixels_per_mm=175),
        Exif(focal_mm=50, pixels_per_mm=72 / 25.4),  # a print's: a sensor of a metre
        Exif(focal_mm=50, pixels_per_mm=1e6),
        Exif(focal_mm=1e9, pixels_per_mm=175),
        Exif(focal_35mm=65534),
    ],
)
def test_what_cannot_be_is_not_believed(known: Exif) -> None:
    assert known.focal_px(3888, 2592) == (0.0, None)


def test_fractions_without_a_denominator_and_those_cut_off_are_left_out() -> None:
    data = block({FOCAL: 50.0, PITCH: 175.0, PITCH_UNIT: 4})
    focal = struct.pack("<II", 50, 1)
    assert read_exif(data).focal_px(3888, 2592)[1] == "exif"
    assert read_exif(data.replace(focal, focal[:4] + bytes(4))).focal_px(3888, 2592) == (0.0, None)
    assert read_exif(data[: data.index(focal) + 7]).focal_px(3888, 2592) == (0.0, None)
