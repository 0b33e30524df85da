"""Accuracy of a map against ground truth. Axes: H row, W column."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.core.records import Quantity

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DepthRange = tuple[float, float]
"""Nearest and farthest depth that counts, in metres."""
Align = Literal["auto", "none", "scale", "scale-shift"]
"""What is fitted before maps are compared. ``auto``: scale and shift for disparity, nothing for depth in metres."""
ErrorMetric = Literal["abs_rel", "rmse", "delta1"]
"""Errors of a depth in metres."""
CurveMetric = Literal["abs_rel", "label_error", "rmse", "delta1"]
"""Errors that there are curves of. ``label_error`` is the one that reliability predicts, in the label's own units:
:func:`~depthsieve.evaluation.metrics.calibration.actual_code_errors`."""

DELTA_RATIO = 1.25

CONSTANT = 1e-3
"""Depths that differ by less, relatively, are one: a step of a 16-bit file, or noise."""


def truth_mask(truth_HW: NDArray[Any], valid_HW: NDArray[Any] | None, depth_range: DepthRange) -> Bools:
    """Where there is ground truth within ``depth_range`` (both ends included) and ``valid_HW``, if given, is True.

    Raises:
        UsageError: a range that is not 0 <= nearest < farthest < infinity, or a mask of another shape.
    """
    nearest, farthest = depth_range
    if not 0 <= nearest < farthest < np.inf:
        raise UsageError(f"the depth range needs 0 <= nearest < farthest, both finite, not {nearest} and {farthest}")
    truth = np.asarray(truth_HW, dtype=np.float64)
    mask = np.isfinite(truth) & (truth > 0) & (truth >= nearest) & (truth <= farthest)
    if valid_HW is not None:
        mask &= of_shape("valid", valid_HW, truth.shape).astype(np.bool_)
    return np.asarray(mask)


def chosen_alignment(quantity: Quantity, align: Align = "auto") -> Align:
    """What ``align`` means for labels of ``quantity``: "none", "scale" or "scale-shift".

    Raises:
        UsageError: an unknown quantity or alignment.
    """
    if quantity not in get_args(Quantity):
        raise UsageError(f"quantity must be 'disparity' or 'depth', not {quantity!r}")
    if align not in get_args(Align):
        raise UsageError(f"align must be one of {', '.join(get_args(Align))}, not {align!r}")
    if align == "auto":
        return "scale-shift" if quantity == "disparity" else "none"
    return align


def fit(source: Floats, target: Floats, align: Align) -> tuple[float, float]:
    """Scale and shift of ``align`` ("none", "scale", "scale-shift") that bring ``source`` to ``target``, any one shape.

    Least squares, as :func:`depthsieve.reliability.alignment.align_scale_shift`: scale and shift are 0 and the mean
    for a constant source. ``scale`` alone has the shift 0.
    """
    if source.size == 0 or align == "none":
        return 1.0, 0.0
    if align == "scale":
        square = float(source @ source)
        return (float(source @ target) / square if square > 0 else 1.0), 0.0
    rest = source - source.mean()
    if np.ptp(source) == 0:
        return 0.0, float(target.mean())
    scale = float((rest @ (target - target.mean())) / (rest @ rest))
    return scale, float(target.mean() - scale * source.mean())


def fitted_alignment(
    prediction_HW: NDArray[Any], truth_HW: NDArray[Any], mask_HW: Bools, quantity: Quantity, align: Align = "auto"
) -> tuple[float, float]:
    """The scale and shift that bring a prediction to the truth over ``mask_HW``, in the prediction's quantity: to
    ``1 / truth`` for ``disparity``, to the truth for ``depth``. 1 and 0 where nothing is fitted."""
    how = chosen_alignment(quantity, align)
    source, target = np.asarray(prediction_HW, dtype=np.float64), np.asarray(truth_HW, dtype=np.float64)
    used = mask_HW & np.isfinite(source)
    return fit(source[used], 1.0 / target[used] if quantity == "disparity" else target[used], how)


def predicted_depth(
    prediction_HW: NDArray[Any],
    truth_HW: NDArray[Any],
    mask_HW: Bools,
    quantity: Quantity,
    depth_range: DepthRange,
    align: Align = "auto",
) -> Floats:
    """The prediction in metres, ready to be compared with the truth.

    ``disparity``: scale and shift are fitted to ``1 / truth`` by least squares over ``mask_HW``, the aligned disparity
    is raised to at least ``1 / farthest`` and inverted (Ranftl et al., MiDaS, TPAMI 2020, section on evaluation).
    ``depth``: clipped to ``depth_range`` (Eigen et al., NeurIPS 2014, as all metric evaluations since), not aligned.
    Another ``align`` fits, in the same quantity, what it says.

    Returns:
        float64 [H,W] in metres; NaN where the prediction is not finite.
    """
    scale, shift = fitted_alignment(prediction_HW, truth_HW, mask_HW, quantity, align)
    return aligned_depth(prediction_HW, scale, shift, quantity, depth_range)


def aligned_depth(
    prediction_HW: NDArray[Any], scale: float, shift: float, quantity: Quantity, depth_range: DepthRange
) -> Floats:
    """What :func:`predicted_depth` returns, for the scale and shift of :func:`fitted_alignment`."""
    prediction = np.asarray(prediction_HW, dtype=np.float64)
    aligned = scale * np.where(np.isfinite(prediction), prediction, np.nan) + shift
    nearest, farthest = depth_range
    if quantity == "depth":
        return np.asarray(np.clip(aligned, nearest, farthest))
    return np.asarray(1.0 / np.maximum(aligned, 1.0 / farthest))


def degenerate(truth: NDArray[Any], align: Align) -> str | None:
    """Why scale and shift (``align``: "none", "scale", "scale-shift") fit these true depths exactly, whatever the label
    is; None where they do not. Any one shape."""
    unknowns = {"none": 0, "scale": 1, "scale-shift": 2}[align]
    if truth.size <= unknowns:
        return f"{truth.size} pixel{'s' * (truth.size != 1)}, which alignment by {align} fits exactly"
    if align == "scale-shift" and float(truth.max()) <= (1 + CONSTANT) * float(truth.min()):
        return f"the same depth everywhere ({float(truth.min()):.3g} m), which alignment by scale-shift fits exactly"
    return None


def depth_metrics(
    prediction_HW: NDArray[Any],
    truth_HW: NDArray[Any],
    valid_HW: NDArray[Any] | None,
    quantity: Quantity,
    depth_range: DepthRange,
    align: Align = "auto",
) -> dict[str, float]:
    """Accuracy of one image: :func:`metrics_of` the pixels that count, and ``pixels``, how many those are.

    A pixel without a finite prediction is not counted.

    Args:
        prediction_HW: disparity up to scale and shift, or metres, as ``quantity`` says.
        truth_HW: metres, of the same shape.
        valid_HW: bool, where the truth counts, or None for everywhere.
        depth_range: see :func:`truth_mask`.
        align: see :func:`predicted_depth`.

    Raises:
        UsageError: no pixel to compare, shapes that differ, an unknown quantity, an invalid range.
    """
    of_shape("truth", truth_HW, np.shape(prediction_HW))
    mask = truth_mask(truth_HW, valid_HW, depth_range)
    predicted = predicted_depth(prediction_HW, truth_HW, mask, quantity, depth_range, align)
    mask = mask & np.isfinite(predicted)
    if not mask.any():
        raise UsageError("no pixel has both a prediction and ground truth within the depth range")
    return metrics_of(predicted[mask], np.asarray(truth_HW)[mask]) | {"pixels": float(mask.sum())}


def metrics_of(predicted: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    """The usual metrics (Eigen et al., NeurIPS 2014) of positive depths ``p`` and ``t`` in metres, any one shape.

    ``abs_rel`` mean of ``|p - t| / t``; ``rmse`` root of the mean of ``(p - t)^2`` in metres; ``log10`` mean of
    ``|log10 p - log10 t|``, infinite where ``p`` is 0; ``delta1``, ``delta2``, ``delta3`` share of pixels with
    ``max(p/t, t/p)`` below 1.25, 1.25^2, 1.25^3.
    """
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    with np.errstate(divide="ignore"):
        log10 = np.abs(np.log10(p) - np.log10(t))
    return {
        "abs_rel": float(pixel_errors(p, t, "abs_rel").mean()),
        "rmse": float(np.sqrt(pixel_errors(p, t, "rmse").mean())),
        "log10": float(log10.mean()),
        **{f"delta{power}": 1.0 - float(_beyond(p, t, DELTA_RATIO**power).mean()) for power in (1, 2, 3)},
    }


def pixel_errors(predicted: NDArray[Any], truth: NDArray[Any], metric: ErrorMetric) -> Floats:
    """The error of each pixel, in the form :func:`sparsification` averages; both inputs in metres, any shape.

    ``abs_rel``: ``|p - t| / t``. ``rmse``: ``(p - t)^2``, the root comes after the mean. ``delta1``: 1 where
    ``max(p/t, t/p) >= 1.25``, else 0, so that less is better as in the others. NaN where the truth is not a positive
    finite depth or the prediction is not finite.
    """
    p, t = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    known = np.isfinite(p) & np.isfinite(t) & (t > 0)
    p, t = np.where(known, p, np.nan), np.where(known, t, np.nan)
    if metric == "abs_rel":
        errors = np.abs(p - t) / t
    elif metric == "rmse":
        errors = (p - t) ** 2
    elif metric == "delta1":
        errors = np.where(known, _beyond(p, t, DELTA_RATIO), np.nan)
    else:
        raise UsageError(f"metric must be 'abs_rel', 'rmse' or 'delta1', not {metric!r}")
    return np.asarray(errors, dtype=np.float64)


def _beyond(p: Floats, t: Floats, ratio: float) -> Bools:
    """Where ``max(p/t, t/p) >= ratio``, multiplied out: a prediction may be 0."""
    return np.asarray((p >= ratio * t) | (ratio * p <= t))


def of_shape(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """``values`` as an array. Raises :class:`UsageError` unless they have ``shape``."""
    array = np.asarray(values)
    if array.shape != shape:
        raise UsageError(f"{name} has shape {list(array.shape)}, but {list(shape)} is needed")
    return array
