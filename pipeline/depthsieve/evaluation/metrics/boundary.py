"""Are the edges of a depth map where the truth has them? Axes: H row, W column, T threshold, N pair of neighbours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.evaluation.metrics.accuracy import Bools, Floats, of_shape

THRESHOLDS_T = np.linspace(1.05, 1.25, 10)
"""Neighbours whose depths differ by more than such a factor have an edge between them; as published."""

NEIGHBOURS_SHARE = 0.8
"""Of the pixels with truth, so many must have it to the right, and below, too. Of 41 measured maps, depth cameras,
structured light and laser scans have 0.88 or more, lidar of a car and sparse grids 0.69 or less."""

EDGES_SHARE = 1e-3
"""Of the pixels with truth, so many must have an edge at the lowest threshold: of fewer, a score would be chance."""


def boundary_f1(predicted_HW: NDArray[Any], truth_HW: NDArray[Any], mask_HW: Bools | None = None) -> float:
    """The scale-invariant boundary F1 of Depth Pro (Bochkovskii et al., ICLR 2025, section 4.2; ``SI_boundary_F1`` of
    apple/ml-depth-pro), 0..1, larger is better.

    There is an edge between two neighbours, in each of four directions, where the ratio of their depths is above a
    threshold. Precision and recall are means over the directions, and F1 is averaged over 10 thresholds from 1.05 to
    1.25 with weights that grow with them. An edge must be between the same two pixels in both maps.

    Args:
        predicted_HW: depth in metres or any unit of it, above 0.
        truth_HW: depth, of the same shape.
        mask_HW: where pixels count (default: all). Pairs with a pixel that does not, or is not finite in either map,
            have no edge in either: in whole maps the number is the published one.

    Raises:
        UsageError: shapes that differ.
    """
    predicted, truth = _known(predicted_HW, truth_HW, mask_HW)
    precision_T, recall_T = np.zeros(len(THRESHOLDS_T)), np.zeros(len(THRESHOLDS_T))
    for ratio_N, true_N in zip(_ratios(predicted), _ratios(truth), strict=True):
        either_N = (ratio_N > THRESHOLDS_T[0]) | (true_N > THRESHOLDS_T[0])
        level_N = np.searchsorted(THRESHOLDS_T, ratio_N[either_N])  # how many thresholds are below the ratio
        true_level_N = np.searchsorted(THRESHOLDS_T, true_N[either_N])
        found_T = _above(np.minimum(level_N, true_level_N))
        precision_T += found_T / np.maximum(_above(level_N), 1) / 4
        recall_T += found_T / np.maximum(_above(true_level_N), 1) / 4
    total_T = precision_T + recall_T
    f1_T = 2 * precision_T * recall_T / np.where(total_T > 0, total_T, 1.0)
    return float(f1_T @ THRESHOLDS_T / THRESHOLDS_T.sum())


def has_boundaries(truth_HW: NDArray[Any], mask_HW: Bools) -> bool:
    """Whether the truth is dense enough, and has edges enough, for :func:`boundary_f1` to say something."""
    known, (_, truth) = mask_HW, _known(truth_HW, truth_HW, mask_HW)
    pixels = int(known.sum())
    beside = min(int((known[:, 1:] & known[:, :-1]).sum()), int((known[1:] & known[:-1]).sum()))
    if not pixels or beside < NEIGHBOURS_SHARE * pixels:
        return False
    edges = sum(int((ratio_N > THRESHOLDS_T[0]).sum()) for ratio_N in _ratios(truth))
    return edges >= EDGES_SHARE * pixels


def _known(predicted_HW: NDArray[Any], truth_HW: NDArray[Any], mask_HW: Bools | None) -> tuple[Floats, Floats]:
    """Both maps, NaN where either is not known."""
    predicted = np.asarray(predicted_HW, dtype=np.float64)
    truth = np.asarray(of_shape("truth", truth_HW, predicted.shape), dtype=np.float64)
    known = np.isfinite(predicted) & np.isfinite(truth) & (predicted > 0) & (truth > 0)
    if mask_HW is not None:
        known &= of_shape("mask", mask_HW, predicted.shape).astype(np.bool_)
    return np.where(known, predicted, np.nan), np.where(known, truth, np.nan)


def _ratios(depth_HW: Floats) -> Iterator[Floats]:
    """The ratio of each pixel to its neighbour, to the left, to the right, above and below; NaN where unknown."""
    for first, second in ((depth_HW[:, :-1], depth_HW[:, 1:]), (depth_HW[:-1], depth_HW[1:])):
        yield first / second
        yield second / first


def _above(level_N: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many pairs are above each threshold."""
    count = np.bincount(level_N, minlength=len(THRESHOLDS_T) + 1)
    return count[::-1].cumsum()[::-1][1:]
