"""What the error network learns from, and is judged on: a photo, the teacher's label of it, and its true errors.

Axes: H row, W column; 3 red, green, blue; 2 both errors: the codes' ``|truth - label| / (d + median(d))``, and AbsRel.
A pixel that has the first and not the second is sky.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.core.cameras import Camera
from depthsieve.core.records import Quantity, Shape
from depthsieve.evaluation.metrics import (
    actual_code_errors,
    code_denominator,
    pixel_errors,
    predicted_depth,
    truth_mask,
)
from depthsieve.jobs.calibrate.cameras import scene_camera
from depthsieve.jobs.calibrate.settings import LEARNT
from depthsieve.labelling.metric import seen_intrinsics
from depthsieve.labelling.predicting import predict
from depthsieve.scenes import Scene, render_scene
from depthsieve.store.stored_images import to_label_shape
from depthsieve.teachers import Batch, Teacher

RANGE = (0.001, 80.0)
"""Metres that count in both errors: neither sky nor what lies farther away."""

ASPECTS = ((480, 640), (480, 640), (640, 480), (480, 854))
"""Height and width of the photos that scenes are taken for, one after another."""


@dataclass(frozen=True)
class Example:
    """One label. ``errors_2HW`` is float32, NaN where there is nothing to compare with; ``confidence_HW`` is what the
    teacher says of its error, if it says anything; ``camera`` is that of the photo, where the teacher takes one."""

    photo_HW3: NDArray[np.uint8]
    depth_HW: NDArray[np.float32]
    errors_2HW: NDArray[np.float32]
    confidence_HW: NDArray[np.float32] | None = None
    camera: Camera | None = None

    @property
    def pixels(self) -> int:
        """How many can be compared."""
        return int(np.isfinite(self.errors_2HW[0]).sum())


def example(
    teacher: Teacher, rgb_HW3: NDArray[np.uint8], truth_HW: NDArray[np.float32], camera: Camera | None = None
) -> Example:
    """Label a photo, and compare with its depth in metres, of any shape (0, NaN or infinite where there is none). A
    teacher that takes none does not see the ``camera``."""
    shape = teacher.label_shape(rgb_HW3.shape[0], rgb_HW3.shape[1])
    camera = None if teacher.intrinsics_in == "ignored" else camera
    with torch.inference_mode():
        label = predict(teacher, batch_of_one(teacher, rgb_HW3, shape, camera))
    depth_HW = label.depth[0].float().cpu().numpy()
    confidence_HW = None if label.confidence is None else label.confidence[0].float().cpu().numpy()
    depth_HW = depth_HW.astype(np.float16).astype(np.float32)  # as it is stored
    if truth_HW.shape != shape:
        truth_HW = cv2.resize(truth_HW, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    errors_2HW = both_errors(depth_HW, truth_HW, teacher.quantity)
    return Example(to_label_shape(rgb_HW3, shape), depth_HW, errors_2HW, confidence_HW, camera)


def batch_of_one(teacher: Teacher, rgb_HW3: NDArray[np.uint8], shape: Shape, camera: Camera | None) -> Batch:
    """A photo, with its camera where that is known, as the teacher sees it at its label ``shape``."""
    intrinsics_4 = seen_intrinsics(camera, (rgb_HW3.shape[0], rgb_HW3.shape[1]), shape)
    arrays = (teacher.prepare(rgb_HW3, shape), intrinsics_4)
    return Batch(*(torch.from_numpy(one)[None].to(teacher.device) for one in arrays))


def both_errors(
    depth_HW: NDArray[np.float32], truth_HW: NDArray[np.float32], quantity: Quantity
) -> NDArray[np.float32]:
    """float32 [2,H,W]: of each pixel the error that codes stand for, and AbsRel, as ``evaluate`` has them."""
    mask_HW = truth_mask(truth_HW, None, RANGE) & np.isfinite(depth_HW)
    if not mask_HW.any():
        return np.full((2, *depth_HW.shape), np.nan, np.float32)
    first_HW = actual_code_errors(depth_HW, truth_HW, mask_HW, code_denominator(depth_HW), quantity)
    metres_HW = predicted_depth(depth_HW, truth_HW, mask_HW, quantity, RANGE)
    second_HW = np.where(mask_HW, pixel_errors(metres_HW, truth_HW, "abs_rel"), np.nan)
    return np.stack((first_HW, second_HW)).astype(np.float32)


def family_of(number: int) -> str:
    """The family of the ``number``-th scene to learn from: of each there are photos of every shape."""
    return LEARNT[number // len(ASPECTS) % len(LEARNT)]


def scene_photo(teacher: Teacher, seed: int, family: str, number: int) -> Scene:
    """The rendered scene of a seed, taken as the ``number``-th photo at the shape at which it will be labelled."""
    return render_scene(seed, *teacher.label_shape(*ASPECTS[number % len(ASPECTS)]), family=family)


def scene_example(teacher: Teacher, seed: int, family: str, number: int) -> Example:
    """A scene of :func:`scene_photo`, with other colours, blur, noise and the traces of JPEG, by the seed, before the
    teacher sees it. Disparity has an error in the sky too."""
    scene = scene_photo(teacher, seed, family, number)
    worn_HW3 = wear(scene.rgb_HW3, np.random.default_rng(seed))
    seen = example(teacher, worn_HW3, scene.depth_HW, scene_camera(scene))
    return with_sky(seen, scene.depth_HW) if teacher.quantity == "disparity" else seen


def with_sky(seen: Example, truth_HW: NDArray[np.float32]) -> Example:
    """The example with the first error of its sky, infinitely far in ``truth_HW``, where the true disparity is 0.

    A label is right there that says 0, whatever scale and shift fit the rest best: teachers put skies at 0.
    """
    sky_HW = np.isposinf(truth_HW) & np.isfinite(seen.depth_HW)
    errors_2HW = seen.errors_2HW.copy()
    errors_2HW[0, sky_HW] = (np.abs(seen.depth_HW) / code_denominator(seen.depth_HW))[sky_HW]
    return replace(seen, errors_2HW=errors_2HW)


def wear(rgb_HW3: NDArray[np.uint8], dice: np.random.Generator) -> NDArray[np.uint8]:
    """A photo as a cheaper camera would have taken it; one in three stays as it is."""
    if dice.random() < 1 / 3:
        return rgb_HW3
    image_HW3 = rgb_HW3.astype(np.float32) / 255
    if dice.random() < 0.5:
        image_HW3 = cv2.GaussianBlur(image_HW3, (0, 0), float(dice.uniform(0.3, 1.2)))
    grey_HW1 = image_HW3.mean(axis=2, keepdims=True)
    image_HW3 = grey_HW1 + (image_HW3 - grey_HW1) * np.float32(dice.uniform(0.0, 1.4))
    image_HW3 = image_HW3 * dice.uniform(0.8, 1.2, 3).astype(np.float32)
    image_HW3 = np.clip(image_HW3, 0, 1) ** np.float32(dice.uniform(0.6, 1.6))
    image_HW3 = image_HW3 + dice.normal(0, dice.uniform(0, 0.04), image_HW3.shape).astype(np.float32)
    worn_HW3: NDArray[np.uint8] = (np.clip(image_HW3, 0, 1) * 255).round().astype(np.uint8)
    if dice.random() < 0.5:
        quality = int(dice.integers(30, 90))
        coded = cv2.imencode(".jpg", worn_HW3, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        worn_HW3 = np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED), np.uint8)
    return worn_HW3
