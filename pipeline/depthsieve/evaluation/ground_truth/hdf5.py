"""Depth maps in HDF5 files: one map a file, or one file with all maps. Input is hostile: no link is followed.

Axes: N map, H row, W column.
"""

import contextlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import GroundTruthError, UsageError
from depthsieve.evaluation.ground_truth.readers import one_map
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.evaluation.ground_truth.values import TruthMap, to_metres
from depthsieve.sources.ids import encode_path

FOR_FOLDERS = ("pattern", "replace", "strip", "associate", "mask_pattern", "calib_pattern", "scale_by")
"""Settings that say which files of a folder are an image's."""

STACK_SUFFIXES = (".mat", ".h5", ".hdf5")
MATLAB_DATASET = "depths"
"""What NYU Depth V2's ``nyu_depth_v2_labeled.mat`` calls its maps."""


def read_hdf5(data: bytes, scale: float | None, dataset: str | None) -> NDArray[Any]:
    """The one map in the bytes of a file: in ``dataset``, or in the only dataset there is."""
    with opened(io.BytesIO(data)) as file:
        held = dataset_in(file, dataset)
        size = one_map(held.shape, held.dtype, scale)
        return np.asarray(held[()]).reshape(size)


class Hdf5Stack:
    """All ground truth in one dataset [N,H,W] of one file; in MATLAB's files [N,W,H], since it counts columns first.

    The map of an image is that of its number: the last digits of its file's name, counted from ``count_from``. An id
    that ends in ``::i`` (an image in a container) has the map ``i``, counted from 0.
    """

    def __init__(self, path: Path, settings: TruthSettings) -> None:
        self.location = str(path)
        for option in FOR_FOLDERS:
            if getattr(settings, option):
                raise UsageError(f"{option} is for a folder of ground truth, and {path} is one file with all maps")
        self._path = path
        self._settings = settings
        self._matlab = path.suffix.lower() == ".mat"
        self._name = settings.dataset or (MATLAB_DATASET if self._matlab else None)
        try:
            with opened(path) as file:
                held = dataset_in(file, self._name)
                if len(held.shape) != 3:
                    raise GroundTruthError(
                        f"its dataset has the shape {list(held.shape)}, and [N, height, width] is needed"
                    )
                one_map(held.shape[1:], held.dtype, settings.scale)
                self._count, self._name = held.shape[0], held.name.lstrip("/")
        except GroundTruthError as error:
            raise GroundTruthError(f"{self.location}: {error}") from error

    def place(self, image_id: str) -> str | None:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        number = self._number(image_id)
        return self._place(number) if number is not None and 0 <= number < self._count else None

    def looked_for(self, image_id: str) -> str:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        number = self._number(image_id)
        if number is None:
            return "a number at the end of its name"
        return f"{self._place(number)}, of 0 to {self._count - 1}"

    def nearest(self, image_ids: Iterable[str]) -> dict[str, tuple[str, float]]:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        raise UsageError(f"the maps of {self.location} have no times")

    def places(self) -> Iterator[str]:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        return map(self._place, range(self._count))

    def mask_place(self, image_id: str) -> str | None:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        return None

    def file(self, place: str) -> Path | None:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        return None

    def read(self, place: str, image_id: str) -> TruthMap:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        with opened(self._path) as file:
            values = np.asarray(dataset_in(file, self._name)[int(place.rpartition("::")[2])])
        return to_metres(values.T if self._matlab else values, self._settings)

    def _place(self, number: int) -> str:
        return f"{encode_path(self._name or '')}::{number}"

    def _number(self, image_id: str) -> int | None:
        container, _, member = image_id.rpartition("::")
        if container and re.fullmatch(r"\d{1,12}", member):
            return int(member)
        name = image_id.rpartition("/")[2]
        digits = re.findall(r"\d+", name.rpartition(".")[0] or name)
        if not digits:
            return None
        number, first = int(digits[-1][-12:]), self._settings.count_from
        if number == (self._count if first == 0 else 0):
            raise GroundTruthError(
                f"{image_id} has the number {number}, so images are not counted from {first} to "
                f"{first + self._count - 1}, as the maps of {self.location} would be; say --count-from {1 - first}"
            )
        return number - first


@contextlib.contextmanager
def opened(source: Path | io.BytesIO) -> Iterator[h5py.File]:
    """An HDF5 file to read. Raises :class:`GroundTruthError` for one that is damaged, or whatever HDF5 makes of it."""
    try:
        with h5py.File(source, "r") as file:
            yield file
    except (GroundTruthError, MemoryError):
        raise
    except Exception as error:  # whatever HDF5 makes of bad bytes
        missing = isinstance(source, Path) and isinstance(error, FileNotFoundError | PermissionError)
        what = "it cannot be opened" if missing else "it is damaged or not an HDF5 file (MATLAB: save with -v7.3)"
        raise GroundTruthError(what) from error


def dataset_in(file: h5py.File, name: str | None) -> Any:
    """The dataset called ``name``, or the only one in the root. Links, and values in other files, are refused."""
    if name is None:
        found = [key for key in file if _hard(file, key) and file.get(key, getclass=True) is h5py.Dataset]
        if len(found) != 1:
            listed = ", ".join(repr(key) for key in sorted(found)[:5]) or "none"
            raise GroundTruthError(f"which dataset holds the depth? Name it with --dataset (there are: {listed})")
        name = found[0]
    place: Any = file
    for part in [part for part in name.split("/") if part]:
        if not isinstance(place, h5py.Group) or place.get(part, getlink=True) is None:
            raise GroundTruthError(f"it has no dataset {name!r}")
        if not _hard(place, part):
            raise GroundTruthError(f"its {name!r} is a link, and links are not followed")
        place = place[part]
    if not isinstance(place, h5py.Dataset):
        raise GroundTruthError(f"its {name!r} is not a dataset")
    if place.is_virtual or place.external:
        raise GroundTruthError(f"its {name!r} takes its values from other files, which are not opened")
    return place


def _hard(group: Any, key: str) -> bool:
    return isinstance(group.get(key, getlink=True), h5py.HardLink)
