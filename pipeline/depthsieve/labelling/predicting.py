"""Ask a teacher, and name what it does wrong.

Axes: B images of a batch, H and W the shape of its input.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from depthsieve.core.errors import DepthsieveError, RunError, one_line
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


def predict(teacher: Teacher, batch: Batch) -> Prediction:
    """What a teacher says of a batch, checked.

    Raises :class:`RunError` in one line for a teacher that fails at any batch, since trying again cannot help; what
    torch raises for want of memory, and as :class:`RuntimeError` (a lost device), passes.
    """
    with named_failure(teacher):
        prediction = teacher.predict(batch)
        wanted = (len(batch.image), *batch.image.shape[2:])
        for what in ("depth", "confidence") if teacher.confidence_better is not None else ("depth",):
            _check_map(what, getattr(prediction, what), wanted)
        return prediction


def _check_map(what: str, map_: Any, wanted: tuple[int, ...]) -> None:
    if not isinstance(map_, torch.Tensor) or map_.dtype != torch.float32 or tuple(map_.shape) != wanted:
        found = f"{map_.dtype} {list(map_.shape)}" if isinstance(map_, torch.Tensor) else type(map_).__name__
        raise TypeError(f"its {what} is {found}, not torch.float32 {list(wanted)}")


@contextlib.contextmanager
def named_failure(teacher: Teacher) -> Iterator[None]:
    """Turn what a teacher raises that nobody expects into one line that names it."""
    try:
        yield
    except (DepthsieveError, OSError, MemoryError, RuntimeError):
        raise
    except Exception as error:
        raise RunError(f"teacher {teacher.name!r} failed: {type(error).__name__}: {one_line(error)}") from error
