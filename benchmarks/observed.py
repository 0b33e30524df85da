"""Labels, signals and true errors on rendered scenes, for the scripts that fit and judge reliability.

Array legend: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.core.records import Quantity, Shape
from depthsieve.evaluation.metrics import pixel_errors, predicted_depth, truth_mask
from depthsieve.labelling.batch import LabelWork, predict_labels
from depthsieve.reliability.alignment import align_scale_shift, apply_scale_shift
from depthsieve.reliability.fusion import relative_error
from depthsieve.reliability.kinds import signals_that
from depthsieve.scenes import render_scene
from depthsieve.teachers import Batch, Prediction, Teacher, load_teacher

RANGE = (0.0, 80.0)
"""Metres that count: neither sky nor what lies farther away."""

FEWEST = 100
"""Pixels that must count for a scene to be looked at."""


@dataclass(frozen=True)
class Observed:
    """One scene. ``relative`` are its signals as they are stored; ``error_HW`` is the true error in the definition of
    the reliability code, ``|truth - label| / (d + median(d))`` with the truth aligned to the label; ``abs_rel_HW`` is
    the error of depth in the field's usual sense. ``mask_HW``: where there is something to compare."""

    depth_HW: torch.Tensor
    relative: dict[str, torch.Tensor]
    mask_HW: NDArray[np.bool_]
    error_HW: NDArray[np.float64]
    abs_rel_HW: NDArray[np.float64]


def load_work(teacher: str, second: str | None) -> LabelWork:
    """Work on the CPU with every signal that these teachers can give."""
    other = load_teacher(second, device="cpu") if second else None
    work = LabelWork(load_teacher(teacher, device="cpu"), (), other)
    return replace(work, signals=signals_that(work.needs_met))


def observe_scenes(
    work: LabelWork, seeds: Iterable[int], family: str, shape: Shape, quantity: Quantity
) -> Iterator[Observed]:
    """Label rendered scenes, one after another. For ``quantity`` "depth" a teacher of disparity is turned into a metric
    one that knows each scene's scale and shift."""
    for seed in seeds:
        scene = render_scene(seed, *shape, family=family)
        observed = observe(work, scene.rgb_HW3, scene.depth_HW, quantity)
        if observed.mask_HW.sum() >= FEWEST:
            yield observed


@torch.inference_mode()
def observe(work: LabelWork, rgb_HW3: NDArray[np.uint8], truth_HW: NDArray[np.float32], quantity: Quantity) -> Observed:
    """Label one image of the label's own shape, and compare with its depth in metres."""
    shape = (rgb_HW3.shape[0], rgb_HW3.shape[1])
    image_1CHW = torch.from_numpy(work.teacher.prepare(rgb_HW3, shape))[None]
    mask_HW = truth_mask(truth_HW, None, RANGE)
    if quantity != work.teacher.quantity:
        known = (image_1CHW, truth_HW, mask_HW)
        second = None if work.second is None else Metric(work.second, *known)
        work = replace(work, teacher=Metric(work.teacher, *known), second=second)
    second_1Chw = None
    if work.second is not None:
        second_1Chw = Batch.of(torch.from_numpy(work.second.prepare(rgb_HW3, work.second.label_shape(*shape)))[None])
    prediction, relative = predict_labels(Batch.of(image_1CHW), work, second_1Chw)
    depth_1HW = prediction.depth
    depth_HW = depth_1HW[0]
    predicted_HW = predicted_depth(depth_HW.numpy(), truth_HW, mask_HW, quantity, RANGE)
    wanted_1HW = torch.from_numpy(truth_HW)[None].double()
    if quantity == "disparity":
        wanted_1HW = 1 / wanted_1HW
        wanted_1HW = apply_scale_shift(
            wanted_1HW, *align_scale_shift(wanted_1HW, depth_1HW, torch.from_numpy(mask_HW)[None])
        )
    error_HW = relative_error(depth_1HW, wanted_1HW.float() - depth_1HW)[0].double().numpy()
    abs_rel_HW = pixel_errors(predicted_HW, truth_HW, "abs_rel")
    return Observed(
        depth_HW,
        {name: map_1HW[0] for name, map_1HW in relative.items()},
        mask_HW & np.isfinite(error_HW),
        error_HW,
        abs_rel_HW,
    )


class Metric:
    """A teacher of disparity as a metric one: each prediction becomes metres by one scene's best scale and shift."""

    def __init__(
        self, inner: Teacher, image_1CHW: torch.Tensor, truth_HW: NDArray[np.float32], mask_HW: NDArray[np.bool_]
    ) -> None:
        self.inner, self.quantity = inner, "depth"
        wanted_1HW, counted_1HW = 1 / torch.from_numpy(truth_HW)[None], torch.from_numpy(mask_HW)[None]
        self._fit = align_scale_shift(inner.predict(Batch.of(image_1CHW)).depth, wanted_1HW, counted_1HW)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def predict(self, batch: Batch) -> Prediction:
        found = self.inner.predict(batch)
        metres_BHW = 1 / apply_scale_shift(found.depth, *self._fit).clamp(min=1 / RANGE[1])
        return replace(found, depth=metres_BHW)
