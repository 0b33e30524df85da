"""Colours for depth, reliability, error and masks. Axes: H row, W column, 3 red, green, blue (uint8).

Depth is shown as the field shows it: ColorBrewer's Spectral on disparity, near red, far blue, each map over its own
range (Depth Anything's ``run.py``: matplotlib's ``Spectral_r``), here from its 2nd to its 98th percentile. Reliability
is stretched likewise: codes of real maps fill a small part of 1..255. Where there is nothing, a grey chequerboard
stands.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.core.records import Quantity

Rgb = NDArray[np.uint8]
Bools = NDArray[np.bool_]

# ColorBrewer (Cynthia Brewer, Mark Harrower, Pennsylvania State University), 11-class Spectral, far to near.
_SPECTRAL = "5e4fa2 3288bd 66c2a5 abdda4 e6f598 ffffbf fee08b fdae61 f46d43 d53e4f 9e0142"
# Nine points of viridis (Nathaniel Smith, Stéfan van der Walt, Eric Firing; CC0): lightness rises evenly.
_VIRIDIS = "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725"
# Nine points of magma (the same authors), which ends lighter than any error shown needs to.
_MAGMA = "000004 1d1147 51127c 832681 b73779 e75263 fc8961 fec488 fcfdbf"

TINT = (255, 0, 170)
"""Masked pixels: a colour that photographs hardly have."""

CHECKS = ((150, 150, 150), (190, 190, 190))
"""The two greys of the chequerboard that stands where there is no label or no truth."""

SHOWN_PERCENT = (2, 98)
"""Percentiles of what is shown that get the first and the last colour; what lies beyond gets the same."""

ERROR_TOP = 0.5
"""The relative error that gets the lightest colour, as do all above."""


def _table(stops: str) -> Rgb:
    """256 colours, linear between evenly spaced stops, truncated to bytes as the official script does."""
    colours = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in stops.split()]) / 255
    at = np.linspace(0, 1, len(colours))
    steps = np.linspace(0, 1, 256)
    table = np.stack([np.interp(steps, at, channel) for channel in colours.T], axis=1)
    return np.asarray(table * 255 + 1e-9, dtype=np.uint8)  # 1e-9: a stop's own byte is not lost to rounding


SPECTRAL_256 = _table(_SPECTRAL)
VIRIDIS_256 = _table(_VIRIDIS)
MAGMA_256 = _table(_MAGMA)


def depth_colours(
    depth_HW: NDArray[Any],
    quantity: Quantity = "disparity",
    valid_HW: Bools | None = None,
    span: tuple[float, float] | None = None,
) -> Rgb:
    """Depth in Spectral colours: near red, far blue.

    Args:
        depth_HW: disparity, or metres if ``quantity`` is "depth": these are inverted, so that both look alike.
        valid_HW: where there is a label (default: everywhere); elsewhere, and where it is not finite, stand checks.
        span: (lowest, highest) disparity of the scale; by default :func:`span_of` the valid pixels.
    """
    disparity = np.asarray(depth_HW, dtype=np.float64)
    if quantity == "depth":
        with np.errstate(divide="ignore", invalid="ignore"):
            disparity = np.where(disparity > 0, 1.0 / disparity, np.nan)
    known = np.isfinite(disparity) if valid_HW is None else np.isfinite(disparity) & valid_HW
    return _mapped(disparity, known, span_of(disparity[known]) if span is None else span, SPECTRAL_256)


def reliability_colours(reliability_HW: NDArray[np.uint8], span: tuple[float, float] | None = None) -> Rgb:
    """Reliability codes in viridis, dark = unreliable; code 0 (no label) as checks.

    ``span`` is the (darkest, lightest) code; by default :func:`span_of_codes` of this map. One that is of several maps
    makes their pictures comparable.
    """
    codes = np.asarray(reliability_HW, dtype=np.float64)
    return _mapped(codes, codes > 0, span_of_codes([reliability_HW]) if span is None else span, VIRIDIS_256)


def span_of(values: NDArray[Any]) -> tuple[float, float]:
    """Between which of these values colours are stretched: their percentiles of :data:`SHOWN_PERCENT`."""
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, SHOWN_PERCENT)
    return float(low), float(high)


def span_of_codes(maps: Iterable[NDArray[np.uint8]]) -> tuple[float, float]:
    """:func:`span_of` the valid codes of some reliability maps together; (1, 255) where there are none."""
    counts_256 = np.zeros(256, np.int64)
    for reliability_HW in maps:
        counts_256 += np.bincount(reliability_HW.ravel(), minlength=256)
    return span_of_counts(counts_256)


def span_of_counts(counts_256: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """:func:`span_of_codes`, by how many pixels have each code."""
    counts_256 = np.array(counts_256, np.int64)
    counts_256[0] = 0
    total = int(counts_256.sum())
    if not total:
        return 1.0, 255.0
    ranks = np.array(SHOWN_PERCENT) * (total - 1) / 100
    low, high = np.searchsorted(np.cumsum(counts_256), np.round(ranks), side="right")
    return float(low), float(high)


def error_colours(error_HW: NDArray[Any]) -> Rgb:
    """Relative errors from 0 (black) to :data:`ERROR_TOP` and more (light) in magma; NaN (no truth) as checks."""
    errors = np.asarray(error_HW, dtype=np.float64)
    return _mapped(errors, np.isfinite(errors), (0.0, ERROR_TOP), MAGMA_256)


def mask_colours(rgb_HW3: Rgb, reliability_HW: NDArray[np.uint8], mask_HW: Bools) -> Rgb:
    """The image with what is masked in :data:`TINT` and what has no label as checks."""
    shown = np.where(mask_HW[:, :, None], rgb_HW3, np.array(TINT, np.uint8))
    return with_checks(shown, np.asarray(reliability_HW > 0))


def with_checks(rgb_HW3: Rgb, known_HW: Bools) -> Rgb:
    """A copy of ``rgb_HW3`` with a chequerboard, about 40 fields on the short side, where ``known_HW`` is False."""
    if rgb_HW3.shape[:2] != known_HW.shape:
        raise UsageError(f"a mask of shape {list(known_HW.shape)} does not fit an image of {list(rgb_HW3.shape)}")
    field = max(2, min(known_HW.shape) // 40)
    rows, columns = (np.arange(side) // field for side in known_HW.shape)
    checks = np.array(CHECKS, dtype=np.uint8)[(rows[:, None] + columns) % 2]
    return np.where(known_HW[:, :, None], rgb_HW3, checks)


def _mapped(values: NDArray[np.float64], known: Bools, span: tuple[float, float], table: Rgb) -> Rgb:
    low, high = span
    scaled = (np.where(known, values, low) - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    return with_checks(table[(np.clip(scaled, 0, 1) * 255).astype(np.uint8)], known)
