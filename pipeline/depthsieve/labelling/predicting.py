"""Ask a teacher, and name what it does wrong.

Axes: B images of a batch, H and W the shape of its input, D numbers of an embedding.
"""

import contextlib
import operator
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from depthsieve.core.errors import DepthsieveError, RunError, one_line
from depthsieve.core.records import Quantity, Shape
from depthsieve.teachers import Batch, Prediction, Teacher

OUT_OF_MEMORY = ("defaultcpuallocator", "out of memory", "alloc_failed")
"""What errors say that torch raises without a type of their own: on CPUs, on MPS, in cuBLAS and cuDNN."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the machine's or the device's, did not suffice."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in text for sign in OUT_OF_MEMORY)


def to_device(array: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    """An array on a device. A copy to a GPU goes from pinned memory, and nobody waits for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def release_memory(teacher: Teacher) -> None:
    """Give what a device keeps for later back to it."""
    if teacher.device.type == "cuda":
        torch.cuda.empty_cache()
    elif teacher.device.type == "mps":
        torch.mps.empty_cache()


def label_shape(teacher: Teacher, height: int, width: int) -> Shape:
    """The shape at which a teacher labels an image, checked.

    Raises :class:`ImageRejected` where it cannot, and :class:`RunError` in one line for a teacher that fails."""
    with named_failure(teacher):
        try:
            return check_shape("label_shape", teacher.label_shape(height, width))
        except (OSError, RuntimeError) as error:
            raise TypeError(f"label_shape({height}, {width}) raised {type(error).__name__}: {error}") from error


def half_shape(teacher: Teacher, shape: Shape) -> Shape:
    """What is about half of a teacher's label shape, checked. Raises :class:`RunError` in one line."""
    with named_failure(teacher):
        return check_shape("half_shape", teacher.half_shape(shape))


def prepare(teacher: Teacher, rgb_HW3: np.ndarray[Any, Any], shape: Shape) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A teacher's input for an image, checked. Raises as :func:`label_shape`, and as :func:`predict`."""
    with named_failure(teacher):
        prepared_CHW = teacher.prepare(rgb_HW3, shape)
        check_prepared(prepared_CHW, shape)
    return prepared_CHW


def predict(teacher: Teacher, batch: Batch) -> Prediction:
    """What a teacher says of a batch, checked: ``valid`` and ``sky`` are in the depth already, which is NaN where there
    is no label, and ``valid`` says where, if that is not everywhere.

    Raises :class:`RunError` in one line for a teacher that fails at any batch, since trying again cannot help; what
    torch raises for want of memory, and as :class:`RuntimeError` (a lost device), passes.
    """
    with named_failure(teacher):
        prediction = teacher.predict(batch)
        check_prediction(teacher, batch, prediction)
        return _masked(prediction, teacher.quantity)


def check_shape(what: str, shape: Any) -> Shape:
    """A shape in whole numbers. Raises :class:`TypeError` for what is no (height, width) of 1 or more."""
    try:
        height, width = (operator.index(side) for side in shape)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise TypeError(f"its {what} is {shape!r}, not (height, width), whole numbers of 1 or more")
    return height, width


def check_prepared(prepared: Any, shape: Shape) -> None:
    """Raise :class:`TypeError`, in a line, for what is no input of a teacher."""
    axes = (3, *shape)
    if not isinstance(prepared, np.ndarray) or prepared.dtype != np.float32 or prepared.shape != axes:
        has = type(prepared).__name__
        if isinstance(prepared, np.ndarray | torch.Tensor):
            has += f" of {prepared.dtype} {list(prepared.shape)}"
        raise TypeError(f"prepare returned {has}, not ndarray of float32 {list(axes)}")


def check_prediction(teacher: Teacher, batch: Batch, prediction: Any) -> None:
    """Raise :class:`TypeError`, in a line, for a prediction that is not of the types and shapes of the contract."""
    if not isinstance(prediction, Prediction):
        raise TypeError(f"predict returned {type(prediction).__name__}, not a Prediction")
    images, shape = len(batch.image), tuple(batch.image.shape[2:])
    maps = (images, *shape)
    declared = {  # what there must be, and what must not
        "confidence": (teacher.confidence_better is not None, "confidence_better"),
        "embedding": (teacher.embedding_size is not None, "embedding_size"),
        "intrinsics": (teacher.intrinsics_out, "intrinsics_out"),
    }
    wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "depth": (torch.float32, maps),
        "confidence": (torch.float32, maps),
        "embedding": (torch.float32, (images, teacher.embedding_size or 0)),
        "valid": (torch.bool, maps),
        "sky": (torch.bool, maps),
        "intrinsics": (torch.float32, (images, 4)),
    }
    for what, (dtype, axes) in wanted.items():
        found, (needed, says) = getattr(prediction, what), declared.get(what, (what == "depth", ""))
        if found is None and not needed:
            continue
        if says and not needed:
            raise TypeError(f"it returns {what}, and its {says} is {getattr(teacher, says)!r}")
        if not isinstance(found, torch.Tensor) or found.dtype != dtype or tuple(found.shape) != axes:
            has = f"{found.dtype} {list(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise TypeError(f"its {what} is {has}, not {dtype} {list(axes)}")
        if found.device.type != batch.image.device.type:
            raise TypeError(f"its {what} is on {found.device}, and its input on {batch.image.device}")


def _masked(prediction: Prediction, quantity: Quantity) -> Prediction:
    """The prediction with NaN where there is no label, and its sky as far as the farthest other pixel."""
    depth_BHW, valid_BHW, sky_BHW = prediction.depth, prediction.valid, prediction.sky
    if sky_BHW is not None:
        near_BHW = ~sky_BHW if valid_BHW is None else ~sky_BHW & valid_BHW
        if quantity == "depth":
            valid_BHW = near_BHW
        else:
            least_B = torch.where(near_BHW, depth_BHW, torch.inf).amin((1, 2))
            least_B = torch.where(torch.isfinite(least_B), least_B, 0.0)
            depth_BHW = torch.where(sky_BHW, least_B[:, None, None], depth_BHW)
    if valid_BHW is not None:
        depth_BHW = torch.where(valid_BHW, depth_BHW, torch.nan)
    return replace(prediction, depth=depth_BHW, valid=valid_BHW)


@contextlib.contextmanager
def named_failure(teacher: Teacher) -> Iterator[None]:
    """Turn what a teacher raises that nobody expects into one line that names it."""
    try:
        yield
    except (DepthsieveError, OSError, MemoryError, RuntimeError):
        raise
    except Exception as error:
        raise RunError(f"teacher {teacher.name!r} failed: {type(error).__name__}: {one_line(error)}") from error
