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

from depthsieve.cameras.given import Photo, photos_in
from depthsieve.core.cameras import Camera
from depthsieve.core.errors import ImageRejected, RunError
from depthsieve.core.frames import FRAME_ID
from depthsieve.core.records import ImageRecord, Shape
from depthsieve.core.spill import SpillDatabase, spill_database
from depthsieve.core.tables import (
    CAMERA_SCHEMA,
    CHANGED,
    IMAGES_SCHEMA,
    OTHER_CONTENT,
    PLAN_SCHEMA,
    REJECTED_SCHEMA,
    REMOVED_SCHEMA,
)
from depthsieve.planning.sharding import count_shards, cut_shards
from depthsieve.store import Store
from depthsieve.store.plan import camera_columns
from depthsieve.store.standing import Again, known_files

ROOM_PER_IMAGE = 100
"""Bytes on the disk that sorting takes beside what is there already: 55 were measured, with ids of 50 characters."""

KEPT_SIZES = 1 << 16
"""Sizes of images whose label shape is kept in mind."""

_IMAGES = pa.schema(
    [*IMAGES_SCHEMA, *map(PLAN_SCHEMA.field, ("label_height", "label_width", "action")), CHANGED, OTHER_CONTENT]
)
_REJECTED = pa.schema([*REJECTED_SCHEMA, CHANGED, OTHER_CONTENT])
_KNOWN = REJECTED_SCHEMA.append(pa.field("generation", pa.int32()))
_LEFT = "DELETE FROM {table} WHERE NOT changed AND id IN (SELECT id FROM known)"
_NEWEST = """
CREATE TABLE newest AS
SELECT id, arg_max(size, generation) AS size, arg_max(mtime_ns, generation) AS mtime_ns,
    bool_or(reason IS NULL) AS planned
FROM known WHERE id IN (SELECT id FROM images WHERE changed UNION ALL SELECT id FROM rejected WHERE changed)
GROUP BY id
"""
_PLANNED_SINCE = """
DELETE FROM {table}
WHERE changed AND NOT content AND (id, size, mtime_ns) IN (SELECT id, size, mtime_ns FROM newest)
"""
_REPLACES = "UPDATE images SET action = 'replace' WHERE changed AND id IN (SELECT id FROM newest WHERE planned)"


@dataclass(frozen=True, slots=True)
class PlannedNow:
    """What a run adds to the plan: ``images`` to label, those of them that have ``changed``, images ``removed``, and
    the ``shard_size`` where a trial found that larger shards would take too long, and those of the images whose camera
    is an ``other_camera`` than before; ``unnamed``: how many new ones the file of cameras does not name, and the first.
    """

    images: int = 0
    changed: int = 0
    removed: int = 0
    shard_size: int | None = None
    other_camera: int = 0
    unnamed: tuple[int, str] = (0, "")

    @property
    def camera_notes(self) -> tuple[str, ...]:
        """What a person should know of the cameras, before hours of labelling."""
        lines = []
        if self.other_camera:
            count = f"{self.other_camera:,} image{'s' if self.other_camera > 1 else ''}"
            lines.append(f"{count} of the store with another camera than before: labelled again")
        unnamed, first = self.unnamed
        if unnamed:
            count = f"{unnamed:,} new image{'s' if unnamed > 1 else ''}"
            lines.append(f"{count} that the file of cameras does not name, such as {first}: what EXIF says counts")
        return tuple(lines)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of it."""
        if self.shard_size is None:
            return self.camera_notes
        by_trial = f"at most {self.shard_size} images, about a minute's work by a trial (--shard-size sets it)"
        return (*self.camera_notes, f"shards hold {by_trial}")


@dataclass(frozen=True)
class Draft:
    """What a new generation would hold. ``buckets`` counts the images of each label shape; ``rejected`` are the files
    that are refused (:data:`~depthsieve.core.tables.REJECTED_SCHEMA`), ``gone`` the ids that leave the store; both are
    sorted by id. ``changed`` counts images that are labelled again since their file has changed, ``other_camera`` those
    since their camera has. ``has_cameras``: images may have cameras, which are planned with them. ``unnamed``: how many
    new ones a file of cameras does not name, and the first.
    """

    buckets: Mapping[Shape, int]
    rejected: pa.Table
    gone: pa.Table
    changed: int
    other_camera: int
    has_cameras: bool
    _database: SpillDatabase
    unnamed: tuple[int, str] = (0, "")

    def __bool__(self) -> bool:
        return bool(self.buckets or len(self.rejected) or len(self.gone))

    @property
    def images(self) -> int:
        """Images to be labelled."""
        return sum(self.buckets.values())

    @property
    def planned(self) -> PlannedNow:
        """How many images it adds, replaces and removes."""
        removed = len(self.gone)
        return PlannedNow(self.images, self.changed, removed, other_camera=self.other_camera, unnamed=self.unnamed)

    @property
    def pixels(self) -> int:
        """Pixels of label in them."""
        return sum(height * width * images for (height, width), images in self.buckets.items())

    @property
    def largest(self) -> Shape:
        """The label shape with the most pixels; (0, 0) without images."""
        return max(self.buckets, key=lambda shape: shape[0] * shape[1], default=(0, 0))

    @property
    def has_frames(self) -> bool:
        """Whether any of the images is a frame of a video."""
        return _rows(self._database, f"images WHERE regexp_full_match(id, '{FRAME_ID}')") > 0

    def without_camera(self) -> Mapping[str, tuple[int, str]]:
        """How many of the new images are given no camera, and the first id, by source; where cameras are planned."""
        if not self.has_cameras:
            return {}
        columns = "split_part(id, '/', 1) AS source, count(*) AS images, min(id) AS first"
        chosen = "images WHERE camera IS NULL AND action = 'add' GROUP BY ALL"
        rows = self._database.all(f"SELECT {columns} FROM {chosen}").to_pylist()
        return {row["source"]: (row["images"], row["first"]) for row in rows}

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
        known = (
            CAMERA_SCHEMA.names if self.has_cameras and _rows(self._database, "images WHERE camera IS NOT NULL") else ()
        )
        for table in cut_shards(rows, generation, shard_size):
            yield table.select([*PLAN_SCHEMA.names, *known])


@contextlib.contextmanager
def draft_batches(
    images: Iterable[pa.Table],
    rejected: Iterable[pa.Table],
    label_shape: Callable[[int, int], Shape],
    folder: Path,
    store: Store | None = None,
    again: Again | None = None,
    leaves: Callable[[str], bool] = lambda image: False,
    gone: Iterable[pa.Table] = (),
    cameras: Callable[[Photo], Camera | None] | None = None,
) -> Iterator[Draft]:
    """Draft a generation of what a source holds and the ``store``, if there is one, does not know.

    ``images`` are tables of :data:`~depthsieve.core.tables.IMAGES_SCHEMA` and ``rejected`` of
    :data:`~depthsieve.core.tables.REJECTED_SCHEMA`, in any order; an id comes at most once. Where a column ``changed``
    is true, the store knows the image, but with another file: it is planned as a "replace" row, unless the store knows
    that file by now; of one whose column ``content`` is true only the content is another. ``label_shape`` gives the (H,
    W) for a height and width, or raises :class:`ImageRejected`: then the image is rejected with that reason. Images
    among ``again`` count as not known; those of them that failed or were rejected, are not found and for which
    ``leaves`` is true leave the store, and so does what is ``gone``: tables with a column ``id``. ``cameras`` says
    which camera a user gave an image; None: none decides labels. ``folder`` is made and used until the end; it is the
    caller's to remove.

    Raises :class:`RunError` where the disk of ``folder`` has no room.
    """
    again = again or Again()
    with spill_database(folder) as database:
        unchanged = {CHANGED.name: "false", OTHER_CONTENT.name: "false"}
        columns = _IMAGES if cameras is None else pa.schema([*_IMAGES, *CAMERA_SCHEMA])
        database.create("images", columns, action="'add'", **unchanged)
        database.create("rejected", _REJECTED, **unchanged)
        database.create("known", _KNOWN)
        database.create("gone", REMOVED_SCHEMA)
        database.create("other", REMOVED_SCHEMA)
        database.insert("other", pa.table({"id": pa.array(sorted(again.other), pa.string())}))
        shaped = _shaped(_selected(images, IMAGES_SCHEMA.names), label_shape, database)
        database.append("images", shaped if cameras is None else _with_cameras(shaped, cameras))
        database.append("rejected", _selected(rejected, REJECTED_SCHEMA.names))
        database.append("gone", (table.select(["id"]) for table in gone))
        _add_missing(database, filter(leaves, {*again.failed, *again.rejected}))
        if store is not None and store.generations() and _rows(database, "images") + _rows(database, "rejected"):
            _leave_out_known(database, store, again)
        _check_room(folder, _rows(database, "images"))
        counted = database.all("SELECT label_height, label_width, count(*) FROM images GROUP BY ALL ORDER BY ALL")
        rows = zip(*(column.to_pylist() for column in counted.columns), strict=True)
        yield Draft(
            {(height, width): images for height, width, images in rows},
            database.all(f"SELECT {', '.join(REJECTED_SCHEMA.names)} FROM rejected ORDER BY id").cast(REJECTED_SCHEMA),
            database.all("SELECT DISTINCT id FROM gone ORDER BY id").cast(REMOVED_SCHEMA),
            _rows(database, "images WHERE changed"),
            _rows(database, "images WHERE id IN (SELECT id FROM other)"),
            cameras is not None,
            database,
        )


def _selected(tables: Iterable[pa.Table], columns: list[str]) -> Iterator[pa.Table]:
    """Those columns, and which of the images have changed where that is told."""
    for table in tables:
        yield table.select([*columns, *({CHANGED.name, OTHER_CONTENT.name} & set(table.column_names))])


def _with_cameras(images: Iterable[pa.Table], cameras: Callable[[Photo], Camera | None]) -> Iterator[pa.Table]:
    """The tables with the camera that is given for each image."""
    for table in images:
        found = camera_columns([cameras(photo) for photo in photos_in(table)])
        for name in found.column_names:
            table = table.append_column(name, found[name])
        yield table


def _leave_out_known(database: SpillDatabase, store: Store, again: Again) -> None:
    """Take out of the tables what the store knows already, and say of the others what their rows do."""
    database.append("known", known_files(store, again))
    database.run(_NEWEST)
    for table in ("images", "rejected"):
        database.run(_LEFT.format(table=table))
        database.run(_PLANNED_SINCE.format(table=table))
    database.run(_REPLACES)
    if again.failed or again.other:
        database.create("again", REMOVED_SCHEMA)
        database.append("again", [pa.table({"id": pa.array(sorted(again.failed | again.other), pa.string())})])
        database.run("UPDATE images SET action = 'replace' WHERE id IN (SELECT id FROM again)")
    database.run("DROP TABLE known")


def _rows(database: SpillDatabase, table: str) -> int:
    return int(database.all(f"SELECT count(*) AS rows FROM {table}")["rows"][0].as_py())


def _check_room(folder: Path, images: int) -> None:
    needed, free = images * ROOM_PER_IMAGE, shutil.disk_usage(folder).free
    if needed > free:
        raise RunError(
            f"sorting {images} images takes about {needed / 1e9:.3g} GB on the disk of {folder} and "
            f"{free / 1e9:.3g} GB are free; make room there"
        )


def _add_missing(database: SpillDatabase, candidates: Iterable[str]) -> None:
    """Add those of some ids that the source does not hold to what is gone."""
    listed = sorted(candidates)
    if listed:
        database.create("candidates", REMOVED_SCHEMA)
        database.append("candidates", [pa.table({"id": pa.array(listed, pa.string())})])
        found = "SELECT id FROM images UNION ALL SELECT id FROM rejected"
        database.run(f"INSERT INTO gone SELECT id FROM candidates WHERE id NOT IN ({found})")


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
            database.append("rejected", _selected([out.filter(pa.array(~has_shape_N))], REJECTED_SCHEMA.names))
            table = table.filter(pa.array(has_shape_N))
        yield table
