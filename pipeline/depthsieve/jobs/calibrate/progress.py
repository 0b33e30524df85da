"""What a calibration has done so far, in a folder beside its file: a process that dies loses a second of work.

The folder holds ``settings.json``, what decides the result; ``examples/000123.npy``, a label to learn from each; and
``training.pt``, the network between two steps.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.core.errors import RunError, UsageError

SUFFIX = ".unfinished"


class Unfinished:
    """The folder. Raises :class:`UsageError` where it cannot be made or is that of other ``settings``."""

    def __init__(self, file: Path, settings: Mapping[str, Any]) -> None:
        self.folder = file.with_name(file.name + SUFFIX)
        body = json.loads(json.dumps(settings))
        try:
            (self.folder / "examples").mkdir(parents=True, exist_ok=True)
            held = self.folder / "settings.json"
            if not held.exists():
                self._write("settings.json", lambda path: path.write_text(json.dumps(body, indent=1) + "\n"))
            before = json.loads(held.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.folder}: what is done so far cannot be kept there ({error})") from error
        if before != body:
            changed = ", ".join(sorted(key for key in {*before, *body} if before.get(key) != body.get(key)))
            raise UsageError(
                f"{self.folder} holds an unfinished calibration of other settings (they differ in {changed}); run it "
                "with those again to finish it, or delete that folder"
            )

    def has(self, number: int) -> bool:
        """Whether the example of that number is kept."""
        return self._example(number).exists()

    def keep(self, number: int, record_HW: NDArray[np.void]) -> None:
        """Keep an example."""
        self._write(f"examples/{number:06d}.npy", lambda path: _save(path, record_HW))

    def example(self, number: int) -> NDArray[np.void]:
        """A kept example; only what is looked at is read."""
        record_HW: NDArray[np.void] = np.load(self._example(number), mmap_mode="r", allow_pickle=False)
        return record_HW

    def keep_training(self, state: Mapping[str, Any]) -> None:
        """Keep a state of the training."""
        self._write("training.pt", lambda path: torch.save(state, path))

    def training(self) -> Mapping[str, Any] | None:
        """The last kept state of the training."""
        path = self.folder / "training.pt"
        return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None

    def remove(self) -> None:
        """All of it: the calibration is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _example(self, number: int) -> Path:
        return self.folder / "examples" / f"{number:06d}.npy"

    def _write(self, name: str, write: Any) -> None:
        """Write a file of the folder at once: there is no half of it at any moment."""
        path = self.folder / name
        part = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            write(part)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def _save(path: Path, record_HW: NDArray[np.void]) -> None:
    with path.open("wb") as file:
        np.save(file, record_HW, allow_pickle=False)
