"""The teacher on one batch: prediction, reliability codes, and what to do when memory does not suffice.

Axes: B images of a batch, C channels, H and W the label shape, K the 256 reliability codes.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from depthsieve.errors import ImageRejected
from depthsieve.reliability import (
    encode_error,
    expected_error,
    flip_disagreement,
    histogram,
    lowres_disagreement,
    lowres_view,
    mean_disagreement,
)
from depthsieve.store import schema
from depthsieve.teachers import Teacher

OUT_OF_MEMORY = ("defaultcpuallocator", "out of memory", "alloc_failed")
"""What errors say that torch raises without a type of their own: on CPUs, on MPS, in cuBLAS and cuDNN."""


@dataclass(frozen=True)
class PreparedImage:
    """An image ready for the teacher. ``hole_HW`` is True where the source is transparent."""

    image_CHW: np.ndarray[Any, np.dtype[np.float32]]
    hole_HW: np.ndarray[Any, np.dtype[np.bool_]] | None
    focal_px: float
    content_sha256: str


def label_batch(
    arrays: dict[str, np.ndarray[Any, Any]],
    span: range,
    prepared: list[PreparedImage | ImageRejected],
    teacher: Teacher,
    signals: tuple[str, ...],
    most: int,
) -> int:
    """Label the rows of ``span`` into ``arrays``. Returns how many images went through the teacher at a time.

    That is the whole batch, or ``most``, and a half, a quarter, ... of it where that does not fit into memory. A row
    that is rejected, or whose prediction is no label, gets its reason. Raises what torch raises when one image alone
    does not fit.
    """
    shape = arrays["depth"].shape[1:]
    image_BCHW = np.zeros((len(span), 3, *shape), np.float32)
    valid_BHW = np.ones((len(span), *shape), np.bool_)
    for place, image in enumerate(prepared):
        if isinstance(image, PreparedImage):
            image_BCHW[place] = image.image_CHW
            if image.hole_HW is not None:
                valid_BHW[place] = ~image.hole_HW
    part = min(most, len(span))
    while (labels := _in_parts(image_BCHW, valid_BHW, teacher, signals, part)) is None:
        part = (part + 1) // 2
        _release_memory(teacher)
    for place, (row, image) in enumerate(zip(span, prepared, strict=True)):
        fault = image if isinstance(image, ImageRejected) else labels.fault(place)
        if fault is not None:
            arrays["status"][row] = schema.STATUS_FAILED
            arrays["reason"][row] = str(fault)
            arrays["histogram"][row, 0] = shape[0] * shape[1]
            continue
        assert isinstance(image, PreparedImage)
        arrays["depth"][row] = labels.depth_BHW[place]
        arrays["reliability"][row] = labels.code_BHW[place]
        arrays["histogram"][row] = labels.count_BK[place]
        arrays["focal_px"][row] = image.focal_px
        arrays["content_sha256"][row] = image.content_sha256
    return part


@dataclass(frozen=True)
class _Labels:
    """A batch as it is stored: float16 depth, uint8 codes and their histogram, and what tells a label from none.

    ``wild_B`` counts pixels that are not finite; ``low_B`` and ``high_B`` are the ends of a map before it was rounded.
    """

    depth_BHW: torch.Tensor
    code_BHW: torch.Tensor
    count_BK: torch.Tensor
    wild_B: torch.Tensor
    low_B: torch.Tensor
    high_B: torch.Tensor

    @classmethod
    def of(cls, depth_BHW: torch.Tensor, code_BHW: torch.Tensor) -> "_Labels":
        """Made where the maps are, on the device, so that only this crosses the bus."""
        flat_BP = depth_BHW.flatten(1)
        return cls(
            depth_BHW.half(),
            code_BHW,
            histogram(code_BHW),
            (~torch.isfinite(flat_BP)).sum(1),
            flat_BP.amin(1),
            flat_BP.amax(1),
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
    image_BCHW: torch.Tensor, valid_BHW: torch.Tensor, teacher: Teacher, signals: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth (float32 [B,H,W]) and reliability codes (uint8 [B,H,W]; 0 where not ``valid_BHW``).

    Of several signals the mean disagreement counts. Without any nothing is known of the error, and every valid pixel
    gets 255.
    """
    views = [image_BCHW, image_BCHW.flip(-1)] if "flip" in signals else [image_BCHW]
    depth_BHW, *flipped = _predict(teacher, views)
    valid_BHW = valid_BHW.to(depth_BHW.device)
    if not signals:
        return depth_BHW, valid_BHW.to(torch.uint8) * 255
    deltas = [flip_disagreement(depth_BHW, flipped_BHW, teacher.quantity) for flipped_BHW in flipped]
    if "lowres" in signals:
        half = teacher.half_shape((image_BCHW.shape[2], image_BCHW.shape[3]))
        assert half is not None  # checked before the run
        (lowres_Bhw,) = _predict(teacher, [lowres_view(image_BCHW, half)])
        deltas.append(lowres_disagreement(depth_BHW, lowres_Bhw, teacher.quantity))
    return depth_BHW, encode_error(expected_error(depth_BHW, mean_disagreement(deltas)), valid_BHW)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the machine's or the device's, did not suffice."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in text for sign in OUT_OF_MEMORY)


def _in_parts(
    image_BCHW: np.ndarray[Any, Any],
    valid_BHW: np.ndarray[Any, Any],
    teacher: Teacher,
    signals: tuple[str, ...],
    part: int,
) -> _Labels | None:
    """The labels of a batch, ``part`` images at a time; None where those do not fit into memory."""
    done: list[_Labels] = []
    try:
        for start in range(0, len(image_BCHW), part):
            depth_BHW, code_BHW = predict_labels(
                _to_device(image_BCHW[start : start + part], teacher.device),
                _to_device(valid_BHW[start : start + part], teacher.device),
                teacher,
                signals,
            )
            done.append(_Labels.of(depth_BHW, code_BHW).to_cpu())
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


def _predict(teacher: Teacher, views: list[torch.Tensor]) -> list[torch.Tensor]:
    """The prediction for each view, all of one shape: in one batch on a GPU, one after another elsewhere.

    A CPU gains nothing by larger batches, and they would move the last bits.
    """
    if teacher.device.type == "cuda" and len(views) > 1:
        return list(teacher.predict(torch.cat(views)).chunk(len(views)))
    maps = [teacher.predict(view_BCHW) for view_BCHW in views]
    return [map_.cpu() for map_ in maps] if teacher.device.type == "mps" else maps  # alignment needs float64: not MPS
