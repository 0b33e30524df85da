"""From reliability codes to training masks: percentile thresholds out of 256-bin histograms.

Numpy only. Histograms count the reliability codes of an image; bin 0 holds the invalid pixels.

Axes: H row, W column, N image.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.errors import UsageError


def drop_count(drop: float, n: int) -> int:
    """``floor(drop * n)``, exactly, for the decimal number that ``drop`` is written as.

    As floats, ``0.29 * 100`` is 28.999999999999996. Here ``drop`` means the shortest decimal that prints as it, so 0.29
    of 100 is 29. The mask and the trim both count with this function.

    Raises:
        UsageError: ``drop`` is no number in [0, 1).
    """
    fraction = drop_fraction(drop)
    return n * fraction.numerator // fraction.denominator


def drop_fraction(drop: float) -> Fraction:
    """``drop`` as the fraction that :func:`drop_count` counts by. Raises as that does."""
    return _fraction(str(drop))


@lru_cache(maxsize=256)
def _fraction(drop: str) -> Fraction:
    try:
        fraction = Fraction(drop)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"drop must be a number from 0 up to, but not including, 1, not {drop}") from error
    if not 0 <= fraction < 1:
        raise UsageError(f"drop must be a number from 0 up to, but not including, 1, not {drop}")
    return fraction


def scope_histogram(histograms_N256: NDArray[Any]) -> NDArray[np.int64]:
    """The int64 histogram of a batch or subset: the sum over its images, safe for uint32 rows."""
    return np.asarray(np.sum(np.atleast_2d(histograms_N256), axis=0, dtype=np.int64), dtype=np.int64)


def threshold_code(histogram_256: NDArray[Any], drop: float) -> int:
    """The largest code ``t`` in 1..255 such that masking the valid pixels below ``t`` masks at most ``drop`` of them.

    Codes tie: what is really masked may be less than ``drop`` (:func:`masked_share` tells), never more. A histogram
    without valid pixels gives 255.

    Args:
        histogram_256: pixels of each code in the scope; bin 0 (invalid) is not counted.
        drop: fraction in [0, 1).

    Raises:
        UsageError: not 256 bins, or ``drop`` out of range.
    """
    below_256 = _valid_below(histogram_256)
    allowed = drop_count(drop, int(below_256[-1]))
    # below_256[i] is the number masked by t = i + 1; it never falls, and t = 256 would mask everything.
    return int(np.searchsorted(below_256[:-1], allowed, side="right"))


def train_mask(reliability_HW: NDArray[np.uint8], t: int) -> NDArray[np.bool_]:
    """True where a pixel is trained on: reliability at least ``t``, and never where it is 0. Any shape."""
    return np.asarray(reliability_HW >= max(t, 1), dtype=np.bool_)


def masked_share(histogram_256: NDArray[Any], t: int) -> float:
    """The fraction of valid pixels that ``t`` really masks, 0..1; 0 if there are no valid pixels."""
    below_256 = _valid_below(histogram_256)
    valid = int(below_256[-1])
    return int(below_256[max(t, 1) - 1]) / valid if valid else 0.0


def _valid_below(histogram_256: NDArray[Any]) -> NDArray[np.int64]:
    """Item ``i``: how many valid pixels have a code of at most ``i``, that is, are masked by ``t = i + 1``."""
    histogram_256 = np.asarray(histogram_256)
    if histogram_256.shape != (256,):
        raise UsageError(f"a reliability histogram has 256 bins, not shape {list(histogram_256.shape)}")
    below_256 = np.cumsum(histogram_256, dtype=np.int64)
    return np.asarray(below_256 - below_256[0], dtype=np.int64)
