"""Generations: the immutable plans of a store, and the records that commit them.

A plan's rows are spread over parts of :data:`PART_SHARDS` shards each, so that a worker reads a few megabytes to learn
what is in a shard, however large the plan; a table beside them has a row a shard.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from depthsieve.core.cameras import Camera
from depthsieve.core.parquet import open_parquet
from depthsieve.core.records import DatasetNote, ImageRecord, NumericsProfile, RejectedImage, Shard, TeacherRequest
from depthsieve.core.tables import CAMERA_SCHEMA, PLAN_SCHEMA, REJECTED_SCHEMA, REMOVED_SCHEMA

SHARDS_SCHEMA = pa.schema([("images", pa.int32()), ("label_height", pa.int32()), ("label_width", pa.int32())])
PARENTS_SCHEMA = pa.schema([("parent_shards", pa.list_(pa.string())), ("parent_rows", pa.list_(pa.int32()))])
"""The additional columns in the plan of a fused store: where the label of each parent is that an image's is made of."""

MAPS_SCHEMA = pa.schema(
    [
        ("map", pa.string()),
        ("confidence", pa.string()),
        ("map_size", pa.int64()),
        ("map_mtime_ns", pa.int64()),
        ("map_sha256", pa.string()),
    ]
)
"""The additional columns in the plan of an imported store: where the files of an image's map and of its confidence are,
relative to the folder of maps, their bytes in all, the later of their times, and a digest of what is in them."""

PART_SHARDS = 1024
"""Shards in a part of a plan: at 256 images each about 10 MB."""

MADE_OF = (*PARENTS_SCHEMA, *MAPS_SCHEMA)
"""Columns that say of a row what its label is made of, where that is no teacher's."""

_RECORD_FIELDS = tuple(field.name for field in dataclasses.fields(ImageRecord))


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard and, for each of its images, what its row does: "add" or "replace"."""

    shard: Shard
    actions: tuple[str, ...]

    def table(self) -> pa.Table:
        """Its rows of the plan."""
        images = self.shard.images
        height, width = self.shard.shape
        columns = {
            "action": list(self.actions),
            "shard": [self.shard.id] * len(images),
            "row": list(range(len(images))),
            **{name: [getattr(image, name) for image in images] for name in _RECORD_FIELDS},
            "label_height": [height] * len(images),
            "label_width": [width] * len(images),
        }
        table = pa.table(columns, schema=PLAN_SCHEMA)
        if any(self.shard.cameras):
            known = camera_columns(self.shard.cameras)
            table = pa.table([*table.columns, *known.columns], schema=pa.schema([*PLAN_SCHEMA, *CAMERA_SCHEMA]))
        return table


@dataclass(frozen=True)
class Generation:
    """The record that commits a plan: ``commits/generation-NNNN.json``.

    ``files`` maps each file of the plan to its sha256 and bytes; ``sources`` each source's name to its root. ``images``
    counts the planned rows, ``rejected`` the refused files, ``removed`` the images that are no longer in their source
    and leave the store. ``teacher`` is how it was asked for, so that a repair can load it again; None in a fused store,
    where ``parents`` are the locations of the stores that its labels are made of, in order, and in an imported one,
    where that is the location of the folder of maps. ``datasets`` says of sources, by name, which dataset their images
    are of; the ones that this generation learnt. ``excluded`` are patterns of what is left out of a source, by its
    name, where that is another than before; ``frames`` says likewise which frames of its videos are taken,
    and ``sequences`` whether its folders are clips.
    ``shard_size`` is how many images a shard holds at most where a trial chose it by its speed, else None.
    """

    number: int
    fingerprint: str
    files: Mapping[str, Mapping[str, Any]]
    images: int
    rejected: int
    removed: int
    shards: int
    sources: Mapping[str, str]
    profile: NumericsProfile
    teacher: TeacherRequest | None
    parents: tuple[str, ...] = ()
    datasets: Mapping[str, DatasetNote] = field(default_factory=dict)
    excluded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    frames: Mapping[str, str] = field(default_factory=dict)
    sequences: Mapping[str, bool] = field(default_factory=dict)
    shard_size: int | None = None

    @property
    def parts(self) -> int:
        """How many files its rows are spread over."""
        return -(-self.shards // PART_SHARDS)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        body = dataclasses.asdict(self) | {"profile": self.profile.to_json(), "sources": dict(self.sources)}
        body["teacher"] = self.teacher.to_json() if self.teacher else None
        for name in ("datasets", "excluded", "frames", "sequences", "parents", "shard_size"):
            if not body[name]:  # as it was before there were any
                del body[name]
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Generation":
        """The generation that :meth:`to_json` wrote."""
        values = {known.name: body[known.name] for known in dataclasses.fields(cls) if known.name in body}
        values["profile"] = NumericsProfile.from_json(body["profile"])
        values["teacher"] = TeacherRequest.from_json(body["teacher"]) if body["teacher"] else None
        values["datasets"] = {name: DatasetNote.from_json(note) for name, note in body.get("datasets", {}).items()}
        values["excluded"] = {name: tuple(patterns) for name, patterns in body.get("excluded", {}).items()}
        return cls(**values | {"parents": tuple(body.get("parents", ()))})


@dataclass(frozen=True)
class ShardTable:
    """All shards of a generation, a few bytes each: S shards in order."""

    images_S: NDArray[np.int64]
    label_shapes_S2: NDArray[np.int64]

    @classmethod
    def decode(cls, table: pa.Table) -> "ShardTable":
        """From the "shards" table."""
        sides = [table[name].to_numpy().astype(np.int64) for name in ("label_height", "label_width")]
        return cls(table["images"].to_numpy().astype(np.int64), np.stack(sides, axis=1))

    @functools.cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.images_S)])

    def rows(self, shard: int) -> tuple[int, int]:
        """Where the rows of a shard begin in its part, and how many they are."""
        first = shard - shard % PART_SHARDS
        return int(self._starts[shard] - self._starts[first]), int(self.images_S[shard])


def part_name(generation: int, part: int) -> str:
    """The file of the ``part``-th thousand shards (1,024) of a plan."""
    return f"generation-{generation:04d}.{part:05d}.parquet"


def table_name(generation: int, what: str) -> str:
    """The file of a plan's "shards", "rejected" or "removed" table."""
    return f"generation-{generation:04d}.{what}.parquet"


def encode_parts(tables: Iterable[pa.Table]) -> Iterator[tuple[bytes, pa.Table]]:
    """Each part's bytes, and its rows of the table of shards.

    ``tables`` are of :data:`PLAN_SCHEMA`, with the columns of :data:`CAMERA_SCHEMA` where cameras that were given
    decide labels, in a fused store with :data:`PARENTS_SCHEMA`, in an imported one with :data:`MAPS_SCHEMA`, shards in
    order and never torn between two tables; they may hold as few or as many shards as they like.
    """
    waiting: list[pa.Table] = []
    shards = 0
    for table in tables:
        while len(table):
            counts = _shard_counts(table)
            room = PART_SHARDS - shards
            taken = sum(counts[:room])
            waiting.append(table[:taken])
            shards += min(room, len(counts))
            table = table[taken:]
            if shards == PART_SHARDS:
                yield _encode_part(waiting)
                waiting, shards = [], 0
    if waiting:
        yield _encode_part(waiting)


def _shard_counts(table: pa.Table) -> list[int]:
    """Rows of each shard, in order."""
    first = np.flatnonzero(table["row"].to_numpy() == 0)
    return np.diff(np.append(first, len(table))).tolist()  # type: ignore[no-any-return]


def _encode_part(tables: Sequence[pa.Table]) -> tuple[bytes, pa.Table]:
    table = pa.concat_tables(tables)
    first = table.filter(pc.equal(table["row"], 0))
    shards = pa.table(
        [pa.array(_shard_counts(table), pa.int32()), first["label_height"], first["label_width"]], SHARDS_SCHEMA.names
    )
    more = [one for one in (*MADE_OF, *CAMERA_SCHEMA) if one.name in table.column_names]
    return encode_table(table, pa.schema([*PLAN_SCHEMA, *more])), shards.cast(SHARDS_SCHEMA)


def encode_table(table: pa.Table, schema: pa.Schema) -> bytes:
    """A table as Parquet: equal tables give equal bytes, however they are chunked."""
    buffer = BytesIO()
    whole = table.select(schema.names).cast(schema).combine_chunks()
    pq.write_table(whole, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


def decode_table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """What :func:`encode_table` made, or some of its columns."""
    return open_parquet(data).read(columns=columns, use_threads=False)  # forked processes read plans too


def rejected_table(rejected: Sequence[RejectedImage]) -> pa.Table:
    """The rejects as a table."""
    return pa.Table.from_pylist([dataclasses.asdict(image) for image in rejected], schema=REJECTED_SCHEMA)


def removed_table(removed: Sequence[str]) -> pa.Table:
    """Ids that leave the store as a table."""
    return pa.table({"id": list(removed)}, schema=REMOVED_SCHEMA)


def decode_shard(rows: pa.Table) -> Shard:
    """The shard whose rows of a plan these are."""
    listed = rows.to_pylist()
    images = tuple(ImageRecord(**{name: row[name] for name in _RECORD_FIELDS}) for row in listed)
    cameras = cameras_in(rows) if "camera" in rows.column_names else ()
    return Shard(listed[0]["shard"], (listed[0]["label_height"], listed[0]["label_width"]), images, tuple(cameras))


def camera_columns(cameras: Sequence[Camera | None]) -> pa.Table:
    """Cameras as columns of :data:`CAMERA_SCHEMA`."""
    rows = [(*one.intrinsics, one.origin) if one else (None,) * 5 for one in cameras]
    columns = zip(*rows, strict=True) if rows else [()] * 5
    return pa.table(
        {name: pa.array(values, type_) for (name, type_), values in zip(_typed(CAMERA_SCHEMA), columns, strict=True)}
    )


def cameras_in(rows: pa.Table) -> list[Camera | None]:
    """What :func:`camera_columns` was made of."""
    listed = zip(*(rows[name].to_pylist() for name in CAMERA_SCHEMA.names), strict=True)
    return [Camera(*row) if row[-1] else None for row in listed]


def _typed(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    return [(one.name, one.type) for one in schema]


def counts_fault(generation: Generation, shards: ShardTable) -> str | None:
    """How the record of a plan and its table of shards contradict each other; None if they do not."""
    sizes = {"images": int(shards.images_S.sum()), "shards": len(shards.images_S)}
    wrong = next((what for what, count in sizes.items() if getattr(generation, what) != count), None)
    return f"has {sizes[wrong]} {wrong} and its record says {getattr(generation, wrong)}" if wrong else None


def part_fault(shards: ShardTable, part: int, table: pa.Table) -> str | None:
    """How the rows of a part and the table of shards contradict each other; None if they do not."""
    counts = shards.images_S[part * PART_SHARDS : (part + 1) * PART_SHARDS]
    expected = np.concatenate([np.arange(count) for count in counts]) if len(counts) else np.zeros(0)
    fits = np.array_equal(table["row"].to_numpy(), expected)
    return None if fits else "its rows are not those of its shards"


def file_entry(data: bytes) -> dict[str, Any]:
    """What a generation's record says of a file."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
