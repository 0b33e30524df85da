"""Which images several stores have labelled, sorted into shards on the disk: memory does not grow with their number.

K: the parents, the stores that labels are fused of, in order.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.spill import SpillDatabase, spill_database
from depthsieve.core.tables import PLAN_SCHEMA
from depthsieve.planning.sharding import cut_shards
from depthsieve.store import Store
from depthsieve.store.index import stream_index
from depthsieve.store.plan import PARENTS_SCHEMA, Generation

NAMED = 20
"""How many of the images are named that are left out."""

_LABELLED = PLAN_SCHEMA.remove(PLAN_SCHEMA.get_field_index("action"))
_RECORDED = [name for name in _LABELLED.names if name not in ("id", "shard", "row")]
_KNOWN = pa.schema([PLAN_SCHEMA.field("id"), *PARENTS_SCHEMA, ("generation", pa.int32())])
_NEW = """
CREATE TABLE images AS
SELECT common.*, CASE WHEN newest.id IS NULL THEN 'add' ELSE 'replace' END AS action
FROM common LEFT JOIN (
    SELECT id, arg_max(parent_shards, generation) AS shards, arg_max(parent_rows, generation) AS rows
    FROM known GROUP BY id
) newest ON newest.id = common.id
WHERE newest.id IS NULL OR newest.shards <> common.parent_shards OR newest.rows <> common.parent_rows
"""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Images with a label in the store at ``store`` and none in another one, the first of them by name."""

    store: str
    images: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class FusionDraft:
    """What a new generation of a fused store would hold: ``images``, ``pixels`` of label in them; ``common`` counts all
    images that have a label in every parent, fused already or not; ``sources`` names those that images of the fused
    store are of, then and now."""

    images: int
    pixels: int
    common: int
    sources: frozenset[str]
    left_out: tuple[LeftOut, ...]
    _database: SpillDatabase

    def tables(self, generation: int, shard_size: int) -> Iterator[pa.Table]:
        """Its rows of the plan, in order, each table of whole shards."""
        rows = self._database.read("SELECT * FROM images ORDER BY label_height, label_width, id")
        for table in cut_shards(rows, generation, shard_size):
            yield table.select([*PLAN_SCHEMA.names, *PARENTS_SCHEMA.names])


@contextlib.contextmanager
def draft_fusion(parents: Sequence[Store], store: Store | None, folder: Path) -> Iterator[FusionDraft]:
    """Draft what the ``parents`` have all labelled and ``store``, if there is one, was not fused of.

    An image that it has, of another label of a parent than the one that counts there now, comes as a "replace" row.
    ``folder`` is made and used until the end; it is the caller's to remove. Raises :class:`RunError` where its disk
    has no room.
    """
    with spill_database(folder) as database:
        for number, parent in enumerate(parents):
            database.create(f"parent_{number}", _LABELLED)
            with spill_database(folder / f"index-{number}") as sorting:
                database.append(f"parent_{number}", map(_labelled, stream_index(parent, sorting, features=False)))
        _join(database, len(parents))
        database.create("known", _KNOWN)
        if store is not None:
            for generation in store.generations():
                database.append("known", _known(store, generation))
        database.run(_NEW)
        total = database.all(
            "SELECT count(*) AS images, coalesce(sum(label_height::BIGINT * label_width), 0)::BIGINT AS pixels, "
            "(SELECT count(*) FROM common) AS common FROM images"
        ).to_pylist()[0]
        sources = frozenset(
            database.all(
                "SELECT DISTINCT split_part(id, '/', 1) AS source FROM (SELECT id FROM common UNION ALL SELECT id "
                "FROM known)"
            )["source"].to_pylist()
        )
        left_out = tuple(_left_out(database, number, parent) for number, parent in enumerate(parents))
        yield FusionDraft(total["images"], total["pixels"], total["common"], sources, left_out, database)


def _labelled(index: pa.Table) -> pa.Table:
    return index.filter(pc.equal(index["status"], "labelled")).select(_LABELLED.names)


def _join(database: SpillDatabase, parents: int) -> None:
    """Make the table of what all parents have labelled: the first one's rows, and where the labels lie."""
    joined = " ".join(f"JOIN parent_{number} USING (id)" for number in range(1, parents))
    shards, rows = (", ".join(f"parent_{number}.{what}" for number in range(parents)) for what in ("shard", "row"))
    recorded = ", ".join(f"parent_0.{name}" for name in _RECORDED)
    database.run(
        f"CREATE TABLE common AS SELECT parent_0.id, {recorded}, [{shards}] AS parent_shards, "
        f"[{rows}] AS parent_rows FROM parent_0 {joined}"
    )


def _known(store: Store, generation: Generation) -> Iterator[pa.Table]:
    """The labels that each image of a fused store's generation was made of."""
    for table in store.read_plan(generation, ["id", *PARENTS_SCHEMA.names]):
        yield table.append_column("generation", pa.repeat(pa.scalar(generation.number, pa.int32()), len(table)))


def _left_out(database: SpillDatabase, number: int, parent: Store) -> LeftOut:
    alone = f"FROM parent_{number} WHERE id NOT IN (SELECT id FROM common)"
    images = int(database.all(f"SELECT count(*) AS images {alone}")["images"][0].as_py())
    first = database.all(f"SELECT id {alone} ORDER BY id LIMIT {NAMED}") if images else None
    return LeftOut(parent.location, images, tuple(first["id"].to_pylist()) if first is not None else ())
