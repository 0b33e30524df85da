"""Teachers: the models that label. Importing this imports neither torch nor transformers."""

from typing import TYPE_CHECKING

from depthsieve.core.records import Dtype, Oversize, Quantity, TeacherRequest
from depthsieve.teachers.checkpoints import cached
from depthsieve.teachers.modules import digest_of_files
from depthsieve.teachers.presets import EARLIER, EMBEDDED, IN_PACKAGE, PRESETS, Preset, find_preset, name_at, request_at
from depthsieve.teachers.protocol import Batch, Better, IntrinsicsUse, Prediction, Teacher, centred_intrinsics
from depthsieve.teachers.registry import check_contract, full_name, load_made, plug_ins

if TYPE_CHECKING:
    import torch

__all__ = [
    "EARLIER",
    "EMBEDDED",
    "IN_PACKAGE",
    "PRESETS",
    "Batch",
    "Better",
    "IntrinsicsUse",
    "Prediction",
    "Preset",
    "Teacher",
    "cached",
    "centred_intrinsics",
    "check_contract",
    "digest_of_files",
    "find_preset",
    "full_name",
    "load_made",
    "load_requested",
    "load_teacher",
    "name_at",
    "plug_ins",
    "request_at",
    "resolve_device",
]


def load_teacher(
    name: str,
    *,
    revision: str | None = None,
    size: int | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    max_tokens: int | None = None,
    oversize: Oversize | None = None,
    quantity: Quantity | None = None,
) -> Teacher:
    """Load a teacher, ready to predict on its device.

    Weights load from safetensors only and without remote code.

    Args:
        name: ``tiny`` (embedded), a preset (:data:`PRESETS`), the name that a plug-in gives to its teacher
            (:mod:`depthsieve.teachers.registry`), a local folder, the function that makes it
            (``package.module:factory``, :mod:`depthsieve.teachers.modules`), or a hub id ``owner/model``, tried in that
            order; a folder with a preset's name is reached as ``./name``.
        revision: a branch, tag or commit of the hub.
        size: the short side of Depth Anything models (the longest, of version 3), in pixels, a positive multiple of
            their patch (14). Other models follow their own processor and take none.
        device: ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or ``auto`` (CUDA where there is one).
        dtype: ``float32``, ``bfloat16`` or ``float16``; it decides the labels. ``auto``: float16 on CUDA, else float32.
        max_tokens: the most patches of an image, 16,384 for None; larger images are rejected or scaled down.
        oversize: ``reject`` (None) or ``shrink``, what to do with images above ``max_tokens``.
        quantity: ``disparity`` or ``depth`` (metres), for checkpoints that do not say what they predict.

    Raises:
        UsageError: an invalid option, or one that does not suit this teacher.
        TeacherError: it was not found (:class:`~depthsieve.core.errors.TeacherNotFound`), or it cannot be used
            (:class:`~depthsieve.core.errors.TeacherUnsupported`). Every message is one line.
    """
    return load_requested(
        TeacherRequest(
            name,
            revision=revision,
            size=size,
            device=device,
            dtype=dtype,
            max_tokens=max_tokens,
            oversize=oversize,
            quantity=quantity,
        )
    )


def load_requested(request: TeacherRequest) -> Teacher:
    """As :func:`load_teacher`, for a request; its second teacher is not loaded."""
    from depthsieve.teachers.registry import load

    return load(request)


def resolve_device(name: str) -> "torch.device":
    """The torch device called ``name``; ``auto`` is CUDA where there is one, else the CPU.

    Raises :class:`~depthsieve.core.errors.UsageError` where there is no such device.
    """
    from depthsieve.teachers.resolving import resolve_device as resolve

    return resolve(name)
