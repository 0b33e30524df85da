"""Read the arrays of one group of a store. Axes: N images of a shard, H and W the label shape, K the 256 codes."""

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from depthsieve.core.errors import DepthsieveError, StoreDamaged, UsageError
from depthsieve.core.records import MEND
from depthsieve.storage import Root
from depthsieve.store import direct, schema
from depthsieve.store.cache import RemoteArray, ShardCache

Listed = Mapping[str, tuple[int, bytes]]
"""Bytes and sha256 of each file of a group."""

KEPT_READERS = 4096
"""Shards whose readers an open store keeps: about 15 KB each."""

FETCHES = 3
"""How often an array is fetched into a cache, where others evict it at once, until it is read where it is."""

_Result = TypeVar("_Result")


class ZarrArray:
    """An array as zarr-python reads it: from an object store, or of a layout that is not read directly."""

    def __init__(self, place: Any) -> None:
        self._array: Any = zarr.open_array(place, mode="r")

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    def read_into(self, row: int, out: NDArray[Any]) -> None:
        """A row, into a buffer of its shape."""
        if not 0 <= row < self.shape[0]:
            raise IndexError(f"row {row} of {self.shape[0]}")
        out[...] = self._array[row]

    def whole(self) -> NDArray[Any]:
        """All rows."""
        return np.asarray(self._array[...])

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Some rows."""
        return np.asarray(self._array[start:stop])


class ShardReader:
    """The arrays of one committed shard, by row. Reading raises :class:`StoreDamaged` where a checksum does not fit.

    ``folder`` is that of its group; arrays named in ``instead`` are read from other folders. The files of an array are
    compared with what is ``listed`` of them when it is first read: Zarr would read a missing file as zeros.
    With a ``cache``, which needs the list, arrays are fetched into it whole.
    Threads may use one at once, and so may a forked process.
    """

    def __init__(
        self,
        root: Root,
        folder: str,
        instead: Mapping[str, str] | None = None,
        listed: Mapping[str, Listed] | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        self._root = root
        self._folder = folder
        self._instead = dict(instead or {})
        self._listed = dict(listed or {})
        self._cache = cache
        self._arrays: dict[str, direct.DirectArray | ZarrArray] = {}

    def _read(self, name: str, read: Callable[[direct.DirectArray | ZarrArray], _Result]) -> _Result:
        try:
            for _ in range(FETCHES if self._cache else 0):
                try:
                    return read(self._array(name))
                except DepthsieveError:
                    raise
                except (OSError, ValueError, RuntimeError) as error:
                    self._forget(name, damaged=not isinstance(error, FileNotFoundError))
            return read(self._array(name, from_cache=False))
        except DepthsieveError:
            raise
        except (OSError, ValueError, RuntimeError, KeyError) as error:  # what zarr and its codecs raise
            reason = getattr(error, "strerror", None) or str(error)
            reason = "a checksum does not fit" if "checksum" in reason else reason
            raise StoreDamaged(f"{self._root.location}/{self._key(name)} cannot be read: {reason}; {MEND}") from error

    def _key(self, name: str) -> str:
        return f"{self._instead.get(name, self._folder)}/{name}"

    def _array(self, name: str, from_cache: bool = True) -> direct.DirectArray | ZarrArray:
        array = self._arrays.get(name)
        if array is None:
            place = None
            if self._cache is not None and from_cache:
                try:
                    place = self._cache.get(self.remote_array(name))
                except OSError as error:
                    where, reason = f"{self._root.location}/{self._key(name)}", error.strerror or error
                    raise StoreDamaged(f"{where} cannot be read: {reason}; {MEND}") from error
            array = self._open(name) if place is None else _open_at(place)
            if place is not None or self._cache is None:
                self._arrays[name] = array
        return array

    def _forget(self, name: str, damaged: bool) -> None:
        """A cached array was evicted, or is damaged: it will be fetched again."""
        self._arrays.pop(name, None)
        if damaged and self._cache is not None:
            self._cache.drop(self.remote_array(name))

    def remote_array(self, name: str) -> RemoteArray:
        """An array as a cache fetches it."""
        key, inside = self._key(name), f"{name}/"
        listed = self._listed[key.removesuffix(f"/{name}")]
        files = {file.removeprefix(inside): one for file, one in listed.items() if file.startswith(inside)}
        return RemoteArray(self._root, key, files)

    def _open(self, name: str) -> direct.DirectArray | ZarrArray:
        key = self._key(name)
        folder = key.removesuffix(f"/{name}")
        listed = self._listed.get(folder, {})
        for file, (size, _) in listed.items():
            if file.startswith(f"{name}/"):
                entry = self._root.entry(f"{folder}/{file}")
                _check_size(f"{self._root.location}/{folder}/{file}", entry.size if entry else None, size)
        if self._root.path is None:
            return ZarrArray(self._root.zarr(key))
        document = self._root.read(f"{key}/zarr.json")
        known = listed.get(f"{name}/zarr.json")
        if known is not None and hashlib.sha256(document).digest() != known[1]:
            raise StoreDamaged(f"{self._root.location}/{key}/zarr.json does not fit its digest; {MEND}")
        return _open_at(self._root.path / key, document)

    def read_into(self, name: str, row: int, out: NDArray[Any]) -> None:
        """Decode a row of an array into ``out``, C-contiguous, of the row's shape and the stored type: float16 [H,W] of
        "depth", uint8 [H,W] of "reliability". What ``out`` holds after an error is not said.

        Raises :class:`UsageError` for another buffer.
        """

        def read(array: direct.DirectArray | ZarrArray) -> None:
            wanted = array.shape[1:], array.dtype
            if (out.shape, out.dtype) != wanted or not (out.flags.c_contiguous and out.flags.writeable):
                raise UsageError(f"{name} needs a writeable, C-contiguous {wanted}, not {(out.shape, out.dtype)}")
            array.read_into(row, out)

        self._read(name, read)

    def read_range(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` up to, but not including, ``stop`` of an array that is one chunk without packing. Only these
        are read; the checksum of the whole chunk is not looked at, which :meth:`column` does."""
        return self._read(name, lambda array: array.rows(start, stop))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, rows first."""
        return self._read(name, lambda array: array.shape)

    def column(self, name: str) -> NDArray[Any]:
        """A whole one-dimensional array, or ``histogram`` [N,K]."""
        return self._read(name, lambda array: array.whole())

    def whole(self, spec: schema.ArraySpec) -> NDArray[Any]:
        """A whole array, in the type it was written from."""
        values = self.column(spec.name)
        return values.astype(object) if spec.dtype == "str" else values

    def depth(self, row: int) -> NDArray[np.float32]:
        """Depth of one image, float32 [H,W]."""
        return self._row("depth", row).astype(np.float32)

    def reliability(self, row: int) -> NDArray[np.uint8]:
        """Reliability of one image, uint8 [H,W]."""
        return self._row("reliability", row).astype(np.uint8, copy=False)

    def signal(self, name: str, row: int) -> NDArray[np.float32]:
        """A kept signal of one image, float32 [H,W], relative to the label."""
        return self._row(name, row).astype(np.float32)

    def _row(self, name: str, row: int) -> NDArray[Any]:
        def read(array: direct.DirectArray | ZarrArray) -> NDArray[Any]:
            out = np.empty(array.shape[1:], array.dtype)
            array.read_into(row, out)
            return out

        return self._read(name, read)


def _open_at(place: Path, document: bytes | None = None) -> direct.DirectArray | ZarrArray:
    """The array in a folder of this machine, whose ``zarr.json`` may be known."""
    if document is None:
        document = (place / "zarr.json").read_bytes()
    found = direct.open_direct(str(place), document) if direct.AVAILABLE else None
    return ZarrArray(place) if found is None else found


def listed_of(files: Mapping[str, Mapping[str, Any]]) -> Listed:
    """The files that a record names, in a form that many can be kept of."""
    return {sys.intern(name): (file["bytes"], bytes.fromhex(file["sha256"])) for name, file in files.items()}


def check_files(root: Root, folder: str, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise :class:`StoreDamaged` when a file of a group is missing or has another size than its record says: Zarr
    would read a missing one as zeros."""
    sizes = {entry.key: entry.size for entry in root.entries(folder)}
    for name, listed in files.items():
        _check_size(f"{root.location}/{folder}/{name}", sizes.get(f"{folder}/{name}"), listed["bytes"])


def _check_size(shown: str, size: int | None, expected: int) -> None:
    if size != expected:
        found = "is missing" if size is None else f"has {size} bytes instead of {expected}"
        raise StoreDamaged(f"{shown} {found}; {MEND}")
