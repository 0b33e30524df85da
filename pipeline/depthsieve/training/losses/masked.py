"""What the losses share: masks that fit, and sums in enough precision."""

import torch

from depthsieve.core.errors import UsageError


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """float64 as it is, all else as float32, which holds every float16 and bfloat16 exactly."""
    return values if values.dtype == torch.float64 else values.float()


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean where ``mask``; 0 if that is nowhere. What stands elsewhere, NaN too, has no part in the gradient."""
    total = torch.where(mask, at_least_float32(values), 0.0).sum()
    return total / mask.sum().clamp(min=1)


def count_dtype(length: int) -> torch.dtype:
    """What ``length`` things are counted in: on a CPU, counting in int32 takes a quarter of the time of int64."""
    return torch.int32 if length < 2**31 else torch.int64


def counts(mask_RN: torch.Tensor) -> torch.Tensor:
    """How many of each row are True: int64 [R]."""
    return mask_RN.sum(dim=1, dtype=count_dtype(mask_RN.shape[1])).long()


def fitting_mask(values: torch.Tensor, mask: torch.Tensor | None, name: str = "a valid mask") -> torch.Tensor:
    """``mask`` as bool in the shape of ``values``; everywhere True for None."""
    if mask is None:
        return torch.ones_like(values, dtype=torch.bool)
    return fitting(values, mask, name).bool()


def fitting(values: torch.Tensor, other: torch.Tensor, name: str) -> torch.Tensor:
    """``other``, spread over its axes of size 1 to the shape of ``values``.

    Raises:
        UsageError: another number of axes, or a size that is neither 1 nor that of ``values``.
    """
    if other.dim() != values.dim() or any(o not in (1, s) for o, s in zip(other.shape, values.shape, strict=True)):
        raise UsageError(f"{name} of shape {list(other.shape)} does not fit values of {list(values.shape)}")
    return other.expand(values.shape)
