"""What a person should know about a comparison: ground truth that may not be what it is taken for.

None of it changes a number; what must not count at all is refused image by image. The limits on values were set on 40
measured maps, of lidar, structured light, time of flight and stereo, for none of which a note appears.
"""

from collections import Counter
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.records import Quantity
from depthsieve.evaluation.ground_truth.scales import scales_of
from depthsieve.evaluation.ground_truth.values import TruthMap
from depthsieve.evaluation.metrics import degenerate, fitted_alignment
from depthsieve.evaluation.settings import EvaluateSettings

FREQUENT_SHARE = 0.01
"""Of a map's pixels, at its largest or smallest value. Measured depth has at most 0.002 there."""

FREQUENT_PIXELS = 10

OUTSIDE_SHARE = 0.1
"""Of the pixels with ground truth, outside of the range of depth, over all images."""

PLAUSIBLE_MEDIAN = (0.1, 200.0)
"""Metres."""

HYPERSIM = ".depth_meters."


@dataclass(frozen=True)
class Note:
    """Something about the comparison. ``kind`` is for programs (docs/evaluation.md lists them), ``text`` for people;
    ``images`` are the ids that it is about, all of them, empty where it is about the ground truth as a whole."""

    kind: str
    text: str
    images: tuple[str, ...] = ()


@dataclass
class TruthObserver:
    """Gathers what notes are made of, map by map."""

    settings: EvaluateSettings
    _medians: list[float] = field(default_factory=list)
    _largest: dict[str, int] = field(default_factory=dict)
    _outside: list[str] = field(default_factory=list)
    _known: int = 0
    _counted: int = 0
    _frequent: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    _against: list[str] = field(default_factory=list)
    _compared: int = 0

    def read(self, image_id: str, truth: TruthMap) -> None:
        """Look at the ground truth of one image."""
        if truth.largest:
            self._largest[image_id] = truth.largest
        known = truth.metres_HW[np.isfinite(truth.metres_HW)]
        if not known.size:
            return
        self._medians.append(float(np.median(known)))
        low, high = self.settings.depth_range
        counted = known[(known >= low) & (known <= high)]
        self._known += known.size
        self._counted += counted.size
        if counted.size <= (1 - OUTSIDE_SHARE) * known.size:
            self._outside.append(image_id)
        frequent = _frequent_end(counted)
        if frequent is not None:
            self._frequent[image_id] = frequent

    def compared(self, image_id: str, label: NDArray[Any], truth: NDArray[Any], quantity: Quantity) -> None:
        """Look at the direction of one label, in its own quantity, where it was compared; arrays of one shape.

        Whatever was fitted for the comparison: a label in metres against inverse depth is as wrong.
        """
        self._compared += 1
        if degenerate(truth, "scale-shift") is None:
            everywhere = np.ones(np.shape(truth), dtype=np.bool_)
            scale, _ = fitted_alignment(label, truth, everywhere, quantity, "scale-shift")
            if scale <= 0:
                self._against.append(image_id)

    def notes(self, places: Iterable[str]) -> tuple[Note, ...]:
        """All notes on the maps at ``places``, which were compared."""
        found = [*self._on_values(), *self._on_direction()]
        if self.settings.distance_to_depth is None and any(HYPERSIM in place for place in places):
            found.append(
                Note(
                    "distance",
                    "files called depth_meters are Hypersim's, which hold distance to the camera's centre and not "
                    "depth: --distance-to-depth 886.81 makes them planar (at 1024 x 768)",
                )
            )
        return tuple(found)

    def _on_values(self) -> Iterable[Note]:
        if self._largest:
            yield Note(
                "largest-value",
                f"{sum(self._largest.values()):,} pixels with the largest value of their file's type (65,535 in 16 "
                f"bits) were taken for missing ground truth, in {_of(self._largest)}",
                tuple(self._largest),
            )
        if self._frequent:
            first, (end, metres, share) = next(iter(self._frequent.items()))
            yield Note(
                "frequent-value",
                f"{share:.0%} of the ground truth of {first} is exactly {metres:.6g} m, its {end} value, and there are "
                f"such values in {_of(self._frequent)}: if they mark missing or clipped depth, leave them out with "
                "--missing, in the file's own units, or with --min-depth and --max-depth",
                tuple(self._frequent),
            )
        if self._counted <= (1 - OUTSIDE_SHARE) * self._known and self._outside:
            low, high = self.settings.depth_range
            yield Note(
                "outside-range",
                f"{1 - self._counted / self._known:.0%} of the ground truth is outside of {low:g} to {high:g} m and "
                f"does not count, most of it in {_of(self._outside)}: are --scale and --max-depth right, or "
                "are these markers of missing depth (--missing)?",
                tuple(self._outside),
            )
        typical = float(np.median(self._medians)) if self._medians else 1.0
        if not PLAUSIBLE_MEDIAN[0] <= typical <= PLAUSIBLE_MEDIAN[1]:
            yield Note(
                "implausible-depth",
                f"the ground truth is typically {typical:.3g} m away: are --scale and --ground-truth-quantity right?",
            )

    def _on_direction(self) -> Iterable[Note]:
        if not self._against:
            return
        most = 2 * len(self._against) > self._compared
        quantity = self.settings.ground_truth_quantity
        cause = (
            "their labels are wrong, or their ground truth is of other images"
            if not most
            else "is it inverse depth or disparity? Say so with --ground-truth-quantity"
            if quantity == "depth"
            else f"is it depth rather than {quantity}? Leave out --ground-truth-quantity"
        )
        yield Note(
            "against-truth",
            f"labels run against the ground truth in {len(self._against):,} of {self._compared:,} images (their scale, "
            f"fitted with a shift, is not above 0): {cause}",
            tuple(self._against),
        )


def on_scales(places: Sequence[str], settings: EvaluateSettings) -> tuple[Note, ...]:
    """Which scale was read into how many of the maps that were matched, where the files' names decide."""
    if not settings.scale_by:
        return ()
    found = Counter(scale for place in places for scale in scales_of(settings, place)[:1])
    said = [f"{units:g} for {_maps(found[pattern, units])} ({pattern})" for pattern, units in settings.scale_by]
    rest = len(places) - found.total()
    said += [f"{settings.scale:g} for the other {rest:,} (--scale)"] if rest else []
    return (Note("scale-by", f"how many units are a metre: {', '.join(said)}"),)


def _frequent_end(values: NDArray[np.float32]) -> tuple[str, float, float] | None:
    """Which end of the values is frequent ("largest" or "smallest"), that value, and its share; None for neither, and
    for a map of one value."""
    if not values.size:
        return None
    low, high = values.min(), values.max()
    for end, value in (("largest", high), ("smallest", low)):
        count = int((values == value).sum())
        if low < high and count >= FREQUENT_PIXELS and count >= FREQUENT_SHARE * values.size:
            return end, float(value), count / values.size
    return None


def _maps(number: int) -> str:
    return f"{number:,} map" + "s" * (number != 1)


def _of(images: Sized) -> str:
    return f"{len(images):,} image" + "s" * (len(images) != 1)
