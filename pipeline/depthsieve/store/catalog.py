"""The records and plans of a store: what is planned, what is committed, and where each image's label should be.

Everything that is known of a store without a look into its arrays; :class:`depthsieve.store.reader.Store` adds those.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from depthsieve.core.errors import StoreDamaged, StoreError, StoreMismatch
from depthsieve.core.recent import Recent
from depthsieve.core.records import MEND, DatasetNote, LabelSpec, Shard, digest_of, unseal
from depthsieve.storage import Root
from depthsieve.store import plan, schema
from depthsieve.store.cache import ShardCache
from depthsieve.store.pending import Pending
from depthsieve.teachers import request_at

FETCHES = 16
"""Records fetched side by side from an object store."""

KEPT_PARTS = 4
"""Parts of plans that an open store keeps in memory."""

_GENERATION = "generation-"
_SHARDS_END = "generation"
"""Records of shards, which begin with a digit, come before that; those of generations after it."""


@dataclass(frozen=True)
class Catalog:
    """The records and plans of the store at ``root``, which holds labels of ``spec``.

    Where ``root`` is in an object store, arrays are read through the ``cache``, if there is one.
    """

    root: Root
    spec: LabelSpec
    cache: ShardCache | None = None
    _shards: dict[int, plan.ShardTable] = field(default_factory=dict, repr=False, compare=False)
    _parts: Recent[pa.Table] = field(default_factory=lambda: Recent(KEPT_PARTS), repr=False, compare=False)
    _generations: dict[str, plan.Generation] = field(default_factory=dict, repr=False, compare=False)
    _listed: list[list[plan.Generation]] = field(default_factory=list, repr=False, compare=False)

    @property
    def location(self) -> str:
        """Its absolute path, or its URL."""
        return self.root.location

    @property
    def path(self) -> Path:
        """Its folder. Raises :class:`StoreError` where it is in an object store."""
        if self.root.path is None:
            raise StoreError(f"{self.location} is not on this machine's disks; copy it to a folder for this")
        return self.root.path

    @functools.cached_property
    def fingerprint(self) -> str:
        """The label spec's fingerprint."""
        return self.spec.fingerprint

    def generations(self) -> list[plan.Generation]:
        """All committed generations, oldest first. In an object store, where each listing is a round trip, those of the
        last look at what is committed, by this object."""
        if self._listed and self.root.path is None:
            return list(self._listed[-1])
        return self._in_order(self.root.names(schema.COMMITS, after=_SHARDS_END))

    def committed_now(self) -> tuple[list[plan.Generation], set[str]]:
        """All committed generations, and the ids of all committed shards, of one listing."""
        names = self.root.names(schema.COMMITS)
        return self._in_order(names), _shards_among(names)

    def _in_order(self, names: Iterable[str]) -> list[plan.Generation]:
        """The generations among the names of records."""
        keys = [f"{schema.COMMITS}/{name}" for name in names if name.startswith(_GENERATION)]
        found = [self._generation(key) for key in keys]
        for number, generation in enumerate(found):
            if generation.number != number:
                missing = f"{self.location}/{schema.generation_key(number)}"
                raise StoreDamaged(f"{missing} is missing, and later ones are there; {MEND}")
        self._listed[:] = [found]
        return list(found)

    def look_again(self) -> None:
        """Forget what was seen of generations: there is another now."""
        self._listed.clear()

    def _generation(self, key: str) -> plan.Generation:
        """A generation by the key of its record, which is read once: it never changes. Its teacher goes by the name
        that it has today."""
        if key not in self._generations:
            generation = plan.Generation.from_json(self._record(key))
            if generation.teacher is not None:
                generation = replace(generation, teacher=request_at(generation.teacher, self.spec))
            self._generations[key] = generation
        return self._generations[key]

    def read_plan(self, generation: plan.Generation, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The plan of a generation, part by part. Raises :class:`StoreDamaged` where one does not have its digest."""
        for part in range(generation.parts):
            yield self._table(generation, plan.part_name(generation.number, part), columns)

    def read_table(self, generation: plan.Generation, what: str) -> pa.Table:
        """The "shards", "rejected" or "removed" table of a generation. Raises as :meth:`read_plan`."""
        return self._table(generation, plan.table_name(generation.number, what))

    def _table(self, generation: plan.Generation, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        key = schema.plan_key(name)
        try:
            data = self.root.read(key)
        except FileNotFoundError:
            raise StoreDamaged(f"{self.location}/{key} is missing; {MEND}") from None
        if hashlib.sha256(data).hexdigest() != generation.files[name]["sha256"]:
            raise StoreDamaged(f"{self.location}/{key} does not fit the digest in its record; {MEND}")
        return plan.decode_table(data, columns)

    def commit_record(self, shard_id: str) -> dict[str, Any]:
        """The record that commits a shard, its own digest checked."""
        return self._record(schema.commit_key(shard_id))

    def commit_records(self, shard_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The records of many shards, in order; those of an object store are fetched side by side."""
        if self.root.path is not None:
            yield from map(self.commit_record, shard_ids)
            return
        waiting = iter(shard_ids)
        with ThreadPoolExecutor(FETCHES) as pool:
            while some := list(islice(waiting, 16 * FETCHES)):
                yield from pool.map(self.commit_record, some)

    def _record(self, key: str) -> dict[str, Any]:
        body = unseal(self.root.read(key), f"{self.location}/{key}")
        if body["fingerprint"] != self.fingerprint:
            raise StoreMismatch(
                f"{self.location}/{key} belongs to another label spec than the store; it was copied here from elsewhere"
            )
        return body

    def committed(self) -> set[str]:
        """Ids of all committed shards."""
        return _shards_among(self.root.names(schema.COMMITS))

    def is_committed(self, shard_id: str) -> bool:
        """Whether one shard is committed now."""
        return self.root.entry(schema.commit_key(shard_id)) is not None

    def pending(self, part: tuple[int, int] | None = None) -> Pending:
        """The shards that are planned and not committed; of a ``part`` (i, n), counted from 1, every n-th of them."""
        generations, committed = self.committed_now()
        return Pending.of({one.number: self.shard_table(one) for one in generations}, committed, part)

    def shard_table(self, generation: plan.Generation) -> plan.ShardTable:
        """Images and label shape of each shard of a generation."""
        if generation.number not in self._shards:
            self._shards[generation.number] = plan.ShardTable.decode(self.read_table(generation, "shards"))
        return self._shards[generation.number]

    def images_of(self, shard_ids: Iterable[str]) -> dict[str, int]:
        """How many images each of these shards has, labelled or failed."""
        tables = {generation.number: self.shard_table(generation) for generation in self.generations()}
        counts = {}
        for shard_id in shard_ids:
            number, shard = schema.shard_number(shard_id)
            if number in tables and shard < len(tables[number].images_S):  # else no plan has it, as `verify` says
                counts[shard_id] = int(tables[number].images_S[shard])
        return counts

    def planned_shard(self, shard_id: str) -> Shard:
        """A shard as its plan has it."""
        return plan.decode_shard(self.planned_rows(shard_id))

    def planned_rows(self, shard_id: str) -> pa.Table:
        """The rows of a shard's plan, in order."""
        number, shard = schema.shard_number(shard_id)
        generation = self._generation(schema.generation_key(number))  # listing them all takes long in a large store
        name = plan.part_name(number, shard // plan.PART_SHARDS)
        part = self._parts.get(name)
        if part is None:
            part = self._parts.put(name, self._table(generation, name))
        start, count = self.shard_table(generation).rows(shard)
        return part[start : start + count]

    def sources(self) -> Mapping[str, str]:
        """Name and root of every source, as the newest generation that knows it has it."""
        roots: dict[str, str] = {}
        for generation in self.generations():
            roots |= generation.sources
        return roots

    def datasets(self) -> Mapping[str, DatasetNote]:
        """Which dataset the images of a source are of, and under which terms; by the names of sources that say so."""
        notes: dict[str, DatasetNote] = {}
        for generation in self.generations():
            notes |= generation.datasets
        return notes

    def excluded(self) -> Mapping[str, tuple[str, ...]]:
        """By the names of sources, the patterns of what is left out of them."""
        patterns: dict[str, tuple[str, ...]] = {}
        for generation in self.generations():
            patterns |= generation.excluded
        return patterns

    def frames(self) -> Mapping[str, str]:
        """By the names of sources that have videos, which frames of them are taken, as a
        :class:`~depthsieve.core.frames.FrameChoice` writes it."""
        taken: dict[str, str] = {}
        for generation in self.generations():
            taken |= generation.frames
        return taken

    def sequences(self) -> frozenset[str]:
        """The names of the sources whose folders are clips (``label --sequence``): see :mod:`depthsieve.core.clips`."""
        said: dict[str, bool] = {}
        for generation in self.generations():
            said |= generation.sequences
        return frozenset(name for name, is_sequence in said.items() if is_sequence)

    def snapshot(self) -> str:
        """A digest of what is committed now: generations and shards."""
        generations, committed = self.committed_now()
        return digest_of([sorted(committed), [digest_of(generation.files) for generation in generations]])


def _shards_among(names: Iterable[str]) -> set[str]:
    """The ids of shards among the names of records."""
    return {name.removesuffix(".json") for name in names if not name.startswith(_GENERATION)}
