"""The two losses that Depth Anything trains with: scale-and-shift-invariant, and gradient matching.

Predictions and labels are disparity (inverse depth up to scale and shift), [B,H,W].

Axes: B image of a batch, C channel, H row, W column.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from depthsieve.core.errors import UsageError
from depthsieve.training.losses.masked import at_least_float32, fitting_mask, masked_mean

SPREAD_FLOOR = 1e-6
"""A map whose mean absolute deviation is below this is divided by this instead: a constant map stays 0."""

Reduction = Literal["mean", "none"]


class ScaleShiftInvariantLoss(nn.Module):
    """Mean absolute error between prediction and label, each brought to median 0 and mean absolute deviation 1.

    ``|p^ - y^|`` with ``d^ = (d - median(d)) / mean(|d - median(d)|)`` for each map: the affine-invariant loss of Depth
    Anything (Yang et al., CVPR 2024, section 3.1) and Ranftl et al. (MiDaS, TPAMI 2020). Medians and means are those
    of the valid pixels alone.

    Args:
        reduction: ``mean`` over the valid pixels of the batch, or ``none`` for the map, to be trimmed for instance.
    """

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = _checked(reduction)

    def forward(
        self, prediction_BHW: torch.Tensor, label_BHW: torch.Tensor, valid_BHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss, float32 (float64 for float64 maps): a scalar, or [B,H,W] with 0 at invalid pixels.

        Raises:
            UsageError: maps of different shapes, or not [B,H,W].
        """
        valid_BHW = _fitting_maps(prediction_BHW, label_BHW, valid_BHW)
        loss_BHW = _normalised_residual(prediction_BHW, label_BHW, valid_BHW).abs()
        return loss_BHW if self.reduction == "none" else masked_mean(loss_BHW, valid_BHW)


class GradientMatchingLoss(nn.Module):
    """Absolute differences between neighbours of ``R = p^ - y^``, at several scales: edges where the label has them.

    The multi-scale gradient matching term of Ranftl et al. (MiDaS, TPAMI 2020), after Li and Snavely (MegaDepth, CVPR
    2018), on maps normalised as in :class:`ScaleShiftInvariantLoss`; Depth Anything V2 gives it twice that loss's
    weight. Scale ``s`` takes every ``2^s``-th pixel of every ``2^s``-th row. An image's loss is the sum over scales of
    ``sum(|dR/dx| + |dR/dy|) / (valid pixels of the scale)``; a difference counts if both of its pixels are valid.

    Args:
        scales: how many, 1 or more.
        reduction: ``mean``: images weighted by their valid pixels. ``none``: a map [B,H,W] whose mean over the valid
            pixels is that; each difference is spread evenly over the valid pixels of the ``2^s`` square that starts
            at its upper left pixel.
    """

    def __init__(self, scales: int = 4, reduction: Reduction = "mean") -> None:
        super().__init__()
        if scales < 1:
            raise UsageError(f"gradient matching needs at least 1 scale, not {scales}")
        self.scales = scales
        self.reduction = _checked(reduction)

    def forward(
        self, prediction_BHW: torch.Tensor, label_BHW: torch.Tensor, valid_BHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss, float32 (float64 for float64 maps): a scalar, or [B,H,W] with 0 at invalid pixels.

        Raises:
            UsageError: maps of different shapes, or not [B,H,W].
        """
        valid_BHW = _fitting_maps(prediction_BHW, label_BHW, valid_BHW)
        residual_BHW = _normalised_residual(prediction_BHW, label_BHW, valid_BHW)
        loss_BHW = sum(
            (_gradient_map(residual_BHW, valid_BHW, 2**scale) for scale in range(self.scales)),
            start=torch.zeros_like(residual_BHW),
        )
        return loss_BHW if self.reduction == "none" else masked_mean(loss_BHW, valid_BHW)


def _gradient_map(residual_BHW: torch.Tensor, valid_BHW: torch.Tensor, step: int) -> torch.Tensor:
    """One scale's share of the map that :class:`GradientMatchingLoss` describes."""
    residual, valid = residual_BHW[:, ::step, ::step], valid_BHW[:, ::step, ::step]
    across = residual.diff(dim=2).abs() * (valid[:, :, 1:] & valid[:, :, :-1])
    down = residual.diff(dim=1).abs() * (valid[:, 1:] & valid[:, :-1])
    change = functional.pad(across, (0, 1)) + functional.pad(down, (0, 0, 0, 1))
    # So weighted, the mean over all valid pixels is the sum of the changes over the valid pixels of the scale.
    weight = valid_BHW.sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp(min=1)
    height, width = residual_BHW.shape[1:]
    padding = (0, -width % step, 0, -height % step)
    padded_B1HW = functional.pad(valid_BHW.to(residual.dtype), padding)[:, None]  # that axis, since B may be 0
    square_count = functional.avg_pool2d(padded_B1HW, step)[:, 0] * step**2
    share = change * weight[:, None, None].to(residual.dtype) / square_count.clamp(min=1)
    spread = share.repeat_interleave(step, dim=1).repeat_interleave(step, dim=2)[:, :height, :width]
    return spread * valid_BHW


def _normalised_residual(prediction: torch.Tensor, label: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """``p^ - y^``, 0 at invalid pixels."""
    residual = _normalise(prediction, valid) - _normalise(label, valid)
    return torch.where(valid, residual, 0.0)


def _normalise(map_BHW: torch.Tensor, valid_BHW: torch.Tensor) -> torch.Tensor:
    """Each map less its median, over its mean absolute deviation, both of its valid pixels; 0 elsewhere."""
    map_BHW = at_least_float32(map_BHW)
    # One image at a time: the full reduction gives no indices, so it also runs under deterministic algorithms on CUDA,
    # and it shares the gradient among equal values.
    medians = [torch.nanmedian(known_HW) for known_HW in torch.where(valid_BHW, map_BHW, torch.nan)]
    median_B = torch.stack(medians) if medians else map_BHW.new_zeros(0)
    centred_BHW = torch.where(valid_BHW, map_BHW - median_B[:, None, None], 0.0)
    count_B = valid_BHW.sum(dim=(1, 2)).clamp(min=1)
    # Divided before they are summed: the sum itself may leave the range of float32 where the mean does not.
    spread_B = (centred_BHW.abs() / count_B[:, None, None]).sum(dim=(1, 2)).clamp(min=SPREAD_FLOOR)
    return centred_BHW / spread_B[:, None, None]


def _fitting_maps(prediction: torch.Tensor, label: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """The mask in the shape of the maps, which must be [B,H,W] and equal in shape."""
    if prediction.dim() != 3 or prediction.shape != label.shape:
        raise UsageError(
            f"prediction and label must both be [B,H,W], not {list(prediction.shape)} and {list(label.shape)}"
        )
    return fitting_mask(prediction, valid)


def _checked(reduction: Reduction) -> Reduction:
    if reduction not in ("mean", "none"):
        raise UsageError(f"reduction must be 'mean' or 'none', not {reduction!r}")
    return reduction
