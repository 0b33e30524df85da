"""One number a pixel: the expected error that a calibration makes of the chosen signals.

``e = exp(constant) * (level + 0.02)^w_level * product over signals of (x_s + 0.001)^w_s``, with ``x_s`` a signal's
disagreement relative to the label, averaged over a patch around the pixel, and ``level`` what tells near from far. The
weights of every combination of signals were fitted to actual errors by ``tools/calibration.py``, so that ``e`` is
on one scale for all images, whichever signals it is made of.

Axes: B image of a batch, H row, W column.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, get_args

import torch
from torch.nn.functional import pad

from depthsieve.core.errors import UsageError
from depthsieve.core.records import Quantity, digest_of
from depthsieve.reliability.alignment import check_maps, is_finite, sum_map

DENOMINATOR_FLOOR = 0.1
"""The denominator of a relative error is at least this fraction of the label's mean magnitude."""

PATCH = 15
"""Rows and columns of the window that disagreement is averaged over: about a patch of a vision transformer. Two
predictions agree by chance wherever their difference changes its sign; nearby they do not."""

SIGNAL_FLOOR = 1e-3
LEVEL_FLOOR = 0.02

UNCALIBRATED = "uncalibrated"
"""The version of a calibration that nobody has fitted."""

MOST_WEIGHT = 1e6
"""Far beyond what a fit gives; what is larger may overflow float32."""


def means_errors(calibration: str) -> bool:
    """Whether the codes of labels of a calibration, as their spec names it, are expected errors, not only an order."""
    return not (calibration == "none" or calibration.endswith(UNCALIBRATED))


def relative_error(depth_BHW: torch.Tensor, delta_BHW: torch.Tensor) -> torch.Tensor:
    """``|delta| / (d + median(d))``, a disagreement or an error relative to the label.

    The median keeps far pixels, whose disparity is near 0, from counting as all wrong. It is the lower of the two
    middle values (``torch.median``), taken over the image's finite pixels. Where more than half of an image is sky it
    is 0; the denominator is therefore never below a tenth of the mean magnitude of the image's finite pixels.

    Args:
        depth_BHW: the labels, disparity or metres.
        delta_BHW: disagreement in the same unit, either sign.

    Returns:
        float32 [B,H,W], 0 or more. NaN where label or disagreement is not finite, and where both label and
        disagreement are 0 in an image that is 0 everywhere: such a map says nothing.

    Raises:
        UsageError: shapes that are not [B,H,W] or differ.
    """
    check_maps(depth_BHW=depth_BHW, delta_BHW=delta_BHW)
    e_BHW = torch.empty(depth_BHW.shape, dtype=torch.float32, device=depth_BHW.device)
    for b, (depth_HW, delta_HW) in enumerate(zip(depth_BHW.float(), delta_BHW.float(), strict=True)):
        delta_HW = torch.where(is_finite(delta_HW), delta_HW.abs(), torch.nan)
        e_BHW[b] = delta_HW / error_denominator(depth_HW)  # one image at a time: see depthsieve.reliability.alignment
    return e_BHW


def error_denominator(depth_HW: torch.Tensor) -> torch.Tensor:
    """What the relative error of one float32 label [H,W] is relative to, as above; NaN where it is not finite."""
    return denominator_and_median(depth_HW)[0]


def denominator_and_median(depth_HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``d + median(d)``, floored, NaN where the label is not finite; and the median."""
    finite_HW = is_finite(depth_HW)
    known_HW = torch.where(finite_HW, depth_HW, torch.nan)
    median = torch.nanmedian(known_HW)
    magnitude = sum_map(torch.where(finite_HW, depth_HW, 0.0).abs().double())
    floor = DENOMINATOR_FLOOR * magnitude / finite_HW.sum()
    return torch.maximum(known_HW + median, floor.float()), median


def near_level(depth_BHW: torch.Tensor, quantity: Quantity) -> torch.Tensor:
    """Where a pixel lies between far (0) and near (1), a half at the median: ``d / (d + median)`` for disparity and
    ``median / (d + median)`` for metres, which are equal for one scene. float32 [B,H,W], NaN where not finite."""
    check_maps(depth_BHW=depth_BHW)
    level_BHW = torch.empty(depth_BHW.shape, dtype=torch.float32, device=depth_BHW.device)
    for b, depth_HW in enumerate(depth_BHW.float()):
        denominator_HW, median = denominator_and_median(depth_HW)
        level_BHW[b] = (depth_HW if quantity == "disparity" else median) / denominator_HW
    return level_BHW.clamp(0, 1)


def patch_mean(map_HW: torch.Tensor) -> torch.Tensor:
    """The mean of the finite values within a square of :data:`PATCH` around each pixel of [H,W], cut off at the
    borders; NaN where the pixel's own value is not finite."""
    finite_HW = is_finite(map_HW)
    mean_HW = _box(torch.where(finite_HW, map_HW, 0.0))
    if not finite_HW.all():
        mean_HW = torch.where(finite_HW, mean_HW / _box(finite_HW.float()), torch.nan)
    return mean_HW


def _box(map_HW: torch.Tensor) -> torch.Tensor:
    """By running sums: the same time for a window of any size."""
    mean_HW = map_HW.double()
    for axis in (0, 1):
        size = mean_HW.shape[axis]
        at = torch.arange(size, device=mean_HW.device)
        first, last = (at - PATCH // 2).clamp(min=0), (at + PATCH // 2 + 1).clamp(max=size)
        sums_HW = pad(mean_HW.cumsum(axis), (0, 0, 1, 0) if axis == 0 else (1, 0))
        count = (last - first).view(-1, 1) if axis == 0 else last - first
        mean_HW = (sums_HW.index_select(axis, last) - sums_HW.index_select(axis, first)) / count
    return mean_HW.float()


@dataclass(frozen=True)
class Calibration:
    """The weights that make expected errors of signals, and the teachers whose errors they were fitted to.

    ``weights`` are by quantity, then by the combination of signals ("flip", "flip+lowres": sorted, joined by "+"), then
    by "constant", "level" and each signal. ``fitted_on`` holds the weights digests of those teachers.
    """

    version: str
    fitted_on: tuple[str, ...]
    weights: Mapping[str, Mapping[str, Mapping[str, float]]]

    @classmethod
    def from_json(cls, body: Any, shown: str) -> "Calibration":
        """The calibration in a file called ``shown``. Raises :class:`UsageError` for one that is invalid."""
        try:
            weights = {
                quantity: {
                    combination: {name: float(value) for name, value in row.items()}
                    for combination, row in body["weights"][quantity].items()
                }
                for quantity in get_args(Quantity)
                if quantity in body["weights"]
            }
            found = cls(str(body["version"]), tuple(map(str, body["fitted_on"])), weights)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UsageError(f"{shown} is no calibration; make one with tools/calibration.py") from error
        for quantity, table in weights.items():
            for combination, row in table.items():
                needed = {"constant", "level", *combination.split("+")}
                if set(row) != needed or not all(abs(value) <= MOST_WEIGHT for value in row.values()):
                    raise UsageError(f"{shown}: {quantity}, {combination}: needs finite weights of {sorted(needed)}")
        return found

    @property
    def digest(self) -> str:
        """Of all that decides an expected error."""
        return digest_of({"weights": self.weights, "patch": PATCH, "floors": [SIGNAL_FLOOR, LEVEL_FLOOR]})

    def name(self, signals: Iterable[str], weights_digest: str) -> str:
        """How a label spec names it: "flip-2", and "flip-2-transferred" for a teacher that it was not fitted on; "none"
        without signals."""
        if not (combination := "+".join(sorted(signals))):
            return "none"
        known = weights_digest in self.fitted_on or self.version == UNCALIBRATED
        return f"{combination}-{self.version}" + ("" if known else "-transferred")

    def weights_of(self, quantity: Quantity, signals: Iterable[str]) -> Mapping[str, float]:
        """The weights of a combination. Raises :class:`UsageError` where it was not fitted."""
        combination = "+".join(sorted(signals))
        try:
            return self.weights[quantity][combination]
        except KeyError:
            raise UsageError(
                f"calibration {self.version} was not fitted for {quantity} with signals {combination}"
            ) from None


@functools.cache
def shipped_calibration() -> Calibration:
    """The calibration that comes with the package."""
    text = (files("depthsieve.reliability") / "calibration.json").read_text()
    return Calibration.from_json(json.loads(text), "calibration.json")


def calibration_for(quantity: Quantity, signals: Iterable[str]) -> Calibration:
    """The shipped calibration; for signals that it was not fitted for, one of version :data:`UNCALIBRATED`, whose
    "expected error" is the geometric mean of the signals: it orders the pixels of an image, but is on no known scale.
    """
    shipped, names = shipped_calibration(), sorted(signals)
    combination = "+".join(names)
    if not names or combination in shipped.weights.get(quantity, {}):
        return shipped
    row = {"constant": 0.0, "level": 0.0} | dict.fromkeys(names, 1 / len(names))
    return Calibration(UNCALIBRATED, (), {quantity: {combination: row}})


def fuse(
    depth_BHW: torch.Tensor, relative: Mapping[str, torch.Tensor], quantity: Quantity, calibration: Calibration
) -> torch.Tensor:
    """Expected errors, ``|truth - label| / (d + median(d))``, float32 [B,H,W]; NaN where one of the maps is not finite.

    Args:
        depth_BHW: the labels.
        relative: :func:`relative_error` of each signal by its name, one at least.
        quantity: of the labels.
        calibration: with weights for these signals.

    Raises:
        UsageError: shapes that differ, or signals that the calibration was not fitted for.
    """
    weights = calibration.weights_of(quantity, relative)
    check_maps(depth_BHW=depth_BHW, **relative)
    names = sorted(relative)
    e_BHW = torch.empty(depth_BHW.shape, dtype=torch.float32, device=depth_BHW.device)
    for b in range(len(depth_BHW)):
        features_FHW = fusion_features(depth_BHW[b], [relative[name][b] for name in names], quantity)
        log_HW = torch.full_like(e_BHW[b], weights["constant"])
        for value, feature_HW in zip((weights[name] for name in ("level", *names)), features_FHW, strict=True):
            log_HW += value * feature_HW
        e_BHW[b] = log_HW.exp_()
    return e_BHW


def fusion_features(
    depth_HW: torch.Tensor, relatives_HW: Sequence[torch.Tensor], quantity: Quantity
) -> list[torch.Tensor]:
    """The logarithms of one image that the weights belong to, [H,W] each: of its level, and of each signal averaged
    over a patch."""
    level_HW = near_level(depth_HW[None], quantity)[0]
    return [
        (level_HW + LEVEL_FLOOR).log_(),
        *((patch_mean(map_HW.float()) + SIGNAL_FLOOR).log_() for map_HW in relatives_HW),
    ]
