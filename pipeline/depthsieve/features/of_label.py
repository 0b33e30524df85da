"""Signals of a label: how reliable it is, how deep, how flat, how much of it is sky. Axes: H row, W column, K code."""

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.records import Quantity
from depthsieve.features.columns import DEPTH_COLUMNS, RELIABILITY_COLUMNS

MOST_PIXELS = 1 << 13
"""About so many pixels of a label are looked at, evenly spread: they say as much as all."""

LEAST_PIXELS = 16
"""Of a label with invalid pixels, fewer valid ones among those looked at say nothing of its depth."""

FAR = 1 / 50
"""Inverse depth below this share of its 98th percentile is sky, or as far."""

JUMP = 0.1
"""Of its median, by which inverse depth changes from one looked-at pixel to the next at an edge."""

_PERCENT = (1, 5, 10)


def label_signals(
    depth_HW: NDArray[np.floating],
    reliability_HW: NDArray[np.uint8],
    histogram_K: NDArray[np.unsignedinteger],
    quantity: Quantity,
) -> NDArray[np.float32]:
    """Values of :data:`~depthsieve.features.columns.LABEL_COLUMNS`, in that order: float32.

    ``histogram_K`` counts the codes of ``reliability_HW``, code 0 = no label; ``depth_HW`` is in ``quantity``, and what
    it holds at code 0 is not looked at. Depth signals are NaN where fewer than :data:`LEAST_PIXELS` of a label with
    invalid pixels can be looked at.
    """
    return np.concatenate(
        [reliability_signals(histogram_K[None])[0], _depth_signals(depth_HW, reliability_HW > 0, quantity)]
    )


def reliability_signals(histogram_NK: NDArray[np.unsignedinteger]) -> NDArray[np.float32]:
    """Values of :data:`~depthsieve.features.columns.RELIABILITY_COLUMNS` for each row: float32 [N,5]."""
    counts_NK = histogram_NK.astype(np.int64)
    counts_NK[:, 0] = 0
    valid_N = counts_NK.sum(1)
    most_N = np.maximum(valid_N, 1)
    below_NK = counts_NK.cumsum(1)
    codes_K = np.arange(counts_NK.shape[1])
    columns = [counts_NK @ codes_K / most_N]
    for percent in _PERCENT:
        rank_N = (most_N * percent + 99) // 100  # of 250 pixels, the 3rd is the 1st percentile
        columns.append(np.where(valid_N > 0, (below_NK < rank_N[:, None]).sum(1), 0))
    columns.append(valid_N / np.maximum(histogram_NK.sum(1, dtype=np.int64), 1))
    assert len(columns) == len(RELIABILITY_COLUMNS)
    return np.stack(columns, axis=1).astype(np.float32)


def _depth_signals(
    depth_HW: NDArray[np.floating], valid_HW: NDArray[np.bool_], quantity: Quantity
) -> NDArray[np.float32]:
    step = max(1, round((depth_HW.size / MOST_PIXELS) ** 0.5))
    valid_HW = valid_HW[::step, ::step]
    whole = bool(valid_HW.all())
    values = dict.fromkeys(DEPTH_COLUMNS, np.nan)
    if whole or np.count_nonzero(valid_HW) >= LEAST_PIXELS:
        map_HW = np.maximum(np.where(valid_HW, depth_HW[::step, ::step], 0).astype(np.float64), 0)
        if quantity == "depth":
            map_HW = 1 / np.maximum(map_HW, 1e-4)  # planes are planes in inverse depth, and far things are all alike
        map_N = map_HW[valid_HW]
        low, median, high, top = np.percentile(map_N, (5, 50, 95, 98))
        total = max(low + high, 1e-12)
        left_N = _without_plane(map_HW) if whole else _without_plane_of(map_HW, valid_HW)
        left_low, left_high = np.percentile(left_N, (5, 95))
        values |= {
            "depth_range": (high - low) / total,
            "flatness": 1 - min(1.0, (left_high - left_low) / total),
            "sky": np.count_nonzero(map_N < FAR * top) / map_N.size,
            "edges": _edges(map_HW, valid_HW, JUMP * max(median, 1e-12)),
        }
    return np.array([values[name] for name in DEPTH_COLUMNS], np.float32)


def _edges(map_HW: NDArray[np.float64], valid_HW: NDArray[np.bool_], jump: float) -> float:
    """Share of the valid pixels at which the map jumps from the valid pixel above or to the left; of those that have
    one, and the first pixel."""
    edge_HW, compared_HW = np.zeros(map_HW.shape, np.bool_), np.zeros(map_HW.shape, np.bool_)
    compared_HW[0, 0] = valid_HW[0, 0]
    for here, before in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        both = valid_HW[here] & valid_HW[before]
        compared_HW[here] |= both
        edge_HW[here] |= both & (np.abs(map_HW[here] - map_HW[before]) > jump)
    compared = np.count_nonzero(compared_HW)
    if compared < LEAST_PIXELS and not valid_HW.all():
        return float("nan")
    return np.count_nonzero(edge_HW) / compared


def _without_plane(map_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is left of a map without the plane that fits it best, by least squares."""
    height, width = map_HW.shape
    y_H1 = (np.arange(height) - (height - 1) / 2)[:, None]
    x_W = np.arange(width) - (width - 1) / 2
    left_HW: NDArray[np.float64] = map_HW - map_HW.mean()
    for axis in (np.broadcast_to(y_H1, map_HW.shape), np.broadcast_to(x_W, map_HW.shape)):  # orthogonal: both centred
        power = float((axis * axis).sum())
        if power:
            left_HW = left_HW - axis * (float((axis * map_HW).sum()) / power)
    return left_HW


def _without_plane_of(map_HW: NDArray[np.float64], valid_HW: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What is left of a map's valid pixels, in a row, without the plane that fits them best."""
    y_N, x_N = (place - place.mean() for place in np.nonzero(valid_HW))
    map_N = map_HW[valid_HW] - map_HW[valid_HW].mean()
    plane_N2 = np.stack([y_N, x_N], axis=1)
    slope_2, *_ = np.linalg.lstsq(plane_N2, map_N)
    left_N: NDArray[np.float64] = map_N - plane_N2 @ slope_2
    return left_N
