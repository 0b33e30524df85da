"""Findings of an inspection, and what the inspections of labels and of layers share."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal

from depthsieve.core.errors import StoreDamaged
from depthsieve.core.processes import Process
from depthsieve.core.records import seal, unseal
from depthsieve.storage import Root
from depthsieve.storage.together import together
from depthsieve.store import schema
from depthsieve.store.leases import PLAN, Left, left_leases

Remedy = Literal["restore", "record", "relabel", "index", "remove", "layer record", "take out", "none"]
"""What a repair does: restore the other copy; rewrite a record from its group; label the shard again; rewrite the
index; remove the file or folder; rewrite a layer's record of a shard from its group; take a shard out of a layer;
nothing."""

THREADS = 4

DAMAGED = "does not fit its digest"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: the file or folder by its key, what is wrong with it, and what a repair would do.

    ``harmless`` ones cost no label: what dead processes left, an index that is out of date, an unknown file.
    ``add_again`` is the command that computes again what a repair takes out of a layer, if it can be computed.
    """

    key: str
    problem: str
    remedy: Remedy
    harmless: bool = False
    shard: str | None = None
    add_again: str | None = None


@dataclass
class Inspection:
    """How much was read, and what was found, in the order of the keys."""

    shards: int = 0
    images: int = 0
    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether no finding could cost a label."""
        return all(finding.harmless for finding in self.findings)


class Look:
    """Reads files below a root and collects findings.

    ``explained`` are the keys of files that belong to the store, ``in_hand`` the names of leases that living processes
    hold, other than ``mine``: what they write is in flight, and no orphan. ``dead`` are the leases of processes that
    died.
    """

    def __init__(self, root: Root, mine: Process | None) -> None:
        self.root = root
        self.mine = mine
        self.seen = Inspection()
        self._counting = threading.Lock()
        self.explained: set[str] = set()
        self.in_hand: set[str] = set()
        self.dead: list[Left] = []
        self.at_leases()

    def at_leases(self) -> None:
        """Read the leases. What was in hand once counts as such until the end of the inspection."""
        leases = left_leases(self.root)
        self.in_hand |= {lease.name for lease in leases if lease.alive and lease.holder != self.mine}
        self.dead = [lease for lease in leases if not lease.alive]

    def found(
        self,
        key: str,
        problem: str,
        remedy: Remedy,
        harmless: bool = False,
        shard: str | None = None,
        add_again: str | None = None,
    ) -> None:
        """Add a finding."""
        self.seen.findings.append(Finding(key, problem, remedy, harmless, shard, add_again))

    def read(self, key: str) -> bytes | None:
        """The content of a file, which counts as explained; None if it is missing."""
        self.explained.add(key)
        try:
            data = self.root.read(key)
        except FileNotFoundError:
            return None
        with self._counting:
            self.seen.files += 1
            self.seen.bytes += len(data)
        return data

    def twice(self, key: str, fault: Callable[[bytes], str | None]) -> bytes | None:
        """The content of a file of which there are two copies, after both were checked by ``fault``; None if neither is
        sound."""
        states: dict[str, tuple[bytes | None, str | None]] = {}
        for place in (key, schema.copy_key(key)):
            data = self.read(place)
            states[place] = (data, "is missing" if data is None else fault(data))
        sound = [data for data, problem in states.values() if problem is None]
        for place, (data, problem) in states.items():
            if problem:
                lost_copy = data is None and place != key  # a run has not written it yet, or was killed before it
                if lost_copy and PLAN in self.in_hand:
                    continue
                remedy: Remedy = "restore" if sound else "none"
                self.found(place, problem if sound else f"{problem}, and so is its other copy", remedy, lost_copy)
        return sound[0] if sound else None

    def file_faults(self, group: str, files: Mapping[str, dict[str, Any]]) -> dict[str, str | None]:
        """What is wrong with each file of a group, by its name in the record. Those in a bucket are read side by side:
        each is a round trip."""
        calls = [partial(self.file_fault, f"{group}/{name}", listed) for name, listed in files.items()]
        return dict(zip(files, together(self.root, calls), strict=True))

    def file_fault(self, key: str, listed: dict[str, Any]) -> str | None:
        """What is wrong with a file of a group, given its entry in the record; None if nothing is."""
        data = self.read(key)
        self.explained.discard(key)  # groups are compared with their own lists, and this set must stay small
        if data is None:
            return "is missing"
        if len(data) != listed["bytes"]:
            return f"has {len(data)} bytes instead of {listed['bytes']}"
        return None if hashlib.sha256(data).hexdigest() == listed["sha256"] else DAMAGED

    def stray(self, key: str) -> None:
        """Add a finding about an unknown file."""
        self.found(key, "nothing in the store explains this file", "none", harmless=True)


def record_fault(data: bytes, key: str, expected: dict[str, Any]) -> str | None:
    """What is wrong with a sealed record, down to its bytes; None if nothing is."""
    try:
        body = unseal(data, key)
    except StoreDamaged:
        return DAMAGED
    if seal(body) != data:
        return DAMAGED
    wrong = next((name for name, value in expected.items() if body.get(name) != value), None)
    return f"its {wrong} is {body.get(wrong)!r} and must be {expected[wrong]!r}" if wrong else None


def bounded(pool: ThreadPoolExecutor, work: Callable[[str], Any], items: Iterable[str]) -> Iterator[Any]:
    """Map in order, with a bounded number of items in flight."""
    waiting = iter(items)
    while some := list(islice(waiting, 16 * THREADS)):
        yield from pool.map(work, some)
