"""From the values of files to metres: missing markers, inverse depth and disparity, masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from truths import DEPTH_HW, METRES_HW, npy, opened, pfm, png

from depthsieve.core.errors import GroundTruthError
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.evaluation.ground_truth.values import read_calibration, to_metres

NAN = np.nan


def metres(values: Any, **settings: Any) -> list[float]:
    """The metres of a map of one row."""
    return to_metres(np.asarray([values]), TruthSettings(**settings)).metres_HW[0].tolist()


# Missing markers


@pytest.mark.parametrize(
    ("values", "settings", "expected", "largest"),
    [
        (np.array([1.0, 0.0, -1.0, NAN, np.inf, -np.inf, 2.0]), {}, [1, NAN, NAN, NAN, NAN, NAN, 2], 0),
        (np.array([0, 1000, 65534, 65535, 65535], np.uint16), {"scale": 1000}, [NAN, 1, 65.534, NAN, NAN], 2),
        (np.array([32767, 1000, -5], np.int16), {"scale": 1000}, [NAN, 1, NAN], 1),
        (np.array([2**32 - 1, 65535, 1], np.uint32), {"scale": 1}, [NAN, 65535, 1], 1),
        (np.array([255, 1], np.uint8), {"scale": 1}, [NAN, 1], 1),
        (np.array([65535.0, 65.535, 1.0], np.float32), {}, [65535, 65.535, 1], 0),
        (np.array([65.535, 1e10, 1.0], np.float32), {"missing": (65.535, 1e10)}, [NAN, NAN, 1], 0),
        (np.array([65.535, 65.534], np.float64), {"missing": (65.535,)}, [NAN, 65.534], 0),
        (np.array([9999, 1000], np.uint16), {"missing": (9999, 0.5), "scale": 1000}, [NAN, 1], 0),
        (np.array([65535, 1000], np.uint16), {"missing": (65535,), "scale": 1000}, [NAN, 1], 0),
    ],
)
def test_missing_values_are_nan_and_others_stay(
    values: np.ndarray, settings: dict[str, Any], expected: list[float], largest: int
) -> None:
    found = to_metres(values[None], TruthSettings(**settings))
    np.testing.assert_array_equal(found.metres_HW[0], np.array(expected, np.float32))
    assert found.metres_HW.dtype == np.float32
    assert found.largest == largest


def test_what_is_too_large_for_a_float_is_no_error() -> None:
    assert metres([1e300, 1.0]) == [np.inf, 1.0]


# Quantities


def test_inverse_depth_is_one_over_metres() -> None:
    values = [0.5, 2.0, 0.0, -1.0, np.inf]
    np.testing.assert_array_equal(metres(values, ground_truth_quantity="inverse"), [2.0, 0.5, NAN, NAN, NAN])
    found = metres(np.array([500, 2000], np.uint16), ground_truth_quantity="inverse", scale=1000)
    assert found == [2.0, 0.5]


def test_disparity_is_baseline_times_focal_length_over_metres() -> None:
    settings: dict[str, Any] = {"ground_truth_quantity": "disparity", "baseline_focal": 0.5 * 700}
    np.testing.assert_array_equal(metres([70.0, 7.0, 0.0, np.inf], **settings), [5.0, 50.0, NAN, NAN])
    assert metres(np.array([70 * 256], np.uint16), scale=256, **settings) == [5.0]


CALIB = b"""cam0=[999.421 0 294.182; 0 999.421 252.932; 0 0 1]
cam1=[999.421 0 326.96; 0 999.421 252.932; 0 0 1]
doffs=32.778
baseline=193.001
width=741
"""


def test_middleburys_calibration_has_the_offset_between_the_centres(tmp_path: Path) -> None:
    """Z = baseline * f / (d + doffs), with the baseline in millimetres (Middlebury 2014, calib.txt)."""
    disparity_HW = np.array([[20.0, np.inf, 60.0]], np.float32)
    files = {"Motorcycle/disp0GT.pfm": pfm(disparity_HW, "-0.003922"), "Motorcycle/calib.txt": CALIB}
    settings: dict[str, Any] = {"ground_truth_quantity": "disparity", "scale": 1, "calib_pattern": "{dir}/calib.txt"}
    truth = opened(tmp_path, files, pattern="{dir}/disp0GT.pfm", **settings)
    place = truth.place("default/Motorcycle/im0.png")
    assert place == "Motorcycle/disp0GT.pfm"
    found = truth.read(place, "default/Motorcycle/im0.png").metres_HW
    expected = [0.193001 * 999.421 / (20 + 32.778), NAN, 0.193001 * 999.421 / (60 + 32.778)]
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    with pytest.raises(GroundTruthError, match=r"Piano/calib.txt: No such file"):
        truth.read(place, "default/Piano/im0.png")


@pytest.mark.parametrize(
    "change",
    [
        (b"doffs", b"doff"),
        (b"baseline=193.001", b"baseline=0"),
        (b"[999.421", b"[-9"),
        (b"cam0=[999.421", b"cam0=[1e999"),
        (b"193.001", b"1.9.3"),
        (b"193.001", b"x"),
    ],
)
def test_another_calibration_is_refused(change: tuple[bytes, bytes]) -> None:
    assert read_calibration(CALIB).baseline_focal == pytest.approx(0.193001 * 999.421)
    with pytest.raises(GroundTruthError, match="its calibration has no cam0="):
        read_calibration(CALIB.replace(*change))


# Masks


VALID_HW = np.array([[1, 0, 1], [0, 1, 0]])


def mask_png(values: np.ndarray, mode: str | None = None) -> bytes:
    return png(np.asarray(Image.fromarray(values).convert(mode) if mode else values))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("npy", npy(VALID_HW.astype(np.float64))),
        ("npy", npy(VALID_HW.astype(bool)[:, :, None])),
        ("npy", npy(VALID_HW.astype(np.int8) * -1)),
        ("npy", npy(np.where(VALID_HW, 0.5, NAN))),
        ("png", png((VALID_HW * 255).astype(np.uint8))),
        ("png", png((VALID_HW * 128).astype(np.uint8))),
        ("png", png((VALID_HW * 65535).astype(np.uint16))),
        ("png", png(np.repeat((VALID_HW * 255).astype(np.uint8)[:, :, None], 3, axis=2))),
        ("png", png(VALID_HW.astype(bool))),
    ],
)
def test_a_mask_leaves_out_what_it_does_not_hold(tmp_path: Path, name: str, data: bytes) -> None:
    """DIODE's layout: x.png, x_depth.npy, x_depth_mask.npy."""
    files = {"s/x_depth.npy": npy(DEPTH_HW), f"s/x_depth_mask.{name}": data}
    settings = {"pattern": "{dir}/{stem}_depth.npy", "mask_pattern": f"{{dir}}/{{stem}}_depth_mask.{name}"}
    truth = opened(tmp_path, files, **settings)
    found = truth.read("s/x_depth.npy", "default/s/x.png").metres_HW
    np.testing.assert_array_equal(found, np.where(VALID_HW, METRES_HW, NAN))
    assert truth.mask_place("default/s/x.png") == f"s/x_depth_mask.{name}"
    assert truth.mask_place("default/s/y.png") is None


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "its mask x_mask.npy is not there"),
        ({"x_mask.npy": npy(VALID_HW[:1])}, "it is 3x2 and its mask 3x1"),
        ({"x_mask.npy": npy(VALID_HW)[:-1]}, "its mask x_mask.npy: truncated"),
        ({"x_mask.npy": npy(np.zeros((2, 3, 4)))}, r"its mask x_mask.npy: .* shape \[2, 3, 4\], and a mask is"),
        ({"x_mask.npy": npy(np.array([["a"]]))}, "its mask x_mask.npy: it holds values of type <U1"),
        ({"x_mask.NPY": b"hello"}, "its mask x_mask.NPY: it is not a whole .npy file"),
    ],
)
def test_a_mask_that_is_missing_or_does_not_fit(tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    truth = opened(tmp_path, {"x.npy": npy(DEPTH_HW), **files}, mask_pattern="{stem}_mask.npy")
    with pytest.raises(GroundTruthError, match=reason):
        truth.read("x.npy", "default/x.png")
