"""The teacher on one batch: prediction, reliability codes, and what to do when memory does not suffice.

Axes: B images of a batch, C channels, H and W the label shape, h and w the second teacher's, K the 256 reliability
codes, S the signals in alphabetical order.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from depthsieve.core.cameras import Camera
from depthsieve.core.errors import ImageRejected, UsageError
from depthsieve.core.records import Quantity, Shape, TeacherRequest
from depthsieve.features import COLUMNS, ImageSignals, label_signals
from depthsieve.labelling.metric import MetricInput, check_metric, lacks_camera
from depthsieve.labelling.predicting import half_shape, is_out_of_memory, predict, release_memory, to_device
from depthsieve.reliability.code import encode_error, histogram
from depthsieve.reliability.fusion import calibration_for, fuse, relative_error
from depthsieve.reliability.kinds import SIGNALS, Need, Seen, Signal, check_needs, whole_signal
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.store import schema
from depthsieve.teachers import Batch, Prediction, Teacher, load_requested


@dataclass(frozen=True)
class PreparedImage:
    """An image ready for the teacher, and for the second one if there is one. ``hole_HW`` is True where the source is
    transparent. ``focal_px`` is the focal length at the source's resolution, 0 where it is unknown; ``intrinsics_4``
    are the camera's at the teacher's input, then NaN. ``jpeg`` is the image at label shape, where it will be stored.
    ``metric`` is the input of the metric teacher, if there is one and it takes the image. ``is_dim``: see
    :class:`~depthsieve.images.decode.DecodedImage`. ``photo_HW3`` is the image at label shape, where a network wants to
    see it. ``camera`` is that of the source, None where it is not known;
    ``is_apart``: it was given, and EXIF says another."""

    image_CHW: np.ndarray[Any, np.dtype[np.float32]]
    second_Chw: np.ndarray[Any, np.dtype[np.float32]] | None
    hole_HW: np.ndarray[Any, np.dtype[np.bool_]] | None
    focal_px: float
    intrinsics_4: np.ndarray[Any, np.dtype[np.float32]]
    content_sha256: str
    signals: ImageSignals
    jpeg: bytes = b""
    is_dim: bool = False
    metric: MetricInput | None = None
    photo_HW3: np.ndarray[Any, np.dtype[np.uint8]] | None = None
    camera: Camera | None = None
    is_apart: bool = False


@dataclass(frozen=True)
class LabelWork:
    """How images become labels: by which teacher, with which signals (sorted), whether those are kept, the second
    teacher that the labels are compared with, if any, the ``metric`` one that says how large things are, and the error
    ``network`` on the device of the labels, where reliability comes from one. ``code_version`` says what codes stand
    for: that of the label spec."""

    teacher: Teacher
    signals: tuple[str, ...]
    second: Teacher | None = None
    keep_signals: bool = False
    metric: Teacher | None = None
    network: ErrorNetwork | None = None
    code_version: int = CODE_VERSION

    @classmethod
    def load(
        cls,
        request: TeacherRequest,
        signals: tuple[str, ...],
        keep_signals: bool = False,
        metric: TeacherRequest | None = None,
        network: ErrorNetwork | None = None,
        code_version: int = CODE_VERSION,
    ) -> "LabelWork":
        """Load what is requested. Raises as :func:`depthsieve.teachers.load_teacher`."""
        second = load_requested(request.second) if request.second else None
        metric_teacher = load_requested(metric) if metric else None
        teacher = load_requested(request)
        work = cls(teacher, signals, second, keep_signals, metric_teacher, code_version=code_version)
        return work.with_network(signals, network) if network is not None else work

    def with_network(self, signals: tuple[str, ...], network: ErrorNetwork | None) -> "LabelWork":
        """The same with these signals, and a copy of the network, if they need one, where the labels are."""
        if network is not None:
            device = self.teacher.device
            network = copy.deepcopy(network).to("cpu" if device.type == "mps" else device)  # see _predict
        return replace(self, signals=signals, network=network)

    @property
    def takes_cameras(self) -> bool:
        """Whether cameras decide anything that a teacher makes."""
        teachers = (self.teacher, self.second, self.metric)
        return any(one is not None and one.intrinsics_in != "ignored" for one in teachers)

    def fault(self, image: PreparedImage) -> ImageRejected | None:
        """Why an image cannot be labelled, if it lacks what a teacher needs besides its pixels."""
        needing = [one for one in (self.teacher, self.second) if one is not None and one.intrinsics_in == "needed"]
        if needing and not np.isfinite(image.intrinsics_4).all():
            return ImageRejected(lacks_camera(needing[0]))
        return None

    @property
    def needs_met(self) -> frozenset[Need]:
        """What of the signals' needs these teachers meet."""
        met: set[Need] = {"nothing", "view"}
        met |= {"half"} if self.teacher.half_shape((1, 1)) is not None else set()
        met |= {"second"} if self.second is not None else set()
        met |= {"confidence"} if self.teacher.confidence_better is not None else set()
        met |= {"network"} if self.network is not None else set()
        return frozenset(met)

    def check(self) -> None:
        """Raise :class:`UsageError` for signals that these teachers cannot give."""
        first, second = self.teacher, self.second
        if second is not None and (first.quantity, second.quantity) == ("depth", "disparity"):
            raise UsageError(
                f"second teacher {second.name!r} predicts disparity and cannot judge the metres of teacher "
                f"{first.name!r}; name a metric one"
            )
        if self.metric is not None:
            check_metric(first, self.metric)
        check_needs(self.signals, first.name, self.needs_met)
        if self.network is not None and self.network.quantity != first.quantity:
            raise UsageError(
                f"the calibration was trained on labels of {self.network.quantity}, and teacher {first.name!r} "
                f"predicts {first.quantity}; train one for it with `depthsieve calibrate`"
            )
        if self.keep_signals and whole_signal(self.signals):
            raise UsageError(
                "an error network leaves no signals to keep, and `depthsieve recalibrate` needs the photos alone; "
                "leave out --keep-signals, or say --signals flip"
            )


@dataclass(frozen=True)
class _Batch:
    """What goes through the teachers: one slot per image, empty ones are zero. ``second_BChw`` may be empty, and so may
    ``photo_BHW3``, which an error network sees."""

    image_BCHW: np.ndarray[Any, np.dtype[np.float32]]
    second_BChw: np.ndarray[Any, np.dtype[np.float32]]
    photo_BHW3: np.ndarray[Any, np.dtype[np.uint8]]
    valid_BHW: np.ndarray[Any, np.dtype[np.bool_]]
    intrinsics_B4: np.ndarray[Any, np.dtype[np.float32]]

    @classmethod
    def of(cls, prepared: list[PreparedImage | ImageRejected], shape: Shape) -> "_Batch":
        known = [image for image in prepared if isinstance(image, PreparedImage)]
        second = next((image.second_Chw.shape for image in known if image.second_Chw is not None), (3, 0, 0))
        photo = next((image.photo_HW3.shape for image in known if image.photo_HW3 is not None), (0, 0, 3))
        batch = cls(
            np.zeros((len(prepared), 3, *shape), np.float32),
            np.zeros((len(prepared), *second), np.float32),
            np.zeros((len(prepared), *photo), np.uint8),
            np.ones((len(prepared), *shape), np.bool_),
            np.full((len(prepared), 4), np.nan, np.float32),
        )
        for place, image in enumerate(prepared):
            if isinstance(image, PreparedImage):
                batch.image_BCHW[place] = image.image_CHW
                if image.second_Chw is not None:
                    batch.second_BChw[place] = image.second_Chw
                if image.photo_HW3 is not None:
                    batch.photo_BHW3[place] = image.photo_HW3
                if image.hole_HW is not None:
                    batch.valid_BHW[place] = ~image.hole_HW
                batch.intrinsics_B4[place] = image.intrinsics_4
        return batch

    def to_device(self, part: slice, device: torch.device) -> tuple[Batch, Batch, "NetworkInput"]:
        """The images of a part, those of the second teacher, and what a network sees of them."""
        maps = (self.image_BCHW, self.second_BChw, self.photo_BHW3, self.valid_BHW, self.intrinsics_B4)
        images, second, photo, valid, cameras = (to_device(map_[part], device) for map_ in maps)
        batch = Batch(images, cameras)
        return batch, batch.seen_as(second), NetworkInput(photo, valid)


@dataclass(frozen=True)
class NetworkInput:
    """What an error network sees besides labels: photos at label shape, uint8, and where the labels count, bool."""

    photo_BHW3: torch.Tensor
    valid_BHW: torch.Tensor


def label_batch(
    arrays: dict[str, np.ndarray[Any, Any]],
    span: range,
    prepared: list[PreparedImage | ImageRejected],
    work: LabelWork,
    most: int,
) -> int:
    """Label the rows of ``span`` into ``arrays``. Returns how many images went through the teacher at a time.

    That is the whole batch, or ``most``, and a half, a quarter, ... of it where that does not fit into memory. A row
    that is rejected, or whose prediction is no label, gets its reason. Kept signals go into an array named by each, and
    features into those of :func:`feature_arrays`.
    Raises what torch raises when one image alone does not fit.
    """
    height, width = arrays["depth"].shape[1:]
    part = min(most, len(span))
    if all(isinstance(image, ImageRejected) for image in prepared):  # nothing for a teacher or a network to see
        for row, image in zip(span, prepared, strict=True):
            _reject(arrays, row, image)
        return part
    batch = _Batch.of(prepared, (height, width))
    while (labels := _in_parts(batch, work, part)) is None:
        part = (part + 1) // 2
        release_memory(work.teacher)
    for place, (row, image) in enumerate(zip(span, prepared, strict=True)):
        fault = image if isinstance(image, ImageRejected) else work.fault(image) or labels.fault(place)
        if fault is not None:
            _reject(arrays, row, fault)
            continue
        assert isinstance(image, PreparedImage)
        arrays["depth"][row] = labels.depth_BHW[place]
        arrays["reliability"][row] = labels.code_BHW[place]
        arrays["histogram"][row] = labels.count_BK[place]
        arrays["focal_px"][row] = image.focal_px
        arrays["content_sha256"][row] = image.content_sha256
        for number, name in enumerate(work.signals if work.keep_signals else ()):
            arrays[name][row] = labels.signal_BSHW[place, number]
        depth_HW, code_HW, histogram_K = (arrays[name][row] for name in ("depth", "reliability", "histogram"))
        about = label_signals(depth_HW, code_HW, histogram_K, work.teacher.quantity)
        arrays["values"][row] = np.concatenate([about, image.signals.values])
        arrays["phash"][row] = image.signals.phash
        if "intrinsics" in arrays and len(labels.intrinsics_B4):
            arrays["intrinsics"][row] = labels.intrinsics_B4[place]
        if "embedding" in arrays and len(labels.embedding_BD):
            arrays["embedding"][row] = labels.embedding_BD[place]
    return part


def _reject(arrays: dict[str, np.ndarray[Any, Any]], row: int, fault: object) -> None:
    arrays["status"][row] = schema.STATUS_FAILED
    arrays["reason"][row] = str(fault)
    arrays["histogram"][row, 0] = arrays["depth"][row].size


def feature_arrays(images: int, embedding_size: int | None) -> dict[str, np.ndarray[Any, Any]]:
    """Empty arrays of a shard's features, as the layer of them has it."""
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "values": np.zeros((images, len(COLUMNS)), np.float32),
        "phash": np.zeros(images, np.uint64),
    }
    return arrays | ({"embedding": np.zeros((images, embedding_size), np.float16)} if embedding_size else {})


@dataclass(frozen=True)
class _Labels:
    """A batch as it is stored: float16 depth, uint8 codes and their histogram, signals where they are kept (float16),
    the backbone's embedding if there is one (float16), and what tells a label from none.

    Of the pixels that the teacher calls valid, ``known_B`` counts all, ``wild_B`` those that are not finite, and
    ``doubtful_B`` those whose confidence is none; ``low_B`` and ``high_B`` are their ends before they were rounded.
    """

    depth_BHW: torch.Tensor
    code_BHW: torch.Tensor
    count_BK: torch.Tensor
    signal_BSHW: torch.Tensor
    known_B: torch.Tensor
    wild_B: torch.Tensor
    doubtful_B: torch.Tensor
    low_B: torch.Tensor
    high_B: torch.Tensor
    embedding_BD: torch.Tensor
    intrinsics_B4: torch.Tensor

    @classmethod
    def of(
        cls, label: Prediction, code_BHW: torch.Tensor, kept: list[torch.Tensor], *, judged: bool = False
    ) -> "_Labels":
        """Made where the maps are, on the device, so that only this crosses the bus. ``judged``: codes come from the
        teacher's confidence."""
        depth_BHW = label.depth
        pixels = depth_BHW[0].numel()
        none = depth_BHW.new_empty((len(depth_BHW), 0))
        known_BP = None if label.valid is None else label.valid.flatten(1)
        low_BP = high_BP = depth_BHW.flatten(1)
        if label.valid is not None and known_BP is not None:
            low_BP, high_BP = (torch.where(known_BP, low_BP, end) for end in (torch.inf, -torch.inf))
            depth_BHW = torch.where(label.valid, depth_BHW, 0.0)
        known_B = depth_BHW.new_full((len(depth_BHW),), pixels) if known_BP is None else known_BP.sum(1)
        wild_BP, doubtful_B = ~torch.isfinite(depth_BHW.flatten(1)), torch.zeros_like(known_B)
        if judged and label.confidence is not None:
            sure_BP = (label.confidence >= 0).flatten(1)  # False for NaN
            doubtful_B = (~(sure_BP if known_BP is None else sure_BP | ~known_BP)).sum(1)
        return cls(
            depth_BHW.half(),
            code_BHW,
            histogram(code_BHW),
            torch.stack(kept, 1).clamp_(max=schema.MAX_DEPTH).half() if kept else none,
            known_B,
            wild_BP.sum(1),
            doubtful_B,
            low_BP.amin(1),
            high_BP.amax(1),
            none[:0] if label.embedding is None else label.embedding.half(),
            none[:0] if label.intrinsics is None else label.intrinsics,
        )

    def to_cpu(self) -> "_Labels":
        return _Labels(*(getattr(self, part.name).cpu() for part in fields(self)))

    @classmethod
    def joined(cls, parts: "list[_Labels]") -> "_Labels":
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(one, part.name) for one in parts]) for part in fields(cls)))

    def fault(self, place: int) -> ImageRejected | None:
        """Why a prediction is no label, if it is none."""
        known, wild, doubtful = (int(count_B[place]) for count_B in (self.known_B, self.wild_B, self.doubtful_B))
        low, high = float(self.low_B[place]), float(self.high_B[place])
        if not known:
            return ImageRejected("the teacher calls no pixel valid")
        if wild:
            return ImageRejected(f"the teacher's output is not finite at {wild} of {known} pixels")
        if doubtful:
            return ImageRejected(f"the teacher's confidence is negative or no number at {doubtful} of {known} pixels")
        if low < 0:
            return ImageRejected(f"the teacher's output is negative, down to {low:g}")
        if low == high:
            return ImageRejected(f"the teacher's output is {low:g} at every pixel")
        most = max(abs(low), abs(high))
        if most > schema.MAX_DEPTH:
            limit = f"more than float16 holds ({schema.MAX_DEPTH:g})"
            return ImageRejected(f"the teacher's output reaches {most:g}, {limit}")
        return None


def predict_labels(
    images: Batch, work: LabelWork, second: Batch | None = None, about: NetworkInput | None = None
) -> tuple[Prediction, dict[str, torch.Tensor]]:
    """The teacher's prediction, and each signal's disagreement relative to its depth (float32 [B,H,W], by sorted name).

    ``second`` holds the images for the second teacher, and is needed for signals that compare with it; ``about`` is
    what an error network sees.
    """
    teacher = work.teacher
    kinds = [SIGNALS[name] for name in SIGNALS if name in work.signals]
    views = {kind.name: _view(kind, images, teacher) for kind in kinds if kind.view is not None}
    together = [kind.name for kind in kinds if kind.needs == "view"]
    label, *others = _predict(teacher, [images, *(views[name] for name in together)])
    seen = Seen(label.depth, teacher.quantity, None, teacher.quantity)
    compared = dict(zip(together, others, strict=True))
    relative: dict[str, torch.Tensor] = {}
    for kind in kinds:
        at = seen
        if kind.name in views:
            other = compared.pop(kind.name, None) or _predict(teacher, [views[kind.name]])[0]
            at = replace(seen, other_Bhw=other.depth)
        elif kind.needs == "second":
            assert work.second is not None and second is not None  # checked before the run
            (other,) = _predict(work.second, [second])
            at = replace(seen, other_Bhw=other.depth, other_quantity=work.second.quantity)
        elif kind.needs == "confidence":
            assert teacher.confidence_better is not None  # likewise
            at = replace(seen, confidence_BHW=label.confidence, better=teacher.confidence_better)
        elif kind.needs == "network":
            assert work.network is not None and about is not None  # likewise
            device = label.depth.device
            photo_BHW3, valid_BHW = about.photo_BHW3.to(device), about.valid_BHW.to(device)
            at = replace(seen, photo_BHW3=photo_BHW3, valid_BHW=valid_BHW, network=work.network)
            at = replace(at, confidence_BHW=label.confidence)
        disagreement_BHW = kind.disagreement(at)
        relative[kind.name] = disagreement_BHW if kind.whole else relative_error(label.depth, disagreement_BHW)
    return label, {name: relative[name] for name in sorted(relative)}


def _view(kind: Signal, images: Batch, teacher: Teacher) -> Batch:
    """The images as a signal wants to see them predicted."""
    shape = (images.image.shape[2], images.image.shape[3])
    assert kind.view is not None  # what the kind needs was checked before the run
    seen = half_shape(teacher, shape) if kind.needs == "half" else shape
    return images.seen_as(kind.view(images.image, seen), mirrored=kind.mirrored)


def reliability_codes(
    depth_BHW: torch.Tensor,
    relative: dict[str, torch.Tensor],
    valid_BHW: torch.Tensor,
    quantity: Quantity,
    version: int = CODE_VERSION,
) -> torch.Tensor:
    """uint8 [B,H,W], 0 where not ``valid_BHW``, by the codes of that ``version`` of the label spec. Without any signal
    nothing is known of the error, and every valid pixel gets 255."""
    if not relative:
        return valid_BHW.to(torch.uint8) * 255
    if whole_signal(tuple(relative)):
        (e_BHW,) = relative.values()
        return encode_error(e_BHW, valid_BHW, version=version)
    e_BHW = fuse(depth_BHW, relative, quantity, calibration_for(quantity, relative))
    return encode_error(e_BHW, valid_BHW, version=version)


def _in_parts(batch: _Batch, work: LabelWork, part: int) -> _Labels | None:
    """The labels of a batch, ``part`` images at a time; None where those do not fit into memory."""
    done: list[_Labels] = []
    teacher = work.teacher
    try:
        for start in range(0, len(batch.image_BCHW), part):
            images, second, about = batch.to_device(slice(start, start + part), teacher.device)
            label, relative = predict_labels(images, work, second, about)
            valid_BHW = about.valid_BHW.to(label.depth.device)
            if label.valid is not None:
                valid_BHW = valid_BHW & label.valid
            code_BHW = reliability_codes(label.depth, relative, valid_BHW, teacher.quantity, work.code_version)
            kept = list(relative.values()) if work.keep_signals else []
            judged = any(SIGNALS[name].needs == "confidence" for name in relative)
            judged |= work.network is not None and work.network.native is not None
            done.append(_Labels.of(label, code_BHW, kept, judged=judged).to_cpu())
    except (MemoryError, RuntimeError) as error:
        if part == 1 or not is_out_of_memory(error):
            raise
        return None  # the caller tries again, once the error is gone with all that its frames hold
    return _Labels.joined(done)


def _predict(teacher: Teacher, views: list[Batch]) -> list[Prediction]:
    """The prediction for each view, all of one shape: in one batch on a GPU, one after another elsewhere.

    A CPU gains nothing by larger batches, and they would move the last bits.
    """
    if teacher.device.type == "cuda" and len(views) > 1:
        together = Batch(torch.cat([view.image for view in views]), torch.cat([view.intrinsics for view in views]))
        whole = predict(teacher, together)
        return [_each(whole, partial(_of_view, number, len(views))) for number in range(len(views))]
    found = [predict(teacher, view) for view in views]
    if teacher.device.type == "mps":  # alignment needs float64, which MPS lacks
        return [_each(one, torch.Tensor.cpu) for one in found]
    return found


def _of_view(number: int, views: int, map_: torch.Tensor) -> torch.Tensor:
    return map_.chunk(views)[number]


def _each(prediction: Prediction, change: Callable[[torch.Tensor], torch.Tensor]) -> Prediction:
    """A prediction with each of its tensors changed."""
    maps = {part.name: getattr(prediction, part.name) for part in fields(prediction)}
    return Prediction(**{name: change(map_) for name, map_ in maps.items() if map_ is not None})
