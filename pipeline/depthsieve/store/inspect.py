"""Look at every byte of a store: what is damaged, what is missing, what nothing explains. Writes nothing.

It may run beside a labelling run: what living processes have in hand is left out of account.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from depthsieve.errors import DepthsieveError, StoreDamaged, StoreNotFound
from depthsieve.processes import Process
from depthsieve.records import LabelSpec, seal, unseal
from depthsieve.storage import Root
from depthsieve.store import plan, schema
from depthsieve.store.create import index_fault
from depthsieve.store.leases import FOLDER as LEASES
from depthsieve.store.leases import PLAN, left_leases
from depthsieve.store.reader import ShardReader, Store, spec_in

Remedy = Literal["restore", "record", "relabel", "index", "remove", "none"]
"""What a repair does: put the other copy in place; write a record anew from its group; label the shard again; write the
index anew; remove the file or folder; nothing."""

THREADS = 4
_SHARD_RECORD = re.compile(r"\d{4}-\d{6}\.json")
_GENERATION = re.compile(r"generation-(\d{4})\.")
_KNOWN = {"labels.zarr", schema.COMMITS, "plan", "copies", LEASES, "tmp", "layers", "runs"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: the file or folder by its key, what it is, and what a repair would do.

    ``harmless`` ones cost no label: what dead processes left, an index that is behind, a file that nobody knows.
    """

    key: str
    problem: str
    remedy: Remedy
    harmless: bool = False
    shard: str | None = None


@dataclass
class Inspection:
    """What was looked at, and what was found, in the order of the keys."""

    shards: int = 0
    images: int = 0
    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong that could cost a label."""
        return all(finding.harmless for finding in self.findings)


def inspect_store(
    root: Root, progress: Callable[[int], object] = lambda shards: None, repairing: bool = False
) -> Inspection:
    """Read everything below ``root``. ``progress`` is told of shards that are done. ``repairing``: this process holds
    the plan, and plans nothing.

    Raises :class:`StoreNotFound` where there is no store at all.
    """
    check_is_store(root)
    return _Inspector(root, progress, repairing).run()


def check_is_store(root: Root) -> None:
    """Raise :class:`StoreNotFound` where neither the document that makes a store is there nor its copy."""
    if all(root.entry(key) is None for key in (schema.ROOT_DOCUMENT, schema.copy_key(schema.ROOT_DOCUMENT))):
        raise StoreNotFound(f"{root.location} is not a label store (it has no labels.zarr)")


class _Inspector:
    def __init__(self, root: Root, progress: Callable[[int], object], repairing: bool) -> None:
        self._root = root
        self._progress = progress
        self._mine = Process.current() if repairing else None
        self._seen = Inspection()
        self._explained: set[str] = set()
        self._recorded = 0
        self._in_hand: set[str] = set()
        self._look_at_leases()

    def run(self) -> Inspection:
        spec = self._root_documents()
        if spec is not None:
            store = Store(self._root, spec)
            generations = self._generations(spec)
            self._shards(store, generations)
            self._index(store)
            self._strays()  # without a spec nothing could be explained
        self._seen.findings.sort(key=lambda finding: finding.key)
        return self._seen

    def _look_at_leases(self) -> None:
        leases = left_leases(self._root)
        self._in_hand |= {lease.name for lease in leases if lease.alive and lease.holder != self._mine}
        self._dead = [lease for lease in leases if not lease.alive]

    def _found(self, key: str, problem: str, remedy: Remedy, harmless: bool = False, shard: str | None = None) -> None:
        self._seen.findings.append(Finding(key, problem, remedy, harmless, shard))

    def _read(self, key: str) -> bytes | None:
        self._explained.add(key)
        try:
            data = self._root.read(key)
        except FileNotFoundError:
            return None
        self._seen.files += 1
        self._seen.bytes += len(data)
        return data

    def _twice(self, key: str, fault: Callable[[bytes], str | None]) -> bytes | None:
        """The good one of a file and its copy, after both were looked at; None if there is none."""
        states: dict[str, tuple[bytes | None, str | None]] = {}
        for place in (key, schema.copy_key(key)):
            data = self._read(place)
            states[place] = (data, "is missing" if data is None else fault(data))
        sound = [data for data, problem in states.values() if problem is None]
        for place, (data, problem) in states.items():
            if problem:
                lost_copy = data is None and place != key  # a run has not written it yet, or was killed before it
                if lost_copy and PLAN in self._in_hand:
                    continue
                remedy: Remedy = "restore" if sound else "none"
                self._found(place, problem if sound else f"{problem}, and so is its other copy", remedy, lost_copy)
        return sound[0] if sound else None

    def _root_documents(self) -> LabelSpec | None:
        self._twice(schema.SHARDS_DOCUMENT, lambda data: None if data == schema.group_document({}) else DAMAGED)
        specs: list[LabelSpec] = []

        def fault(data: bytes) -> str | None:
            try:
                attributes, spec = spec_in(data, schema.ROOT_DOCUMENT)
            except DepthsieveError:
                return DAMAGED
            specs.append(spec)
            return None if data == schema.group_document(attributes) else DAMAGED

        if self._twice(schema.ROOT_DOCUMENT, fault) is not None:
            return specs[-1]
        return None

    def _generations(self, spec: LabelSpec) -> list[plan.Generation]:
        """All generations that can be read, their plans looked at."""
        names = {*self._root.names(schema.COMMITS), *self._root.names(schema.copy_key(schema.COMMITS))}
        numbers = [int(match[1]) for match in map(_GENERATION.match, names) if match]
        self._recorded = max(numbers, default=-1) + 1
        generations = []
        for number in range(max(numbers, default=-1) + 1):
            key = schema.generation_key(number)

            def fault(data: bytes, number: int = number, key: str = key) -> str | None:
                return _record_fault(data, key, {"number": number, "fingerprint": spec.fingerprint})

            data = self._twice(key, fault)
            if data is not None:
                generation = plan.Generation.from_json(unseal(data, key))
                generations.append(generation)
                self._plan(generation)
        return generations

    def _plan(self, generation: plan.Generation) -> None:
        shards: plan.ShardTable | None = None
        first = plan.table_name(generation.number, "shards")
        parts = {plan.part_name(generation.number, part): part for part in range(generation.parts)}
        for name in [first, *(name for name in generation.files if name != first)]:
            sha256 = generation.files[name]["sha256"]

            def fault(data: bytes, sha256: str = sha256) -> str | None:
                return None if hashlib.sha256(data).hexdigest() == sha256 else DAMAGED

            data = self._twice(schema.plan_key(name), fault)
            problem = None
            if data is not None and name == first:
                shards = plan.ShardTable.decode(pq.read_table(BytesIO(data)))
                problem = plan.counts_fault(generation, shards)
            elif data is not None and shards is not None and name in parts:
                problem = plan.part_fault(shards, parts[name], pq.read_table(BytesIO(data), columns=["row"]))
            if problem:
                self._found(schema.plan_key(name), problem, "none")

    def _shards(self, store: Store, generations: list[plan.Generation]) -> None:
        counts = {one.number: one.shards for one in generations}
        ids = []
        for name in self._root.names(schema.COMMITS):
            key = f"{schema.COMMITS}/{name}"
            if not _SHARD_RECORD.fullmatch(name):
                if key not in self._explained:
                    self._stray(key)
                continue
            generation, number = schema.shard_number(name.removesuffix(".json"))
            if number < counts.get(generation, 0):
                ids.append(name.removesuffix(".json"))
            else:
                self._found(key, "no plan has this shard", "none")
        groups = set()
        with ThreadPoolExecutor(THREADS) as pool:
            for shard_id, group in _bounded(pool, lambda one: (one, self._shard(store, one)), ids):
                groups.add(group)
                self._seen.shards += 1
                self._progress(1)
                if group is None:  # its record cannot be read: which of the groups is its own, is not known
                    groups |= {name for name in self._root.names(schema.SHARDS) if name.startswith(f"{shard_id}-")}
        listed = self._root.names(schema.SHARDS)
        self._look_at_leases()  # after the list: a group in it is committed, in hand, or an orphan
        for group in listed:
            shard_id = group[: len("0000-000000")]
            if group in groups or group == "zarr.json" or shard_id in self._in_hand:
                continue
            if self._named_by_now(store, shard_id, group):
                continue
            self._found(schema.group_key(group), "no commit record names this group", "remove", harmless=True)

    def _named_by_now(self, store: Store, shard_id: str, group: str) -> bool:
        with contextlib.suppress(OSError, DepthsieveError):
            return bool(store.commit_record(shard_id)["group"] == group)
        return False

    def _shard(self, store: Store, shard_id: str) -> str | None:
        """Look at one committed shard; returns its group's name, or None if its record cannot be believed."""
        key = schema.commit_key(shard_id)
        data = self._read(key)
        problem = (
            "is missing"
            if data is None
            else _record_fault(data, key, {"shard": shard_id, "fingerprint": store.fingerprint})
        )
        if data is None or problem:
            self._found(key, problem or "", "record", shard=shard_id)
            return None
        record = unseal(data, key)
        group = schema.group_key(record["group"])
        present = {entry.key.removeprefix(f"{group}/"): entry for entry in self._root.entries(group)}
        sound = True
        for name, listed in record["files"].items():
            if problem := self._file_fault(f"{group}/{name}", listed):
                self._found(f"{group}/{name}", problem, "relabel", shard=shard_id)
                sound = False
        for name in sorted(set(present) - set(record["files"])):
            self._found(f"{group}/{name}", "is not listed in the shard's commit record", "remove", shard=shard_id)
        if sound and (problem := _content_fault(store, shard_id, record)):
            self._found(key, problem, "relabel", shard=shard_id)
        self._seen.images += record["images"]
        return str(record["group"])

    def _file_fault(self, key: str, listed: dict[str, Any]) -> str | None:
        data = self._read(key)
        self._explained.discard(key)  # groups are compared with their own lists; this set must not grow with them
        if data is None:
            return "is missing"
        if len(data) != listed["bytes"]:
            return f"has {len(data)} bytes instead of {listed['bytes']}"
        return None if hashlib.sha256(data).hexdigest() == listed["sha256"] else DAMAGED

    def _index(self, store: Store) -> None:
        self._explained |= {schema.INDEX, schema.INDEX_RECORD}
        try:
            problem, behind = index_fault(store)
        except (OSError, DepthsieveError):  # of plans or records that are damaged: found already
            return
        for key in (schema.INDEX, schema.INDEX_RECORD):
            if entry := self._root.entry(key):
                self._seen.files += 1
                self._seen.bytes += entry.size
        if problem:
            self._found(*problem, "index", harmless=behind)

    def _strays(self) -> None:
        """What nothing explains, and what dead processes left."""
        planning = PLAN in self._in_hand
        for name in self._root.names(""):
            if name not in _KNOWN and name not in self._explained:
                self._stray(name)
        for name in self._root.names("labels.zarr"):
            if name not in ("shards", "zarr.json"):
                self._stray(f"labels.zarr/{name}")
        for folder in ("plan", "copies"):
            for entry in self._root.entries(folder):
                if entry.key in self._explained or planning:
                    continue
                planned = _GENERATION.match(entry.key.rpartition("/")[2])
                if planned and int(planned[1]) >= self._recorded:  # else its record is damaged, and it is needed
                    self._found(entry.key, "left by a run that was killed while it planned", "remove", harmless=True)
                else:
                    self._stray(entry.key)
        for lease in self._dead:
            self._found(lease.key, "left by a process that has died", "remove", harmless=True)
        for name in self._root.left_scratch():
            self._found(f"tmp/{name}", "left by a process that has died", "remove", harmless=True)

    def _stray(self, key: str) -> None:
        self._found(key, "nothing in the store explains this file", "none", harmless=True)


DAMAGED = "does not fit its digest"


def _record_fault(data: bytes, key: str, expected: dict[str, Any]) -> str | None:
    """What is wrong with a sealed record, to the byte."""
    try:
        body = unseal(data, key)
    except StoreDamaged:
        return DAMAGED
    if seal(body) != data:
        return DAMAGED
    wrong = next((name for name, value in expected.items() if body.get(name) != value), None)
    return f"its {wrong} is {body.get(wrong)!r} and must be {expected[wrong]!r}" if wrong else None


def _content_fault(store: Store, shard_id: str, record: dict[str, Any]) -> str | None:
    """How the arrays of a group whose files are sound, its record and its plan contradict each other."""
    try:
        planned = [image.id for image in store.planned_shard(shard_id).images]
    except (OSError, DepthsieveError, ValueError):
        return None  # the plan's damage is found already
    reader = ShardReader(store.root, record["group"])
    ids, status = reader.column("id").tolist(), reader.column("status")
    failed = [(int(row), ids[row]) for row in np.flatnonzero(status)]
    if ids != planned or record["images"] != len(planned):
        return "its rows are not those of the plan"
    if failed != [(failure["row"], failure["id"]) for failure in record["failures"]]:
        return "its failures are not those of its rows"
    if reader.column("histogram").sum(axis=0, dtype=np.int64).tolist() != record["histogram"]:
        return "its histogram is not the sum of its rows'"
    return None


def _bounded(pool: ThreadPoolExecutor, work: Callable[[str], Any], items: Iterable[str]) -> Iterator[Any]:
    """Map in order, with a bounded number of items under way."""
    waiting = iter(items)
    while some := list(islice(waiting, 16 * THREADS)):
        yield from pool.map(work, some)
