"""Read the arrays of one group of a store. Axes: N images of a shard, H and W the label shape, K the 256 codes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from depthsieve.errors import StoreDamaged
from depthsieve.records import MEND
from depthsieve.storage import Root
from depthsieve.store import schema


class ShardReader:
    """The arrays of one committed shard, by row. Reading raises :class:`StoreDamaged` where a checksum does not fit.

    ``folder`` is where its group lies; arrays named in ``instead`` are read from other folders.
    """

    def __init__(self, root: Root, folder: str, instead: Mapping[str, str] | None = None) -> None:
        self._root = root
        self._folder = folder
        self._instead = dict(instead or {})
        self._arrays: dict[str, Any] = {}

    def _read(self, name: str, rows: Any) -> Any:
        key = f"{self._instead.get(name, self._folder)}/{name}"
        try:
            if name not in self._arrays:
                self._arrays[name] = zarr.open_array(self._root.zarr(key), mode="r")
            return self._arrays[name][rows]
        except (OSError, ValueError, RuntimeError, KeyError) as error:  # what zarr and its codecs raise
            reason = "a checksum does not fit" if "checksum" in str(error) else str(error)
            raise StoreDamaged(f"{self._root.location}/{key} cannot be read: {reason}; {MEND}") from error

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """A whole one-dimensional array, or ``histogram`` [N,K]."""
        return np.asarray(self._read(name, ...))

    def whole(self, spec: schema.ArraySpec) -> np.ndarray[Any, Any]:
        """A whole array, in the type it was written from."""
        values = self.column(spec.name)
        return values.astype(object) if spec.dtype == "str" else values

    def depth(self, row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Depth of one image, float32 [H,W]."""
        return np.asarray(self._read("depth", row), dtype=np.float32)

    def reliability(self, row: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Reliability of one image, uint8 [H,W]."""
        return np.asarray(self._read("reliability", row), dtype=np.uint8)

    def signal(self, name: str, row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A kept signal of one image, float32 [H,W], relative to the label."""
        return np.asarray(self._read(name, row), dtype=np.float32)


def check_files(root: Root, folder: str, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise :class:`StoreDamaged` when a file of a group is missing or has another size than its record says: Zarr
    would read a missing one as zeros."""
    sizes = {entry.key: entry.size for entry in root.entries(folder)}
    for name, listed in files.items():
        key = f"{folder}/{name}"
        size = sizes.get(key)
        if size != listed["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes instead of {listed['bytes']}"
            raise StoreDamaged(f"{root.location}/{key} {found}; {MEND}")
