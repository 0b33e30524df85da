"""The package of UniDepth's authors, where it is installed. Imports it when it is asked for, and never before."""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from depthsieve.core.errors import TeacherUnsupported, one_line

PACKAGE = "unidepth"
CODE = ("models", "layers", "utils")
"""Where the package keeps what its network and ``infer`` are made of."""

HOW = (
    "pip install --no-deps git+https://github.com/lpiccinelli-eth/UniDepth && "
    "pip install einops matplotlib scipy timm torchvision wandb"
)
"""What installs it and what it imports, and leaves torch as it is."""


def folder() -> Path | None:
    """Where the package is installed; None where it is not. Nothing of it is imported."""
    spec = importlib.util.find_spec(PACKAGE)
    places = map(Path, (spec.submodule_search_locations or ()) if spec else ())
    return next((place for place in places if (place / "models" / "__init__.py").is_file()), None)


def lacking() -> str | None:
    """What is missing and how to get it, in a line; None where the package is installed."""
    if folder() is not None:
        return None
    return (
        f"it needs its authors' package {PACKAGE} (CC-BY-NC-4.0: not for commercial use), which is not installed: {HOW}"
    )


@functools.cache
def code_digest(place: Path) -> str:
    """Hex sha256 over the package's code. Its version does not tell its commits apart, and is known of what pip
    installed alone."""
    whole = hashlib.sha256()
    for path in sorted(one for part in CODE for one in (place / part).rglob("*.py")):
        whole.update(f"{path.relative_to(place).as_posix()}\0".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def load() -> tuple[Any, Path]:
    """Its module ``unidepth.models.unidepthv2.unidepthv2``, and the package's folder.

    Raises :class:`TeacherUnsupported` with what to do where it is not installed or cannot be imported.
    """
    place = folder()
    if place is None:
        raise TeacherUnsupported(str(lacking()))
    try:
        with quiet():
            return importlib.import_module(f"{PACKAGE}.models.unidepthv2.unidepthv2"), place
    except Exception as error:  # it is not our code, and can fail in any way
        raise TeacherUnsupported(
            f"its authors' package {PACKAGE} cannot be imported ({type(error).__name__}: {one_line(error)}); what it "
            f"needs: {HOW}"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing of what the package prints and warns of reaches the user: some of it would go to standard output."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
