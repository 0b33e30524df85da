"""Which images of a store are exported, and which are left out, by reason."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.errors import LoaderError
from depthsieve.curation.table import empty_table, image_table
from depthsieve.curation.where import where as rows_where
from depthsieve.export.items import ItemReader
from depthsieve.export.protocol import Target
from depthsieve.store import Store
from depthsieve.store.index import settled_index
from depthsieve.training.selection import Selection, select

DROP = 0.10
"""Which share of all pixels ``unreliable`` counts in ``where``, without a mask."""

NAMED = 3
"""Images of a reason that are named."""


@dataclass(frozen=True)
class LeftOut:
    """How many images of a store are not exported for one reason, and the first of them."""

    reason: str
    images: int
    first: tuple[str, ...]


def selected(
    store: Store, subset: Collection[str] | str | Path | None, where: str | None, mask: float | None
) -> tuple[Selection, list[LeftOut]]:
    """The images to export, and how many of the store's are left out, by reason."""
    selection = select(store, subset)
    if where is not None:
        index, _ = settled_index(store)
        rows_where(empty_table(index), where)  # what is wrong with it is told before anything takes long
        rows = image_table(store, index, DROP if mask is None else mask)
        rows = rows.filter(pc.is_in(rows["id"], value_set=pa.array(selection.ids, pa.string())))
        kept = rows["id"].filter(pa.array(rows_where(rows, where))).to_pylist()
        if not kept:
            raise LoaderError(f"--where {where!r} keeps none of {len(selection):,} images")
        selection = select(store, kept)
    status, _ = settled_index(store, ("id", "status"))
    counts = Counter(status["status"].to_pylist())
    left_out = [LeftOut("not selected", counts.pop("labelled", 0) - len(selection), ())]
    for reason, number in sorted(counts.items()):
        ids = status["id"].filter(pc.equal(status["status"], reason))
        left_out.append(LeftOut(reason, number, tuple(ids[:NAMED].to_pylist())))
    return selection, [one for one in left_out if one.images]


def fitting(
    target: Target, reader: ItemReader, selection: Selection, left_out: list[LeftOut]
) -> tuple[Selection, list[LeftOut]]:
    """The images that are for the target, and all that are not, by reason."""
    kept: list[str] = []
    ids_of: dict[str, list[str]] = {}
    for image_id in selection.ids:
        reason = target.leave_out(image_id) or reader.leave_out(image_id)
        (ids_of.setdefault(reason, []) if reason else kept).append(image_id)
    if not ids_of:
        return selection, left_out
    if not kept:
        raise LoaderError(f"none of {len(selection):,} images is exported: {next(iter(ids_of))}")
    more = [LeftOut(reason, len(ids), tuple(ids[:NAMED])) for reason, ids in sorted(ids_of.items())]
    return select(target.ask.store, kept), [*left_out, *more]
