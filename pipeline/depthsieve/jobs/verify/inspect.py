"""Read every byte of a store: what is damaged, what is missing, what does not belong to it. Writes nothing.

It may run beside a labelling run: what living processes have in hand is ignored.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from depthsieve.core.errors import DepthsieveError, StoreNotFound
from depthsieve.core.processes import Process
from depthsieve.core.records import LabelSpec, unseal
from depthsieve.jobs.verify.findings import DAMAGED, THREADS, Inspection, Look, bounded, record_fault
from depthsieve.jobs.verify.inspect_layers import inspect_layers
from depthsieve.storage import Root
from depthsieve.store import plan, schema, times
from depthsieve.store.arrays import ShardReader
from depthsieve.store.create import index_fault
from depthsieve.store.layers import FOLDER as LAYERS
from depthsieve.store.leases import FOLDER as LEASES
from depthsieve.store.leases import PLAN
from depthsieve.store.networks import FOLDER as NETWORKS
from depthsieve.store.networks import digest_in, network_fault, network_keys
from depthsieve.store.reader import Store
from depthsieve.store.root_document import spec_in

_SHARD_RECORD = re.compile(r"\d{4}-\d{6}\.json")
_GENERATION = re.compile(r"generation-(\d{4})\.")
_KNOWN = {"labels.zarr", schema.COMMITS, "plan", "copies", LEASES, "tmp", LAYERS, NETWORKS, "runs", times.NAME}


def inspect_store(
    root: Root, progress: Callable[[int], object] = lambda shards: None, repairing: bool = False
) -> Inspection:
    """Read everything below ``root``. ``progress`` is called with the number of shards read. ``repairing``: this
    process holds the lease on the plan, and plans nothing.

    Raises :class:`StoreNotFound` where there is no store at all.
    """
    check_is_store(root)
    return _Inspector(root, progress, repairing).run()


def check_is_store(root: Root) -> None:
    """Raise :class:`StoreNotFound` where both the root document and its copy are missing."""
    if all(root.entry(key) is None for key in (schema.ROOT_DOCUMENT, schema.copy_key(schema.ROOT_DOCUMENT))):
        raise StoreNotFound(f"{root.location} is not a label store (it has no labels.zarr)")


class _Inspector:
    def __init__(self, root: Root, progress: Callable[[int], object], repairing: bool) -> None:
        self._root = root
        self._progress = progress
        self._look = Look(root, Process.current() if repairing else None)
        self._recorded = 0

    def run(self) -> Inspection:
        spec = self._root_documents()
        if spec is not None:
            store = Store(self._root, spec)
            generations = self._generations(spec)
            self._networks(store)
            self._shards(store, generations)
            inspect_layers(self._look, store)
            self._index(store)
            self._strays()  # without a spec nothing could be explained
        self._look.seen.findings.sort(key=lambda finding: finding.key)
        return self._look.seen

    def _root_documents(self) -> LabelSpec | None:
        self._look.twice(schema.SHARDS_DOCUMENT, lambda data: None if data == schema.group_document({}) else DAMAGED)
        specs: list[LabelSpec] = []

        def fault(data: bytes) -> str | None:
            try:
                attributes, spec = spec_in(data, schema.ROOT_DOCUMENT)
            except DepthsieveError:
                return DAMAGED
            specs.append(spec)
            return None if data == schema.group_document(attributes) else DAMAGED

        if self._look.twice(schema.ROOT_DOCUMENT, fault) is not None:
            return specs[-1]
        return None

    def _generations(self, spec: LabelSpec) -> list[plan.Generation]:
        """All generations that can be read; their plans are checked."""
        names = {*self._root.names(schema.COMMITS), *self._root.names(schema.copy_key(schema.COMMITS))}
        numbers = [int(match[1]) for match in map(_GENERATION.match, names) if match]
        self._recorded = max(numbers, default=-1) + 1
        generations = []
        for number in range(max(numbers, default=-1) + 1):
            key = schema.generation_key(number)

            def fault(data: bytes, number: int = number, key: str = key) -> str | None:
                return record_fault(data, key, {"number": number, "fingerprint": spec.fingerprint})

            data = self._look.twice(key, fault)
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

            data = self._look.twice(schema.plan_key(name), fault)
            problem = None
            if data is not None and name == first:
                shards = plan.ShardTable.decode(plan.decode_table(data))
                problem = plan.counts_fault(generation, shards)
            elif data is not None and shards is not None and name in parts:
                problem = plan.part_fault(shards, parts[name], plan.decode_table(data, ["row"]))
            if problem:
                self._look.found(schema.plan_key(name), problem, "none")

    def _networks(self, store: Store) -> None:
        """The error networks that the store keeps, and whether it has those that it needs."""
        whole = set()
        if not self._recorded:  # a first run writes its network, then its plan: no label needs it yet
            return
        for key in network_keys(self._root):
            if self._look.twice(key, partial(network_fault, key=key)) is not None:
                whole.add(digest_in(key))
        if store.spec.calibration_digest and store.spec.calibration_digest not in whole and not self._look.in_hand:
            problem = "has no whole copy of the error network that the labels are made with; label with its file again"
            self._look.found(NETWORKS, f"{problem}: --calibration FILE", "none")

    def _shards(self, store: Store, generations: list[plan.Generation]) -> None:
        counts = {one.number: one.shards for one in generations}
        ids = []
        for name in self._root.names(schema.COMMITS):
            key = f"{schema.COMMITS}/{name}"
            if not _SHARD_RECORD.fullmatch(name):
                if key not in self._look.explained:
                    self._look.stray(key)
                continue
            generation, number = schema.shard_number(name.removesuffix(".json"))
            if number < counts.get(generation, 0):
                ids.append(name.removesuffix(".json"))
            else:
                self._look.found(key, "no plan has this shard", "none")
        groups = set()
        with ThreadPoolExecutor(THREADS) as pool:
            for shard_id, group in bounded(pool, lambda one: (one, self._shard(store, one)), ids):
                groups.add(group)
                self._look.seen.shards += 1
                self._progress(1)
                if group is None:  # which of the groups is its own is not known
                    groups |= {name for name in self._root.names(schema.SHARDS) if name.startswith(f"{shard_id}-")}
        listed = self._root.names(schema.SHARDS)
        self._look.at_leases()  # after the list: a group in it is committed, in hand, or an orphan
        for group in listed:
            shard_id = group[: len("0000-000000")]
            if group in groups or group == "zarr.json" or shard_id in self._look.in_hand:
                continue
            if self._named_by_now(store, shard_id, group):
                continue
            self._look.found(schema.group_key(group), "no commit record names this group", "remove", harmless=True)

    def _named_by_now(self, store: Store, shard_id: str, group: str) -> bool:
        with contextlib.suppress(OSError, DepthsieveError):
            return bool(store.commit_record(shard_id)["group"] == group)
        return False

    def _shard(self, store: Store, shard_id: str) -> str | None:
        """Check one committed shard; returns its group's name, or None if its record is damaged."""
        key = schema.commit_key(shard_id)
        data = self._look.read(key)
        problem = (
            "is missing"
            if data is None
            else record_fault(data, key, {"shard": shard_id, "fingerprint": store.fingerprint})
        )
        if data is None or problem:
            self._look.found(key, problem or "", "record", shard=shard_id)
            return None
        record = unseal(data, key)
        group = schema.group_key(record["group"])
        present = {entry.key.removeprefix(f"{group}/"): entry for entry in self._root.entries(group)}
        sound = True
        for name, problem in self._look.file_faults(group, record["files"]).items():
            if problem:
                self._look.found(f"{group}/{name}", problem, "relabel", shard=shard_id)
                sound = False
        for name in sorted(set(present) - set(record["files"])):
            self._look.found(f"{group}/{name}", "is not listed in the shard's commit record", "remove", shard=shard_id)
        if sound and (problem := _content_fault(store, shard_id, record)):
            self._look.found(key, problem, "relabel", shard=shard_id)
        self._look.seen.images += record["images"]
        return str(record["group"])

    def _index(self, store: Store) -> None:
        self._look.explained |= {schema.INDEX, schema.INDEX_RECORD}
        try:
            problem, behind = index_fault(store)
        except (OSError, DepthsieveError):  # of plans or records that are damaged: found already
            return
        for key in (schema.INDEX, schema.INDEX_RECORD):
            if entry := self._root.entry(key):
                self._look.seen.files += 1
                self._look.seen.bytes += entry.size
        if problem:
            self._look.found(*problem, "index", harmless=behind)

    def _strays(self) -> None:
        """Unknown files, and what dead processes left."""
        planning = PLAN in self._look.in_hand
        for name in self._root.names(""):
            if name not in _KNOWN and name not in self._look.explained:
                self._look.stray(name)
        for name in self._root.names("labels.zarr"):
            if name not in ("shards", "zarr.json"):
                self._look.stray(f"labels.zarr/{name}")
        for folder in ("plan", "copies"):
            for entry in self._root.entries(folder):
                if entry.key in self._look.explained or planning:
                    continue
                planned = _GENERATION.match(entry.key.rpartition("/")[2])
                if planned and int(planned[1]) >= self._recorded:  # else its record is damaged, and it is needed
                    self._look.found(
                        entry.key, "left by a run that was killed while it planned", "remove", harmless=True
                    )
                else:
                    self._look.stray(entry.key)
        for lease in self._look.dead:
            self._look.found(lease.key, "left by a process that has died", "remove", harmless=True)
        for name in self._root.left_scratch():
            self._look.found(f"tmp/{name}", "left by a process that has died", "remove", harmless=True)


def _content_fault(store: Store, shard_id: str, record: dict[str, Any]) -> str | None:
    """How the arrays of a group whose files are sound contradict its record or its plan; None if they do not."""
    try:
        planned = [image.id for image in store.planned_shard(shard_id).images]
    except (OSError, DepthsieveError, ValueError):
        return None  # of a damaged plan: found already
    reader = ShardReader(store.root, schema.group_key(record["group"]))
    ids, status = reader.column("id").tolist(), reader.column("status")
    failed = [(int(row), ids[row]) for row in np.flatnonzero(status)]
    if ids != planned or record["images"] != len(planned):
        return "its rows are not those of the plan"
    if failed != [(failure["row"], failure["id"]) for failure in record["failures"]]:
        return "its failures are not those of its rows"
    if reader.column("histogram").sum(axis=0, dtype=np.int64).tolist() != record["histogram"]:
        return "its histogram is not the sum of its rows'"
    return None
