"""Read where frames stand in their clips: a scale and a shift a frame, as the index has them. Axes: N images."""

import numpy as np
import pyarrow as pa

from depthsieve.core.clips import CLIP_COLUMNS, NO_CLIP, ClipFit
from depthsieve.store.catalog import Catalog
from depthsieve.store.layer_kinds import CLIPS
from depthsieve.store.layer_rows import LayerRows

SCHEMA = pa.schema([(f"clip_{name}", pa.float64()) for name in CLIP_COLUMNS])
"""Columns that the layer adds to the index; null where they are not known."""


class ClipReader(LayerRows):
    """The scales and shifts of a store's frames, shard by shard; the layer is looked for once."""

    def __init__(self, store: Catalog) -> None:
        super().__init__(store, CLIPS)

    def fit(self, shard_id: str, row: int) -> ClipFit:
        """That of one label; all NaN where nobody looked at it."""
        reader = self.arrays(shard_id)
        return NO_CLIP if reader is None else ClipFit(*map(float, reader.column("fit")[row]))

    def columns(self, shard_N: pa.Array, row_N: pa.Array, known_N: pa.Array) -> dict[str, pa.Array]:
        """Columns of :data:`SCHEMA` for images at these rows of shards; null where not ``known_N``, and not known."""
        fit_NC = np.full((len(shard_N), len(SCHEMA)), np.nan)
        for stored, places, rows in self.by_shard(shard_N, row_N, known_N, ("fit",)):
            fit_NC[places] = stored["fit"][rows]
        return {
            name: pa.array(fit_NC[:, number], mask=np.isnan(fit_NC[:, number]))
            for number, name in enumerate(SCHEMA.names)
        }
