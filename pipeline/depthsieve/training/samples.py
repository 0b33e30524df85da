"""A sample: its key, and the tensors that it is read into. Axes: H row, W column, C channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from depthsieve.core.records import Shape

Sample = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleKey:
    """One sample of one epoch: the image's number in id order, and the mask's threshold code (train where reliability
    is at least that). ``compact``: wanted as it is stored, without the mask (see :mod:`depthsieve.training.expand`)."""

    index: int
    epoch: int
    threshold: int
    compact: bool = False

    @property
    def code(self) -> int:
        """The threshold, 1..255: a pixel of code 0 is never trained on."""
        return max(self.threshold, 1)


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixels of a sample, or of several: those that are not invalid, and those of them that are trained on."""

    valid: int = 0
    kept: int = 0

    def __add__(self, other: "Pixels") -> "Pixels":
        return Pixels(self.valid + other.valid, self.kept + other.kept)

    @property
    def masked_share(self) -> float:
        """The fraction of the valid pixels that is masked; 0 if there are none."""
        return (self.valid - self.kept) / self.valid if self.valid else 0.0


_AXES = {"image": "CHW", "depth": "HW", "reliability": "HW", "mask": "HW"}
_READY = {"image": torch.float32, "depth": torch.float32, "reliability": torch.uint8, "mask": torch.bool}
_COMPACT = {"image": torch.uint8, "depth": torch.float16, "reliability": torch.uint8}
_NUMPY = {torch.float32: np.float32, torch.float16: np.float16, torch.uint8: np.uint8, torch.bool: np.bool_}


def empty_maps(
    shape: Shape, with_image: bool, compact: bool, count: int | None = None, pinned: bool = False
) -> dict[str, torch.Tensor]:
    """Tensors for the maps of one sample, or of ``count``, whose values are yet to be filled in; by their stems."""
    lead = () if count is None else (count,)
    types = _COMPACT if compact else _READY
    shapes = {name: (*lead, 3, *shape) if name == "image" else (*lead, *shape) for name in types}
    return {name: _empty(shapes[name], dtype, pinned) for name, dtype in types.items() if with_image or name != "image"}


def _empty(shape: tuple[int, ...], dtype: torch.dtype, pinned: bool) -> torch.Tensor:
    """Numpy's memory where it need not be pinned: numpy asks for huge pages and torch does not, and half of the time
    that a large batch takes to fill would go into faults of small ones."""
    if pinned:
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    return torch.from_numpy(np.empty(shape, _NUMPY[dtype]))


def with_axes(maps: Mapping[str, torch.Tensor], lead: str = "") -> dict[str, torch.Tensor]:
    """Maps by their stems and axes: ``depth`` becomes ``depth_HW``, or ``depth_BHW`` where ``lead`` is B."""
    return {f"{name}_{lead}{_AXES[name]}": value for name, value in maps.items()}
