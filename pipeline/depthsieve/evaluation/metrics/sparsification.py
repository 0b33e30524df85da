"""Sparsification: how the error falls as the least reliable pixels go. Axes: H row, W column, S step of a curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.metrics.accuracy import ErrorMetric, Floats, of_shape
from depthsieve.evaluation.metrics.correlation import dense_ranks

STEPS = 50


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


@dataclass(frozen=True)
class KeptError:
    """Mean error of what is kept when a fraction ``dropped`` goes: least reliable first, worst first, any."""

    dropped: float
    method: float
    oracle: float
    random: float


def sparsification(
    error_HW: NDArray[Any],
    reliability_HW: NDArray[Any],
    valid_HW: NDArray[Any] | None = None,
    steps: int = STEPS,
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
    reliability = of_shape("reliability", reliability_HW, error.shape)
    mask = np.isfinite(error)
    if valid_HW is not None:
        mask &= of_shape("valid", valid_HW, error.shape).astype(np.bool_)
    if steps < 1 or not mask.any():
        raise UsageError("a sparsification curve needs at least one step and one valid pixel with a finite error")
    order = np.argsort(error[mask])[::-1]
    error, ranks = error[mask][order], dense_ranks(reliability[mask])[0][order]

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


def beats_chance(curve: Sparsification) -> bool:
    """Whether dropping the least reliable pixels first leaves less error, over the curve, than dropping any.

    AURG above 0 would not do: by the convention for the last step it is a hundredth of the error for a map that says
    nothing. So the last step is left out here, and the areas must differ by more than rounding.
    """
    method, random = (_trapezoid(values_S[:-1], curve.dropped_S[:-1]) for values_S in (curve.method_S, curve.random_S))
    return method < random * (1 - 1e-9)


def kept_errors(curve: Sparsification, drops: Sequence[float]) -> tuple[KeptError, ...]:
    """The curve's three errors at each of ``drops`` (fractions in 0..1), linear between steps."""

    def at(dropped: float, values_S: Floats) -> float:
        return float(np.interp(dropped, curve.dropped_S, values_S))

    return tuple(
        KeptError(drop, curve.kept_error(drop), at(drop, curve.oracle_S), at(drop, curve.random_S)) for drop in drops
    )


class CurveMean:
    """The mean of images' curves, as published evaluations have it, gathered one by one in constant memory."""

    def __init__(self, steps: int = STEPS) -> None:
        self.images = 0
        self._dropped_S = np.linspace(0.0, 1.0, steps + 1)
        self._sum_3S = np.zeros((3, steps + 1))

    def add(self, curve: Sparsification) -> None:
        """One more image, of as many steps."""
        self.images += 1
        self._sum_3S += np.stack([curve.method_S, curve.oracle_S, curve.random_S])

    def mean(self) -> Sparsification:
        """The mean curve. Raises :class:`UsageError` without any image."""
        if not self.images:
            raise UsageError("there is no curve to take the mean of")
        return Sparsification(self._dropped_S, *(self._sum_3S / self.images))


def _trapezoid(values_S: Floats, at_S: Floats) -> float:
    """numpy calls its own ``trapz`` before version 2 and ``trapezoid`` after."""
    return float(np.sum((values_S[1:] + values_S[:-1]) / 2 * np.diff(at_S)))
