"""Disagreement signals: how much a teacher's prediction moves when its input changes in a way that should not matter.

Axes: B image of a batch, H row, W column; h and w those of a smaller view.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import interpolate

from depthsieve.alignment import align_scale_shift, apply_scale_shift, check_maps
from depthsieve.errors import UsageError
from depthsieve.records import Quantity, Shape


def flip_disagreement(depth_BHW: torch.Tensor, flipped_BHW: torch.Tensor, quantity: Quantity) -> torch.Tensor:
    """How far the prediction on the mirrored image lies from the label, pixel by pixel.

    The signal that Depth Anything V2's author names (issue 83 of its repository) and that Poggi et al., "On the
    Uncertainty of Self-Supervised Monocular Depth Estimation" (CVPR 2020), call Post.

    Args:
        depth_BHW: the labels.
        flipped_BHW: predictions on the left-right mirrored images, still mirrored.
        quantity: ``disparity`` is aligned to the label by scale and shift first, since a relative teacher fixes
            neither; ``depth`` is in metres and compared as it is.

    Returns:
        ``|flipped - depth|`` float32 [B,H,W], in the label's unit; not finite where a prediction is not.

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
    """How far the prediction on :func:`lowres_view` lies from the label, pixel by pixel.

    Args:
        depth_BHW: the labels.
        lowres_Bhw: predictions on the small, mirrored images, at their size and still mirrored.
        quantity: as in :func:`flip_disagreement`.

    Returns:
        ``|lowres - depth|`` float32 [B,H,W] after bilinear enlargement, in the label's unit; not finite near where a
        prediction is not. Depth at edges is blurred by the enlargement, so edges count as disagreement.

    Raises:
        UsageError: maps that are not [B,H,W], another number of them, or an unknown quantity.
    """
    check_maps(depth_BHW=depth_BHW)
    check_maps(lowres_Bhw=lowres_Bhw)
    if len(depth_BHW) != len(lowres_Bhw):
        raise UsageError(f"{len(depth_BHW)} labels and {len(lowres_Bhw)} predictions at low resolution")
    large_B1HW = interpolate(lowres_Bhw.float().flip(-1)[:, None], size=depth_BHW.shape[1:], mode="bilinear")
    return _disagreement(depth_BHW, large_B1HW[:, 0], quantity)


def mean_disagreement(deltas_BHW: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the disagreements of several signals, float32 [B,H,W]; not finite where one is not."""
    return sum(deltas_BHW[1:], start=deltas_BHW[0]) / len(deltas_BHW)


def _disagreement(depth_BHW: torch.Tensor, other_BHW: torch.Tensor, quantity: Quantity) -> torch.Tensor:
    if quantity not in ("disparity", "depth"):
        raise UsageError(f"quantity must be 'disparity' or 'depth', not {quantity!r}")
    delta_BHW = torch.empty(depth_BHW.shape, dtype=torch.float32, device=depth_BHW.device)
    for b in range(len(depth_BHW)):  # one image at a time stays in the cache
        depth_1HW, other_1HW = depth_BHW[b : b + 1].float(), other_BHW[b : b + 1].float()
        if quantity == "disparity":
            other_1HW = apply_scale_shift(other_1HW, *align_scale_shift(other_1HW, depth_1HW))
        delta_BHW[b] = (other_1HW - depth_1HW)[0].abs()
    return delta_BHW
