"""One label against its ground truth. Axes: H row, W column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.records import Quantity
from depthsieve.evaluation.metrics.accuracy import (
    Align,
    Bools,
    CurveMetric,
    DepthRange,
    ErrorMetric,
    Floats,
    aligned_depth,
    fitted_alignment,
    metrics_of,
    pixel_errors,
    truth_mask,
)
from depthsieve.evaluation.metrics.correlation import spearman
from depthsieve.evaluation.metrics.sparsification import Sparsification, sparsification

METRICS: tuple[ErrorMetric, ...] = get_args(ErrorMetric)
CURVES: tuple[CurveMetric, ...] = get_args(CurveMetric)


@dataclass(frozen=True)
class Comparison:
    """What came out of comparing one label.

    ``mask_HW`` where pixels were compared, ``predicted_HW`` the label in metres, ``scale`` and ``shift`` as
    :func:`~depthsieve.evaluation.metrics.accuracy.fitted_alignment`, ``metrics`` as
    :func:`~depthsieve.evaluation.metrics.accuracy.metrics_of`, ``curves`` by metric, ``spearman`` of reliability and
    the error ``abs_rel`` (below 0: the reliable pixels err less; NaN where either is constant).
    """

    mask_HW: Bools
    predicted_HW: Floats
    scale: float
    shift: float
    metrics: dict[str, float]
    curves: dict[CurveMetric, Sparsification]
    spearman: float

    @property
    def pixels(self) -> int:
        """How many pixels were compared."""
        return int(self.mask_HW.sum())


def compared_mask(
    depth_HW: NDArray[Any], reliability_HW: NDArray[np.uint8], truth_HW: NDArray[Any], depth_range: DepthRange
) -> Bools:
    """Where there is truth within ``depth_range``, a finite depth and a reliability above 0."""
    return truth_mask(truth_HW, (np.asarray(reliability_HW) > 0) & np.isfinite(depth_HW), depth_range)


def compare(
    depth_HW: NDArray[Any],
    reliability_HW: NDArray[np.uint8],
    truth_HW: NDArray[Any],
    quantity: Quantity,
    depth_range: DepthRange,
    *,
    align: Align = "auto",
    metrics: Sequence[ErrorMetric] = METRICS,
) -> Comparison | None:
    """Compare a label with its ground truth, both at the truth's resolution; None where no pixel can be compared.

    The pixels of :func:`compared_mask` count. ``metrics`` are the errors to have a curve of.

    Raises:
        UsageError: see :func:`~depthsieve.evaluation.metrics.accuracy.depth_metrics`.
    """
    mask_HW = compared_mask(depth_HW, reliability_HW, truth_HW, depth_range)
    if not mask_HW.any():
        return None
    scale, shift = fitted_alignment(depth_HW, truth_HW, mask_HW, quantity, align)
    predicted_HW = aligned_depth(depth_HW, scale, shift, quantity, depth_range)
    predicted, truth, codes = predicted_HW[mask_HW], np.asarray(truth_HW)[mask_HW], reliability_HW[mask_HW]
    errors = {metric: pixel_errors(predicted, truth, metric) for metric in {"abs_rel", *metrics}}
    return Comparison(
        mask_HW,
        predicted_HW,
        scale,
        shift,
        metrics_of(predicted, truth),
        {metric: sparsification(errors[metric], codes, metric=metric) for metric in metrics},
        spearman(codes, errors["abs_rel"]),
    )


def at_shape(map_HW: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """A map of numbers brought to ``shape`` (height, width): bilinear between pixel centres, as cv2 has it."""
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(np.asarray(map_HW, np.float32), size, interpolation=cv2.INTER_LINEAR), np.float32)


def codes_at_shape(codes_HW: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Reliability brought to ``shape`` (height, width): that of the nearest pixel centre, since codes do not mix."""
    return np.asarray(nearest_at_shape(codes_HW, shape), np.uint8)


def nearest_at_shape(map_HW: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """A map brought to ``shape`` (height, width): the value of the nearest pixel centre."""
    return np.asarray(cv2.resize(map_HW, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST_EXACT))


def label_at_shape(
    depth_HW: NDArray[np.float32], reliability_HW: NDArray[np.uint8], shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A label's depth and reliability at ``shape`` (height, width).

    Depth is NaN where any of the pixels that it is made of has reliability 0: there it means nothing.
    """
    if (reliability_HW == 0).any():
        depth_HW = np.where(reliability_HW > 0, depth_HW, np.float32(np.nan))
    return at_shape(depth_HW, shape), codes_at_shape(reliability_HW, shape)
