"""What curation chooses from: a row an image, in the order of ids. Axes: N images, K the 256 reliability codes."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.progress import progress_bar
from depthsieve.features import RELIABILITY_COLUMNS, reliability_signals
from depthsieve.reliability.masking import threshold_code
from depthsieve.store import Store

DERIVED = {
    "source": "name of the source that the image comes from",
    "short_side": "shorter side of the upright source image, in pixels",
    "unreliable": "share of the valid pixels under the dataset's threshold for `drop`, 0..1",
}
"""Columns that are made of others here."""


def image_table(store: Store, index: pa.Table, drop: float, progress: bool = False) -> pa.Table:
    """The labelled images of an index, with the columns of :data:`DERIVED`, and reliability as the store reads it now:
    from its layer, where one was asked for."""
    table = index.filter(pc.equal(index["status"], "labelled")).combine_chunks()
    total_K = np.zeros(256, np.int64)
    for _, histogram_NK in _histograms(store, table, progress):
        total_K += histogram_NK.sum(0, dtype=np.int64)
    threshold = threshold_code(total_K, drop)
    reliability_NF = np.zeros((len(table), len(RELIABILITY_COLUMNS)), np.float32)
    unreliable_N = np.zeros(len(table), np.float32)
    for places, histogram_NK in _histograms(store, table, progress):
        reliability_NF[places] = reliability_signals(histogram_NK)
        valid_N = histogram_NK[:, 1:].sum(1, dtype=np.int64)
        unreliable_N[places] = histogram_NK[:, 1:threshold].sum(1, dtype=np.int64) / np.maximum(valid_N, 1)
    for number, name in enumerate(RELIABILITY_COLUMNS):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(reliability_NF[:, number]))
    table = table.append_column("source", pc.list_element(pc.split_pattern(table["id"], "/", max_splits=1), 0))
    table = table.append_column("short_side", pc.min_element_wise(table["height"], table["width"]))
    return table.append_column("unreliable", pa.array(unreliable_N))


def empty_table(index: pa.Table) -> pa.Table:
    """No images, with the columns of :func:`image_table`."""
    types = {"source": pa.string(), "short_side": index.schema.field("height").type, "unreliable": pa.float32()}
    columns = [pa.field(name, types[name]) for name in DERIVED]
    return pa.schema([*index.schema, *columns]).empty_table()


def _histograms(
    store: Store, table: pa.Table, progress: bool
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint32]]]:
    """For each shard the places of its images in the table, and their histograms [n,K]."""
    encoded = table["shard"].combine_chunks().dictionary_encode()
    shard_N, row_N = encoded.indices.to_numpy(), table["row"].to_numpy()
    order = np.argsort(shard_N, kind="stable")
    ends = np.cumsum(np.bincount(shard_N, minlength=len(encoded.dictionary))).tolist()
    with progress_bar("histograms", total=len(table), shown=progress) as bar:
        for shard_id, start, end in zip(encoded.dictionary.to_pylist(), [0, *ends], ends, strict=False):
            places = order[start:end]
            yield places, store.reader(shard_id).column("histogram")[row_N[places]]
            bar.update(end - start)
