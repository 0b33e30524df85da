"""Labels, signals and true errors on rendered scenes, for the scripts that fit and judge reliability.

Array legend: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.core.records import Quantity, Shape
from depthsieve.evaluation.metrics import pixel_errors, predicted_depth, truth_mask
from depthsieve.labelling.batch import predict_labels
from depthsieve.reliability import relative_error
from depthsieve.reliability.alignment import align_scale_shift, apply_scale_shift
from depthsieve.scenes import render_scene
from depthsieve.teachers import Teacher

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


def observe_scenes(
    teacher: Teacher, signals: tuple[str, ...], seeds: Iterable[int], family: str, shape: Shape, quantity: Quantity
) -> Iterator[Observed]:
    """Label rendered scenes, one after another. For ``quantity`` "depth" a teacher of disparity is turned into a metric
    one that knows each scene's scale and shift."""
    for seed in seeds:
        scene = render_scene(seed, *shape, family=family)
        observed = observe(teacher, signals, scene.rgb_HW3, scene.depth_HW, quantity)
        if observed.mask_HW.sum() >= FEWEST:
            yield observed


@torch.inference_mode()
def observe(
    teacher: Teacher,
    signals: tuple[str, ...],
    rgb_HW3: NDArray[np.uint8],
    truth_HW: NDArray[np.float32],
    quantity: Quantity,
) -> Observed:
    """Label one image of the label's own shape, and compare with its depth in metres."""
    shape = (rgb_HW3.shape[0], rgb_HW3.shape[1])
    image_1CHW = torch.from_numpy(teacher.prepare(rgb_HW3, shape))[None]
    mask_HW = truth_mask(truth_HW, None, RANGE)
    if quantity != teacher.quantity:
        teacher = Metric(teacher, image_1CHW, truth_HW, mask_HW)
    second_1Chw = image_1CHW
    if teacher.second is not None:
        second_1Chw = torch.from_numpy(teacher.second.prepare(rgb_HW3, teacher.second.label_shape(*shape)))[None]
    depth_1HW, relative = predict_labels(image_1CHW, second_1Chw, teacher, signals)
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
        self._fit = align_scale_shift(inner.predict(image_1CHW), wanted_1HW, counted_1HW)
        self.second = Metric(inner.second, image_1CHW, truth_HW, mask_HW) if inner.second else None

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def predict(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return 1 / apply_scale_shift(self.inner.predict(image_BCHW), *self._fit).clamp(min=1 / RANGE[1])
