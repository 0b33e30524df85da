"""What dispatch makes of what a runner tells: progress by images, and how many were computed for nothing."""

import json
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from labelled import small_teacher, write_photos

import depthsieve
from depthsieve.core.processes import Process
from depthsieve.core.records import LabelJob, ShardResult, ShardTask, TeacherRequest
from depthsieve.core.stopping import Stop
from depthsieve.runners import OnImages, Runner, dispatch
from depthsieve.store import Store, leases, open_store
from depthsieve.store.leases import Leases, left_leases

Run = Callable[[LabelJob, Iterator[ShardTask], Stop], Generator[ShardResult, None, None]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three shards of four photos, planned."""
    photos, teacher = write_photos(tmp_path / "photos", 12), str(small_teacher(tmp_path / "t"))
    options = {"batch_size": 2, "threads": 1, "shard_size": 4, "progress": False}
    depthsieve.plan(photos, tmp_path / "store", teacher=teacher, write=True, trial=False, **options)
    return open_store(tmp_path / "store")


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the bar stood after each change."""
    stood: list[int] = []

    class Bar:
        n = 0

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def update(self, n: int) -> None:
            self.n += n
            stood.append(self.n)

    monkeypatch.setattr(dispatch, "progress_bar", lambda *arguments, **options: Bar())
    monkeypatch.setattr(dispatch, "PAUSE_S", 0.0)
    return stood


def run(store: Store, stop: Stop, make: Callable[[OnImages], Runner]) -> dispatch.Outcome:
    job = LabelJob(store.location, TeacherRequest("made up"), store.fingerprint, (), ())
    with Leases(store.root) as mine:
        outcome = dispatch.dispatch(store, store.pending(), job, mine, make, stop, True)
        assert left_leases(store.root) == []
    return outcome


def test_images_of_shards_that_are_abandoned_are_counted(store: Store, bar: list[int]) -> None:
    stop = Stop()

    def make(on_images: OnImages) -> Runner:
        def runner(job: LabelJob, tasks: Iterator[ShardTask], stop: Stop) -> Generator[ShardResult, None, None]:
            first, second, third = (task.shard_id for task in tasks)
            on_images(first, 2)
            on_images(first, 4)
            yield ShardResult(first, 4)
            on_images(second, 2)
            on_images(third, 1)
            on_images(second, 3)
            stop.request()

        return runner

    outcome = run(store, stop, make)
    assert (outcome.labelled, outcome.discarded, outcome.errors) == (4, 4, ())
    assert bar == [2, 4, 4, 6, 7, 8]


def test_a_shard_that_is_tried_again_counts_once(store: Store, bar: list[int]) -> None:
    def make(on_images: OnImages) -> Runner:
        def runner(job: LabelJob, tasks: Iterator[ShardTask], stop: Stop) -> Generator[ShardResult, None, None]:
            for task in tasks:
                on_images(task.shard_id, 2)
                on_images(task.shard_id, 4)
                yield ShardResult(task.shard_id, 4, error=None if job.last_attempt else "the disk is away")

        return runner

    outcome = run(store, Stop(), make)
    assert (outcome.labelled, outcome.discarded, outcome.errors) == (12, 0, ())
    assert bar[:3] == [2, 4, 0] and bar[-1] == 12


def test_a_shard_of_a_machine_that_turns_out_to_be_gone_comes_last_and_forgives_no_other(
    store: Store, bar: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SIGN_S", 0.01)
    monkeypatch.setattr(leases, "RENEW_S", 0.01)
    elsewhere = Process("node7", "0123456789ab", 4242, 99)
    lost, bad, good = sorted(store.pending())
    store.root.write(f"leases/{lost}.0.json", json.dumps({"holder": asdict(elsewhere)}).encode())
    sign = Path(store.location) / "leases" / f"alive-{elsewhere.token}"
    sign.write_bytes(b"")
    asked: list[str] = []

    def make(on_images: OnImages) -> Runner:
        def runner(job: LabelJob, tasks: Iterator[ShardTask], stop: Stop) -> Generator[ShardResult, None, None]:
            for task in tasks:
                asked.append(task.shard_id)
                yield ShardResult(task.shard_id, 4, error="broken" if task.shard_id == bad else None)
            if asked.count(bad) == 3 and lost not in asked:
                os.utime(sign, (sign.stat().st_mtime - leases.STALE_S + 0.5,) * 2)

        return runner

    outcome = run(store, Stop(), make)
    assert asked == [bad, good, bad, bad, lost]
    assert (outcome.labelled, outcome.errors) == (8, (f"shard {bad}: broken",))
