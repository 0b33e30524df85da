"""What a new generation would hold, sorted into shards on the disk: memory does not grow with the number of images."""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.errors import ImageRejected, RunError
from depthsieve.records import ImageRecord, Shape
from depthsieve.sharding import count_shards, cut_shards
from depthsieve.store import Store
from depthsieve.store.plan import IMAGES_SCHEMA, PLAN_SCHEMA, REJECTED_SCHEMA
from depthsieve.store.spill import SpillDatabase, spill_database
from depthsieve.store.standing import Again, known_ids

ROOM_PER_IMAGE = 100
"""Bytes on the disk that sorting takes beside what is there already: 55 were measured, with ids of 50 characters."""

KEPT_SIZES = 1 << 16
"""Sizes of images whose label shape is kept in mind."""

_TABLES = """
CREATE TABLE images (
    id VARCHAR, size BIGINT, mtime_ns BIGINT, width INTEGER, height INTEGER, orientation TINYINT,
    label_height INTEGER, label_width INTEGER
);
CREATE TABLE rejected (id VARCHAR, size BIGINT, mtime_ns BIGINT, reason VARCHAR);
CREATE TABLE known (id VARCHAR);
"""


@dataclass(frozen=True)
class Draft:
    """What a new generation would hold. ``buckets`` counts the images of each label shape; ``rejected`` are the files
    that are refused (:data:`depthsieve.store.plan.REJECTED_SCHEMA`), ``gone`` the ids that leave the store, both by id.
    """

    buckets: Mapping[Shape, int]
    rejected: pa.Table
    gone: tuple[str, ...]
    _database: SpillDatabase
    _replaced: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.buckets or len(self.rejected) or self.gone)

    @property
    def images(self) -> int:
        """Images to be labelled."""
        return sum(self.buckets.values())

    @property
    def pixels(self) -> int:
        """Pixels of label in them."""
        return sum(height * width * images for (height, width), images in self.buckets.items())

    @property
    def largest(self) -> Shape:
        """The label shape with the most pixels; (0, 0) without images."""
        return max(self.buckets, key=lambda shape: shape[0] * shape[1], default=(0, 0))

    def sample(self, shape: Shape, count: int) -> tuple[ImageRecord, ...]:
        """At most ``count`` of the images of a label shape, at random, but the same each time."""
        height, width = shape
        fields = ", ".join(field.name for field in dataclasses.fields(ImageRecord))
        chosen = f"label_height = {height:d} AND label_width = {width:d} ORDER BY hash(id), id LIMIT {count:d}"
        rows = self._database.all(f"SELECT {fields} FROM images WHERE {chosen}")
        return tuple(ImageRecord(**row) for row in rows.to_pylist())

    def shards(self, shard_size: int) -> int:
        """How many shards they make."""
        return count_shards(self.buckets, shard_size)

    def tables(self, generation: int, shard_size: int) -> Iterator[pa.Table]:
        """Their rows of the plan, in order, each table of whole shards."""
        rows = self._database.read("SELECT * FROM images ORDER BY label_height, label_width, id")
        replaced = pa.array(sorted(self._replaced), pa.string())
        for table in cut_shards(rows, generation, shard_size):
            action = pc.if_else(pc.is_in(table["id"], value_set=replaced), "replace", "add")
            yield table.append_column("action", action).select(PLAN_SCHEMA.names)


@contextlib.contextmanager
def draft_batches(
    images: Iterable[pa.Table],
    rejected: Iterable[pa.Table],
    label_shape: Callable[[int, int], Shape],
    folder: Path,
    store: Store | None = None,
    again: Again | None = None,
    leaves: Callable[[str], bool] = lambda image: False,
) -> Iterator[Draft]:
    """Draft a generation of what a source holds and the ``store``, if there is one, does not know.

    ``images`` are tables of :data:`depthsieve.store.plan.IMAGES_SCHEMA` and ``rejected`` of
    :data:`depthsieve.store.plan.REJECTED_SCHEMA`, in any order, whatever other columns they have; an id comes at most
    once. ``label_shape`` gives the (H, W) for a height and width, or raises :class:`ImageRejected`: then the image is
    rejected with that reason. Images among ``again`` count as not known; those of them that failed or were rejected,
    are not found and for which ``leaves`` is true leave the store. ``folder`` is made and used until the end; it is the
    caller's to remove.

    Raises :class:`RunError` where the disk of ``folder`` has no room.
    """
    again = again or Again()
    with spill_database(folder) as database:
        database.run(_TABLES)
        plain = (table.select(IMAGES_SCHEMA.names) for table in images)
        database.append("images", _shaped(plain, label_shape, database))
        database.append("rejected", (table.select(REJECTED_SCHEMA.names) for table in rejected))
        gone = _missing(database, filter(leaves, {*again.failed, *again.rejected}))
        if store is not None and store.generations() and _rows(database, "images") + _rows(database, "rejected"):
            database.append("known", known_ids(store, again))
            for table in ("images", "rejected"):
                database.run(f"DELETE FROM {table} WHERE id IN (SELECT id FROM known)")
            database.run("DROP TABLE known")
        _check_room(folder, _rows(database, "images"))
        counted = database.all("SELECT label_height, label_width, count(*) FROM images GROUP BY ALL ORDER BY ALL")
        rows = zip(*(column.to_pylist() for column in counted.columns), strict=True)
        yield Draft(
            {(height, width): images for height, width, images in rows},
            database.all("SELECT * FROM rejected ORDER BY id").cast(REJECTED_SCHEMA),
            gone,
            database,
            again.failed,
        )


def _rows(database: SpillDatabase, table: str) -> int:
    return int(database.all(f"SELECT count(*) AS rows FROM {table}")["rows"][0].as_py())


def _check_room(folder: Path, images: int) -> None:
    needed, free = images * ROOM_PER_IMAGE, shutil.disk_usage(folder).free
    if needed > free:
        raise RunError(
            f"sorting {images} images takes about {needed / 1e9:.3g} GB on the disk of {folder} and "
            f"{free / 1e9:.3g} GB are free; make room there"
        )


def _missing(database: SpillDatabase, candidates: Iterable[str]) -> tuple[str, ...]:
    """Those of some ids that the source does not hold, sorted."""
    listed = sorted(candidates)
    if not listed:
        return ()
    database.run("CREATE TABLE candidates (id VARCHAR)")
    database.append("candidates", [pa.table({"id": pa.array(listed, pa.string())})])
    found = "SELECT id FROM images UNION ALL SELECT id FROM rejected"
    missing = database.all(f"SELECT id FROM candidates WHERE id NOT IN ({found}) ORDER BY id")
    return tuple(missing["id"].to_pylist())


def _shaped(
    images: Iterable[pa.Table], label_shape: Callable[[int, int], Shape], database: SpillDatabase
) -> Iterator[pa.Table]:
    """The tables with each image's label shape; those that have none go into the table of rejects at once."""

    @functools.lru_cache(KEPT_SIZES)
    def shape_or_reason(height: int, width: int) -> Shape | str:
        try:
            return label_shape(height, width)
        except ImageRejected as error:
            return str(error)

    for table in images:
        height_N, width_N = (table[name].to_numpy().astype(np.int64) for name in ("height", "width"))
        sizes_U, which_N = np.unique(height_N << 32 | width_N, return_inverse=True)
        found = [shape_or_reason(size >> 32, size & 0xFFFFFFFF) for size in sizes_U.tolist()]
        shapes_U2 = np.array([(0, 0) if isinstance(one, str) else one for one in found], np.int32).reshape(-1, 2)
        shapes_N2 = shapes_U2[which_N]
        for name, side_N in zip(("label_height", "label_width"), shapes_N2.T, strict=True):
            table = table.append_column(name, pa.array(side_N))
        has_shape_N = shapes_N2[:, 0] > 0
        if not has_shape_N.all():
            reasons = pa.array([one if isinstance(one, str) else None for one in found], pa.string())
            out = table.append_column("reason", reasons.take(pa.array(which_N)))
            database.insert("rejected", out.filter(pa.array(~has_shape_N)).select(REJECTED_SCHEMA.names))
            table = table.filter(pa.array(has_shape_N))
        yield table
