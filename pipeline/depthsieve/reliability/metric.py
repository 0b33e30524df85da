"""Metres for relative labels: the scale and shift that bring a label to the metres of another teacher.

A relative teacher's disparity ``d`` is inverse depth up to a scale and a shift of each image. Those two numbers are
fitted to a metric teacher's depth ``z`` of the same image, so that ``1 / (scale * d + shift)`` is in metres: shape from
one teacher, size from the other.

Axes: H row, W column, P the pixels that count.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthsieve.reliability.masking import threshold_code, train_mask

METHOD = "trimmed-relative-1"
"""Names the whole recipe of :func:`fit_metres`, with its numbers; another recipe has another name."""

DROP = 0.10
"""The least reliable of a label's pixels do not count: this share."""

FAR_M = 70.0
"""What the metric teacher sees as far as this is taken for sky, and does not count. Metric teachers for outdoor scenes
are trained up to 80 m, and put the sky just below that."""

KEPT = 0.8
"""The share of the pixels that each round fits: those whose depths agree best."""

ROUNDS = 3

LEAST_INVERSE = 0.05
"""Inverse depth below this share of its median does not weigh more than that: it may come out at 0."""

INLIER = 1.25
"""A pixel agrees where neither depth is more than this times the other (the threshold of the field's delta1)."""

LEAST_SHARE = 0.01
"""Fewer pixels than this share of the map decide nothing."""


class MetricFit(NamedTuple):
    """How one image's label becomes metres: ``1 / (scale * label + shift)``.

    ``residual`` is the median over the pixels that count of the relative difference of the two depths, 0 or more;
    ``inliers`` the share of them, 0..1, where neither depth is more than 1.25 times the other; ``pixels`` the share of
    the map, 0..1, that counts. All but ``pixels`` are NaN where no scale could be fitted.
    """

    scale: float
    shift: float
    residual: float
    inliers: float
    pixels: float


NO_FIT = MetricFit(np.nan, np.nan, np.nan, np.nan, np.nan)
"""Of an image that has none: nobody tried."""


def fit_metres(disparity_HW: NDArray[Any], reliability_HW: NDArray[np.uint8], metres_HW: NDArray[Any]) -> MetricFit:
    """Fit a label to a metric teacher's depth of the same image.

    Pixels count that are valid and not among the 10% least reliable of the label, that are not at the label's lowest
    value if that is 0 (where the network was cut off: sky), and where the metric depth is finite and less than 70 m.

    It starts from the least trimmed squares of inverse depth (:func:`~depthsieve.reliability.alignment.align_robust`);
    three times after that, the 80% of the pixels where the ratio of the two depths is nearest to 1 are fitted, by least
    squares of the relative error of the metres, ``1 / ((scale * d + shift) * z) - 1``, whose denominator is that of the
    round before (and at least 5% of the median of ``1 / z``). Everything is computed in float64, and has the same bits
    however many threads there are.

    Args:
        disparity_HW: the label, larger is nearer.
        reliability_HW: its codes, 0 = invalid.
        metres_HW: the metric teacher's depth, in metres, on the pixels of the label.

    Returns:
        The fit. Its scale is NaN where fewer than 1% of the pixels count, where the label does not vary among them, or
        where the best scale is not above 0: the two teachers contradict each other.
    """
    codes_256 = np.bincount(reliability_HW.ravel(), minlength=256)
    counted_HW = train_mask(reliability_HW, threshold_code(codes_256, DROP))
    with np.errstate(invalid="ignore"):
        counted_HW &= np.isfinite(disparity_HW) & (metres_HW > 0) & (metres_HW < FAR_M)
    counted_HW &= (disparity_HW != 0) | (disparity_HW.min() < 0)
    share = float(counted_HW.mean())
    nothing = MetricFit(np.nan, np.nan, np.nan, np.nan, share)
    if share < LEAST_SHARE:
        return nothing
    fitted = _fit(disparity_HW, metres_HW, counted_HW)
    if not fitted.scale > 0:
        return nothing
    ratio_P = fitted.of(disparity_HW[counted_HW].astype(np.float64)) * metres_HW[counted_HW]
    with np.errstate(divide="ignore"):
        residual = float(np.median(np.abs(1 / np.maximum(ratio_P, 0) - 1)))
    inliers = float(np.mean((ratio_P < INLIER) & (ratio_P > 1 / INLIER)))
    return MetricFit(fitted.scale, fitted.shift, residual, inliers, share)


def to_metres(disparity_HW: NDArray[Any], scale: float, shift: float) -> NDArray[np.float32]:
    """Float32 [H,W] depth in metres of a label with that scale and shift; infinite where its inverse depth comes out at
    0 or below: farther than anything that the fit can tell."""
    inverse_HW = disparity_HW.astype(np.float64) * scale + shift
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.maximum(inverse_HW, 0), np.float32)


@dataclass(frozen=True)
class _Line:
    scale: float
    shift: float

    def of(self, disparity_P: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.scale * disparity_P + self.shift


def _fit(disparity_HW: NDArray[Any], metres_HW: NDArray[Any], counted_HW: NDArray[np.bool_]) -> _Line:
    import torch  # takes seconds, and whoever only reads fits needs none of it

    from depthsieve.reliability.alignment import align_robust

    disparity_P = disparity_HW[counted_HW].astype(np.float64)
    inverse_P = 1 / metres_HW[counted_HW].astype(np.float64)
    inverse_HW = np.zeros(counted_HW.shape)
    inverse_HW[counted_HW] = inverse_P
    maps = (disparity_HW.astype(np.float64), inverse_HW, counted_HW)
    scale_1, shift_1 = align_robust(*(torch.from_numpy(map_HW)[None] for map_HW in maps))
    line = _Line(float(scale_1[0]), float(shift_1[0]))
    least = LEAST_INVERSE * float(np.median(inverse_P))
    for _ in range(ROUNDS):
        found_P = np.maximum(line.of(disparity_P), least)
        off_P = np.abs(np.log(found_P / inverse_P))
        last = int(KEPT * (len(off_P) - 1))
        kept_P = off_P <= np.partition(off_P, last)[last]
        found = _weighted_least_squares(disparity_P[kept_P], inverse_P[kept_P], found_P[kept_P] ** -2)
        if found is None:
            break
        line = found
    return line


def _weighted_least_squares(
    disparity_P: NDArray[np.float64], inverse_P: NDArray[np.float64], weight_P: NDArray[np.float64]
) -> _Line | None:
    """None where the disparity does not vary."""
    if disparity_P.min() == disparity_P.max():
        return None
    total = weight_P.sum()
    disparity_mean, inverse_mean = (weight_P * disparity_P).sum() / total, (weight_P * inverse_P).sum() / total
    rest_P = disparity_P - disparity_mean
    scale = (weight_P * rest_P * (inverse_P - inverse_mean)).sum() / (weight_P * rest_P * rest_P).sum()
    return _Line(float(scale), float(inverse_mean - scale * disparity_mean))
