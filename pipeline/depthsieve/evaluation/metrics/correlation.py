"""Rank correlation, with ties. Axes: N values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.evaluation.metrics.accuracy import Floats, of_shape


def dense_ranks(values_N: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The place of each value among the K different ones, from 0, and how often each of those occurs; N and K long."""
    values_N = np.asarray(values_N)
    if values_N.dtype != np.uint8:
        _, place_N, count_K = np.unique(values_N, return_inverse=True, return_counts=True)
        return place_N, count_K
    count = np.bincount(values_N, minlength=256)  # of codes nothing needs to be sorted
    return (np.cumsum(count > 0) - 1)[values_N], count[count > 0]


def average_ranks(values_N: NDArray[Any]) -> Floats:
    """The rank of each value counted from 1; equal values share the mean of theirs. NaN is not allowed."""
    place_N, count_K = dense_ranks(values_N)
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
