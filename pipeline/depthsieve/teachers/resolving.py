"""What a request for a teacher leaves open, and how its errors are named. Imports torch, and no transformers."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch

from depthsieve.core.errors import TeacherError, TeacherUnsupported, UsageError
from depthsieve.core.records import MAX_TOKENS, OVERSIZE, TeacherRequest, default_dtype
from depthsieve.teachers.checkpoints import reason


def resolve(request: TeacherRequest) -> TeacherRequest:
    """The request with what it leaves open settled. Raises :class:`UsageError` where there is no such device."""
    device = resolve_device(request.device)
    dtype = default_dtype(device.type) if request.dtype == "auto" else request.dtype
    tokens, oversize = request.max_tokens or MAX_TOKENS, request.oversize or OVERSIZE
    return replace(request, device=str(device), dtype=dtype, max_tokens=tokens, oversize=oversize)


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA where there is one, else the CPU. Raises :class:`UsageError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}: use cpu, cuda, cuda:N or auto") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise UsageError(f"device {name!r} was asked for, but torch sees no CUDA device; use cpu or auto")
        if (device.index or 0) >= count:
            raise UsageError(f"device {name!r} was asked for, but there are only {count} CUDA devices")
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"unknown device {name!r}: use cpu, cuda, cuda:N or auto")
    return device


@contextlib.contextmanager
def errors_named(teacher: str) -> Iterator[None]:
    """Name the teacher in every message, and turn what other packages raise into one line."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"teacher {teacher}: {error}") from error
    except TeacherError as error:
        raise type(error)(f"teacher {teacher}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise TeacherError(f"teacher {teacher}: out of memory while it was loaded") from error
    except Exception as error:  # a damaged configuration can break transformers anywhere, in any way
        raise TeacherUnsupported(f"teacher {teacher} cannot be loaded: {reason(error)}") from error
