"""What an inspection finds, and how it reads: shared by that of the labels and that of the layers."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from depthsieve.core.errors import StoreDamaged
from depthsieve.core.processes import Process
from depthsieve.core.records import seal, unseal
from depthsieve.storage import Root
from depthsieve.store import schema
from depthsieve.store.layer_kinds import Remedy
from depthsieve.store.leases import PLAN, Left, left_leases

THREADS = 4

DAMAGED = "does not fit its digest"


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


class Look:
    """Reads files below a root, and notes what is found.

    ``explained`` are the keys of files that something accounts for, ``in_hand`` what living processes have in hand, but
    for ``mine``, and ``dead`` the leases of those that died.
    """

    def __init__(self, root: Root, mine: Process | None) -> None:
        self.root = root
        self.mine = mine
        self.seen = Inspection()
        self.explained: set[str] = set()
        self.in_hand: set[str] = set()
        self.dead: list[Left] = []
        self.at_leases()

    def at_leases(self) -> None:
        """Look who is at work. What once was in hand counts as such until the end."""
        leases = left_leases(self.root)
        self.in_hand |= {lease.name for lease in leases if lease.alive and lease.holder != self.mine}
        self.dead = [lease for lease in leases if not lease.alive]

    def found(self, key: str, problem: str, remedy: Remedy, harmless: bool = False, shard: str | None = None) -> None:
        """Note what is wrong."""
        self.seen.findings.append(Finding(key, problem, remedy, harmless, shard))

    def read(self, key: str) -> bytes | None:
        """A file, which counts as explained; None if it is not there."""
        self.explained.add(key)
        try:
            data = self.root.read(key)
        except FileNotFoundError:
            return None
        self.seen.files += 1
        self.seen.bytes += len(data)
        return data

    def twice(self, key: str, fault: Callable[[bytes], str | None]) -> bytes | None:
        """The good one of a file and its copy, after both were looked at; None if there is none."""
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

    def file_fault(self, key: str, listed: dict[str, Any]) -> str | None:
        """What is wrong with a file of a group, whose record says what is ``listed``."""
        data = self.read(key)
        self.explained.discard(key)  # groups are compared with their own lists; this set must not grow with them
        if data is None:
            return "is missing"
        if len(data) != listed["bytes"]:
            return f"has {len(data)} bytes instead of {listed['bytes']}"
        return None if hashlib.sha256(data).hexdigest() == listed["sha256"] else DAMAGED

    def stray(self, key: str) -> None:
        """Note a file that nobody knows."""
        self.found(key, "nothing in the store explains this file", "none", harmless=True)


def record_fault(data: bytes, key: str, expected: dict[str, Any]) -> str | None:
    """What is wrong with a sealed record, to the byte."""
    try:
        body = unseal(data, key)
    except StoreDamaged:
        return DAMAGED
    if seal(body) != data:
        return DAMAGED
    wrong = next((name for name, value in expected.items() if body.get(name) != value), None)
    return f"its {wrong} is {body.get(wrong)!r} and must be {expected[wrong]!r}" if wrong else None


def bounded(pool: ThreadPoolExecutor, work: Callable[[str], Any], items: Iterable[str]) -> Iterator[Any]:
    """Map in order, with a bounded number of items under way."""
    waiting = iter(items)
    while some := list(islice(waiting, 16 * THREADS)):
        yield from pool.map(work, some)
