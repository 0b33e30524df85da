"""Generations: the immutable plans of a store, and the records that commit them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depthsieve.records import ImageRecord, NumericsProfile, RejectedImage, Shard

PLAN_SCHEMA = pa.schema(
    [
        ("action", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int32()),
        ("id", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("orientation", pa.int8()),
        ("label_height", pa.int32()),
        ("label_width", pa.int32()),
    ]
)
REJECTED_SCHEMA = pa.schema(
    [("id", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("reason", pa.string())]
)


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard and, for each of its images, what its row does: "add" or "replace"."""

    shard: Shard
    actions: tuple[str, ...]


@dataclass(frozen=True)
class Generation:
    """The record that commits a plan: ``commits/generation-NNNN.json``.

    ``sources`` maps each source's name to its root. ``images`` counts the planned rows, ``rejected`` the refused files,
    ``removed`` the images that are no longer in their source and leave the store.
    """

    number: int
    fingerprint: str
    plan_sha256: str
    rejected_sha256: str
    images: int
    rejected: int
    removed: int
    shards: int
    sources: Mapping[str, str]
    profile: NumericsProfile

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self) | {"profile": self.profile.to_json(), "sources": dict(self.sources)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Generation":
        """The generation that :meth:`to_json` wrote."""
        values = {known.name: body[known.name] for known in dataclasses.fields(cls)}
        return cls(**values | {"profile": NumericsProfile.from_json(body["profile"])})


def encode_plan(shards: Sequence[PlannedShard], removed: Sequence[str]) -> bytes:
    """The plan as Parquet, one row group a shard, for workers to read alone; then the "remove" rows."""
    buffer = BytesIO()
    with pq.ParquetWriter(buffer, PLAN_SCHEMA, compression="zstd", store_schema=False) as writer:
        for planned in shards:
            images = planned.shard.images
            height, width = planned.shard.shape
            columns = {
                "action": list(planned.actions),
                "shard": [planned.shard.id] * len(images),
                "row": list(range(len(images))),
                **{name: [getattr(image, name) for image in images] for name in ImageRecord.__dataclass_fields__},
                "label_height": [height] * len(images),
                "label_width": [width] * len(images),
            }
            writer.write_table(pa.table(columns, schema=PLAN_SCHEMA), row_group_size=len(images))
        if removed:
            rows = [{"action": "remove", "id": image_id} for image_id in removed]
            writer.write_table(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), row_group_size=len(rows))
    return buffer.getvalue()


def decode_shard(parquet: pq.ParquetFile, number: int) -> Shard:
    """The ``number``-th shard of a plan."""
    rows = parquet.read_row_group(number).to_pylist()
    images = tuple(ImageRecord(**{name: row[name] for name in ImageRecord.__dataclass_fields__}) for row in rows)
    return Shard(rows[0]["shard"], (rows[0]["label_height"], rows[0]["label_width"]), images)


def encode_rejected(rejected: Sequence[RejectedImage]) -> bytes:
    """The rejects as Parquet."""
    table = pa.Table.from_pylist([dataclasses.asdict(image) for image in rejected], schema=REJECTED_SCHEMA)
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()
