"""Rank correlation, with ties. Axes: N values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.evaluate.accuracy import Floats, of_shape


def average_ranks(values_N: NDArray[Any]) -> Floats:
    """The rank of each value counted from 1; equal values share the mean of theirs. NaN is not allowed."""
    _, place_N, count_K = np.unique(np.asarray(values_N), return_inverse=True, return_counts=True)
    last_K = np.cumsum(count_K)
    return np.asarray(last_K - (count_K - 1) / 2, dtype=np.float64)[place_N]


def spearman(first_N: NDArray[Any], second_N: NDArray[Any]) -> float:
    """Spearman's correlation, -1..1: Pearson's, of average ranks (Kendall, "Rank Correlation Methods").

    NaN where one of the two is constant, or there are fewer than two values: then there is nothing to rank.

    Raises:
        UsageError: shapes that differ.
    """
    first = average_ranks(np.ravel(first_N))
    second = average_ranks(np.ravel(of_shape("second", second_N, np.shape(first_N))))
    if first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    first, second = first - first.mean(), second - second.mean()
    return float(np.clip((first @ second) / np.sqrt((first @ first) * (second @ second)), -1.0, 1.0))
