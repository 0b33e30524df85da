"""Choosing ``drop``: the knee of the mean sparsification curve. Axes: N image, S step of a curve, B resampling."""

from dataclasses import dataclass

import numpy as np

from depthsieve.evaluation.metrics.accuracy import Floats

MAX_DROP = 0.5
"""Nobody trains on less than half of the pixels; beyond, the curve is that of few pixels, and noise."""

MIN_IMAGES = 8
"""Of fewer images, drawn from sets that have a knee, no more have one than by chance (docs/evaluation.md)."""

RESAMPLINGS = 1000
LEVEL = 0.9
"""Of the interval."""

MOST_ROWS = 2000
"""More images are put together to so many means first: their resampling says the same."""

_SEED = 20


@dataclass(frozen=True)
class Knee:
    """The ``drop`` that a mean curve suggests: its error falls from ``error`` to ``kept_error``.

    ``low`` and ``high``: where it lies in 90% of resamplings of the images, so how far other images like these would
    move it. ``drop`` None: there is no knee, and ``reason`` says why; ``low`` and ``high`` are then None, too, and both
    errors those of dropping nothing.
    """

    drop: float | None
    error: float
    kept_error: float
    reason: str
    low: float | None = None
    high: float | None = None


def find_knee(method_NS: Floats, dropped_S: Floats) -> Knee:
    """The knee of the mean error kept against the fraction dropped, 0..``MAX_DROP``.

    Kneedle (Satopaa et al., "Finding a Kneedle in a Haystack", ICDCS workshops 2011) for a falling convex curve: the
    step that lies farthest below the chord between the ends. Up to there dropping pays more than on the average, from
    there on less. Guards against a knee that is not there: ``MIN_IMAGES``; the gain at the knee, and the knee's
    distance from the chord, must each be above 0 by a two-sided t-test at 5% over the images.

    Resampling is the bootstrap over images (Efron, 1979) with one image less than there are, which sets its variance
    right for few; from a fixed seed, and whatever the order of the images.

    Args:
        method_NS: a curve for each image: the mean error kept, least reliable pixels first.
        dropped_S: the fractions that were dropped, from 0 in equal steps.
    """
    last = int(np.searchsorted(dropped_S, MAX_DROP, side="right")) - 1
    curve_NS, share_S = method_NS[:, : last + 1], dropped_S[: last + 1] / dropped_S[last]
    mean_S, images = curve_NS.mean(axis=0), len(curve_NS)
    error = float(mean_S[0])

    def none(reason: str) -> Knee:
        return Knee(None, error, error, reason)

    if images < MIN_IMAGES:
        return none(f"choosing one takes {MIN_IMAGES} images or more, and there are {images}")
    step = int(_steps(mean_S[None], share_S)[0])
    if step == 0:
        return none("dropping the least reliable pixels does not lower the error")
    gain_N = curve_NS[:, 0] - curve_NS[:, step]
    if not _above_zero(gain_N, error):
        return none(
            f"from {error:.4f} the error falls to {mean_S[step]:.4f} where {dropped_S[step]:.0%} are dropped, which "
            f"over {images:,} images may be chance (standard error of the fall: {_standard_error(gain_N):.4f}); more "
            "images would tell"
        )
    if not _above_zero(_chord(curve_NS, share_S)[:, step] - curve_NS[:, step], error):
        return none("the error falls about evenly with what is dropped")
    steps_B = _resampled(curve_NS, share_S)
    low, high = np.quantile(dropped_S[steps_B], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Knee(float(dropped_S[step]), error, float(mean_S[step]), "", float(low), float(high))


def _chord(curve_NS: Floats, share_S: Floats) -> Floats:
    return (1 - share_S) * curve_NS[:, :1] + share_S * curve_NS[:, -1:]


def _steps(curve_BS: Floats, share_S: Floats) -> np.ndarray:
    """The step of the knee of each curve; 0 where dropping up to there does not lower the error."""
    step_B = np.argmax(_chord(curve_BS, share_S) - curve_BS, axis=1)
    there_B = curve_BS[np.arange(len(step_B)), step_B]
    rounding_B = 1e-9 * np.abs(curve_BS[:, 0])
    return np.where(curve_BS[:, 0] - there_B > rounding_B, step_B, 0)


def _resampled(curve_NS: Floats, share_S: Floats) -> np.ndarray:
    """The step of the knee in each resampling of the images; 0 for none."""
    random = np.random.default_rng(_SEED)
    row_NS = curve_NS[np.lexsort(curve_NS.T)]
    if len(row_NS) > MOST_ROWS:
        parts = np.array_split(random.permutation(len(row_NS)), MOST_ROWS)
        row_NS = np.stack([row_NS[part].mean(axis=0) for part in parts])
    rows = len(row_NS)
    drawn_BN = random.multinomial(rows - 1, np.full(rows, 1 / rows), size=RESAMPLINGS)
    return _steps(drawn_BN @ row_NS / (rows - 1), share_S)


def _standard_error(value_N: Floats) -> float:
    return float(value_N.std(ddof=1) / np.sqrt(len(value_N)))


def _above_zero(value_N: Floats, size: float) -> bool:
    """Whether the mean over images is above 0 by more than chance, and than rounding of numbers of that size."""
    mean = float(value_N.mean())
    return mean > 1e-9 * abs(size) and mean >= t_quantile(len(value_N) - 1) * _standard_error(value_N)


def t_quantile(freedom: int) -> float:
    """The 97.5% quantile of Student's t with 3 degrees of freedom or more, within 1% (Cornish and Fisher, 1960)."""
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, 1)))
