"""Choosing ``drop``: the knee of the mean sparsification curve. Axes: S step of a curve."""

from dataclasses import dataclass

import numpy as np

from depthsieve.evaluation.metrics.sparsification import CurveMean

MAX_DROP = 0.5
"""Nobody trains on less than half of the pixels; beyond, the curve is that of few pixels, and noise."""

MIN_IMAGES = 8
"""Fewer images are too few to choose by."""

MIN_STANDARD_ERRORS = 2.0
"""What the knee claims must be so many standard errors over the images."""


@dataclass(frozen=True)
class Knee:
    """The ``drop`` that a mean curve suggests: its error falls from ``error`` to ``kept_error``.

    ``drop`` None: there is no knee, and ``reason`` says why; both errors are then those of dropping nothing.
    """

    drop: float | None
    error: float
    kept_error: float
    reason: str


def find_knee(curves: CurveMean) -> Knee:
    """The knee of the mean error kept against the fraction dropped, 0..``MAX_DROP``.

    Kneedle (Satopaa et al., "Finding a Kneedle in a Haystack", ICDCS workshops 2011) for a falling convex curve: the
    step that lies farthest below the chord between the ends. Up to there dropping pays more than on the average, from
    there on less. Three guards against a knee that is not there: ``MIN_IMAGES``; the gain at the knee, and the knee's
    distance from the chord, each ``MIN_STANDARD_ERRORS`` standard errors over the images above 0.

    Raises:
        UsageError: no image at all.
    """
    curve = curves.mean()
    last = int(np.searchsorted(curve.dropped_S, MAX_DROP, side="right")) - 1
    error = float(curve.method_S[0])

    def none(reason: str) -> Knee:
        return Knee(None, error, error, reason)

    if curves.images < MIN_IMAGES:
        return none(f"choosing one takes {MIN_IMAGES} images or more, and there are {curves.images}")
    share_S = curve.dropped_S[: last + 1] / curve.dropped_S[last]
    chord_S = (1 - share_S) * curve.method_S[0] + share_S * curve.method_S[last]
    step = int(np.argmax(chord_S - curve.method_S[: last + 1]))
    gain_S, distance_S = np.zeros_like(curve.dropped_S), np.zeros_like(curve.dropped_S)
    gain_S[0], gain_S[step] = 1.0, -1.0
    distance_S[0], distance_S[last] = 1 - share_S[step], share_S[step]
    distance_S[step] -= 1.0
    if step == 0 or float(gain_S @ curve.method_S) <= 0:
        return none("dropping the least reliable pixels does not lower the error")
    if not _stands_out(curves, curve.method_S, gain_S):
        uncertain = f"{curves.standard_error(gain_S):.4f} over {curves.images} images"
        return none(
            f"from {error:.4f} the error falls to {curve.method_S[step]:.4f} where {curve.dropped_S[step]:.0%} are "
            f"dropped, which is less than {MIN_STANDARD_ERRORS:g} standard errors ({uncertain}) and may be chance; "
            "more images would tell"
        )
    if not _stands_out(curves, curve.method_S, distance_S):
        return none("the error falls about evenly with what is dropped")
    return Knee(float(curve.dropped_S[step]), error, float(curve.method_S[step]), "")


def _stands_out(curves: CurveMean, method_S: np.ndarray, weights_S: np.ndarray) -> bool:
    value = float(weights_S @ method_S)
    rounding = 1e-9 * float(np.abs(weights_S) @ np.abs(method_S))
    return value > rounding and value >= MIN_STANDARD_ERRORS * curves.standard_error(weights_S)
