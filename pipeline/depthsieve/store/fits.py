"""Read a scale and a shift an image, and what else a fit says of it, as the index has them. Axes: N images."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from depthsieve.core.clips import CLIP_COLUMNS, NO_CLIP, ClipFit
from depthsieve.reliability.metric import NO_FIT, MetricFit
from depthsieve.store.catalog import Catalog
from depthsieve.store.layer_kinds import CLIPS, METRIC, METRIC_COLUMNS
from depthsieve.store.layer_rows import LayerRows

METRIC_SCHEMA = pa.schema([(f"metric_{name}", pa.float64()) for name in METRIC_COLUMNS])
"""Columns that the fits to metres add to the index; null where they are not known."""

CLIPS_SCHEMA = pa.schema([(f"clip_{name}", pa.float64()) for name in CLIP_COLUMNS])
"""Columns that the fits of frames to their clips add to the index; null where they are not known."""

Fit = TypeVar("Fit")


class FitReader(LayerRows, Generic[Fit]):
    """The fits of a store's labels, shard by shard; the layer is looked for once. ``unknown`` is the fit of a label
    that nobody looked at, all NaN."""

    def __init__(self, store: Catalog, kind: str, schema: pa.Schema, of: Callable[..., Fit], unknown: Fit) -> None:
        super().__init__(store, kind)
        self._schema, self._of, self._unknown = schema, of, unknown

    def fit(self, shard_id: str, row: int) -> Fit:
        """That of one label."""
        reader = self.arrays(shard_id)
        return self._unknown if reader is None else self._of(*map(float, reader.column("fit")[row]))

    def columns(self, shard_N: pa.Array, row_N: pa.Array, known_N: pa.Array) -> dict[str, pa.Array]:
        """Columns of the schema for images at these rows of shards; null where not ``known_N``, and not known."""
        fit_NC = np.full((len(shard_N), len(self._schema)), np.nan)
        for stored, places, rows in self.by_shard(shard_N, row_N, known_N, ("fit",)):
            fit_NC[places] = stored["fit"][rows]
        return {
            name: pa.array(fit_NC[:, number], mask=np.isnan(fit_NC[:, number]))
            for number, name in enumerate(self._schema.names)
        }


def metric_fits(store: Catalog) -> FitReader[MetricFit]:
    """How labels become metres."""
    return FitReader(store, METRIC, METRIC_SCHEMA, MetricFit, NO_FIT)


def clip_fits(store: Catalog) -> FitReader[ClipFit]:
    """How frames come to the scale of their clips."""
    return FitReader(store, CLIPS, CLIPS_SCHEMA, ClipFit, NO_CLIP)
