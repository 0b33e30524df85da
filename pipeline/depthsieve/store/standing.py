"""The state of a store: what is labelled, failed and pending, without a row for every image.

Only images that some generation rejected, removed or replaced, or that failed, can be in two places. Those are looked
at one by one; all others are counted by the shard. The rules are those of :mod:`depthsieve.store.index`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.records import ImageFailure
from depthsieve.store.catalog import Catalog
from depthsieve.store.plan import Generation
from depthsieve.store.schema import shard_name, shard_number
from depthsieve.store.times import read_times


@dataclass(frozen=True)
class Standing:
    """The state of a store. ``labelled`` and ``pending`` count images; ``failed`` (in a committed shard) and
    ``rejected`` (before) have each image's reason. ``removed`` are ids that left the store. ``waiting`` are those of
    the failed, rejected and removed that a shard will label which is still pending."""

    labelled: int = 0
    pending: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[str, str] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()

    @property
    def unlabelled(self) -> tuple[ImageFailure, ...]:
        """All that failed or were rejected, by id."""
        both = {**self.failed, **self.rejected}
        return tuple(ImageFailure(image, both[image]) for image in sorted(both))


@dataclass(frozen=True)
class Again:
    """Images that a store knows and that are planned again if they are found: each failed, rejected or removed, or its
    camera is ``other`` than the one it was planned with."""

    failed: frozenset[str] = frozenset()
    rejected: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
    other: frozenset[str] = frozenset()

    @classmethod
    def of(cls, store: Catalog, retry_failed: bool) -> "Again":
        """Those of a store. What failed or was rejected only counts if it should be retried, and is not waiting for
        its retry already."""
        if not retry_failed and not any(generation.removed for generation in store.generations()):
            return cls()
        stands = standing(store)
        removed = stands.removed - stands.waiting
        if not retry_failed:
            return cls(removed=removed)
        return cls(frozenset(stands.failed) - stands.waiting, frozenset(stands.rejected) - stands.waiting, removed)

    @property
    def ids(self) -> frozenset[str]:
        """All of them."""
        return self.failed | self.rejected | self.removed | self.other


def known_files(store: Catalog, again: Again) -> Iterator[pa.Table]:
    """The files, as they were when they were planned or refused, that no new generation adds: columns ``id``, ``size``,
    ``mtime_ns``, ``reason`` (null where it was planned) and ``generation``. An id may come again; its row with the
    highest number there counts. What :mod:`depthsieve.store.times` knows comes too."""
    without = pa.array(sorted(again.ids), pa.string())
    for table in _file_tables(store):
        yield table.filter(pc.invert(pc.is_in(table["id"], value_set=without))) if len(without) else table


def _file_tables(store: Catalog) -> Iterator[pa.Table]:
    columns = ["id", "size", "mtime_ns"]
    for generation in store.generations():
        rank = 2 * generation.number
        for table in store.read_plan(generation, columns):
            yield _ranked(table.append_column("reason", pa.nulls(len(table), pa.string())), rank)
        yield _ranked(store.read_table(generation, "rejected").select([*columns, "reason"]), rank)
    for table in read_times(store.root):  # a time counts more than the row it was compared with, less than a later one
        rank_N = pc.cast(pc.add(pc.multiply(table["generation"], 2), 1), pa.int32())
        table = table.select(columns).append_column("reason", pa.nulls(len(table), pa.string()))
        yield table.append_column("generation", rank_N)


def _ranked(table: pa.Table, rank: int) -> pa.Table:
    return table.append_column("generation", pa.repeat(pa.scalar(rank, pa.int32()), len(table)))


@dataclass(frozen=True, slots=True, order=True)
class _Row:
    """One place where an image is; the greatest counts."""

    settled: bool
    generation: int
    status: str
    reason: str = ""


Seen = dict[str, list[tuple[str, str]]]
"""The failures (id, reason) of shards whose commit records were read already; they never change."""


def standing(store: Catalog, seen: Seen | None = None) -> Standing:
    """The state of a store now. Memory grows with the images that have no label, not with the others.

    With ``seen``, which is added to, only records that are not in it are read: for callers that ask repeatedly.
    Raises :class:`StoreDamaged` where a record or a table does not fit its digest.
    """
    generations, committed = store.committed_now()
    counts = _planned_counts(store, generations, committed)
    places: dict[str, list[_Row]] = defaultdict(list)
    for generation in generations:
        for what in ("rejected", "removed"):
            _add_listed(places, store.read_table(generation, what), what, generation.number)
    planned = {shard_name(one.number, number) for one in generations for number in range(one.shards)}
    for shard_id, failures in _failures(store, sorted(planned & committed), seen):
        for image, reason in failures:
            places[image].append(_Row(True, shard_number(shard_id)[0], "failed", reason))
            counts["labelled"] -= 1
    if len(generations) > 1:
        _add_planned(places, store, generations, committed)
        counts["labelled"] -= _count(places, "labelled")
        counts["pending"] -= _count(places, "pending")
    winners = {image: max(rows) for image, rows in places.items()}
    for row in winners.values():
        counts[row.status] += 1
    reasons = {
        status: {image: row.reason for image, row in winners.items() if row.status == status}
        for status in ("failed", "rejected", "removed")
    }
    waiting = (image for image, rows in places.items() if any(row.status == "pending" for row in rows))
    return Standing(
        counts["labelled"],
        counts["pending"],
        reasons["failed"],
        reasons["rejected"],
        frozenset(reasons["removed"]),
        frozenset(image for image in waiting if winners[image].status in reasons),
    )


def _failures(store: Catalog, shard_ids: list[str], seen: Seen | None) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    if seen is not None:
        yield from ((one, seen[one]) for one in shard_ids if one in seen)
    for record in store.commit_records([one for one in shard_ids if seen is None or one not in seen]):
        failures = [(failure["id"], failure["reason"]) for failure in record["failures"]]
        yield record["shard"], failures
        if seen is not None:
            seen[record["shard"]] = failures


def _planned_counts(store: Catalog, generations: Iterable[Generation], committed: set[str]) -> dict[str, int]:
    """Images in committed and in pending shards, every row of every plan counted."""
    counts: dict[str, int] = defaultdict(int)
    for generation in generations:
        for number, images in enumerate(store.shard_table(generation).images_S.tolist()):
            counts["labelled" if shard_name(generation.number, number) in committed else "pending"] += images
    return counts


def _count(places: Mapping[str, list[_Row]], status: str) -> int:
    return sum(row.status == status for rows in places.values() for row in rows)


def _add_listed(places: dict[str, list[_Row]], listed: pa.Table, status: str, generation: int) -> None:
    reasons = listed["reason"].to_pylist() if status == "rejected" else [""] * len(listed)
    for image, reason in zip(listed["id"].to_pylist(), reasons, strict=True):
        places[image].append(_Row(True, generation, status, reason))


def _add_planned(
    places: dict[str, list[_Row]], store: Catalog, generations: list[Generation], committed: set[str]
) -> None:
    """Add the rows of plans that belong to images in two places: those in ``places``, and those replaced."""
    for generation in generations[1:]:
        for table in store.read_plan(generation, ["id", "action"]):
            for image in table.filter(pc.equal(table["action"], "replace"))["id"].to_pylist():
                places.setdefault(image, [])
    if not places:
        return
    wanted = pa.array(list(places), pa.string())
    for generation in generations:
        failed = {image for image, rows in places.items() if _failed_in(rows, generation.number)}
        for table in store.read_plan(generation, ["id", "shard"]):
            table = table.filter(pc.is_in(table["id"], value_set=wanted))
            for image, shard in zip(table["id"].to_pylist(), table["shard"].to_pylist(), strict=True):
                if shard not in committed:
                    places[image].append(_Row(False, generation.number, "pending"))
                elif image not in failed:
                    places[image].append(_Row(True, generation.number, "labelled"))


def _failed_in(rows: list[_Row], generation: int) -> bool:
    return any(row.status == "failed" and row.generation == generation for row in rows)
