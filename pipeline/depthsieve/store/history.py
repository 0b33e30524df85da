"""What happened to one image: every generation that planned, refused or removed it, oldest first."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.store.catalog import Catalog
from depthsieve.store.plan import Generation


@dataclass(frozen=True, slots=True)
class Event:
    """What a generation has of an image. ``action`` is "add", "replace", "reject" or "remove", ``status`` "labelled",
    "failed", "pending", "rejected" or "removed". ``shard`` and ``row`` say where its label is, ``size`` and
    ``mtime_ns`` what the file was; None where there is no such thing. ``counts``: this is the image's state now."""

    generation: int
    action: str
    status: str
    reason: str | None = None
    shard: str | None = None
    row: int | None = None
    size: int | None = None
    mtime_ns: int | None = None
    counts: bool = False


def history(store: Catalog, image_id: str) -> tuple[Event, ...]:
    """All that the store has of an image; empty for one that it does not know. A label that was superseded is read with
    ``store.reader(event.shard).depth(event.row)``."""
    events = [event for generation in store.generations() for event in _events(store, generation, image_id)]
    settled = [event for event in events if event.status != "pending"] or events
    return tuple(_counting(event, event is settled[-1]) for event in events)


def _events(store: Catalog, generation: Generation, image_id: str) -> Iterator[Event]:
    number = generation.number
    for planned in store.read_plan(generation, ["action", "shard", "row", "id", "size", "mtime_ns"]):
        for row in _of(planned, image_id):
            status, reason = _status(store, row["shard"], row["row"])
            where = (row["shard"], row["row"], row["size"], row["mtime_ns"])
            yield Event(number, row["action"], status, reason, *where)
    for row in _of(store.read_table(generation, "rejected"), image_id):
        yield Event(number, "reject", "rejected", row["reason"], None, None, row["size"], row["mtime_ns"])
    for _ in _of(store.read_table(generation, "removed"), image_id):
        yield Event(number, "remove", "removed")


def _of(table: pa.Table, image_id: str) -> list[dict[str, Any]]:
    return table.filter(pc.equal(table["id"], image_id)).to_pylist()  # type: ignore[no-any-return]


def _status(store: Catalog, shard_id: str, row: int) -> tuple[str, str | None]:
    if not store.is_committed(shard_id):
        return "pending", None
    reasons = {failure["row"]: failure["reason"] for failure in store.commit_record(shard_id)["failures"]}
    return ("failed", reasons[row]) if row in reasons else ("labelled", None)


def _counting(event: Event, counts: bool) -> Event:
    return dataclasses.replace(event, counts=counts)
