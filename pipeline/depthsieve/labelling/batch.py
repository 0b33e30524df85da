"""The teacher on one batch: prediction, reliability codes, and what to do when memory does not suffice.

Axes: B images of a batch, C channels, H and W the label shape, h and w the second teacher's, K the 256 reliability
codes, S the signals in alphabetical order.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import Quantity, Shape
from depthsieve.features import COLUMNS, ImageSignals, label_signals
from depthsieve.reliability import (
    edges_disagreement,
    encode_error,
    flip_disagreement,
    fuse,
    histogram,
    lowres_disagreement,
    lowres_view,
    photometric_disagreement,
    photometric_view,
    relative_error,
    shipped_calibration,
    teachers_disagreement,
)
from depthsieve.store import schema
from depthsieve.teachers import Teacher

OUT_OF_MEMORY = ("defaultcpuallocator", "out of memory", "alloc_failed")
"""What errors say that torch raises without a type of their own: on CPUs, on MPS, in cuBLAS and cuDNN."""


@dataclass(frozen=True)
class PreparedImage:
    """An image ready for the teacher, and for the second one if there is one. ``hole_HW`` is True where the source is
    transparent. ``jpeg`` is the image at label shape, where it is to be kept."""

    image_CHW: np.ndarray[Any, np.dtype[np.float32]]
    second_Chw: np.ndarray[Any, np.dtype[np.float32]] | None
    hole_HW: np.ndarray[Any, np.dtype[np.bool_]] | None
    focal_px: float
    content_sha256: str
    signals: ImageSignals
    jpeg: bytes = b""


@dataclass(frozen=True)
class LabelWork:
    """How images become labels: by which teacher, with which signals, sorted, and whether those are kept."""

    teacher: Teacher
    signals: tuple[str, ...]
    keep_signals: bool = False


@dataclass(frozen=True)
class _Batch:
    """What goes through the teachers: one place an image, zeros where there is none. ``second_BChw`` may be empty."""

    image_BCHW: np.ndarray[Any, np.dtype[np.float32]]
    second_BChw: np.ndarray[Any, np.dtype[np.float32]]
    valid_BHW: np.ndarray[Any, np.dtype[np.bool_]]

    @classmethod
    def of(cls, prepared: list[PreparedImage | ImageRejected], shape: Shape) -> "_Batch":
        known = [image for image in prepared if isinstance(image, PreparedImage)]
        second = next((image.second_Chw.shape for image in known if image.second_Chw is not None), (3, 0, 0))
        batch = cls(
            np.zeros((len(prepared), 3, *shape), np.float32),
            np.zeros((len(prepared), *second), np.float32),
            np.ones((len(prepared), *shape), np.bool_),
        )
        for place, image in enumerate(prepared):
            if isinstance(image, PreparedImage):
                batch.image_BCHW[place] = image.image_CHW
                if image.second_Chw is not None:
                    batch.second_BChw[place] = image.second_Chw
                if image.hole_HW is not None:
                    batch.valid_BHW[place] = ~image.hole_HW
        return batch

    def to_device(self, part: slice, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        maps = (self.image_BCHW, self.second_BChw, self.valid_BHW)
        images, second, valid = (_to_device(map_[part], device) for map_ in maps)
        return images, second, valid


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
    batch = _Batch.of(prepared, (height, width))
    part = min(most, len(span))
    while (labels := _in_parts(batch, work, part)) is None:
        part = (part + 1) // 2
        _release_memory(work.teacher)
    for place, (row, image) in enumerate(zip(span, prepared, strict=True)):
        fault = image if isinstance(image, ImageRejected) else labels.fault(place)
        if fault is not None:
            arrays["status"][row] = schema.STATUS_FAILED
            arrays["reason"][row] = str(fault)
            arrays["histogram"][row, 0] = height * width
            continue
        assert isinstance(image, PreparedImage)
        arrays["depth"][row] = labels.depth_BHW[place]
        arrays["reliability"][row] = labels.code_BHW[place]
        arrays["histogram"][row] = labels.count_BK[place]
        arrays["focal_px"][row] = image.focal_px
        arrays["content_sha256"][row] = image.content_sha256
        for number, name in enumerate(work.signals if work.keep_signals else ()):
            arrays[name][row] = labels.signal_BSHW[place, number]
        about = label_signals(arrays["depth"][row], arrays["histogram"][row], work.teacher.quantity)
        arrays["values"][row] = np.concatenate([about, image.signals.values])
        arrays["phash"][row] = image.signals.phash
        if "embedding" in arrays and len(labels.embedding_BD):
            arrays["embedding"][row] = labels.embedding_BD[place]
    return part


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

    ``wild_B`` counts pixels that are not finite; ``low_B`` and ``high_B`` are the ends of a map before it was rounded.
    """

    depth_BHW: torch.Tensor
    code_BHW: torch.Tensor
    count_BK: torch.Tensor
    signal_BSHW: torch.Tensor
    wild_B: torch.Tensor
    low_B: torch.Tensor
    high_B: torch.Tensor
    embedding_BD: torch.Tensor

    @classmethod
    def of(
        cls,
        depth_BHW: torch.Tensor,
        code_BHW: torch.Tensor,
        kept: list[torch.Tensor],
        embedding_BD: torch.Tensor | None = None,
    ) -> "_Labels":
        """Made where the maps are, on the device, so that only this crosses the bus."""
        flat_BP = depth_BHW.flatten(1)
        none = depth_BHW.new_empty((len(depth_BHW), 0))
        return cls(
            depth_BHW.half(),
            code_BHW,
            histogram(code_BHW),
            torch.stack(kept, 1).clamp_(max=schema.MAX_DEPTH).half() if kept else none,
            (~torch.isfinite(flat_BP)).sum(1),
            flat_BP.amin(1),
            flat_BP.amax(1),
            none[:0] if embedding_BD is None else embedding_BD.half(),
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
        wild, low, high = int(self.wild_B[place]), float(self.low_B[place]), float(self.high_B[place])
        if wild:
            pixels = self.depth_BHW[place].numel()
            return ImageRejected(f"the teacher's output is not finite at {wild} of {pixels} pixels")
        if low == high:
            return ImageRejected(f"the teacher's output is {low:g} at every pixel")
        most = max(abs(low), abs(high))
        if most > schema.MAX_DEPTH:
            limit = f"more than float16 holds ({schema.MAX_DEPTH:g})"
            return ImageRejected(f"the teacher's output reaches {most:g}, {limit}")
        return None


def predict_labels(
    image_BCHW: torch.Tensor,
    second_BChw: torch.Tensor,
    teacher: Teacher,
    signals: tuple[str, ...],
    embeddings: list[torch.Tensor] | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Depth (float32 [B,H,W]), and each signal's disagreement relative to it (likewise, by name in order).

    ``second_BChw`` holds the images for ``teacher.second``, and is looked at for the signal "teachers" alone. What the
    backbone made of the images is added to ``embeddings``, if it tells.
    """
    views = [image_BCHW]
    if "flip" in signals:
        views.append(image_BCHW.flip(-1))
    if "photometric" in signals:
        views.append(photometric_view(image_BCHW))
    depth_BHW, *others = _predict(teacher, views, embeddings)
    quantity, deltas = teacher.quantity, {}
    if "flip" in signals:
        deltas["flip"] = flip_disagreement(depth_BHW, others.pop(0), quantity)
    if "photometric" in signals:
        deltas["photometric"] = photometric_disagreement(depth_BHW, others.pop(0), quantity)
    if "edges" in signals:
        deltas["edges"] = edges_disagreement(depth_BHW)
    if "lowres" in signals:
        half = teacher.half_shape((image_BCHW.shape[2], image_BCHW.shape[3]))
        assert half is not None  # checked before the run
        (lowres_Bhw,) = _predict(teacher, [lowres_view(image_BCHW, half)])
        deltas["lowres"] = lowres_disagreement(depth_BHW, lowres_Bhw, quantity)
    if "teachers" in signals:
        assert teacher.second is not None  # likewise
        (second_Bhw,) = _predict(teacher.second, [second_BChw])
        deltas["teachers"] = teachers_disagreement(depth_BHW, second_Bhw, quantity, teacher.second.quantity)
    return depth_BHW, {name: relative_error(depth_BHW, deltas[name]) for name in sorted(deltas)}


def reliability_codes(
    depth_BHW: torch.Tensor, relative: dict[str, torch.Tensor], valid_BHW: torch.Tensor, quantity: Quantity
) -> torch.Tensor:
    """uint8 [B,H,W], 0 where not ``valid_BHW``. Without any signal nothing is known of the error, and every valid pixel
    gets 255."""
    if not relative:
        return valid_BHW.to(torch.uint8) * 255
    return encode_error(fuse(depth_BHW, relative, quantity, shipped_calibration()), valid_BHW)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the machine's or the device's, did not suffice."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in text for sign in OUT_OF_MEMORY)


def _in_parts(batch: _Batch, work: LabelWork, part: int) -> _Labels | None:
    """The labels of a batch, ``part`` images at a time; None where those do not fit into memory."""
    done: list[_Labels] = []
    teacher = work.teacher
    try:
        for start in range(0, len(batch.image_BCHW), part):
            images, second, valid = batch.to_device(slice(start, start + part), teacher.device)
            embeddings: list[torch.Tensor] = []
            depth_BHW, relative = predict_labels(images, second, teacher, work.signals, embeddings)
            code_BHW = reliability_codes(depth_BHW, relative, valid.to(depth_BHW.device), teacher.quantity)
            kept = list(relative.values()) if work.keep_signals else []
            done.append(_Labels.of(depth_BHW, code_BHW, kept, *embeddings).to_cpu())
    except (MemoryError, RuntimeError) as error:
        if part == 1 or not is_out_of_memory(error):
            raise
        return None  # the caller tries again, once the error is gone with all that its frames hold
    return _Labels.joined(done)


def _to_device(array: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    """A copy to a GPU goes from pinned memory, and nobody waits for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _release_memory(teacher: Teacher) -> None:
    if teacher.device.type == "cuda":
        torch.cuda.empty_cache()
    elif teacher.device.type == "mps":
        torch.mps.empty_cache()


def _predict(
    teacher: Teacher, views: list[torch.Tensor], embeddings: list[torch.Tensor] | None = None
) -> list[torch.Tensor]:
    """The prediction for each view, all of one shape: in one batch on a GPU, one after another elsewhere.

    A CPU gains nothing by larger batches, and they would move the last bits. The embedding of the first view is added
    to ``embeddings``.
    """
    together = [torch.cat(views)] if teacher.device.type == "cuda" and len(views) > 1 else views
    maps: list[torch.Tensor] = []
    for view_BCHW in together:
        depth_BHW = teacher.predict(view_BCHW)
        if embeddings is not None and not maps and (embedding_BD := teacher.take_embedding()) is not None:
            embeddings.append(embedding_BD[: len(views[0])])
        maps += depth_BHW.chunk(len(views)) if len(together) < len(views) else [depth_BHW]
    return [map_.cpu() for map_ in maps] if teacher.device.type == "mps" else maps  # alignment needs float64: not MPS
