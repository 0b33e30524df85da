"""Disagreement signals: how much a teacher's prediction moves when its input changes in a way that should not matter.

Axes: B image of a batch, H row, W column.
"""

import torch

from depthsieve.alignment import align_scale_shift, apply_scale_shift, check_maps
from depthsieve.errors import UsageError
from depthsieve.records import Quantity


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
        ``|flipped - depth|`` float32 [B,H,W], in the label's unit; NaN where either prediction is not finite.

    Raises:
        UsageError: shapes that differ, or an unknown quantity.
    """
    check_maps(depth_BHW=depth_BHW, flipped_BHW=flipped_BHW)
    depth_BHW = depth_BHW.float()
    upright_BHW = flipped_BHW.float().flip(-1)
    if quantity == "disparity":
        upright_BHW = apply_scale_shift(upright_BHW, *align_scale_shift(upright_BHW, depth_BHW))
    elif quantity != "depth":
        raise UsageError(f"quantity must be 'disparity' or 'depth', not {quantity!r}")
    delta_BHW = (upright_BHW - depth_BHW).abs()
    return torch.where(torch.isfinite(delta_BHW), delta_BHW, torch.nan)
