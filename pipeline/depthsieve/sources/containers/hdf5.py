"""Images in an HDF5 file, MATLAB's v7.3 files included: datasets of 8-bit pixels, or of encoded image files.

[N,H,W,3] or [N,3,H,W] (MATLAB, which counts columns first: [N,3,W,H]) of uint8 are N images; [H,W,3] or [3,H,W]
is one (the latter in NYU's frames as sparse-to-dense publishes them); a one-dimensional dataset of byte sequences holds
a file in each. Pixels have no file, so reading gives a PPM made of
them: the same pixels, in bytes that repeat. Input is hostile: no link is followed, and no values in other files.

Axes: N image, H height, W width, 3 red, green, blue.
"""

import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py
import numpy as np

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources.containers.protocol import MAX_FILE_BYTES, Member
from depthsieve.sources.ids import decode_path, encode_path
from depthsieve.sources.protocol import UNKNOWN_SIZE, Passed

MAX_DATASETS = 100_000
MAX_CHUNK_BYTES = 1024**3
_ONE = ("HW3", "3HW")
"""Layouts of a dataset that is one image."""
_FLOAT = "floating-point pixels have no agreed white: convert to 8 bits"


class Hdf5Container:
    """An HDF5 file. See :class:`~.protocol.Container`; a place is ``/dataset::number``.

    h5py lets one thread at a time into the library, whatever the file.
    """

    def __init__(self, path: bytes) -> None:
        try:
            self._file = h5py.File(os.fsdecode(path), "r", locking=False)
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever HDF5 makes of bad bytes
            raise ImageRejected("damaged or no HDF5 file (MATLAB: save with -v7.3)") from error

    def members(self, passed: Passed) -> Iterator[Member]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        try:
            for name in self._datasets(passed):
                dataset = self._file[name]
                place = encode_path(name)
                layout, reason = _layout(dataset)
                if layout is None and reason is None:
                    passed.other += 1
                elif layout is None:
                    yield Member(place, 0, reason)
                else:
                    count = 1 if layout in _ONE else dataset.shape[0]
                    size = UNKNOWN_SIZE if layout == "files" else _ppm_bytes(dataset.shape, layout)
                    yield from (Member(f"{place}::{number:08d}", size) for number in range(count))
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            raise ImageRejected("a damaged HDF5 file: what it holds cannot be listed") from error

    def open(self, place: str) -> tuple[BinaryIO, int]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`. Of pixels, only what a header needs."""
        dataset, layout, number = self._find(place)
        if layout == "files":
            data = _file_bytes(dataset[number])
            return io.BytesIO(data), len(data)
        return io.BytesIO(_ppm_head(dataset.shape, layout)), _ppm_bytes(dataset.shape, layout)

    def read(self, place: str) -> bytes:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        dataset, layout, number = self._find(place)
        if layout == "files":
            return _file_bytes(dataset[number])
        if dataset.chunks and np.prod(dataset.chunks, dtype=np.float64) > MAX_CHUNK_BYTES:
            raise ImageRejected("its chunks are too large to read one image")
        pixels = np.asarray(dataset[()] if layout in _ONE else dataset[number])
        axes = [layout.removeprefix("N").index(axis) for axis in "HW3"]
        return _ppm_head(dataset.shape, layout) + pixels.transpose(axes).tobytes()

    def _find(self, place: str) -> tuple[Any, str, int]:
        name, _, number = place.partition("::")
        path = os.fsdecode(decode_path(name))
        found: Any = self._file
        for part in [part for part in path.split("/") if part]:
            if not isinstance(found, h5py.Group) or not _is_hard(found, part):
                raise SourceError(f"the HDF5 file has no dataset {name!r}, or only a link, which is not followed")
            found = found[part]
        layout = _layout(found)[0] if isinstance(found, h5py.Dataset) else None
        count = 1 if layout in _ONE else found.shape[0] if layout else 0
        if layout is None or not (number.isdecimal() and number == f"{int(number):08d}" and int(number) < count):
            raise SourceError(f"the HDF5 file has no image {place!r}")
        if layout != "files" and _ppm_bytes(found.shape, layout) > MAX_FILE_BYTES:
            raise ImageRejected(f"more than the {MAX_FILE_BYTES:,} bytes allowed")
        return found, layout, int(number)

    def _datasets(self, passed: Passed) -> Iterator[str]:
        """The paths of all datasets that are reached by hard links only, each once."""
        waiting, count = ["/"], 0
        seen = {h5py.h5o.get_info(self._file.id).addr}
        while waiting:
            place = waiting.pop()
            group = self._file[place]
            for key in group:
                count += 1
                if count > MAX_DATASETS:
                    raise ImageRejected(f"an HDF5 file with more than {MAX_DATASETS:,} entries")
                path = f"{place.rstrip('/')}/{key}"
                kind = group.get(key, getclass=True) if _is_hard(group, key) else None
                if kind is h5py.Dataset:
                    yield path
                elif kind is not h5py.Group:
                    passed.other += 1
                elif not key.startswith("#"):  # MATLAB's #refs#
                    address = h5py.h5o.get_info(group[key].id).addr
                    if address not in seen:  # hard links can make a circle
                        seen.add(address)
                        waiting.append(path)


def _is_hard(group: Any, key: str) -> bool:
    return isinstance(group.get(key, getlink=True), h5py.HardLink)


def _layout(dataset: Any) -> tuple[str | None, str | None]:
    """How images lie in a dataset: "NHW3", "N3HW", "N3WH", "HW3", "3HW" or "files"; or None, and, where it looks like
    images, why it cannot be read."""
    shape: tuple[int, ...] = dataset.shape or ()
    kind = dataset.dtype
    if dataset.is_virtual or dataset.external:
        return None, "takes its values from other files, which are not opened"
    if len(shape) == 1 and (held := h5py.check_vlen_dtype(kind)) is not None:
        return ("files", None) if held in (np.uint8, np.int8) else (None, None)
    if len(shape) == 1 and (kind.kind == "V" and not kind.names):
        return "files", None
    layout, matlab = None, "MATLAB_class" in dataset.attrs
    if len(shape) == 4 and 3 in (shape[1], shape[3]) and 0 not in shape:
        layout = "NHW3" if shape[3] == 3 and not (matlab and shape[1] == 3) else "N3WH" if matlab else "N3HW"
    elif len(shape) == 3 and shape[2] == 3 and 0 not in shape:
        layout = "HW3"
    elif len(shape) == 3 and shape[0] == 3 and 0 not in shape and kind == np.uint8 and not matlab:
        layout = "3HW"  # of another type, or in MATLAB's files, it may well be three maps
    if layout is None or kind == np.uint8:
        return layout, None
    return None, _FLOAT if kind.kind == "f" else f"{kind} pixels are not read: convert to 8 bits"


def _size(shape: tuple[int, ...], layout: str) -> tuple[int, int]:
    """Width and height."""
    height, width = (shape[layout.index(axis)] for axis in "HW")
    return width, height


def _ppm_head(shape: tuple[int, ...], layout: str) -> bytes:
    width, height = _size(shape, layout)
    return b"P6\n%d %d\n255\n" % (width, height)


def _ppm_bytes(shape: tuple[int, ...], layout: str) -> int:
    width, height = _size(shape, layout)
    return len(_ppm_head(shape, layout)) + 3 * width * height


def _file_bytes(value: Any) -> bytes:
    data: bytes = value.tobytes() if hasattr(value, "tobytes") else bytes(value)
    return data
