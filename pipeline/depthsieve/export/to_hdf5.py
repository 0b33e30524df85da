"""``hdf5``: a group an image, with ``depth``, ``reliability``, and what is known of it as attributes."""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from depthsieve.export.index import index_json, quantity_words
from depthsieve.export.protocol import About, Encoded, Entries, Item, VolumeTarget
from depthsieve.store.schema import array_attributes

INDEX = "index.json"
LEVEL = 4
"""Of zlib."""


class Hdf5Target(VolumeTarget):
    """``labels-00000.h5``, ... and ``index.json``."""

    def volume_name(self, number: int, first: str) -> str:
        return f"labels-{number:05d}.h5"

    def encode(self, item: Item) -> Encoded:
        """Both maps as HDF5 packs a chunk: here, by several threads; HDF5 itself has one lock."""
        files = {"depth": _packed(item.depth_HW), "reliability": _packed(item.reliability_HW)}
        return Encoded(files, {**item.facts(), "group": item.path})

    def write_volume(self, path: Path, samples: Iterator[tuple[Item, Encoded]]) -> None:
        ask = self.ask
        with h5py.File(path, "w", libver=("v108", "v108")) as file:
            file.attrs["quantity"], file.attrs["unit"] = ask.quantity, ask.unit
            for item, encoded in samples:
                group = file.create_group(item.path)
                for name, value in item.facts().items():
                    group.attrs[name] = value
                for name, map_HW in (("depth", item.depth_HW), ("reliability", item.reliability_HW)):
                    made = group.create_dataset(
                        name,
                        map_HW.shape,
                        map_HW.dtype,
                        chunks=map_HW.shape,
                        shuffle=map_HW.itemsize > 1,
                        compression="gzip",
                        compression_opts=LEVEL,
                        track_times=False,
                    )
                    made.id.write_direct_chunk((0, 0), encoded.files[name])
                    for key, value in array_attributes(name, ask.quantity, ask.unit, ask.store.code_version).items():
                        made.attrs[key] = value

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        version = self.ask.store.code_version
        head = {"quantity": self.ask.quantity, "unit": self.ask.unit, "invalid": "NaN", "code_version": version}
        yield INDEX, index_json(head, entries)

    def about(self) -> About:
        return About(
            layout="`labels-00000.h5` and so on, a group an image (its path, such as `default/a.jpg`) with the "
            "datasets `depth` (float32) and `reliability` (uint8), one chunk each, shuffled and gzipped; "
            f"`{INDEX}` has a row an image: its `id`, `group`, sizes. The group's attributes have them too.",
            depth=f"{quantity_words(self.ask)}.",
            invalid="NaN in depth, and 0 in reliability.",
            precision="the store's values, exactly, at label resolution.",
            photos="not written.",
            code=_CODE,
        )


def _packed(map_HW: NDArray[Any]) -> bytes:
    """A chunk, as HDF5's filters shuffle and gzip make it."""
    data = np.ascontiguousarray(map_HW)
    if data.itemsize > 1:
        data = data.view(np.uint8).reshape(-1, map_HW.itemsize).T
    return zlib.compress(data.tobytes(), LEVEL)


_CODE = """
import glob
import h5py

groups = {}  # by the id of the image


def find(name, item):
    if "id" in item.attrs:
        groups[item.attrs["id"]] = item


for path in sorted(glob.glob("labels-*.h5")):
    h5py.File(path).visititems(find)
image_id, group = min(groups.items())
depth, reliability = group["depth"][:], group["reliability"][:]
"""
