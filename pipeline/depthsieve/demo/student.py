"""A small student and its training on pseudo-labels: the shortest real use of the loader and the losses.

The demo trains it for a minute to show the whole pipeline; for real work use your own model. Axes: B image of
a batch, C channel, H row, W column.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from depthsieve.core.errors import UsageError
from depthsieve.training import PseudoLabelDataset
from depthsieve.training.losses import SPREAD_FLOOR, GradientMatchingLoss, TrimmedLoss

WIDTHS = (48, 64, 96, 128)
"""Channels at 1/4, 1/8, 1/16 and 1/32 of the image's size."""

RATE = 3e-3
"""The highest learning rate: it rises to this over the first tenth of the steps, and then falls to almost nothing."""

EDGE_WEIGHT = 0.5
"""Weight of gradient matching beside the L1 loss."""


class Student(nn.Module):
    """A U-net of a million parameters: RGB 0..1 [B,C,H,W] to disparity [B,H,W] of the same size, up to scale and shift.
    Two more inputs are the position of each pixel: that the ground is near is the first thing to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(5, WIDTHS[0], 7, stride=4, padding=3)
        self.down = nn.ModuleList(_block(i, o, stride=2) for i, o in pairwise(WIDTHS))
        self.up = nn.ModuleList(_block(i + o, o) for i, o in pairwise(WIDTHS[::-1]))
        self.head = nn.Conv2d(WIDTHS[0], 1, 3, padding=1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        x = self.stem(torch.cat([image_BCHW - 0.5, _positions(image_BCHW)], dim=1))
        skips: list[Tensor] = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([_resized(x, skip), skip], dim=1))
        return _resized(self.head(x).float(), image_BCHW)[:, 0]  # bfloat16, under autocast, would show in the map


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, step in ((before, stride), (after, 1)):
        layers += [nn.Conv2d(channels, after, 3, step, padding=1, bias=False), nn.GroupNorm(8, after), nn.SiLU()]
    return nn.Sequential(*layers)


def _positions(image_BCHW: Tensor) -> Tensor:
    """Two channels: row and column of each pixel's centre, -1..1."""
    count, _, height, width = image_BCHW.shape
    rows, columns = ((torch.arange(side) + 0.5) * 2 / side - 1 for side in (height, width))
    grid_CHW = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(image_BCHW)
    return grid_CHW.expand(count, -1, -1, -1)


def _resized(maps_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    return functional.interpolate(maps_BCHW, like_BCHW.shape[-2:], mode="bilinear")


@dataclass(frozen=True)
class Training:
    """A trained student and the loss of every step."""

    student: Student
    losses: tuple[float, ...]


def train_student(
    dataset: PseudoLabelDataset,
    steps: int,
    batch: int = 8,
    drop: float = 0.10,
    advance: Callable[[float], Any] | None = None,
) -> Training:
    """Train a new student on the CPU. The dataset's mask leaves out doubtful labels, the trim the largest losses.

    Args:
        dataset: with images; its seed also decides the student's first weights.
        steps: optimiser steps, 1 or more.
        batch: images a step.
        drop: share of the valid losses of each image that the trim leaves out.
        advance: called after every step with its loss.

    Raises:
        UsageError: ``steps`` below 1. LoaderError: see :class:`PseudoLabelDataset`.
    """
    passes = chain.from_iterable(repeat(dataset.loader(batch)))
    batches = ({**one, "depth": as_disparity(one["depth"], dataset.quantity)} for one in passes)
    return train_on(batches, steps, seed=dataset.seed, drop=drop, advance=advance)


def train_on(
    batches: Iterable[Mapping[str, Any]],
    steps: int,
    *,
    seed: int,
    drop: float = 0.10,
    advance: Callable[[float], Any] | None = None,
) -> Training:
    """:func:`train_student` on batches from anywhere, with the keys ``image``, ``depth`` (disparity) and ``mask``.

    The loss is L1 to the normalised label plus gradient matching. ``ScaleShiftInvariantLoss``, which normalises the
    prediction too, is for a student that starts from pretrained weights: this one, whose first predictions are flat,
    had learnt nothing with it after 200 steps.

    Args:
        batches: as many as there are steps, or more; the rest is not taken.
        steps, drop, advance: see :func:`train_student`.
        seed: decides the student's first weights.

    Raises:
        UsageError: ``steps`` below 1, or fewer batches than steps.
    """
    if steps < 1:
        raise UsageError(f"training needs at least 1 step, not {steps}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student()
    optimizer = torch.optim.AdamW(student.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.1)
    edge_loss, trim = GradientMatchingLoss(reduction="none"), TrimmedLoss(drop)
    losses: list[float] = []
    for _, one in zip(range(steps), batches, strict=False):
        label_BHW, mask_BHW = one["depth"], one["mask"]
        prediction_BHW = student(one["image"])
        loss_BHW = (prediction_BHW - normalised(label_BHW, mask_BHW)).abs()
        loss_BHW = loss_BHW + EDGE_WEIGHT * edge_loss(prediction_BHW, label_BHW, mask_BHW)
        loss = trim(loss_BHW, mask_BHW)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if advance is not None:
            advance(losses[-1])
    if len(losses) < steps:
        raise UsageError(f"training of {steps} steps got {len(losses)} batches")
    return Training(student.eval(), tuple(losses))


def as_disparity(depth_BHW: Tensor, quantity: str) -> Tensor:
    """Labels as disparity: metres are inverted; 0 stays 0."""
    if quantity == "disparity":
        return depth_BHW
    return torch.where(depth_BHW > 0, 1 / depth_BHW.clamp(min=1e-3), 0.0)


def normalised(label_BHW: Tensor, mask_BHW: Tensor) -> Tensor:
    """Each label less its median, over its mean absolute deviation, both of the pixels that count; 0 elsewhere."""
    known_BHW = torch.where(mask_BHW, label_BHW, torch.nan)
    median_B11 = torch.stack([torch.nanmedian(known_HW) for known_HW in known_BHW])[:, None, None]
    centred_BHW = torch.where(mask_BHW, label_BHW - median_B11, 0.0)
    count_B11 = mask_BHW.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    spread_B11 = centred_BHW.abs().sum(dim=(1, 2), keepdim=True) / count_B11
    return centred_BHW / spread_B11.clamp(min=SPREAD_FLOOR)
