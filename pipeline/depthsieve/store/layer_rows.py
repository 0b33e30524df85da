"""Read a layer that has a few numbers for each image. Axes: N images."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from depthsieve.store.arrays import ShardReader
from depthsieve.store.catalog import Catalog
from depthsieve.store.layers import Layer, find_layer

Part = tuple[ShardReader, NDArray[np.int64], NDArray[np.int64]]
"""The arrays of a shard, the places of its images among the N that were asked for, and their rows in it."""


class LayerRows:
    """The single layer of a kind, shard by shard; it is looked for once. A store without one has no rows."""

    def __init__(self, store: Catalog, kind: str) -> None:
        self._store = store
        self.layer: Layer | None = find_layer(store.root, kind, store.fingerprint)
        self._has = self.layer.shards() if self.layer else set()

    def arrays(self, shard_id: str) -> ShardReader | None:
        """The arrays of a committed shard in the layer; None where it does not have the shard, for these labels."""
        if self.layer is None or shard_id not in self._has:
            return None
        folder = self.layer.folder_of(shard_id, self._store.commit_record(shard_id)["content_sha256"])
        return None if folder is None else ShardReader(self._store.root, folder)

    def by_shard(self, shard_N: pa.Array, row_N: pa.Array, known_N: pa.Array) -> Iterator[Part]:
        """The shards of the layer that images at these rows of shards are in; those not ``known_N`` are passed over."""
        known = np.flatnonzero(known_N.to_numpy(zero_copy_only=False))
        if self.layer is None or not len(known):
            return
        encoded = shard_N.take(pa.array(known)).dictionary_encode()
        rows = row_N.take(pa.array(known)).to_numpy().astype(np.int64)
        number_N = encoded.indices.to_numpy()
        order = np.argsort(number_N, kind="stable")
        ends = np.cumsum(np.bincount(number_N, minlength=len(encoded.dictionary)))
        start = 0
        for shard_id, end in zip(encoded.dictionary.to_pylist(), ends.tolist(), strict=True):
            mine = order[start:end]
            start = end
            reader = self.arrays(shard_id)
            if reader is not None:
                yield reader, known[mine], rows[mine]
