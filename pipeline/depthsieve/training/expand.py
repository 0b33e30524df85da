"""Batches shipped as they are stored and made ready on the device that trains: a third of the bytes on the way.

Axes: B image of a batch, C channel, H row, W column.
"""

from collections.abc import Mapping
from typing import Any

import torch

from depthsieve.core.errors import UsageError

THRESHOLD = "threshold_"
"""What a compact sample has in place of the mask: the code that reliability must reach, uint8; a batch has it as
``threshold_B``."""


def expand(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A compact batch (image uint8, depth float16, reliability uint8, thresholds) as :class:`BatchLoader` describes it,
    with all tensors on ``device``. To the bit what the CPU makes of the same sample."""
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items() if name != "id"}
    if "image_BCHW" in moved:
        # By a tensor on the device: a plain number would be turned into a multiplication by its reciprocal on CUDA,
        # which rounds in another way.
        moved["image_BCHW"] = moved["image_BCHW"] / torch.full((), 255.0, dtype=torch.float32, device=device)
    moved["depth_BHW"] = moved["depth_BHW"].to(torch.float32)
    moved["mask_BHW"] = moved["reliability_BHW"] >= moved.pop(f"{THRESHOLD}B")[:, None, None]
    return {"id": batch["id"]} | moved


def check_device(device: Any) -> torch.device:
    """The device meant. Raises :class:`UsageError` where this torch cannot use it."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError) as error:  # AssertionError: a torch without CUDA
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device must be one that torch can use here, such as 'cpu' or 'cuda': {reason}") from error
    return found
