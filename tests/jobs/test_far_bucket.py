"""What a store in a bucket costs in round trips, and that uploads overlap with labelling; see docs/performance.md."""

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from labelled import DECIDED, decided_bytes, small_teacher, write_photos
from patience import PATIENCE_S
from s3server import S3Server

import depthsieve
from depthsieve.core.errors import RunError
from depthsieve.core.stopping import Stop
from depthsieve.storage import open_root
from depthsieve.training import PseudoLabelDataset

IMAGES = 12
SETTINGS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 2, "progress": False}

OF_A_SHARD = Counter(PUT=1 + 25 + 5 + 2, HEAD=2, GET=1)
"""Calls that name a shard until it is committed: its lease, the files of its labels and of the layer of features, two
records; whether it is committed, when the lease is taken and before the upload; the layer's record of it."""

IN_SEQUENCE = 7
"""The longest chain of those: lease, look, look, files, layer's record, record; and one for a machine that is late."""

DELAY_S = 0.3
"""A round trip, where chains are counted."""

IN_ALL = {
    "label again": 52,
    "status": 19,
    "dataset": 6,
}
"""Calls that a command takes at most where there is nothing to do, for a store of six shards."""


@dataclass(frozen=True)
class Source:
    folder: Path
    teacher: str
    expected: dict[str, str]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    here = tmp_path_factory.mktemp("far")
    folder, teacher = write_photos(here / "photos", IMAGES), str(small_teacher(here / "teacher"))
    depthsieve.label(folder, here / "labels", teacher=teacher, **SETTINGS)
    return Source(folder, teacher, decided_bytes(here / "labels"))


@pytest.fixture
def store(s3: S3Server) -> str:
    return f"s3://{s3.new_bucket()}/labels"


def label(source: Source, store: str, **options: object) -> depthsieve.LabelSummary:
    return depthsieve.label(source.folder, store, teacher=source.teacher, **(SETTINGS | options))


def assert_as_in_a_folder(store: str, source: Source) -> None:
    root = open_root(store)
    keys = [entry.key for part in DECIDED for entry in root.entries(part)]
    assert {key: hashlib.sha256(root.read(key)).hexdigest() for key in keys} == source.expected
    assert not root.names("leases") and not root.names("tmp")


@dataclass
class Gate:
    """Holds uploads of some shards until others are committed."""

    held: tuple[str, ...]
    until: int
    commits: list[str]
    opened: threading.Event
    late: bool = False

    def __call__(self, environ: dict[str, Any]) -> None:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "PUT":
            return
        if committed := re.search(r"labels/commits/(\d{4}-\d{6})", path):
            self.commits.append(committed[1])
            if len(self.commits) >= self.until:
                self.opened.set()
        elif "/depth/c/" in path and any(shard in path for shard in self.held):
            self.late = not self.opened.wait(PATIENCE_S) or self.late
            self.opened.set()


@contextmanager
def delayed(s3: S3Server, naming: str) -> Iterator[list[tuple[float, str, str]]]:
    """Each call that names that takes a round trip; when each came, its method and path."""
    came: list[tuple[float, str, str]] = []

    def fault(environ: dict[str, Any]) -> None:
        path = environ["PATH_INFO"] + unquote(environ.get("QUERY_STRING", ""))
        if naming in path:
            came.append((time.monotonic(), environ["REQUEST_METHOD"], path))
            time.sleep(DELAY_S)

    with s3.failing(fault):
        yield came


def longest_chain(came: list[float]) -> int:
    """The most calls of which each came after the answer to the one before."""
    chain, answered = 0, -1.0
    for moment in sorted(came):
        if moment >= answered:
            chain, answered = chain + 1, moment + DELAY_S
    return chain


def test_a_shard_takes_no_more_round_trips_than_it_needs(s3: S3Server, source: Source) -> None:
    """In sequence the machine may add to it where threads are late, so the best of three attempts counts."""
    chains = []
    for _ in range(3):
        store = f"s3://{s3.new_bucket()}/labels"
        depthsieve.plan(source.folder, store, write=True, trial=False, teacher=source.teacher, **SETTINGS)
        with delayed(s3, "0000-000003") as came:
            label(source, store, part="4/6")
        calls = [(method, path) for _, method, path in came]
        last = calls.index(
            next(call for call in calls if call[1].endswith("labels/commits/0000-000003.json") and call[0] == "PUT")
        )
        assert Counter(method for method, _ in calls[: last + 1]) == OF_A_SHARD
        chains.append(longest_chain([moment for moment, _, _ in came[: last + 1]]))
        if chains[-1] <= IN_SEQUENCE:
            break
    assert min(chains) <= IN_SEQUENCE
    files = [path for method, path in calls[:last] if method == "PUT"]
    assert sorted(files[:-1]) == sorted(set(files[:-1])), "no file is uploaded twice"
    assert files[-1].endswith("layers/features/commits/0000-000003.json"), "the layer's record comes after all files"


def test_commands_with_nothing_to_do_take_few_calls(s3: S3Server, source: Source, store: str) -> None:
    label(source, store)
    found = {}
    for name, act in {
        "label again": lambda: label(source, store),
        "status": lambda: depthsieve.status(store),
        "dataset": lambda: PseudoLabelDataset(store, images=source.folder),
    }.items():
        s3.calls.clear()
        act()
        found[name] = len(s3.calls)
    assert all(found[name] <= most for name, most in IN_ALL.items()), found


def test_labelling_goes_on_while_shards_are_uploaded(s3: S3Server, source: Source, store: str) -> None:
    """Three uploads hang; the other three shards are labelled and committed meanwhile."""
    held = ("0000-000000", "0000-000001", "0000-000002")
    gate = Gate(held, 3, [], threading.Event())
    with s3.failing(gate):
        summary = label(source, store)
    assert summary.labelled == IMAGES and not gate.late
    assert set(gate.commits[:3]) == {"0000-000003", "0000-000004", "0000-000005"}
    assert set(gate.commits[3:]) == set(held)
    assert_as_in_a_folder(store, source)


def test_an_upload_that_is_refused_ends_the_run_and_the_next_one_resumes(
    s3: S3Server, source: Source, store: str
) -> None:
    def refuse(environ: dict[str, Any]) -> str | None:
        refused = environ["REQUEST_METHOD"] == "PUT" and "/0000-000001-" in environ["PATH_INFO"]
        return "403" if refused else None

    with s3.failing(refuse), pytest.raises(RunError, match=r"cannot write to s3://.*access denied \(403\)"):
        label(source, store)
    root = open_root(store)
    assert "0000-000001.json" not in root.names("commits") and not root.names("leases")
    assert label(source, store).labelled == IMAGES
    assert_as_in_a_folder(store, source)


def test_a_stop_waits_for_uploads_in_flight_within_its_grace(s3: S3Server, source: Source, store: str) -> None:
    stop = Stop(grace_s=PATIENCE_S)

    def interrupt(environ: dict[str, Any]) -> None:
        if (
            environ["REQUEST_METHOD"] == "PUT"
            and "0000-000000" in environ["PATH_INFO"]
            and "/depth/c/" in environ["PATH_INFO"]
        ):
            stop.request()
            time.sleep(1.0)

    with s3.failing(interrupt):
        summary = label(source, store, stop=stop)
    root = open_root(store)
    assert summary.interrupted and summary.pending and not root.names("leases")
    assert "0000-000000.json" in root.names("commits")
    assert label(source, store).labelled == IMAGES
    assert_as_in_a_folder(store, source)
