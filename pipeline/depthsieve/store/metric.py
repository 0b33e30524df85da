"""Read how labels become metres: a scale and a shift an image, as the index has them. Axes: N images."""

import numpy as np
import pyarrow as pa

from depthsieve.reliability.metric import NO_FIT, MetricFit
from depthsieve.store.catalog import Catalog
from depthsieve.store.layer_kinds import METRIC, METRIC_COLUMNS
from depthsieve.store.layer_rows import LayerRows

SCHEMA = pa.schema([(f"metric_{name}", pa.float64()) for name in METRIC_COLUMNS])
"""Columns that the layer adds to the index; null where they are not known."""


class MetricReader(LayerRows):
    """The scales and shifts of a store, shard by shard; the layer is looked for once."""

    def __init__(self, store: Catalog) -> None:
        super().__init__(store, METRIC)

    def fit(self, shard_id: str, row: int) -> MetricFit:
        """That of one label; all NaN where nobody tried."""
        reader = self.arrays(shard_id)
        return NO_FIT if reader is None else MetricFit(*map(float, reader.column("fit")[row]))

    def columns(self, shard_N: pa.Array, row_N: pa.Array, known_N: pa.Array) -> dict[str, pa.Array]:
        """Columns of :data:`SCHEMA` for images at these rows of shards; null where not ``known_N``, and not known."""
        fit_NC = np.full((len(shard_N), len(SCHEMA)), np.nan)
        for stored, places, rows in self.by_shard(shard_N, row_N, known_N, ("fit",)):
            fit_NC[places] = stored["fit"][rows]
        return {
            name: pa.array(fit_NC[:, number], mask=np.isnan(fit_NC[:, number]))
            for number, name in enumerate(SCHEMA.names)
        }
