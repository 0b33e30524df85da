"""Buckets and shards: which images are labelled, committed and stored together. Pure. Axes: N rows of a plan."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from depthsieve.core.records import Shape
from depthsieve.store.schema import shard_name

MAX_SHARD_PIXELS = 96_000_000


def images_a_shard(shape: Shape, shard_size: int) -> int:
    """How many images of one label shape a shard holds: at most ``shard_size`` and 96 million pixels, at least one."""
    return max(1, min(shard_size, MAX_SHARD_PIXELS // (shape[0] * shape[1])))


def count_shards(buckets: Mapping[Shape, int], shard_size: int) -> int:
    """Shards that so many images of each label shape make."""
    return sum(-(-images // images_a_shard(shape, shard_size)) for shape, images in buckets.items())


def cut_shards(tables: Iterable[pa.Table], generation: int, shard_size: int) -> Iterator[pa.Table]:
    """Add the columns ``shard`` and ``row`` to the rows of a plan; every table that comes out holds whole shards.

    The rows are sorted by ``label_height``, ``label_width`` and ``id``, in tables of any size. Images of one label
    shape fill one shard after another, so the shards depend on the set of images alone.
    """
    number = 0
    left: pa.Table | None = None
    for table in tables:
        if not len(table):
            continue
        left = table if left is None else pa.concat_tables([left, table])
        row_N = _rows_in_shards(left, shard_size)
        last = int(np.flatnonzero(row_N == 0)[-1])  # it may go on in the next table
        if last:
            yield _named(left[:last], row_N[:last], generation, number)
            number += int((row_N[:last] == 0).sum())
            left = left[last:]
    if left is not None:
        yield _named(left, _rows_in_shards(left, shard_size), generation, number)


def _rows_in_shards(table: pa.Table, shard_size: int) -> NDArray[np.int64]:
    """Each row's place in its shard, where the table begins with a shard."""
    height_N, width_N = (table[name].to_numpy() for name in ("label_height", "label_width"))
    changes = (height_N[1:] != height_N[:-1]) | (width_N[1:] != width_N[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(np.append(starts, len(table)))
    shapes = [(int(height_N[start]), int(width_N[start])) for start in starts]
    images = np.array([images_a_shard(shape, shard_size) for shape in shapes])
    row_N: NDArray[np.int64] = (np.arange(len(table)) - starts.repeat(lengths)) % images.repeat(lengths)
    return row_N


def _named(table: pa.Table, row_N: NDArray[np.int64], generation: int, number: int) -> pa.Table:
    first_N = row_N == 0
    names = pa.array([shard_name(generation, number + shard) for shard in range(int(first_N.sum()))], pa.string())
    table = table.append_column("shard", names.take(pa.array(np.cumsum(first_N) - 1)))
    return table.append_column("row", pa.array(row_N, pa.int32()))
