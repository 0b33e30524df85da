"""The index of a store: one row an image, derived from plans, rejects and commit records.

Columns: ``id``; ``status`` ("labelled", "failed", "rejected", "pending"); ``reason``; ``generation``; ``shard`` and
``row`` of the label; ``height`` and ``width`` of the upright source; ``label_height``, ``label_width``;
``orientation``, ``size`` and ``mtime_ns`` of the file. The row of the highest committed generation wins; a newer one
that is still pending does not hide an older label. Images that a generation removed have no row. Last come the
features of labelled images (:mod:`depthsieve.features.columns`) and ``phash``, and ``metric_scale``, ``metric_shift``,
``metric_residual``, ``metric_inliers`` and ``metric_pixels`` (:class:`depthsieve.reliability.metric.MetricFit`), and
``fx``, ``fy``, ``cx``, ``cy`` and ``camera`` (:mod:`depthsieve.store.cameras`), and ``clip_scale``, ``clip_shift``,
``clip_segment``, ``clip_residual``, ``clip_pixels``, ``clip_change`` and ``clip_change_aligned``
(:class:`depthsieve.core.clips.ClipFit`), null where they are not known.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.errors import StoreDamaged, StoreError
from depthsieve.core.parquet import native_file, open_parquet
from depthsieve.core.records import unseal
from depthsieve.core.spill import SpillDatabase
from depthsieve.core.tables import CAMERA_SCHEMA
from depthsieve.store import schema
from depthsieve.store.cameras import CameraReader
from depthsieve.store.catalog import Catalog
from depthsieve.store.features import SCHEMA as FEATURES_SCHEMA
from depthsieve.store.features import FeatureReader
from depthsieve.store.fits import CLIPS_SCHEMA, METRIC_SCHEMA, FitReader, clip_fits, metric_fits

PLACES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("generation", pa.int32()),
        ("shard", pa.string()),
        ("row", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("label_height", pa.int32()),
        ("label_width", pa.int32()),
        ("orientation", pa.int8()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
    ]
)

SCHEMA = pa.schema([*PLACES_SCHEMA, *FEATURES_SCHEMA, *METRIC_SCHEMA, *CAMERA_SCHEMA, *CLIPS_SCHEMA])

Readers = Sequence[FeatureReader | CameraReader | FitReader[Any]]
"""Of the layers whose columns the index has."""


def read_index(store: Catalog, snapshot: str, columns: Sequence[str], status: str | None) -> pa.Table | None:
    """Some columns of the rows of a status, of all of them with None, out of ``index.parquet``, without the other rows
    in memory; None where that file does not show ``snapshot``, has other columns, or is not what was written."""
    root = store.root
    try:
        record = unseal(root.read(schema.INDEX_RECORD), schema.INDEX_RECORD)
        if record["snapshot"] != snapshot:
            return None
        with native_file(root.read(schema.INDEX) if root.path is None else root.path / schema.INDEX) as file:
            digest = hashlib.sha256()
            while len(some := file.read_buffer(1 << 20)):
                digest.update(some)
            if digest.hexdigest() != record["sha256"]:
                return None
            file.seek(0)
            index = open_parquet(file, read_dictionary=["shard"])
            wanted = [*columns, *({"status"} - set(columns))]
            groups = (index.read_row_group(number, wanted) for number in range(index.num_row_groups))
            if status is not None:
                groups = (group.filter(pc.equal(group["status"], status)) for group in groups)
            rows = [group.select(columns) for group in groups]
            empty = index.schema_arrow.empty_table().select(columns)
    except (OSError, StoreDamaged, KeyError, pa.ArrowException):
        return None  # it is derived: what it is made of is still there
    return pa.concat_tables([empty, *rows]).unify_dictionaries()


def settled_index(
    store: Catalog, columns: Sequence[str] = SCHEMA.names, status: str | None = None
) -> tuple[pa.Table, str]:
    """Some columns of the rows of a status, of all rows with None, and the snapshot that they show, although a run may
    be committing shards meanwhile. Raises :class:`StoreError` where it changes during each of three attempts."""
    for _ in range(3):
        snapshot = store.snapshot()
        written = read_index(store, snapshot, columns, status)
        if written is not None:
            return written, snapshot
        index = build_index(store, features=not set(columns) <= set(PLACES_SCHEMA.names))
        if store.snapshot() == snapshot:
            rows = index if status is None else index.filter(pc.equal(index["status"], status))
            return rows.select(columns), snapshot
    raise StoreError(f"{store.location} changed each time it was read; wait until its labelling run is done")


def build_index(store: Catalog, features: bool = True) -> pa.Table:
    """The index of the store as it is now, sorted by id, in memory; without ``features`` those columns are left out."""
    empty = (SCHEMA if features else PLACES_SCHEMA).empty_table()
    table = pa.concat_tables([empty, *_all_rows(store, features)])
    pending = pc.equal(table["status"], "pending").cast(pa.int8())
    table = table.append_column("pending", pending).sort_by(
        [("id", "ascending"), ("pending", "ascending"), ("generation", "descending")]
    )
    return pa.concat_tables([empty, *_first_of_each([table.drop_columns(["pending"])])]).combine_chunks()


def stream_index(store: Catalog, database: SpillDatabase, features: bool = True) -> Iterator[pa.Table]:
    """The rows of :func:`build_index`, some at a time. ``database`` is an empty one, which holds what is sorted."""
    columns = SCHEMA if features else PLACES_SCHEMA
    database.create("places", columns)
    database.append("places", _all_rows(store, features))
    rows = database.read("SELECT * FROM places ORDER BY id, status = 'pending', generation DESC")
    yield from _first_of_each(table.cast(columns) for table in rows)


def _first_of_each(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The row of each image that counts: the first, among rows where what is pending comes after all that is settled,
    and within those the newest generation comes first. Images that were removed have none."""
    before: str | None = None
    for table in tables:
        if not len(table):
            continue
        ids = table["id"].combine_chunks()
        first = pa.concat_arrays([pa.array([ids[0].as_py() != before]), pc.not_equal(ids[1:], ids[:-1])])
        before = ids[-1].as_py()
        yield table.filter(pc.and_(first, pc.not_equal(table["status"], "removed")))


def _all_rows(store: Catalog, features: bool = True) -> Iterator[pa.Table]:
    """Every place where an image is or was, of each generation."""
    readers = (FeatureReader(store), metric_fits(store), CameraReader(store), clip_fits(store)) if features else ()
    generations, committed = store.committed_now()
    shards = pa.array(committed, pa.string())
    for generation in generations:
        for planned in store.read_plan(generation):
            yield _planned_rows(store, planned, generation.number, shards, readers)
        for what in ("rejected", "removed"):
            rows = _rows_without_label(store.read_table(generation, what), what, generation.number)
            yield rows if features else rows.select(PLACES_SCHEMA.names)


def _planned_rows(
    store: Catalog, planned: pa.Table, generation: int, committed: pa.Array, readers: Readers
) -> pa.Table:
    shards = pc.unique(planned["shard"])
    failed: dict[tuple[str, int], str] = {}
    for record in store.commit_records(shards.filter(pc.is_in(shards, value_set=committed)).to_pylist()):
        for failure in record["failures"]:
            failed[record["shard"], failure["row"]] = failure["reason"]
    done = pc.is_in(planned["shard"], value_set=committed)
    status = pc.if_else(done, "labelled", "pending")
    reason: Any = pa.nulls(len(planned), pa.string())
    if failed:
        keys = zip(planned["shard"].to_pylist(), planned["row"].to_pylist(), strict=True)
        reason = pa.array([failed.get(key) for key in keys], pa.string())
        status = pc.if_else(pc.is_valid(reason), "failed", status)
    columns = {name: planned[name] for name in planned.column_names if name != "action"}
    columns |= {
        "status": status,
        "reason": reason,
        "generation": pa.repeat(pa.scalar(generation, pa.int32()), len(planned)),
    }
    if not readers:
        return pa.table([columns[name] for name in PLACES_SCHEMA.names], schema=PLACES_SCHEMA)
    labelled = pc.equal(status, "labelled")
    shard_N, row_N = (planned[name].combine_chunks() for name in ("shard", "row"))
    for reader in readers:
        columns |= reader.columns(shard_N, row_N, labelled.combine_chunks())
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _rows_without_label(listed: pa.Table, status: str, generation: int) -> pa.Table:
    count = len(listed)
    columns: dict[str, Any] = {name: pa.nulls(count, SCHEMA.field(name).type) for name in SCHEMA.names}
    known = [name for name in ("id", "reason", "size", "mtime_ns") if name in listed.column_names]
    columns |= {name: listed[name] for name in known}
    columns["status"] = pa.repeat(status, count)
    columns["generation"] = pa.repeat(pa.scalar(generation, pa.int32()), count)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
