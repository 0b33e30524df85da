"""From a label to inverse depth in the units of a sparse model: ``scale * value + offset``, fitted to its points.

Upstream's own script (gaussian-splatting, ``utils/make_depth_scale.py``) matches the median and the mean absolute
deviation of both sides, all points alike. Here points vote by the label's reliability and wild ones have no say.

Axes: H, W the label; P points; C candidates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.records import Shape

MIN_POINTS = 11
"""Fewer points decide nothing; upstream asks for as many."""

FLOOR = 0.01
"""The relative error that a point is given beside the label's expected one."""

_CANDIDATES, _SAMPLE, _ROUNDS = 256, 1024, 20
_TUKEY = 4.685  # of a standard deviation: 95% as efficient as least squares where errors are normal
_TO_SIGMA = 1.4826  # the standard deviation over the median absolute one, of normal errors


@dataclass(frozen=True)
class SparseFit:
    """``scale * value + offset`` is inverse depth. ``points`` were used, of which ``inliers`` agree; ``residual`` is
    the median of their errors, relative to their median inverse depth. A ``scale`` of 0 says that nothing fits, and
    ``reason`` why."""

    scale: float
    offset: float
    points: int
    inliers: int = 0
    residual: float = float("nan")
    reason: str = ""


def sample_map(
    map_HW: NDArray[np.floating], valid_HW: NDArray[np.bool_], xy_P2: NDArray[np.floating], shape: Shape
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.intp]]:
    """The values of a map at places of its photo, between the four nearest pixels.

    Args:
        map_HW: the map.
        valid_HW: where it means something.
        xy_P2: places in pixels of the photo, from its left upper corner: the centre of its first pixel is (0.5, 0.5).
        shape: (height, width) of the photo, of which the map may be a resized one.

    Returns:
        ``(value_P, usable_P, nearest_P)``: values, False where the place is outside the photo or one of the four pixels
        is invalid, and the index of the nearest pixel in the flattened map.
    """
    height, width = map_HW.shape
    inside_P = ((xy_P2 >= 0) & (xy_P2 <= np.array(shape[::-1]))).all(axis=1)
    x_P = np.clip(np.where(inside_P, xy_P2[:, 0], 0) * (width / shape[1]) - 0.5, 0, width - 1)
    y_P = np.clip(np.where(inside_P, xy_P2[:, 1], 0) * (height / shape[0]) - 0.5, 0, height - 1)
    left_P, top_P = np.floor(x_P).astype(np.intp), np.floor(y_P).astype(np.intp)
    right_P, bottom_P = np.minimum(left_P + 1, width - 1), np.minimum(top_P + 1, height - 1)
    dx_P, dy_P = x_P - left_P, y_P - top_P
    value_P, usable_P = np.zeros(len(x_P)), np.array(inside_P, bool)
    for row_P, part_y in ((top_P, 1 - dy_P), (bottom_P, dy_P)):
        for column_P, part_x in ((left_P, 1 - dx_P), (right_P, dx_P)):
            usable_P &= valid_HW[row_P, column_P]
            value_P += part_y * part_x * np.where(valid_HW, map_HW, 0)[row_P, column_P]
    nearest_P = np.rint(y_P).astype(np.intp) * width + np.rint(x_P).astype(np.intp)
    return value_P, usable_P, nearest_P


def weight_of(error_P: NDArray[np.floating]) -> NDArray[np.float64]:
    """How much points count whose label is expected to be wrong by so much: ``1 / (error^2 + 0.01^2)``, 0 for NaN."""
    return np.nan_to_num(1 / (error_P.astype(np.float64) ** 2 + FLOOR**2))


def fit_sparse(
    value_P: NDArray[np.floating], inverse_depth_P: NDArray[np.floating], weight_P: NDArray[np.floating]
) -> SparseFit:
    """Scale and offset that take values to inverse depth, larger for nearer on both sides.

    The line through two points whose weighted median error is the least (Rousseeuw, "Least median of squares
    regression", 1984; 256 pairs, drawn by weight, the same for the same input) is refined by reweighted least squares
    with Tukey's biweight: up to half of the weight may lie on points that are wild.

    Args:
        value_P: the label at the points.
        inverse_depth_P: one over their distance along the camera's axis.
        weight_P: how much each counts, 0 or more.
    """
    counted_P = np.isfinite(value_P) & np.isfinite(inverse_depth_P) & (weight_P > 0)
    x_P, y_P, w_P = (np.asarray(each, np.float64)[counted_P] for each in (value_P, inverse_depth_P, weight_P))
    count = len(x_P)
    if count < MIN_POINTS:
        return SparseFit(0.0, 0.0, count, reason=f"{count} points, of {MIN_POINTS} at least")
    line = _least_median(x_P, y_P, w_P)
    if line is None:
        return SparseFit(0.0, 0.0, count, reason="the label is the same at all points")
    scale, offset = line
    for _ in range(_ROUNDS):
        off_P = np.abs(scale * x_P + offset - y_P)
        sigma = _sigma(off_P, w_P, y_P)
        tukey_P = w_P * np.clip(1 - (off_P / (_TUKEY * sigma)) ** 2, 0, None) ** 2
        found = _least_squares(x_P, y_P, tukey_P)
        if found is None or np.allclose(found, (scale, offset), rtol=1e-12, atol=0):
            break
        scale, offset = found
    if scale <= 0:
        return SparseFit(0.0, 0.0, count, reason="nearer points have lower values")
    off_P = np.abs(scale * x_P + offset - y_P)
    agree_P = off_P <= 3 * _sigma(off_P, w_P, y_P)
    residual = float(np.median(off_P[agree_P]) / np.median(y_P[agree_P]))
    return SparseFit(float(scale), float(offset), count, int(agree_P.sum()), residual)


def _least_median(
    x_P: NDArray[np.float64], y_P: NDArray[np.float64], w_P: NDArray[np.float64]
) -> tuple[float, float] | None:
    random = np.random.default_rng(0)
    share_P = w_P / w_P.sum()
    first_C, second_C = random.choice(len(x_P), (2, 4 * _CANDIDATES), p=share_P)
    apart_C = x_P[first_C] != x_P[second_C]
    first_C, second_C = first_C[apart_C][:_CANDIDATES], second_C[apart_C][:_CANDIDATES]
    if not len(first_C):
        return None
    scale_C = (y_P[first_C] - y_P[second_C]) / (x_P[first_C] - x_P[second_C])
    offset_C = y_P[first_C] - scale_C * x_P[first_C]
    if len(x_P) > _SAMPLE:  # drawn by weight, so that each then counts the same
        chosen = random.choice(len(x_P), _SAMPLE, p=share_P)
        x_P, y_P, w_P = x_P[chosen], y_P[chosen], np.ones(_SAMPLE)
    off_CP = np.abs(scale_C[:, None] * x_P + offset_C[:, None] - y_P)
    order_CP = np.argsort(off_CP, axis=1)
    reached_CP = np.cumsum(w_P[order_CP], axis=1)
    half_C = (reached_CP >= reached_CP[:, -1:] / 2).argmax(axis=1)
    median_C = np.take_along_axis(off_CP, np.take_along_axis(order_CP, half_C[:, None], axis=1), axis=1)[:, 0]
    best = int(median_C.argmin())
    return float(scale_C[best]), float(offset_C[best])


def _sigma(off_P: NDArray[np.float64], w_P: NDArray[np.float64], y_P: NDArray[np.float64]) -> float:
    """The spread of errors, from their weighted median; never 0, where all points lie on a line."""
    order = np.argsort(off_P)
    reached = np.cumsum(w_P[order])
    median = off_P[order][np.searchsorted(reached, reached[-1] / 2)]
    return float(max(_TO_SIGMA * median, 1e-9 * np.abs(y_P).max()))


def _least_squares(
    x_P: NDArray[np.float64], y_P: NDArray[np.float64], w_P: NDArray[np.float64]
) -> tuple[float, float] | None:
    total = w_P.sum()
    if total <= 0:
        return None
    x_mean, y_mean = (w_P * x_P).sum() / total, (w_P * y_P).sum() / total
    variance = (w_P * (x_P - x_mean) ** 2).sum()
    if variance <= 0:
        return None
    scale = float((w_P * (x_P - x_mean) * (y_P - y_mean)).sum() / variance)
    return scale, float(y_mean - scale * x_mean)
