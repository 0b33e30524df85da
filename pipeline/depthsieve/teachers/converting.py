"""Pickled weights, as most authors publish them, into safetensors, which hold numbers and nothing that could run."""

import json
import pickle
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthsieve.core.errors import TeacherError, TeacherNotFound, TeacherUnsupported, UsageError, one_line
from depthsieve.teachers.checkpoints import CONFIG, PICKLES, WEIGHTS
from depthsieve.teachers.metric3d.published import config_of


@dataclass(frozen=True, slots=True)
class ConvertSummary:
    """What :func:`convert_weights` did. ``part`` is the key under which the file holds the weights, empty where it
    holds nothing else; ``config`` the settings that were written beside them; ``left_out`` what was not taken over."""

    source: Path
    weights: Path
    config: Path | None
    part: str
    tensors: int
    parameters: int
    left_out: tuple[str, ...]


def convert_weights(source: Path | str, destination: Path | str, *, part: str | None = None) -> ConvertSummary:
    """Write the weights of a pickled file (.pt, .pth, .bin, .ckpt) into a folder, as ``model.safetensors``.

    The file is read with ``weights_only=True``: nothing in it can run, and files that hold more than numbers, text and
    the like are refused. Settings beside the weights (dictionaries of plain values) become the folder's ``config.json``
    unless it has one; for weights of Metric3D v2, which come without any, it says what follows from their names and
    shapes. Nothing that is there is overwritten.

    Args:
        source: the pickled file.
        destination: a folder, new or without weights.
        part: the key under which the file holds the weights, ``.`` between levels; found where there is only one.

    Raises:
        UsageError: an invalid option, or a destination that has weights already.
        TeacherError: the file is not there, damaged, or holds something else. Every message is one line.
    """
    source, destination = Path(source), Path(destination)
    if (destination / WEIGHTS).exists():
        raise UsageError(f"{destination} has a {WEIGHTS} already; give another folder")
    if destination.exists() and not destination.is_dir():
        raise UsageError(f"{destination} is a file; give a folder for {WEIGHTS}")
    held = _read(source)
    found, tensors = _choose(source, held, part)
    beside = held if found else {}
    settings = {key: value for key, value in beside.items() if isinstance(value, dict) and _is_plain(value)}
    settings.pop(found.partition(".")[0], None)
    has_config = (destination / CONFIG).exists()
    if not has_config:
        settings = config_of({name: tuple(tensor.shape) for name, tensor in tensors.items()}) or settings
    left_out = sorted(
        str(key) for key in beside if key != found.partition(".")[0] and (has_config or key not in settings)
    )
    left_out += sorted(f"{found}.{key}" if found else str(key) for key in _part(held, found) if key not in tensors)
    _write(destination, tensors, {} if has_config else settings)
    return ConvertSummary(
        source=source,
        weights=destination / WEIGHTS,
        config=destination / CONFIG if settings and not has_config else None,
        part=found,
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        left_out=tuple(left_out),
    )


def _read(source: Path) -> dict[Any, Any]:
    import torch

    if source.suffix == ".safetensors":
        raise UsageError(f"{source} holds safetensors already")
    if not source.exists():
        raise TeacherNotFound(f"there is no file {source}")
    if not source.is_file():
        raise UsageError(f"{source} is a folder; give the file with the weights ({', '.join(PICKLES)})")
    try:
        held = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise TeacherUnsupported(f"{source} is damaged or no file of torch's") from error
        raise TeacherUnsupported(
            f"{source} holds more than weights ({refused[1]}), which could run code, and is not loaded; ask its "
            "authors for safetensors or a plain state dict"
        ) from error
    except MemoryError as error:
        raise TeacherError(f"{source}: out of memory while it was read") from error
    except Exception as error:  # a damaged file can break torch's reader anywhere, in any way
        raise TeacherUnsupported(f"{source} cannot be read ({type(error).__name__}: {one_line(error)})") from error
    if not isinstance(held, dict):
        raise TeacherUnsupported(f"{source} holds a {type(held).__name__}, not weights by name")
    return held


def _choose(source: Path, held: Mapping[Any, Any], part: str | None) -> tuple[str, dict[str, Any]]:
    """The key under which there are weights, and the weights."""
    if part is not None:
        inside = _part(held, part)
        if not (tensors := _tensors(inside)):
            raise UsageError(f"{source} holds no weights under {part!r}; it has {_names(held)}")
        return part, tensors
    if tensors := _tensors(held):
        return "", tensors
    found = {path: tensors for path, tensors in _search(held, "") if tensors}
    if not found:
        raise TeacherUnsupported(f"{source} holds no weights; it has {_names(held)}")
    if len(found) > 1:
        raise UsageError(f"{source} holds weights under {', '.join(found)}; say which with --part")
    return found.popitem()


def _search(held: Mapping[Any, Any], path: str, depth: int = 2) -> list[tuple[str, dict[str, Any]]]:
    """Dictionaries with tensors in them, down to ``depth`` levels, not those inside of others."""
    found = []
    for key, value in held.items():
        if isinstance(value, Mapping) and isinstance(key, str):
            inside = f"{path}.{key}" if path else key
            if tensors := _tensors(value):
                found.append((inside, tensors))
            elif depth > 1:
                found += _search(value, inside, depth - 1)
    return found


def _part(held: Any, path: str) -> Mapping[Any, Any]:
    for key in path.split(".") if path else ():
        held = held.get(key) if isinstance(held, Mapping) else None
    return held if isinstance(held, Mapping) else {}


def _tensors(held: Mapping[Any, Any]) -> dict[str, Any]:
    import torch

    return {key: value for key, value in held.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}


def _names(held: Mapping[Any, Any]) -> str:
    names = [str(key) for key in held]
    return (", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "nothing"


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return bool(value)


def _write(destination: Path, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Whole or not at all: a folder beside the destination is filled first."""
    from safetensors.torch import save_file

    own = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}  # some share their memory
    temporary = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        save_file(own, temporary / WEIGHTS, metadata={"format": "pt"})
        if settings:
            (temporary / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
        destination.mkdir(exist_ok=True)
        for file in sorted(temporary.iterdir()):  # config.json, then the weights
            file.replace(destination / file.name)
    except OSError as error:
        raise TeacherError(f"{destination} cannot be written ({error.strerror or one_line(error)})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
