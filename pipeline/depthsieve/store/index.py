"""The index of a store: one row an image, derived from plans, rejects and commit records.

Columns: ``id``; ``status`` ("labelled", "failed", "rejected", "pending"); ``reason``; ``generation``; ``shard`` and
``row`` of the label; ``height`` and ``width`` of the upright source; ``label_height``, ``label_width``;
``orientation``, ``size`` and ``mtime_ns`` of the file. The row of the highest committed generation wins; a newer one
that is still pending does not hide an older label. Images that a generation removed have no row.
"""

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from depthsieve.store.reader import Store

SCHEMA = pa.schema(
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


def build_index(store: "Store") -> pa.Table:
    """The index of the store as it stands now, sorted by id."""
    committed = store.committed()
    tables = []
    for generation in store.generations():
        for planned in store.read_plan(generation):
            tables.append(_planned_rows(store, planned, generation.number, committed))
        for what in ("rejected", "removed"):
            tables.append(_rows_without_label(store.read_table(generation, what), what, generation.number))
    if not tables:
        return SCHEMA.empty_table()
    table = pa.concat_tables(tables)
    # What is pending ranks below everything that is committed; within a rank the newest generation wins.
    settled = pc.if_else(pc.equal(table["status"], "pending"), 0, 1).cast(pa.int32())
    table = table.append_column("settled", settled)
    table = table.sort_by([("id", "ascending"), ("settled", "descending"), ("generation", "descending")])
    ids = table["id"].combine_chunks()
    if len(ids) > 1:
        first = pa.concat_arrays([pa.array([True]), pc.not_equal(ids[1:], ids[:-1])])
        table = table.filter(first)
    table = table.filter(pc.not_equal(table["status"], "removed"))
    return table.drop_columns(["settled"]).combine_chunks()


def _planned_rows(store: "Store", planned: pa.Table, generation: int, committed: set[str]) -> pa.Table:
    shards = pc.unique(planned["shard"]).to_pylist()
    failed: dict[tuple[str, int], str] = {}
    for record in store.commit_records(shard_id for shard_id in shards if shard_id in committed):
        for failure in record["failures"]:
            failed[record["shard"], failure["row"]] = failure["reason"]
    done = pc.is_in(planned["shard"], value_set=pa.array(sorted(committed), pa.string()))
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
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _rows_without_label(listed: pa.Table, status: str, generation: int) -> pa.Table:
    count = len(listed)
    columns: dict[str, Any] = {name: pa.nulls(count, SCHEMA.field(name).type) for name in SCHEMA.names}
    known = [name for name in ("id", "reason", "size", "mtime_ns") if name in listed.column_names]
    columns |= {name: listed[name] for name in known}
    columns["status"] = pa.repeat(status, count)
    columns["generation"] = pa.repeat(pa.scalar(generation, pa.int32()), count)
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
