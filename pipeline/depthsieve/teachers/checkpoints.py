"""Finding a checkpoint's files: the embedded folder, a local one, or a snapshot of the hub. Imports no torch."""

import hashlib
import json
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthsieve.core.errors import TeacherNotFound, TeacherUnsupported, UsageError, one_line
from depthsieve.teachers.da3.published import is_published
from depthsieve.teachers.presets import Preset
from depthsieve.teachers.unidepth import published as unidepth

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HUB_FILES = (CONFIG, PROCESSOR, WEIGHTS, INDEX, "model-*-of-*.safetensors")
HUB_TIMEOUT_S = 10.0
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
WAY_OUT = "give a local folder, or use the embedded --teacher tiny, which needs no download"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a model in it. ``weights`` are its safetensors files in the order of their names."""

    name: str
    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]

    def digest(self) -> str:
        """Hex sha256 over the content of config.json and the weight files, read in pieces of 4 MiB."""
        whole = hashlib.sha256()
        for path in (self.folder / CONFIG, *self.weights):
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()

    def processor_settings(self) -> dict[str, Any]:
        """preprocessor_config.json, empty where there is none. Raises :class:`TeacherUnsupported` if it is damaged."""
        return _read_json(self.name, self.folder, PROCESSOR) if (self.folder / PROCESSOR).exists() else {}


PICKLES = (".pth", ".pt", ".ckpt", ".bin", ".pkl")
"""Suffixes of files that torch.load reads, as the authors' own repositories offer them."""


def read_checkpoint(name: str, folder: Path) -> Checkpoint:
    """The checkpoint in ``folder``, after everything that can be told without loading it was checked.

    Raises :class:`TeacherNotFound` or :class:`TeacherUnsupported`.
    """
    try:
        mode = folder.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise TeacherNotFound(f"no teacher {name!r}: there is no such folder") from error
    except OSError as error:
        raise TeacherNotFound(f"no teacher {name!r}: it cannot be reached ({error.strerror})") from error
    if not stat.S_ISDIR(mode):
        if folder.suffix in PICKLES:
            raise TeacherUnsupported(
                f"teacher {name!r} is a {folder.suffix} file, which can run code and is not loaded; name one that "
                "was converted for transformers: a preset such as depth-anything-v2-small, a hub id, or a folder with "
                f"{CONFIG} and {WEIGHTS}"
            )
        raise TeacherUnsupported(f"teacher {name!r} is a file; give the folder that holds {CONFIG} and {WEIGHTS}")
    config = _read_json(name, folder, CONFIG)
    weights = _find_weights(name, folder)
    for path in weights:
        _check_header(name, path)
    return Checkpoint(name, folder, config, weights)


def _read_json(name: str, folder: Path, file: str) -> dict[str, Any]:
    try:
        body = json.loads((folder / file).read_bytes())
    except FileNotFoundError as error:
        raise TeacherUnsupported(f"teacher {name!r}: its folder holds no {file}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise TeacherUnsupported(f"teacher {name!r}: {file} cannot be read ({type(error).__name__})") from error
    if not isinstance(body, dict):
        raise TeacherUnsupported(f"teacher {name!r}: {file} is not a JSON object")
    return body


def _find_weights(name: str, folder: Path) -> tuple[Path, ...]:
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        table = _read_json(name, folder, INDEX).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise TeacherUnsupported(f"teacher {name!r}: {INDEX} holds no weight_map")
        files = sorted({str(file) for file in table.values()})
        for file in files:
            if Path(file).name != file or not file.endswith(".safetensors"):
                raise TeacherUnsupported(f"teacher {name!r}: {INDEX} points at {file!r}, which is no file beside it")
            if not (folder / file).is_file():
                raise TeacherUnsupported(f"teacher {name!r}: {file}, which {INDEX} lists, is missing")
        return tuple(folder / file for file in files)
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if pickled:
        raise TeacherUnsupported(
            f"teacher {name!r} has pickled weights only ({pickled[0]}), which can run code when loaded; convert them "
            f"once: depthsieve convert-weights {shlex.quote(str(folder / pickled[0]))} {shlex.quote(str(folder))}"
        )
    raise TeacherUnsupported(f"teacher {name!r}: no {WEIGHTS} (pickled weights are never loaded)")


def _check_header(name: str, path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise TeacherUnsupported(
            f"teacher {name!r}: {path.name} is damaged or no safetensors file ({one_line(error)}); get it again"
        ) from error


def cached_checkpoint(hub_id: str, revision: str | None = None) -> Path | None:
    """The snapshot folder of a hub model where configuration and weights are in the cache, else None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(hub_id, CONFIG, revision=revision)
        if not isinstance(config, str):
            return None
        folder = Path(config).parent
        _find_weights(hub_id, folder)
    except (HFValidationError, TeacherUnsupported):
        return None
    return folder


def hub_checkpoint(name: str, hub_id: str, revision: str | None) -> Checkpoint:
    """The checkpoint of a hub model, from the cache where it has one. Raises as :func:`read_checkpoint`, and
    :class:`UsageError` for what is no hub id."""
    folder = cached_checkpoint(hub_id, revision)
    if folder is None or not ((folder / PROCESSOR).is_file() or _needs_no_processor(name, folder)):
        folder = _download(name, hub_id, revision, folder)
    return read_checkpoint(name, folder)


def _needs_no_processor(name: str, folder: Path) -> bool:
    config = _read_json(name, folder, CONFIG)
    return is_published(config) or unidepth.is_published(config)


def _download(name: str, hub_id: str, revision: str | None, incomplete: Path | None) -> Path:
    """Fetch what is missing. Without a network, ``incomplete`` (weights, but no processor settings) must do."""
    from huggingface_hub import HfApi, errors, snapshot_download

    called = repr(name) if name == hub_id else f"{name!r} ({hub_id})"
    at = f" at revision {revision!r}" if revision else ""
    try:
        # snapshot_download asks this too, but waits for ever on a network that swallows what is sent.
        HfApi().repo_info(hub_id, revision=revision, timeout=HUB_TIMEOUT_S)
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=list(HUB_FILES), etag_timeout=HUB_TIMEOUT_S)
        )
    except errors.HFValidationError as error:
        raise UsageError(f"{name!r} is no hub id: {one_line(error)}") from error
    except errors.GatedRepoError as error:
        raise TeacherNotFound(
            f"teacher {called} is gated: accept its terms on the hub and log in (`hf auth login`), or {WAY_OUT}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise TeacherNotFound(f"teacher {called} has no revision {revision!r} on the hub") from error
    except errors.RepositoryNotFoundError as error:
        raise TeacherNotFound(f"the hub has no model {called}, or it is private and you are not logged in") from error
    except Exception as error:  # the transport under the hub's client changes with its releases, and so do its errors
        if incomplete is not None:
            return incomplete
        raise TeacherNotFound(
            f"teacher {called}{at} is not cached and could not be fetched from the hub ({reason(error)}); {WAY_OUT}"
        ) from error


def reason(error: BaseException) -> str:
    """The innermost cause of an error in one line, which is what a person can act on ("connection refused")."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)


def cached(preset: Preset) -> bool:
    """Whether the preset can be loaded without a network: its configuration and weights are in the hub's cache."""
    return not preset.hub_id or cached_checkpoint(preset.hub_id) is not None
