"""Open a store, read its labels and its index. Axes: N images of a shard, H and W the label shape, K the 256 codes."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.errors import StoreError, StoreNotFound
from depthsieve.core.recent import Recent
from depthsieve.core.records import Shape
from depthsieve.storage import Root, open_root
from depthsieve.store import schema
from depthsieve.store.arrays import ShardReader, check_files, listed_of
from depthsieve.store.cache import ShardCache
from depthsieve.store.catalog import Catalog
from depthsieve.store.history import Event, history
from depthsieve.store.index import build_index
from depthsieve.store.layer_kinds import RELIABILITY
from depthsieve.store.layers import Layer, open_layer
from depthsieve.store.root_document import spec_in

KEPT_READERS = 4096
"""Shards that an open store keeps what it knows of: about 15 KB each."""


def _no_readers() -> Recent[ShardReader]:
    return Recent(KEPT_READERS)


@dataclass(frozen=True, slots=True)
class Label:
    """One image's label, upright, at label shape.

    ``depth_HW`` is float32 in the store's quantity; ``reliability_HW`` is uint8: 0 = never train on it, 1..255 = a
    fixed code of expected error, larger is better. ``source_shape`` is the (height, width) of the upright source image.
    """

    id: str
    depth_HW: np.ndarray[Any, np.dtype[np.float32]]
    reliability_HW: np.ndarray[Any, np.dtype[np.uint8]]
    source_shape: Shape


@dataclass(frozen=True)
class Store(Catalog):
    """A label store, for reading. Make one with :func:`open_store`; it can be pickled (it is its location).

    With a ``layer``, reliability and histograms are read from that.
    """

    layer: Layer | None = None
    cache: ShardCache | None = None
    _readers: Recent[ShardReader] = field(default_factory=_no_readers, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.location, None if self.layer is None else self.layer.name, self.cache)

    def reopened(self) -> "Store":
        """The same store, with nothing of this one's in common: for another process."""
        return _reopen(self.location, None if self.layer is None else self.layer.name, self.cache)

    def with_cache(self, cache: ShardCache | None) -> "Store":
        """The same store; where it lies in an object store, its shards are read through that ``cache``."""
        return dataclasses.replace(self, cache=cache, _readers=_no_readers())

    def with_layer(self, name: str | None) -> "Store":
        """The same store, with reliability from the layer of that name; from the labels with None.

        Raises :class:`StoreError` that lists the layers there are.
        """
        layer = None if name is None else open_layer(self.root, name, self.fingerprint)
        return dataclasses.replace(self, layer=layer, _readers=_no_readers())

    def index(self, features: bool = True) -> pa.Table:
        """One row an image: where its label is, or why it has none. Columns in :mod:`depthsieve.store.index`; without
        ``features`` only those of the place, which is faster."""
        return build_index(self, features)

    def history(self, image_id: str) -> tuple[Event, ...]:
        """What became of an image, generation by generation: see :func:`depthsieve.store.history.history`."""
        return history(self, image_id)

    def reader(self, shard_id: str) -> ShardReader:
        """The arrays of a committed shard; what was opened last is kept open.

        Raises :class:`StoreError` for a shard that the layer does not have; and, here or when an array is first read,
        :class:`StoreDamaged` when a file is missing or has another size: Zarr would read a missing one as zeros.
        """
        return self._readers.get(shard_id) or self._readers.put(shard_id, self._open_shard(shard_id))

    def _open_shard(self, shard_id: str) -> ShardReader:
        record = self.commit_record(shard_id)
        folder = schema.group_key(record["group"])
        files, instead = {folder: record["files"]}, {}
        if self.layer is not None:
            found = self.layer.group_of(shard_id, record["content_sha256"])
            if found is None:
                raise StoreError(f"layer {self.layer.name!r} does not have shard {shard_id}; {self._recalibrate}")
            files[found[0]] = found[1]
            instead = {spec.name: found[0] for spec in RELIABILITY}
        cache = self.cache if self.root.path is None else None
        if self.root.path is None and cache is None:  # one listing costs less than a look at each file
            for where, listed in files.items():
                check_files(self.root, where, listed)
            files = {}
        known = {where: listed_of(listed) for where, listed in files.items()}
        return ShardReader(self.root, folder, instead, known, cache)

    @property
    def _recalibrate(self) -> str:
        name = "" if self.layer is None else self.layer.name
        return f"`depthsieve recalibrate {self.location} --name {name}` adds what has kept signals"

    def check_covered(self, images: Mapping[str, int]) -> None:
        """Raise :class:`StoreError` unless the layer, if there is one, has all of the given shards, each of which has
        so many ``images``."""
        missing = images.keys() - self.layer.shards() if self.layer is not None else set()
        if self.layer is not None and missing:
            count, all_of_them = sum(images[shard] for shard in missing), sum(images.values())
            raise StoreError(
                f"layer {self.layer.name!r} of {self.location} does not have {count} of {all_of_them} images (in "
                f"{len(missing)} of {len(images)} shards); {self._recalibrate}"
            )

    @functools.cached_property
    def _places(self) -> dict[str, tuple[str, int, Shape]]:
        table = self.index(features=False).filter(pc.field("status") == "labelled")
        columns = [table[name].to_pylist() for name in ("id", "shard", "row", "height", "width")]
        return {image: (shard, row, (height, width)) for image, shard, row, height, width in zip(*columns, strict=True)}

    @property
    def images(self) -> list[str]:
        """Ids of all labelled images, sorted."""
        return sorted(self._places)

    def label(self, image_id: str) -> Label:
        """The label of one image. Raises :class:`KeyError` for an id that is not labelled."""
        shard_id, row, shape = self._places[image_id]
        reader = self.reader(shard_id)
        return Label(image_id, reader.depth(row), reader.reliability(row), shape)

    def __len__(self) -> int:
        return len(self._places)


def open_store(location: str | Path | Root, reliability: str | None = None) -> Store:
    """Open a label store for reading: a folder, or the URL of one in an object store (``s3://bucket/prefix``).

    With ``reliability``, the name of a layer that :func:`depthsieve.recalibrate` made, reliability is read from that.

    Raises :class:`StoreNotFound` when there is none, :class:`StoreMismatch` for another format version,
    :class:`StoreDamaged` when the root record does not fit its digest, :class:`StoreError` where there is no such layer
    or it does not have all that is labelled.
    """
    store = _reopen(location, reliability)
    if store.layer is not None:
        store.check_covered(store.images_of(store.committed()))
    return store


def _reopen(location: str | Path | Root, reliability: str | None, cache: ShardCache | None = None) -> Store:
    """The store, which may have grown since it was opened: what its layer does not have is not looked at."""
    root = open_root(location) if isinstance(location, str | Path) else location
    shown = f"{root.location}/{schema.ROOT_DOCUMENT}"
    try:
        data = root.read(schema.ROOT_DOCUMENT)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreNotFound(f"{root.location} is not a label store (it has no labels.zarr)") from None
    except OSError as error:
        raise StoreError(f"cannot read {root.location}: {error.strerror or error}") from error
    return Store(root, spec_in(data, shown)[1], cache=cache).with_layer(reliability)
