"""From the values of a file to depth in metres: missing markers, units, the quantity. Axes: H row, W column."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import GroundTruthError
from depthsieve.evaluation.ground_truth.settings import TruthSettings


@dataclass(frozen=True)
class TruthMap:
    """Ground truth of one image.

    ``metres_HW``: planar depth, float32; NaN where there is none. ``largest``: how many pixels were taken for missing
    because they hold the largest value of their file's whole-number type.
    """

    metres_HW: NDArray[np.float32]
    largest: int = 0


@dataclass(frozen=True)
class StereoCalibration:
    """Depth is ``baseline_focal / (disparity + offset)``: metres times pixels, and pixels."""

    baseline_focal: float
    offset: float = 0.0


def read_calibration(data: bytes) -> StereoCalibration:
    """A ``calib.txt`` of the Middlebury (2014 and later) or ETH3D stereo sets: ``cam0``, ``doffs``, ``baseline`` in mm.

    Raises :class:`GroundTruthError` for anything else.
    """
    text = data.decode("latin-1")
    names = (r"cam0\s*=\s*\[", r"doffs\s*=", r"baseline\s*=")
    found = [re.search(rf"^\s*{name}\s*([-+\d.e]{{1,40}})", text, re.MULTILINE) for name in names]
    try:
        focal, offset, baseline = (float(each[1]) if each else float("nan") for each in found)
    except ValueError:
        focal = float("nan")
    if not (0 < focal < np.inf and 0 < baseline < np.inf and np.isfinite(offset)):
        raise GroundTruthError("its calibration has no cam0=[f ...], doffs and baseline, as Middlebury's calib.txt")
    return StereoCalibration(baseline / 1000 * focal, offset)


def to_metres(
    values_HW: NDArray[Any], settings: TruthSettings, calibration: StereoCalibration | None = None
) -> TruthMap:
    """A map as a file holds it, as planar depth in metres.

    Missing are 0, less, NaN, infinity, the largest value of a whole-number type, and the values of
    ``settings.missing``. Hostile or mistaken values are no error: what does not fit float32 is infinite.

    ``calibration`` is for disparity, and by default the one of the settings.
    """
    values = np.asarray(values_HW)
    with np.errstate(invalid="ignore"):  # a signalling NaN is as missing as a quiet one
        numbers = values.astype(np.float64)
    known = np.isfinite(numbers) & (numbers > 0)
    for marker in settings.missing:
        known &= values != marker
    largest = 0
    if values.dtype.kind in "iu":
        below = values != np.iinfo(values.dtype).max
        largest = int((known & ~below).sum())
        known &= below
    numbers[~known] = np.nan
    numbers /= settings.scale or 1.0
    if settings.ground_truth_quantity == "inverse":
        np.divide(1.0, numbers, out=numbers)
    elif settings.ground_truth_quantity == "disparity":
        stereo = calibration or StereoCalibration(settings.baseline_focal or np.nan)
        numbers += stereo.offset
        numbers[numbers <= 0] = np.nan
        np.divide(stereo.baseline_focal, numbers, out=numbers)
    if settings.distance_to_depth is not None:
        numbers = planar_depth(numbers, settings.distance_to_depth)
    with np.errstate(over="ignore"):
        return TruthMap(numbers.astype(np.float32), largest)


def planar_depth(distance_HW: NDArray[Any], focal: float) -> NDArray[np.float64]:
    """Distance to the camera's centre along each pixel's ray, as depth along the camera's axis.

    ``depth = distance * f / sqrt(x^2 + y^2 + f^2)`` for a pinhole camera of square pixels and focal length ``focal`` in
    pixels of this map, ``x`` and ``y`` counted from the middle of the map to a pixel's centre. (How Hypersim's
    ``depth_meters`` become planar: apple/ml-hypersim, README and issue 9.)
    """
    height, width = np.shape(distance_HW)
    x_W, y_H = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2
    return np.asarray(distance_HW * (focal / np.sqrt(x_W[None, :] ** 2 + y_H[:, None] ** 2 + focal**2)))
