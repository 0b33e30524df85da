"""Merge the labels that several teachers gave one image into one, with reliability from their disagreement.

Axes: K labels of one image, H and W the shape of the first, h and w those of another, P pairs of labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch.nn.functional import interpolate

from depthsieve.core.errors import UsageError
from depthsieve.core.records import Quantity, Shape
from depthsieve.reliability.alignment import align_robust, apply_scale_shift, is_finite
from depthsieve.reliability.code import decode_error
from depthsieve.reliability.fusion import Calibration, error_denominator, fuse, relative_error
from depthsieve.reliability.scale import CODE_VERSION

FAR_APART = 2.0
"""Labels that differ by more than so many times what their expected errors allow are not averaged: the more reliable
one stands."""

SIGNAL = "teachers"

MERGE = {"name": "reliability-weighted mean", "version": 1, "far_apart": FAR_APART, "signal_share": 0.5}
"""What decides a merged label besides the labels and the calibration; part of the label spec."""


@dataclass(frozen=True)
class OneLabel:
    """A label of the image: ``depth_hw`` float32, and ``code_hw``, its uint8 reliability (0 = not valid), codes of that
    ``code_version``. ``judged``: they tell good pixels from bad, which they do not where the image was labelled without
    signals."""

    depth_hw: torch.Tensor
    code_hw: torch.Tensor
    quantity: Quantity
    judged: bool = True
    code_version: int = CODE_VERSION


def check_quantities(quantities: Sequence[Quantity]) -> None:
    """Raise :class:`UsageError` for fewer than two labels, and for disparity beside a first label in metres."""
    if len(quantities) < 2:
        raise UsageError(f"there must be two labels or more to merge, not {len(quantities)}")
    if quantities[0] == "depth" and "disparity" in quantities:
        raise UsageError("disparity cannot be merged into labels in metres; name the labels of disparity first")


def merge_labels(labels: Sequence[OneLabel], calibration: Calibration) -> tuple[torch.Tensor, torch.Tensor]:
    """One label of several of the same image: depth [H,W] float32 in the quantity and, for disparity, the scale of the
    first, NaN where none is valid; and its expected error, float32 [H,W], NaN likewise.

    The others are brought to the shape of the first (:func:`on_grid`), metres are inverted where the first is
    disparity, and disparity is aligned to it by scale and shift
    (:func:`depthsieve.reliability.alignment.align_robust`). Each pixel is the mean of the labels, weighted by the
    inverse square of the error that their codes stand for; one that lies farther than :data:`FAR_APART` from the most
    reliable one has no say there. A label that cannot be aligned, since it is constant or runs the other way, has no
    say at all, but its disagreement counts. Where any of them is not ``judged``, all weigh the same.

    The expected error is the geometric mean of two: what the calibration of the signal "teachers" makes of the mean
    distance between any two labels, and the geometric mean of what the labels' own codes say (nothing, unless all are
    ``judged``). Where one label alone is valid, it is that label's own. ``benchmarks/fusing.py`` compares this with
    other ways.

    Raises :class:`UsageError` as :func:`check_quantities` does, and for a calibration without the signal "teachers".
    """
    check_quantities([label.quantity for label in labels])
    first, judged = labels[0], all(label.judged for label in labels)
    shape = (first.depth_hw.shape[0], first.depth_hw.shape[1])
    depths: list[torch.Tensor] = []
    errors: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    for label in labels:
        depth_HW, e_HW = on_grid(label, shape)
        if label.quantity != first.quantity:
            depth_HW = torch.where(depth_HW > 0, 1 / depth_HW, torch.nan)
        error_HW = e_HW * error_denominator(depth_HW)
        if depths and first.quantity == "disparity":
            depth_HW, error_HW = _aligned(depth_HW, error_HW, depths[0])
        depths.append(depth_HW)
        errors.append(error_HW)
        expected.append(torch.where(is_finite(depth_HW) & is_finite(error_HW), e_HW, torch.nan))
    depth_KHW, e_KHW = torch.stack(depths), torch.stack(expected)
    merged_HW = _mean(depth_KHW, torch.stack(errors), judged)
    pairs_PHW = torch.stack([(a - b).abs() for a, b in combinations(depths, 2)])
    relative_HW = relative_error(merged_HW[None], pairs_PHW.nanmean(0)[None])[0]
    e_HW = fuse(merged_HW[None], {SIGNAL: relative_HW[None]}, first.quantity, calibration)[0]
    own_HW = e_KHW.log().nanmean(0).exp()
    both_HW = (e_HW * own_HW).sqrt() if judged else e_HW
    return merged_HW, torch.where(torch.isfinite(merged_HW), torch.where(e_HW.isnan(), own_HW, both_HW), torch.nan)


def on_grid(label: OneLabel, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and expected error of a label at another ``shape``, NaN where it is not valid, float32 [H,W].

    Bilinear between pixel centres, with antialias where it shrinks; pixels that are not valid have no part in it, and a
    pixel is valid where more than half of what it is made of is.
    """
    known_hw = (label.code_hw > 0) & torch.isfinite(label.depth_hw)
    e_hw = torch.where(known_hw, decode_error(label.code_hw, version=label.code_version), 0.0)
    maps_3hw = torch.stack([torch.where(known_hw, label.depth_hw.float(), 0.0), e_hw, known_hw.float()])
    if tuple(maps_3hw.shape[1:]) != shape:
        maps_3hw = interpolate(maps_3hw[None], size=shape, mode="bilinear", antialias=True)[0]
    depth_HW, e_HW, share_HW = maps_3hw
    known_HW = share_HW > 0.5
    return torch.where(known_HW, depth_HW / share_HW, torch.nan), torch.where(known_HW, e_HW / share_HW, torch.nan)


def _aligned(
    depth_HW: torch.Tensor, error_HW: torch.Tensor, first_HW: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A label of disparity and its error in the scale of the first, not below 0 where the first is not. One that cannot
    be aligned becomes the first's median, with an infinite error."""
    scale_1, shift_1 = align_robust(depth_HW[None], first_HW[None])
    scale = float(scale_1[0])
    if scale <= 0:
        return (
            torch.where(depth_HW.isnan(), torch.nan, first_HW.nanmedian()),
            torch.where(error_HW.isnan(), torch.nan, torch.inf),
        )
    aligned_HW = apply_scale_shift(depth_HW[None], scale_1, shift_1)[0]
    lowest = torch.where(first_HW.isnan(), 0.0, first_HW).amin().clamp(max=0)
    return torch.maximum(aligned_HW, lowest), error_HW * scale


def _mean(depth_KHW: torch.Tensor, error_KHW: torch.Tensor, judged: bool) -> torch.Tensor:
    """The weighted mean [H,W], NaN where no label is valid. An infinite error has no say beside a finite one."""
    known_KHW = torch.isfinite(depth_KHW) & (error_KHW >= 0)
    error_KHW = torch.where(known_KHW, error_KHW.double(), torch.inf)
    depth_KHW = torch.where(known_KHW, depth_KHW.double(), 0.0)
    least_HW, best_HW = error_KHW.min(0)
    if judged:
        apart_KHW = (depth_KHW - depth_KHW.gather(0, best_HW[None])).abs()
        near_KHW = apart_KHW <= FAR_APART * torch.hypot(error_KHW, least_HW.expand_as(error_KHW))
        ratio_KHW = least_HW / error_KHW  # to the least, so that no square overflows; NaN for the least where it is 0
        weight_KHW = torch.where(near_KHW & (error_KHW < torch.inf), ratio_KHW.square(), 0.0)
        weight_KHW.scatter_(0, best_HW[None], 1.0)
    else:
        weight_KHW = (error_KHW < torch.inf).double()
    merged_HW = (weight_KHW * depth_KHW).sum(0) / weight_KHW.sum(0)
    return torch.where(least_HW < torch.inf, merged_HW, torch.nan).float()
