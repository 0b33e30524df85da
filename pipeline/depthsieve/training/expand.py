"""Batches shipped as they are stored and expanded on the device that trains: a third of the bytes to transfer."""

from collections.abc import Mapping
from typing import Any

import torch

from depthsieve.core.errors import UsageError
from depthsieve.training.samples import THRESHOLD


def expand(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A compact batch (image uint8, depth float16, reliability uint8, thresholds) as a
    :class:`~depthsieve.training.samples.Batch` on ``device``, equal to the bit to what the CPU makes of the same
    samples."""
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items() if name != "id"}
    if "image" in moved:
        # By a tensor on the device: CUDA would multiply by the reciprocal of a plain number, which rounds differently.
        moved["image"] = moved["image"] / torch.full((), 255.0, dtype=torch.float32, device=device)
    moved["depth"] = moved["depth"].to(torch.float32)
    moved["mask"] = moved["reliability"] >= moved.pop(THRESHOLD)[:, None, None]
    return {**moved, "id": batch["id"]}


def check_device(device: torch.device | str | int) -> torch.device:
    """``device`` as torch has it. Raises :class:`UsageError` where this torch cannot use it."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError) as error:  # AssertionError: a torch without CUDA
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device must be one that torch can use here, such as 'cpu' or 'cuda': {reason}") from error
    return found
