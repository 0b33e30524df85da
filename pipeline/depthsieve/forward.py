"""The teacher on one batch: prediction, reliability codes, and what to do when memory does not suffice.

Axes: B images of a batch, C channels, H and W the label shape, K the 256 reliability codes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from depthsieve.errors import ImageRejected
from depthsieve.reliability import encode_error, expected_error, flip_disagreement, histogram
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
    depth_BHW, code_BHW, count_BK = labels
    for place, (row, image) in enumerate(zip(span, prepared, strict=True)):
        fault = image if isinstance(image, ImageRejected) else _fault_of(depth_BHW[place])
        if fault is not None:
            arrays["status"][row] = schema.STATUS_FAILED
            arrays["reason"][row] = str(fault)
            arrays["histogram"][row, 0] = depth_BHW[place].numel()
            continue
        assert isinstance(image, PreparedImage)
        arrays["depth"][row] = depth_BHW[place].half().numpy()
        arrays["reliability"][row] = code_BHW[place].numpy()
        arrays["histogram"][row] = count_BK[place]
        arrays["focal_px"][row] = image.focal_px
        arrays["content_sha256"][row] = image.content_sha256
    return part


def predict_labels(
    image_BCHW: torch.Tensor, valid_BHW: torch.Tensor, teacher: Teacher, signals: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth (float32 [B,H,W]) and reliability codes (uint8 [B,H,W]; 0 where not ``valid_BHW``).

    Without a signal nothing is known of the error, and every valid pixel gets 255.
    """
    depth_BHW = _predict(teacher, image_BCHW)
    valid_BHW = valid_BHW.to(depth_BHW.device)
    if "flip" not in signals:
        return depth_BHW, valid_BHW.to(torch.uint8) * 255
    flipped_BHW = _predict(teacher, image_BCHW.flip(-1))
    delta_BHW = flip_disagreement(depth_BHW, flipped_BHW, teacher.quantity)
    return depth_BHW, encode_error(expected_error(depth_BHW, delta_BHW), valid_BHW)


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
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray[Any, Any]] | None:
    """Depth, codes and histograms of a batch, ``part`` images at a time; None where those do not fit into memory."""
    done: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    try:
        for start in range(0, len(image_BCHW), part):
            depth_BHW, code_BHW = predict_labels(
                torch.from_numpy(image_BCHW[start : start + part]).to(teacher.device),
                torch.from_numpy(valid_BHW[start : start + part]).to(teacher.device),
                teacher,
                signals,
            )
            done.append((depth_BHW.cpu(), code_BHW.cpu(), histogram(code_BHW).cpu()))
    except (MemoryError, RuntimeError) as error:
        if part == 1 or not is_out_of_memory(error):
            raise
        return None  # the caller tries again, once the error is gone with all that its frames hold
    depth_BHW, code_BHW, count_BK = (torch.cat(pieces) for pieces in zip(*done, strict=True))
    return depth_BHW, code_BHW, count_BK.numpy()


def _release_memory(teacher: Teacher) -> None:
    if teacher.device.type == "cuda":
        torch.cuda.empty_cache()
    elif teacher.device.type == "mps":
        torch.mps.empty_cache()


def _predict(teacher: Teacher, image_BCHW: torch.Tensor) -> torch.Tensor:
    depth_BHW = teacher.predict(image_BCHW)
    return depth_BHW.cpu() if depth_BHW.device.type == "mps" else depth_BHW  # MPS has no float64, which alignment needs


def _fault_of(depth_HW: torch.Tensor) -> ImageRejected | None:
    """Why a prediction is no label, if it is none."""
    wild = int((~torch.isfinite(depth_HW)).sum())
    if wild:
        return ImageRejected(f"the teacher's output is not finite at {wild} of {depth_HW.numel()} pixels")
    low, high = float(depth_HW.min()), float(depth_HW.abs().max())
    if low == float(depth_HW.max()):
        return ImageRejected(f"the teacher's output is {low:g} at every pixel")
    if high > schema.MAX_DEPTH:
        return ImageRejected(f"the teacher's output reaches {high:g}, more than float16 holds ({schema.MAX_DEPTH:g})")
    return None
