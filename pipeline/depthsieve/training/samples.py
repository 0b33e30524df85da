"""Samples and batches: what they hold, the key of a sample, and the tensors that it is read into.

Axes: B image of a batch, C channel (red, green, blue), H row, W column.
"""

from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np
import torch

from depthsieve.core.records import Shape


class Sample(TypedDict):
    """One image with its label, as a dict. All maps are upright, at label shape, and cut by the same window.

    ``image``: float32 [3,H,W], RGB, 0..1; not there where the dataset has no images. ``depth``: float32 [H,W] in the
    dataset's ``quantity``: disparity up to scale and shift (larger is nearer), or metres. ``reliability``: uint8 [H,W];
    0 = invalid, never train on it; 1..255 = larger is better. ``mask``: bool [H,W], True = train. ``id``: text.
    """

    image: NotRequired[torch.Tensor]
    depth: torch.Tensor
    reliability: torch.Tensor
    mask: torch.Tensor
    id: str


class Batch(TypedDict):
    """Samples of one shape, as a dict: the keys of :class:`Sample`, its tensors with a leading axis B. ``image`` is
    [B,3,H,W], the maps are [B,H,W], and ``id`` is a list of B texts."""

    image: NotRequired[torch.Tensor]
    depth: torch.Tensor
    reliability: torch.Tensor
    mask: torch.Tensor
    id: list[str]


THRESHOLD = "threshold"
"""What a compact sample has in place of ``mask``: the code that reliability must reach, as uint8."""


@dataclass(frozen=True, slots=True)
class SampleKey:
    """One sample of one epoch: the image's number in the order of ids, and the mask's threshold code (train where
    reliability is at least that). ``compact``: as it is stored, image uint8, depth float16, and no mask but its
    threshold, for :func:`~depthsieve.training.expand.expand`."""

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
    """Pixel counts of one or several samples: those that are not invalid, and those of them that are trained on."""

    valid: int = 0
    kept: int = 0

    def __add__(self, other: "Pixels") -> "Pixels":
        return Pixels(self.valid + other.valid, self.kept + other.kept)

    @property
    def masked_share(self) -> float:
        """The fraction of the valid pixels that is masked; 0 if there are none."""
        return (self.valid - self.kept) / self.valid if self.valid else 0.0


_READY = {"image": torch.float32, "depth": torch.float32, "reliability": torch.uint8, "mask": torch.bool}
_COMPACT = {"image": torch.uint8, "depth": torch.float16, "reliability": torch.uint8}
_NUMPY = {torch.float32: np.float32, torch.float16: np.float16, torch.uint8: np.uint8, torch.bool: np.bool_}


def empty_maps(
    shape: Shape, with_image: bool, compact: bool, count: int | None = None, pinned: bool = False
) -> dict[str, torch.Tensor]:
    """Uninitialised tensors for the maps of one sample, or of a batch of ``count``, by their keys."""
    lead = () if count is None else (count,)
    types = _COMPACT if compact else _READY
    shapes = {name: (*lead, 3, *shape) if name == "image" else (*lead, *shape) for name in types}
    return {name: _empty(shapes[name], dtype, pinned) for name, dtype in types.items() if with_image or name != "image"}


def _empty(shape: tuple[int, ...], dtype: torch.dtype, pinned: bool) -> torch.Tensor:
    """numpy's memory where it need not be pinned: numpy asks for huge pages and torch does not, and page faults would
    take half of the time in which a large batch is filled."""
    if pinned:
        return torch.empty(shape, dtype=dtype, pin_memory=True)
    return torch.from_numpy(np.empty(shape, _NUMPY[dtype]))
