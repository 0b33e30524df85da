"""Teachers: the models that label. Importing this imports neither torch nor transformers."""

from typing import TYPE_CHECKING, Literal

from depthsieve.teachers.checkpoints import cached
from depthsieve.teachers.presets import EMBEDDED, PRESETS, Preset, find_preset
from depthsieve.teachers.protocol import Teacher

if TYPE_CHECKING:
    import torch

__all__ = ["EMBEDDED", "PRESETS", "Preset", "Teacher", "cached", "find_preset", "load_teacher", "resolve_device"]


def load_teacher(
    name: str,
    *,
    revision: str | None = None,
    size: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    max_tokens: int = 16384,
    oversize: Literal["reject", "shrink"] = "reject",
) -> Teacher:
    """Load a teacher, ready to predict on ``device``.

    ``name`` is ``tiny`` (embedded), a preset (:data:`PRESETS`), a local folder, or a hub id ``owner/model``, tried in
    that order; a folder that is called like a preset is reached as ``./name``. ``revision`` is a branch, tag or commit
    of the hub. ``size`` overrides the short side of Depth Anything models, in pixels, and must be a positive multiple
    of their patch (14); other models follow their own processor and take none. ``device`` is ``cpu``, ``cuda``,
    ``cuda:N`` or ``auto`` (CUDA where there is one). ``dtype`` is ``float32``, ``bfloat16`` or ``float16``: it decides
    the labels. An image of more than ``max_tokens`` patches is rejected or, with ``oversize="shrink"``, scaled down.

    Weights load from safetensors only and without remote code. Raises :class:`~depthsieve.core.errors.UsageError`,
    :class:`~depthsieve.core.errors.TeacherNotFound`, :class:`~depthsieve.core.errors.TeacherUnsupported` or
    :class:`~depthsieve.core.errors.TeacherError`, each with a message of one line.
    """
    from depthsieve.teachers.loading import TeacherOptions, load

    return load(name, TeacherOptions(revision, size, device, dtype, max_tokens, oversize))


def resolve_device(name: str) -> "torch.device":
    """The torch device called ``name``; ``auto`` is CUDA where there is one, else the CPU.

    Raises :class:`~depthsieve.core.errors.UsageError` where there is no such device.
    """
    from depthsieve.teachers.loading import resolve_device as resolve

    return resolve(name)
