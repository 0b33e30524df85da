"""From the numbers of a map's file to a label: depth, and a reliability code for each pixel. Axes: H row, W column."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import Quantity
from depthsieve.evaluation.ground_truth.values import planar_depth
from depthsieve.jobs.importing.settings import ValueSettings
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.store.schema import MAX_DEPTH

BEST = 255
"""The code of each valid pixel where nothing is known of their reliability."""

OF_WHOLE_NUMBERS = 65535.0
"""What disparity in whole numbers is divided by where nobody says: it has no unit, and float16 ends before."""


@dataclass(frozen=True, eq=False)
class RawMap:
    """A map as its files have it: ``values_HW`` in any type, a ``confidence_HW`` of the same shape if there is one.
    ``sha256`` is of both, so that a change is seen."""

    values_HW: NDArray[Any]
    confidence_HW: NDArray[Any] | None
    sha256: str


@dataclass(frozen=True, eq=False)
class ImportedLabel:
    """``depth_HW`` float32, 0 where ``code_HW`` uint8 is 0. ``zeros``: how many valid pixels hold exactly 0.

    ``largest``: how many pixels hold the largest value of their file's whole-number type and nothing else makes them
    invalid: of depth they are invalid, as long as nobody says what is.
    """

    depth_HW: NDArray[np.float32]
    code_HW: NDArray[np.uint8]
    zeros: int
    largest: int = 0


def to_label(
    raw: RawMap, quantity: Quantity, settings: ValueSettings, code_version: int = CODE_VERSION
) -> ImportedLabel:
    """The label that a map makes, its codes of that version of the label spec.

    Raises :class:`ImageRejected` for a map that is none, with the reason.
    """
    numbers_HW = np.array(raw.values_HW, np.float64)
    valid_HW = np.isfinite(numbers_HW)
    for marker in settings.invalid:
        valid_HW &= raw.values_HW != marker
    whole = raw.values_HW.dtype.kind in "iu"
    numbers_HW /= settings.scale or (OF_WHOLE_NUMBERS if whole and quantity == "disparity" else 1.0)
    if settings.distance_to_depth is not None:
        numbers_HW = planar_depth(numbers_HW, settings.distance_to_depth)
    if quantity == "depth":
        valid_HW &= numbers_HW > 0
    if settings.max_value is not None:
        valid_HW &= numbers_HW <= settings.max_value
    largest = 0
    if whole and quantity == "depth":
        below_HW = raw.values_HW != np.iinfo(raw.values_HW.dtype).max
        largest = int(np.count_nonzero(valid_HW & ~below_HW))  # but those that ``invalid`` names
        if not settings.invalid:
            valid_HW &= below_HW
    code_HW = np.where(valid_HW, _codes(raw, settings, code_version), 0).astype(np.uint8)
    known_N = numbers_HW[code_HW > 0]
    if not known_N.size:
        raise ImageRejected("its map has no valid pixel")
    low, high = float(known_N.min()), float(known_N.max())
    if low == high:
        raise ImageRejected(f"its map is {low:g} at every valid pixel")
    if max(-low, high) > MAX_DEPTH:
        raise ImageRejected(
            f"its map reaches {max(-low, high):g}, more than float16 holds; say its unit with --scale, or --max"
        )
    depth_HW = np.where(code_HW > 0, numbers_HW, 0.0).astype(np.float32)
    return ImportedLabel(depth_HW, code_HW, int(np.count_nonzero(known_N == 0)), largest)


def _codes(raw: RawMap, settings: ValueSettings, code_version: int) -> NDArray[np.uint8]:
    """The code of each pixel by its confidence; 0 where that is not a number."""
    confidence = raw.confidence_HW
    if settings.confidence_means is None or confidence is None:
        return np.full(raw.values_HW.shape, BEST, np.uint8)
    if settings.confidence_means == "code":
        if confidence.dtype != np.uint8:
            raise ImageRejected(f"its reliability holds {confidence.dtype}, and codes are whole numbers of 8 bits")
        return np.asarray(confidence, np.uint8)
    numbers_HW = confidence.astype(np.float64)
    finite_HW = np.isfinite(numbers_HW)
    if settings.confidence_means == "error":
        if confidence.dtype.kind != "f":
            raise ImageRejected("its confidence map holds whole numbers, and relative errors are fractions")
        if (numbers_HW[finite_HW] < 0).any():
            raise ImageRejected("its confidence map holds negative numbers, and an error is none")
        return np.asarray(encode_error(torch.from_numpy(numbers_HW), version=code_version).numpy(), np.uint8)
    low, high = settings.confidence_range or _range_of(confidence.dtype)
    beyond = numbers_HW[finite_HW & ((numbers_HW < low) | (numbers_HW > high))]
    if beyond.size:
        raise ImageRejected(
            f"its confidence map holds {beyond[0]:g}, outside of {low:g} to {high:g}; say its range with "
            "--confidence-range"
        )
    share_HW = (np.where(finite_HW, numbers_HW, low) - low) / (high - low)
    if settings.confidence_means == "lower-is-better":
        share_HW = 1 - share_HW
    return np.where(finite_HW, 1 + np.rint(254 * share_HW), 0).astype(np.uint8)


def _range_of(dtype: "np.dtype[Any]") -> tuple[float, float]:
    """What confidence of this type reaches from and to where nobody says: 0 to 1, or to the largest whole number."""
    return 0.0, float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
