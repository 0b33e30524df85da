"""A metric teacher beside the one that labels: the scale and shift that bring each label to its metres.

Axes: B images of a batch, C channels, H and W the label shape, h and w the metric teacher's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from depthsieve.core.cameras import TAKEN, Camera
from depthsieve.core.errors import ImageRejected, UsageError
from depthsieve.core.records import LabelSpec, Shape, TeacherRequest
from depthsieve.labelling.predicting import (
    is_out_of_memory,
    label_shape,
    predict,
    prepare,
    release_memory,
    to_device,
)
from depthsieve.reliability.metric import METHOD, NO_FIT, fit_metres
from depthsieve.storage import Root
from depthsieve.store.layer_kinds import METRIC, METRIC_COLUMNS, LayerSpec
from depthsieve.store.layers import find_layer
from depthsieve.teachers import Batch, Teacher


def check_metric(teacher: Teacher, metric: Teacher) -> None:
    """Raise :class:`UsageError` for a pair of teachers that makes no metres of relative labels."""
    if teacher.quantity == "depth":
        raise UsageError(
            f"--metric-from is for relative labels, and teacher {teacher.name!r} predicts metres already; leave it out"
        )
    if metric.quantity != "depth":
        raise UsageError(
            f"--metric-from needs a teacher that predicts metres, and {metric.name!r} predicts disparity; "
            "`depthsieve teachers` lists those that do"
        )


def metric_spec(root: Root | None, spec: LabelSpec, request: TeacherRequest, metric: Teacher) -> LayerSpec:
    """What the layer of scales and shifts says of itself; where the store at ``root`` has one that was made by the same
    weights in the same way, what that says, whatever the teacher's folder was called then."""
    body = {name: value for name, value in request.to_json().items() if name not in ("device", "second")}
    detail = {
        "method": METHOD,
        "columns": list(METRIC_COLUMNS),
        "teacher": body | {"dtype": metric.dtype},
        "weights_digest": metric.weights_digest,
        "preprocessing": {**metric.preprocessing, **cameras_taken(metric)},
    }
    found = find_layer(root, METRIC, spec.fingerprint) if root is not None else None
    if found is not None and _made_alike(found.spec.detail or {}, detail):
        return found.spec
    return LayerSpec(METRIC, METRIC, spec.fingerprint, (), detail)


def cameras_taken(teacher: Teacher) -> dict[str, str]:
    """What the preprocessing of a teacher that takes cameras has besides: which it gets."""
    return {} if teacher.intrinsics_in == "ignored" else {"cameras": TAKEN}


def lacks_camera(teacher: Teacher, of: str = "this image") -> str:
    """Why a teacher that needs cameras cannot label an image, or what ``of`` says, whose camera is not known."""
    remedy = "say --focal-length, --fov or --cameras"
    return f"teacher {teacher.name!r} needs a focal length, and none is known of {of}: {remedy}"


def _made_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    alike = all(one.get(name) == other[name] for name in ("method", "weights_digest", "preprocessing"))
    return alike and one["teacher"].get("dtype") == other["teacher"]["dtype"]


def metric_request(detail: Mapping[str, Any]) -> TeacherRequest:
    """The metric teacher that a layer was made with."""
    return TeacherRequest.from_json({**detail["teacher"], "device": "auto"})


def prepare_other(rgb_HW3: NDArray[np.uint8], shape: Shape, other: Teacher) -> NDArray[np.float32]:
    """The input of a teacher that does not label, made of the image at label shape: so a shard's images have one shape
    there too. Raises :class:`ImageRejected` where that is too small or too large for it."""
    smaller = shape[0] * shape[1] < rgb_HW3.shape[0] * rgb_HW3.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return prepare(other, cv2.resize(rgb_HW3, shape[::-1], interpolation=how), label_shape(other, *shape))


@dataclass(frozen=True)
class MetricInput:
    """An image ready for the metric teacher, with the intrinsics of its camera there, NaN where they are unknown."""

    image_Chw: NDArray[np.float32]
    intrinsics_4: NDArray[np.float32]


def seen_intrinsics(camera: Camera | None, source: Shape, shape: Shape) -> NDArray[np.float32]:
    """fx, fy, cx, cy of a camera at a teacher's input of ``shape``, for an upright image of ``source`` (height, width);
    NaN where it is not known."""
    if camera is None:
        return np.full(4, np.nan, np.float32)
    across, down = shape[1] / source[1], shape[0] / source[0]
    return np.array(camera.scaled(across, down).intrinsics, np.float32)


def prepare_metric(
    rgb_HW3: NDArray[np.uint8], shape: Shape, metric: Teacher, camera: Camera | None
) -> MetricInput | None:
    """The input of the metric teacher for an upright image, whose camera is that of its own resolution; None for an
    image that is too small or too large for it, or whose focal length it needs and nobody knows."""
    try:
        image_Chw = prepare_other(rgb_HW3, shape, metric)
    except ImageRejected:
        return None
    if metric.intrinsics_in == "needed" and camera is None:
        return None
    source, there = (rgb_HW3.shape[0], rgb_HW3.shape[1]), (image_Chw.shape[1], image_Chw.shape[2])
    return MetricInput(image_Chw, seen_intrinsics(camera, source, there))


def fit_batch(
    disparity_BHW: NDArray[Any],
    reliability_BHW: NDArray[np.uint8],
    inputs_B: Sequence[MetricInput | None],
    metric: Teacher,
    most: int,
) -> NDArray[np.float64]:
    """Float64 [B,5]: the :class:`MetricFit` of each label of a batch, as it is stored; all NaN where there is no input.

    ``most`` images go through the teacher at once, those without input as black ones, so that no fit depends on what
    else failed; in halves, quarters, ... where that does not fit into memory. Metres are brought to label shape
    bilinearly. Raises what torch raises when one image alone does not fit."""
    fit_BN = np.array([NO_FIT] * len(inputs_B), np.float64)
    known = [one for one in inputs_B if one is not None]
    if not known:
        return fit_BN
    image_BChw = np.zeros((len(inputs_B), *known[0].image_Chw.shape), np.float32)
    intrinsics_B4 = np.full((len(inputs_B), 4), np.nan, np.float32)
    for place, one in enumerate(inputs_B):
        if one is not None:
            image_BChw[place] = one.image_Chw
            intrinsics_B4[place] = one.intrinsics_4
    metres_BHW = _metres(image_BChw, intrinsics_B4, metric, (disparity_BHW.shape[1], disparity_BHW.shape[2]), most)
    for place, one in enumerate(inputs_B):
        if one is not None:
            fit_BN[place] = fit_metres(disparity_BHW[place], reliability_BHW[place], metres_BHW[place])
    return fit_BN


def _metres(
    image_BChw: NDArray[np.float32], intrinsics_B4: NDArray[np.float32], metric: Teacher, shape: Shape, most: int
) -> NDArray[np.float32]:
    """What the metric teacher says, at label shape."""
    part = min(most, len(image_BChw))
    while True:
        try:
            found = []
            for start in range(0, len(image_BChw), part):
                rows = slice(start, start + part)
                images, cameras = (to_device(one[rows], metric.device) for one in (image_BChw, intrinsics_B4))
                metres_Bhw = predict(metric, Batch(images, cameras)).depth
                found.append(interpolate(metres_Bhw[:, None], size=shape, mode="bilinear")[:, 0].cpu())
            return torch.cat(found).numpy()
        except (MemoryError, RuntimeError) as error:
            if part == 1 or not is_out_of_memory(error):
                raise
        part = (part + 1) // 2
        release_memory(metric)
