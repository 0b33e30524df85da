"""Read a layer that has a few numbers for each image. Axes: N images."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from depthsieve.core.ahead import map_ahead
from depthsieve.store.arrays import ShardReader
from depthsieve.store.catalog import FETCHES, Catalog
from depthsieve.store.layers import Layer, find_layer

Columns = Mapping[str, NDArray[Any]]

Part = tuple[Columns, NDArray[np.int64], NDArray[np.int64]]
"""Some arrays of a shard, the places of its images among the N that were asked for, and their rows in it."""


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

    def by_shard(self, shard_N: pa.Array, row_N: pa.Array, known_N: pa.Array, names: Sequence[str]) -> Iterator[Part]:
        """The arrays of these names of each shard of the layer that images at these rows of shards are in; those not
        ``known_N`` are passed over. Shards in an object store are read side by side, ahead of their use."""
        known = np.flatnonzero(known_N.to_numpy(zero_copy_only=False))
        if self.layer is None or not len(known):
            return
        encoded = shard_N.take(pa.array(known)).dictionary_encode()
        rows = row_N.take(pa.array(known)).to_numpy().astype(np.int64)
        number_N = encoded.indices.to_numpy()
        order = np.argsort(number_N, kind="stable")
        ends = np.cumsum(np.bincount(number_N, minlength=len(encoded.dictionary)))
        start = 0

        def read(shard_id: str) -> Columns | None:
            reader = self.arrays(shard_id)
            return None if reader is None else {name: reader.column(name) for name in names}

        shard_ids = encoded.dictionary.to_pylist()
        with ThreadPoolExecutor(FETCHES) as pool:
            far = self._store.root.path is None
            all_read = map_ahead(pool, read, shard_ids, FETCHES) if far else map(read, shard_ids)
            for columns, end in zip(all_read, ends.tolist(), strict=True):
                mine = order[start:end]
                start = end
                if columns is not None:
                    yield columns, known[mine], rows[mine]
