"""From reliability codes to training masks: percentile thresholds out of 256-bin histograms.

Numpy only. Histograms count the reliability codes of an image; bin 0 holds the invalid pixels.

Axes: H row, W column, N image.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError


def drop_count(drop: float, n: int) -> int:
    """``floor(drop * n)``, exactly, for the decimal number that ``drop`` is written as.

    As floats, ``0.29 * 100`` is 28.999999999999996. Here ``drop`` means the shortest decimal that prints as it, so 0.29
    of 100 is 29. The mask and the trim both count with this function.

    Raises:
        UsageError: ``drop`` is no number in [0, 1).
    """
    fraction = drop_fraction(drop)
    return n * fraction.numerator // fraction.denominator


def drop_fraction(drop: float, name: str = "drop") -> Fraction:
    """``drop`` as the fraction that :func:`drop_count` counts by. Raises as that does, and calls it ``name``."""
    fraction = None if isinstance(drop, str) else _fraction(str(drop))
    if fraction is None or not 0 <= fraction < 1:
        raise UsageError(f"{name} must be a number from 0 up to, but not including, 1, not {drop!r}")
    return fraction


@lru_cache(maxsize=256)
def _fraction(drop: str) -> Fraction | None:
    try:
        return Fraction(drop)
    except (ValueError, ZeroDivisionError):
        return None


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


def threshold_codes(histograms_N256: NDArray[Any], drop: float) -> NDArray[np.int16]:
    """[N] the :func:`threshold_code` of each histogram, for many at once. Raises likewise."""
    below_N256 = _valid_below_each(histograms_N256)
    valid_N: NDArray[Any] = below_N256[:, -1]
    fraction = drop_fraction(drop)
    if max(int(valid_N.max(initial=0)) * fraction.numerator, fraction.denominator) >= 1 << 63:
        valid_N = valid_N.astype(object)  # whole numbers of any size, as drop_count has them
    allowed_N = (valid_N * fraction.numerator // fraction.denominator).astype(np.int64)
    return np.asarray(np.count_nonzero(below_N256[:, :-1] <= allowed_N[:, None], axis=1), dtype=np.int16)


def train_mask(reliability_HW: NDArray[np.uint8], t: int) -> NDArray[np.bool_]:
    """True where a pixel is trained on: reliability at least ``t``, and never where it is 0. Any shape."""
    return np.asarray(reliability_HW >= max(t, 1), dtype=np.bool_)


def masked_share(histogram_256: NDArray[Any], t: int) -> float:
    """The fraction of valid pixels that ``t`` really masks, 0..1; 0 if there are no valid pixels."""
    below_256 = _valid_below(histogram_256)
    valid = int(below_256[-1])
    return int(below_256[max(t, 1) - 1]) / valid if valid else 0.0


def masked_counts(histograms_N256: NDArray[Any], t_N: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[N] how many valid pixels of each histogram its threshold masks, and [N] how many there are."""
    below_N256 = _valid_below_each(histograms_N256)
    place_N1 = np.maximum(np.asarray(t_N, np.int64), 1)[:, None] - 1
    return np.take_along_axis(below_N256, place_N1, axis=1)[:, 0], below_N256[:, -1]


def _valid_below_each(histograms_N256: NDArray[Any]) -> NDArray[np.int64]:
    """:func:`_valid_below` of each row."""
    histograms_N256 = np.asarray(histograms_N256)
    if histograms_N256.ndim != 2 or histograms_N256.shape[1] != 256:
        raise UsageError(f"reliability histograms have 256 bins a row, not shape {list(histograms_N256.shape)}")
    below_N256 = np.cumsum(histograms_N256, axis=1, dtype=np.int64)
    return np.asarray(below_N256 - below_N256[:, :1], dtype=np.int64)


def _valid_below(histogram_256: NDArray[Any]) -> NDArray[np.int64]:
    """Item ``i``: how many valid pixels have a code of at most ``i``, that is, are masked by ``t = i + 1``."""
    histogram_256 = np.asarray(histogram_256)
    if histogram_256.shape != (256,):
        raise UsageError(f"a reliability histogram has 256 bins, not shape {list(histogram_256.shape)}")
    below_256 = np.cumsum(histogram_256, dtype=np.int64)
    return np.asarray(below_256 - below_256[0], dtype=np.int64)
