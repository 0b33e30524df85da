"""Read the features of a store's images: a row an image, as the index has it. Axes: N images, D numbers, K codes."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.progress import progress_bar
from depthsieve.features.columns import COLUMNS
from depthsieve.store.arrays import ShardReader
from depthsieve.store.catalog import Catalog
from depthsieve.store.layer_kinds import FEATURES
from depthsieve.store.layers import Layer, find_layer

SCHEMA = pa.schema([*((name, pa.float32()) for name in COLUMNS), ("phash", pa.uint64())])
"""Columns that features add to the index; null where they are not known."""


class FeatureReader:
    """The features of a store, shard by shard; the layer is looked for once."""

    def __init__(self, store: Catalog) -> None:
        self._store = store
        self.layer: Layer | None = find_layer(store.root, FEATURES, store.fingerprint)
        self._has = self.layer.shards() if self.layer else set()

    @property
    def embedding_size(self) -> int | None:
        """D; None where no embeddings are kept."""
        embedding = ((self.layer and self.layer.spec.detail) or {}).get("embedding")
        return int(embedding["size"]) if embedding else None

    def arrays(self, shard_id: str) -> ShardReader | None:
        """The arrays of a committed shard in the layer; None where it does not have the shard, for these labels."""
        if self.layer is None or shard_id not in self._has:
            return None
        folder = self.layer.folder_of(shard_id, self._store.commit_record(shard_id)["content_sha256"])
        return None if folder is None else ShardReader(self._store.root, folder)

    def columns(self, shard_N: pa.Array, row_N: pa.Array, known_N: pa.Array) -> dict[str, pa.Array]:
        """Columns of :data:`SCHEMA` for images at these rows of shards; null where not ``known_N``, and not known."""
        values_NF = np.full((len(shard_N), len(COLUMNS)), np.nan, np.float32)
        phash_N = np.zeros(len(shard_N), np.uint64)
        there_N = np.zeros(len(shard_N), np.bool_)
        for reader, places, rows in self._by_shard(shard_N, row_N, known_N):
            names = list(self.layer.spec.detail["columns"]) if self.layer and self.layer.spec.detail else []
            stored = reader.column("values")[rows]
            for number, name in enumerate(COLUMNS):
                if name in names:
                    values_NF[places, number] = stored[:, names.index(name)]
            phash_N[places], there_N[places] = reader.column("phash")[rows], True
        columns = {
            name: pa.array(values_NF[:, number], mask=np.isnan(values_NF[:, number]))
            for number, name in enumerate(COLUMNS)
        }
        return columns | {"phash": pa.array(phash_N, mask=~there_N)}

    def embeddings(self, shard_N: pa.Array, row_N: pa.Array, progress: bool = False) -> NDArray[np.float16]:
        """Float16 [N,D] of images at these rows of shards; 0 where not known. Needs :attr:`embedding_size`."""
        embedding_ND = np.zeros((len(shard_N), self.embedding_size or 0), np.float16)
        with progress_bar("embeddings", total=len(shard_N), shown=progress) as bar:
            for reader, places, rows in self._by_shard(shard_N, row_N, pc.is_valid(shard_N)):
                embedding_ND[places] = reader.column("embedding")[rows]
                bar.update(len(rows))
        return embedding_ND

    def _by_shard(self, shard_N: pa.Array, row_N: pa.Array, known_N: pa.Array) -> Any:
        """For each shard of the layer: its arrays, the places of its images among the N, and their rows in it."""
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
