"""Accuracy of labels against ground truth, and how well the reliability map finds their errors.

Pure functions of numpy arrays; whatever computes is float64. Ground truth is depth in metres, 0, NaN or infinity where
there is none.

Axes: H row, W column, S step of a sparsification curve.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from depthsieve.errors import UsageError
from depthsieve.records import Quantity

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DepthRange = tuple[float, float]
"""Nearest and farthest depth that counts, in metres."""
ErrorMetric = Literal["abs_rel", "rmse", "delta1"]

DELTA1_RATIO = 1.25


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
        mask &= _of_shape("valid", valid_HW, truth.shape).astype(np.bool_)
    return np.asarray(mask)


def predicted_depth(
    prediction_HW: NDArray[Any],
    truth_HW: NDArray[Any],
    mask_HW: Bools,
    quantity: Quantity,
    depth_range: DepthRange,
) -> Floats:
    """The prediction in metres, ready to be compared with the truth.

    ``disparity``: scale and shift are fitted to ``1 / truth`` by least squares over ``mask_HW``, the aligned disparity
    is raised to at least ``1 / farthest`` and inverted (Ranftl et al., MiDaS, TPAMI 2020, section on evaluation).
    ``depth``: clipped to ``depth_range`` (Eigen et al., NeurIPS 2014, as all metric evaluations since), not aligned.

    Returns:
        float64 [H,W] in metres; NaN where the prediction is not finite.
    """
    prediction = np.asarray(prediction_HW, dtype=np.float64)
    prediction = np.where(np.isfinite(prediction), prediction, np.nan)
    nearest, farthest = depth_range
    if quantity == "depth":
        return np.asarray(np.clip(prediction, nearest, farthest))
    if quantity != "disparity":
        raise UsageError(f"quantity must be 'disparity' or 'depth', not {quantity!r}")
    source = prediction[mask_HW]
    target = 1.0 / np.asarray(truth_HW, dtype=np.float64)[mask_HW]
    used = np.isfinite(source)
    scale, shift = _fit_scale_shift(source[used], target[used])
    return np.asarray(1.0 / np.maximum(scale * prediction + shift, 1.0 / farthest))


def _fit_scale_shift(source: Floats, target: Floats) -> tuple[float, float]:
    """Least squares, as :func:`depthsieve.alignment.align_scale_shift`: 0 and the mean for a constant source."""
    if source.size == 0:
        return 1.0, 0.0
    rest = source - source.mean()
    if np.ptp(source) == 0:
        return 0.0, float(target.mean())
    scale = float((rest @ (target - target.mean())) / (rest @ rest))
    return scale, float(target.mean() - scale * source.mean())


def depth_metrics(
    prediction_HW: NDArray[Any],
    truth_HW: NDArray[Any],
    valid_HW: NDArray[Any] | None,
    quantity: Quantity,
    depth_range: DepthRange,
) -> dict[str, float]:
    """Accuracy of one image (Eigen et al., NeurIPS 2014).

    ``abs_rel`` mean of ``|p - t| / t``; ``rmse`` root of the mean of ``(p - t)^2`` in metres; ``delta1`` share of
    pixels with ``max(p/t, t/p) < 1.25``; ``pixels`` how many counted. ``p`` is :func:`predicted_depth`. A pixel without
    a finite prediction is not counted.

    Args:
        prediction_HW: disparity up to scale and shift, or metres, as ``quantity`` says.
        truth_HW: metres, of the same shape.
        valid_HW: bool, where the truth counts, or None for everywhere.
        depth_range: see :func:`truth_mask`.

    Raises:
        UsageError: no pixel to compare, shapes that differ, an unknown quantity, a range that cannot be meant.
    """
    _of_shape("truth", truth_HW, np.shape(prediction_HW))
    mask = truth_mask(truth_HW, valid_HW, depth_range)
    predicted = predicted_depth(prediction_HW, truth_HW, mask, quantity, depth_range)
    mask = mask & np.isfinite(predicted)
    if not mask.any():
        raise UsageError("no pixel has both a prediction and ground truth within the depth range")
    p, t = predicted[mask], np.asarray(truth_HW, dtype=np.float64)[mask]
    return {
        "abs_rel": float(pixel_errors(p, t, "abs_rel").mean()),
        "rmse": float(np.sqrt(pixel_errors(p, t, "rmse").mean())),
        "delta1": 1.0 - float(pixel_errors(p, t, "delta1").mean()),
        "pixels": float(mask.sum()),
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
        # multiplied out: a prediction may be 0
        errors = np.where(known, (p >= DELTA1_RATIO * t) | (DELTA1_RATIO * p <= t), np.nan)
    else:
        raise UsageError(f"metric must be 'abs_rel', 'rmse' or 'delta1', not {metric!r}")
    return np.asarray(errors, dtype=np.float64)


@dataclass(frozen=True)
class Sparsification:
    """Error of what is kept (index S) after a fraction of the pixels was dropped.

    ``dropped_S`` runs from 0 to 1 in equal steps. ``method_S`` drops the least reliable pixels first, ``oracle_S``
    those of largest error, ``random_S`` any, which leaves the error as it is. At 1 nothing is kept: 0 by convention,
    but ``random_S`` is constant throughout.
    """

    dropped_S: Floats
    method_S: Floats
    oracle_S: Floats
    random_S: Floats

    def kept_error(self, dropped: float) -> float:
        """The method's error after a fraction ``dropped`` in 0..1, linear between steps."""
        return float(np.interp(dropped, self.dropped_S, self.method_S))


def sparsification(
    error_HW: NDArray[Any],
    reliability_HW: NDArray[Any],
    valid_HW: NDArray[Any] | None = None,
    steps: int = 50,
    metric: ErrorMetric = "abs_rel",
) -> Sparsification:
    """The sparsification curve of Poggi et al., "On the Uncertainty of Self-Supervised Monocular Depth Estimation".

    Pixels of equal reliability go in random order, and the curve is the expectation over it: for ``rmse`` that of the
    mean square. So the order in which pixels lie does not matter. (The published code keeps all pixels that tie with
    the threshold; the two agree where nothing ties, within one pixel.)

    Args:
        error_HW: :func:`pixel_errors`, 0 or more.
        reliability_HW: larger is better; uint8 codes or any number.
        valid_HW: bool, which pixels count (default: all). Pixels whose error is not finite never do.
        steps: intervals of the curve; 50 as published.
        metric: ``rmse`` takes the root of each mean.

    Raises:
        UsageError: shapes that differ, no valid pixel, or no step.
    """
    error = np.asarray(error_HW, dtype=np.float64)
    reliability = _of_shape("reliability", reliability_HW, error.shape)
    mask = np.isfinite(error)
    if valid_HW is not None:
        mask &= _of_shape("valid", valid_HW, error.shape).astype(np.bool_)
    if steps < 1 or not mask.any():
        raise UsageError("a sparsification curve needs at least one step and one valid pixel with a finite error")
    order = np.argsort(-error[mask], kind="stable")
    error, reliability = error[mask][order], reliability[mask][order]
    ranks = np.unique(reliability, return_inverse=True)[1]

    dropped = np.linspace(0.0, 1.0, steps + 1)
    method = _mean_kept(np.bincount(ranks), np.bincount(ranks, weights=error), dropped)
    oracle = _mean_kept(np.ones_like(error), error, dropped)
    random = np.full_like(dropped, error.mean())
    if metric == "rmse":
        method, oracle, random = np.sqrt(method), np.sqrt(oracle), np.sqrt(random)
    return Sparsification(dropped, method, oracle, random)


def _mean_kept(sizes: NDArray[Any], totals: NDArray[Any], dropped: Floats) -> Floats:
    """The expected mean of what is kept when groups go one after the other, each in random order; 0 for nothing."""
    # Counted from the end that stays longest, so that small sums are not differences of large ones.
    kept_size = np.append(0.0, np.cumsum(sizes[::-1], dtype=np.float64))
    kept_total = np.append(0.0, np.cumsum(totals[::-1]))
    kept = (1.0 - dropped[:-1]) * kept_size[-1]
    return np.append(np.interp(kept, kept_size, kept_total) / kept, 0.0)


def ause_aurg(curve: Sparsification) -> tuple[float, float]:
    """Areas by the trapezoid rule: AUSE = method - oracle (0 is best), AURG = random - method (above 0 beats chance).

    Poggi et al., CVPR 2020, section on uncertainty metrics; not normalised by the total error.
    """
    method, oracle, random = (
        _trapezoid(values_S, curve.dropped_S) for values_S in (curve.method_S, curve.oracle_S, curve.random_S)
    )
    return method - oracle, random - method


def _trapezoid(values_S: Floats, at_S: Floats) -> float:
    """numpy calls its own ``trapz`` before version 2 and ``trapezoid`` after."""
    return float(np.sum((values_S[1:] + values_S[:-1]) / 2 * np.diff(at_S)))


def _of_shape(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(values)
    if array.shape != shape:
        raise UsageError(f"{name} has shape {list(array.shape)}, but {list(shape)} is needed")
    return array
