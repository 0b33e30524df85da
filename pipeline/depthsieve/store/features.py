"""Read the features of a store's images: a row an image, as the index has it. Axes: N images, D numbers, K codes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.progress import progress_bar
from depthsieve.features.columns import COLUMNS
from depthsieve.store.catalog import Catalog
from depthsieve.store.layer_kinds import FEATURES
from depthsieve.store.layer_rows import LayerRows

SCHEMA = pa.schema([*((name, pa.float32()) for name in COLUMNS), ("phash", pa.uint64())])
"""Columns that features add to the index; null where they are not known."""


class FeatureReader(LayerRows):
    """The features of a store, shard by shard; the layer is looked for once."""

    def __init__(self, store: Catalog) -> None:
        super().__init__(store, FEATURES)

    @property
    def embedding_size(self) -> int | None:
        """D; None where no embeddings are kept."""
        embedding = ((self.layer and self.layer.spec.detail) or {}).get("embedding")
        return int(embedding["size"]) if embedding else None

    def columns(self, shard_N: pa.Array, row_N: pa.Array, known_N: pa.Array) -> dict[str, pa.Array]:
        """Columns of :data:`SCHEMA` for images at these rows of shards; null where not ``known_N``, and not known."""
        values_NF = np.full((len(shard_N), len(COLUMNS)), np.nan, np.float32)
        phash_N = np.zeros(len(shard_N), np.uint64)
        there_N = np.zeros(len(shard_N), np.bool_)
        names = list(self.layer.spec.detail["columns"]) if self.layer and self.layer.spec.detail else []
        for stored, places, rows in self.by_shard(shard_N, row_N, known_N, ("values", "phash")):
            for number, name in enumerate(COLUMNS):
                if name in names:
                    values_NF[places, number] = stored["values"][rows, names.index(name)]
            phash_N[places], there_N[places] = stored["phash"][rows], True
        columns = {
            name: pa.array(values_NF[:, number], mask=np.isnan(values_NF[:, number]))
            for number, name in enumerate(COLUMNS)
        }
        return columns | {"phash": pa.array(phash_N, mask=~there_N)}

    def embeddings(self, shard_N: pa.Array, row_N: pa.Array, progress: bool = False) -> NDArray[np.float16]:
        """Float16 [N,D] of images at these rows of shards; 0 where not known. Needs :attr:`embedding_size`."""
        embedding_ND = np.zeros((len(shard_N), self.embedding_size or 0), np.float16)
        with progress_bar("embeddings", total=len(shard_N), shown=progress) as bar:
            for stored, places, rows in self.by_shard(shard_N, row_N, pc.is_valid(shard_N), ("embedding",)):
                embedding_ND[places] = stored["embedding"][rows]
                bar.update(len(rows))
        return embedding_ND
