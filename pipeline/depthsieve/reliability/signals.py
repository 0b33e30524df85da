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
        ``|flipped - depth|`` float32 [B,H,W], in the label's unit; not finite where a prediction is not.

    Raises:
        UsageError: shapes that differ, or an unknown quantity.
    """
    check_maps(depth_BHW=depth_BHW, flipped_BHW=flipped_BHW)
    if quantity not in ("disparity", "depth"):
        raise UsageError(f"quantity must be 'disparity' or 'depth', not {quantity!r}")
    delta_BHW = torch.empty(depth_BHW.shape, dtype=torch.float32, device=depth_BHW.device)
    for b in range(len(depth_BHW)):  # one image at a time stays in the cache
        depth_1HW, upright_1HW = depth_BHW[b : b + 1].float(), flipped_BHW[b : b + 1].float().flip(-1)
        if quantity == "disparity":
            upright_1HW = apply_scale_shift(upright_1HW, *align_scale_shift(upright_1HW, depth_1HW))
        delta_BHW[b] = (upright_1HW - depth_1HW)[0].abs()
    return delta_BHW
