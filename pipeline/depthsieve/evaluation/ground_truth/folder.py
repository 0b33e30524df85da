"""A folder of ground truth, one file an image. Input is hostile: names, links and what stands behind them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import GroundTruthError, ImageRejected, SourceError
from depthsieve.evaluation.ground_truth.hdf5 import read_hdf5
from depthsieve.evaluation.ground_truth.protocol import in_metres
from depthsieve.evaluation.ground_truth.readers import USUAL_SCALES, read_npy, read_pfm, read_png
from depthsieve.evaluation.ground_truth.settings import SUFFIXES, TruthSettings
from depthsieve.sources.folder import FolderSource
from depthsieve.sources.ids import decode_path, encode_path

_SOURCE = "truth"


class FolderTruth:
    """The files below ``root`` that end in one of ``SUFFIXES``; hidden ones are skipped, linked folders not entered."""

    def __init__(self, root: Path, settings: TruthSettings) -> None:
        self.location = str(root)
        self._settings = settings
        self._reader = FolderSource(_SOURCE, os.path.realpath(root))
        self._files = frozenset(_listed(self.location))
        if not self._files:
            raise GroundTruthError(f"{self.location} holds no ground truth: no {', '.join(SUFFIXES)} file in it")

    def place(self, image_id: str) -> str | None:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        found = [encode_path(path) for path in self._candidates(image_id) if path in self._files]
        if len(found) > 1:
            raise GroundTruthError(
                f"{image_id} has two ground truths in {self.location}, {found[0]} and {found[1]}; say which with "
                "--pattern, such as '{dir}/{stem}" + Path(found[0]).suffix + "'"
            )
        return found[0] if found else None

    def looked_for(self, image_id: str) -> str:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        paths = [encode_path(path) for path in self._candidates(image_id)]
        suffixes = "".join(f"|{os.path.splitext(path)[1]}" for path in paths[1:])  # noqa: PTH122 (not a Path)
        return paths[0] + suffixes

    def places(self) -> Iterator[str]:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        return iter(sorted(encode_path(path) for path in self._files))

    def read(self, place: str) -> NDArray[np.float32]:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        settings = self._settings
        try:
            data = self._reader.read(f"{_SOURCE}/{place}")
        except SourceError:
            raise GroundTruthError("a symbolic link that leads out of the folder of the ground truth") from None
        except (ImageRejected, OSError) as error:
            raise GroundTruthError(str(getattr(error, "strerror", None) or error)) from error
        return in_metres(_read(data, place.lower(), settings), settings.scale, settings.distance_to_depth)

    def _candidates(self, image_id: str) -> list[str]:
        """Relative paths, as ``os.fsdecode`` gives them, where the map of an image may be."""
        source, _, encoded = image_id.partition("/")
        path = "/".join(os.fsdecode(decode_path(part)) for part in encoded.split("::") if part)
        for old, new in self._settings.replace:
            path = path.replace(old, new)
        folder, _, name = path.rpartition("/")
        stem = name.rpartition(".")[0] or name
        if self._settings.pattern is not None:
            return [self._settings.fill({"dir": folder, "stem": stem, "name": name, "source": source})]
        start = f"{folder}/{stem}" if folder else stem
        return [start + suffix for suffix in SUFFIXES]


def needs_scale(place: str) -> bool:
    """Whether the map at a place in a folder cannot be read without a scale."""
    return place.lower().endswith(".png")


NEEDS_SCALE = f"ground truth in PNG needs --scale, how many units are a metre: {USUAL_SCALES}"


def _read(data: bytes, name: str, settings: TruthSettings) -> NDArray[Any]:
    if name.endswith(".npy"):
        return read_npy(data, settings.scale)
    if name.endswith(".png"):
        return read_png(data, settings.scale)
    if name.endswith(".pfm"):
        return read_pfm(data, settings.scale)
    return read_hdf5(data, settings.scale, settings.dataset)


def _listed(root: str) -> Iterator[str]:
    """Relative paths of all files that may be ground truth, ``/``-separated."""

    def refuse(error: OSError) -> None:
        raise GroundTruthError(f"{error.filename!r} cannot be listed: {error.strerror}") from error

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        within = os.path.relpath(folder, root)
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield name if within == "." else f"{within}/{name}"
