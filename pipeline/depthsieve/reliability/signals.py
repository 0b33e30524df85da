"""Disagreement signals: how much a prediction moves when its input changes in a way that should not matter, when
another model makes it, or what the map itself says about where models err.

Every signal is a pure function of tensors and gives a disagreement in the label's own unit, float32 [B,H,W], 0 or more
and not finite where a prediction is not. :mod:`depthsieve.reliability.fusion` makes one expected error of them.

Axes: B image of a batch, C channel, H row, W column; h and w those of another size.
"""

import functools
from typing import Literal

import torch
from torch.nn.functional import interpolate

from depthsieve.core.errors import UsageError
from depthsieve.core.records import Quantity, Shape
from depthsieve.reliability.alignment import align_robust, apply_scale_shift, check_maps

PHOTOMETRIC_GAIN = (1.1, 1.0, 0.9)
PHOTOMETRIC_SHIFT = 0.05
PHOTOMETRIC_NOISE = 0.1
"""Of the photometric view, in units of the model's input, where colours have a standard deviation of about 1: a warmer,
brighter picture with the noise of a cheap camera (0.1 is about 6 steps of 255)."""

EDGE_REACHES = (1, 2, 4, 8)
"""How far from a pixel, in pixels, the edge signal looks for another depth; each at most twice the one before."""


def flip_disagreement(depth_BHW: torch.Tensor, flipped_BHW: torch.Tensor, quantity: Quantity) -> torch.Tensor:
    """How far the prediction on the mirrored image lies from the label, pixel by pixel.

    The signal that Depth Anything V2's author names (issue 83 of its repository) and that Poggi et al., "On the
    Uncertainty of Self-Supervised Monocular Depth Estimation" (CVPR 2020), call Post.

    Args:
        depth_BHW: the labels.
        flipped_BHW: predictions on the left-right mirrored images, still mirrored.
        quantity: ``disparity`` is aligned to the label by scale and shift first, since a relative teacher fixes
            neither (:func:`depthsieve.reliability.alignment.align_robust`); ``depth`` is in metres and compared as
            it is.

    Raises:
        UsageError: shapes that differ, or an unknown quantity.
    """
    check_maps(depth_BHW=depth_BHW, flipped_BHW=flipped_BHW)
    return _disagreement(depth_BHW, flipped_BHW.flip(-1), quantity)


def lowres_view(image_BCHW: torch.Tensor, shape: Shape) -> torch.Tensor:
    """The images at a smaller ``shape`` (H, W), left and right swapped: one pass tests scale and mirror together, at
    about a quarter of the cost where both sides are halved. Bilinear with antialias, [B,C,*shape] float32.
    """
    small_BCHW = interpolate(image_BCHW.flip(-1), size=shape, mode="bilinear", antialias=True)
    return small_BCHW.contiguous(memory_format=torch.channels_last)


def lowres_disagreement(depth_BHW: torch.Tensor, lowres_Bhw: torch.Tensor, quantity: Quantity) -> torch.Tensor:
    """How far the prediction on :func:`lowres_view`, at its size and still mirrored, lies from the label.

    The prediction is enlarged bilinearly, which blurs its edges: they count as disagreement. ``quantity`` and errors as
    in :func:`flip_disagreement`.
    """
    return _disagreement(depth_BHW, _enlarged(lowres_Bhw.flip(-1), depth_BHW), quantity)


def photometric_view(image_BCHW: torch.Tensor) -> torch.Tensor:
    """The images with their colours shifted a little and mild noise, the same on every image; of the same shape."""
    gain_C11 = image_BCHW.new_tensor(PHOTOMETRIC_GAIN).view(3, 1, 1)
    noise_CHW = _noise(tuple(image_BCHW.shape[1:])).to(image_BCHW.device)
    return image_BCHW * gain_C11 + PHOTOMETRIC_SHIFT + PHOTOMETRIC_NOISE * noise_CHW


@functools.lru_cache(maxsize=8)
def _noise(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def photometric_disagreement(depth_BHW: torch.Tensor, other_BHW: torch.Tensor, quantity: Quantity) -> torch.Tensor:
    """How far the prediction on :func:`photometric_view` lies from the label. Arguments as in
    :func:`flip_disagreement`, but for the mirror."""
    check_maps(depth_BHW=depth_BHW, other_BHW=other_BHW)
    return _disagreement(depth_BHW, other_BHW, quantity)


def teachers_disagreement(
    depth_BHW: torch.Tensor, other_Bhw: torch.Tensor, quantity: Quantity, other_quantity: Quantity
) -> torch.Tensor:
    """How far a second teacher's prediction, at any resolution, lies from the label (Depth Anything V2, issue 83).

    Metres of the second are inverted where labels are disparity. Raises :class:`UsageError` for labels in metres and a
    second teacher without: it cannot judge them, and for a number of maps that differs.
    """
    if quantity == "depth" and other_quantity != "depth":
        raise UsageError("a second teacher that gives disparity cannot judge labels in metres; name a metric one")
    other_BHW = _enlarged(other_Bhw, depth_BHW)
    if quantity == "disparity" and other_quantity == "depth":
        other_BHW = torch.where(other_BHW > 0, 1 / other_BHW, torch.nan)
    return _disagreement(depth_BHW, other_BHW, quantity)


def native_disagreement(
    depth_BHW: torch.Tensor, confidence_BHW: torch.Tensor, better: Literal["higher", "lower"]
) -> torch.Tensor:
    """What a model says of its own error, turned the right way: ``better`` tells which end of it means a good pixel.

    ``higher``: confidence of 0 and more, as Depth Anything 3 gives (above 1). ``lower``: an uncertainty of 0 and more,
    as UniDepth V2 gives. A bool or 0/1 mask, as MoGe gives, is ``higher``: 0 becomes infinitely wrong. Returned in
    the label's unit, the label's magnitude times ``1 / confidence``, or times the uncertainty.

    Raises:
        UsageError: shapes that differ, or a direction that is neither.
    """
    check_maps(depth_BHW=depth_BHW, confidence_BHW=confidence_BHW)
    if better not in ("higher", "lower"):
        raise UsageError(f"better must be 'higher' or 'lower', not {better!r}")
    confidence_BHW = confidence_BHW.float()
    doubt_BHW = 1 / confidence_BHW if better == "higher" else confidence_BHW
    return torch.where(doubt_BHW >= 0, doubt_BHW * depth_BHW.float().abs(), torch.nan)


def edges_disagreement(depth_BHW: torch.Tensor) -> torch.Tensor:
    """How much depth there is to be confused with nearby: teachers bleed over depth discontinuities.

    The mean, over :data:`EDGE_REACHES`, of the range of the label within so many pixels: large at a discontinuity and
    falling off with the distance to it, as far as the farthest reach. It needs no further prediction.
    """
    check_maps(depth_BHW=depth_BHW)
    high_BHW, minus_low_BHW = depth_BHW.float(), -depth_BHW.float()
    total_BHW, reached = torch.zeros_like(high_BHW), 0
    for reach in EDGE_REACHES:
        high_BHW, minus_low_BHW = _grown(high_BHW, reach - reached), _grown(minus_low_BHW, reach - reached)
        total_BHW += high_BHW + minus_low_BHW
        reached = reach
    return total_BHW / len(EDGE_REACHES)


def _grown(maps_BHW: torch.Tensor, by: int) -> torch.Tensor:
    """The largest of each pixel and those ``by`` away in rows, and then in columns. Where pixels hold the largest value
    within a square that reaches at least ``by / 2``, it then reaches ``by`` farther."""
    for axis in (1, 2):
        size = maps_BHW.shape[axis] - by
        if size > 0:
            near, far = maps_BHW.narrow(axis, 0, size), maps_BHW.narrow(axis, by, size)
            grown_BHW = maps_BHW.clone()
            grown_BHW.narrow(axis, 0, size).copy_(torch.maximum(near, far))
            upper = grown_BHW.narrow(axis, by, size)
            upper.copy_(torch.maximum(upper, near))
            maps_BHW = grown_BHW
        else:
            maps_BHW = maps_BHW.amax(axis, keepdim=True).expand_as(maps_BHW)
    return maps_BHW


def _enlarged(maps_Bhw: torch.Tensor, like_BHW: torch.Tensor) -> torch.Tensor:
    """Bilinear, to the label's size; as it is where it has that."""
    check_maps(depth_BHW=like_BHW)
    check_maps(maps_Bhw=maps_Bhw)
    if len(like_BHW) != len(maps_Bhw):
        raise UsageError(f"{len(like_BHW)} labels and {len(maps_Bhw)} predictions to compare them with")
    if maps_Bhw.shape == like_BHW.shape:
        return maps_Bhw.float()
    return interpolate(maps_Bhw.float()[:, None], size=like_BHW.shape[1:], mode="bilinear")[:, 0]


def _disagreement(depth_BHW: torch.Tensor, other_BHW: torch.Tensor, quantity: Quantity) -> torch.Tensor:
    if quantity not in ("disparity", "depth"):
        raise UsageError(f"quantity must be 'disparity' or 'depth', not {quantity!r}")
    delta_BHW = torch.empty(depth_BHW.shape, dtype=torch.float32, device=depth_BHW.device)
    for b in range(len(depth_BHW)):  # one image at a time stays in the cache
        depth_1HW, other_1HW = depth_BHW[b : b + 1].float(), other_BHW[b : b + 1].float()
        if quantity == "disparity":
            other_1HW = apply_scale_shift(other_1HW, *align_robust(other_1HW, depth_1HW))
        delta_BHW[b] = (other_1HW - depth_1HW)[0].abs()
    return delta_BHW
