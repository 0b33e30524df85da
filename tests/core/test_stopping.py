"""Being asked to stop: what fits into the grace period is finished, the rest is abandoned uncommitted."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labelled import decided_bytes, small_teacher, unlabelled_copy, write_photo
from patience import wait_for

import depthsieve
from depthsieve.core.records import LabelJob, ShardResult, ShardTask, TeacherRequest
from depthsieve.core.stopping import Stop
from depthsieve.labelling.batch import LabelWork
from depthsieve.runners import local
from depthsieve.runners.local import local_runner
from depthsieve.store import open_store
from depthsieve.teachers import Batch, Prediction, Teacher, load_teacher

SHARDS = ("0000-000000", "0000-000001")


def test_the_grace_begins_with_the_first_request() -> None:
    stop = Stop(grace_s=100.0)
    assert not stop.requested and stop.seconds_left() == math.inf and not stop.wait(0.0)
    stop.request()
    first = stop.seconds_left()
    assert stop.requested and 0 < first <= 100
    time.sleep(0.02)
    stop.request()
    assert stop.seconds_left() < first
    over = Stop(grace_s=0.0)
    over.request()
    assert over.seconds_left() == 0


def test_a_request_ends_a_wait() -> None:
    stop = Stop()
    threading.Timer(0.1, stop.request).start()
    assert stop.wait(600)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> Path:
    """Two shards of six photos, in batches of one. The photos lie beside the store."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for number in range(12):
        write_photo(folder / "photos" / f"{number:02d}.png", 120, 90, seed=number)
    options: dict[str, Any] = {"batch_size": 1, "threads": 1, "shard_size": 6, "signals": "flip", "progress": False}
    depthsieve.label(folder / "photos", folder / "store", teacher=teacher, **options)
    return folder / "store"


class Slow:
    """The real teacher, but each forward pass takes ``seconds`` longer; the ``at``-th one does something first."""

    def __init__(self, inner: Teacher, stop: Stop, at: int, seconds: float = 0.0) -> None:
        self.inner, self.stop, self.at, self.seconds, self.calls = inner, stop, at, seconds, 0
        self.tasks = 0  # that the runner took
        self.does: Callable[[], object] = stop.request

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def predict(self, batch: Batch) -> Prediction:
        self.calls += 1
        time.sleep(self.seconds)
        if self.calls == self.at:
            self.does()
        return self.inner.predict(batch)


def unfinished(undisturbed: Path, store: Path, teacher: str) -> LabelJob:
    """A copy of the store in which nothing is labelled, and the job of labelling it, in one lane."""
    unlabelled_copy(undisturbed, store)
    sources = (("default", str(undisturbed.parent / "photos")),)
    opened = open_store(store)
    return LabelJob(opened.location, TeacherRequest(teacher), opened.fingerprint, ("flip",), sources, cores=1)


def label_until_stopped(undisturbed: Path, store: Path, teacher: str, slow: Slow) -> tuple[list[ShardResult], int]:
    """Label the planned store with the local runner. Returns its results, and how many tasks it took."""
    job = unfinished(undisturbed, store, teacher)

    def tasks() -> Iterator[ShardTask]:
        for shard_id in SHARDS:
            slow.tasks += 1
            yield ShardTask(shard_id)

    run = local_runner(LabelWork(slow, ("flip",)), lambda shard_id, count: None)  # type: ignore[arg-type]
    return list(run(job, tasks(), slow.stop)), slow.tasks


def test_when_nobody_wants_more_results_what_is_under_way_is_abandoned(
    tmp_path: Path, undisturbed: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = unfinished(undisturbed, tmp_path / "store", teacher)
    slow = Slow(load_teacher(teacher), Stop(), at=15)  # in the second of six batches of the second shard
    stops: list[Stop] = []  # the runner's own

    def noted(*arguments: Any, **options: Any) -> Stop:
        stops.append(Stop(*arguments, **options))
        return stops[-1]

    monkeypatch.setattr(local, "Stop", noted)
    slow.does = lambda: wait_for(lambda: stops[0].requested)
    run = local_runner(LabelWork(slow, ("flip",)), lambda shard_id, images: None)  # type: ignore[arg-type]
    results = run(job, map(ShardTask, SHARDS), slow.stop)
    assert next(results) == ShardResult(SHARDS[0], 6)
    results.close()
    assert not (tmp_path / "store" / "commits" / f"{SHARDS[1]}.json").exists()
    assert slow.calls in (16, 18) and not slow.stop.requested  # no batch but that, and one that the lane had begun


def test_a_shard_that_fits_into_the_grace_is_finished_and_no_other_begun(
    tmp_path: Path, undisturbed: Path, teacher: str
) -> None:
    slow = Slow(load_teacher(teacher), Stop(grace_s=600), at=3)  # in the second of six batches
    assert label_until_stopped(undisturbed, tmp_path / "store", teacher, slow) == ([ShardResult(SHARDS[0], 6)], 1)
    found, expected = decided_bytes(tmp_path / "store"), decided_bytes(undisturbed)
    assert found == {name: digest for name, digest in expected.items() if SHARDS[1] not in name}
    assert slow.calls == 12


def test_a_shard_that_does_not_fit_is_abandoned_at_once(tmp_path: Path, undisturbed: Path, teacher: str) -> None:
    slow = Slow(load_teacher(teacher), Stop(grace_s=0.5), at=4, seconds=0.2)  # four batches are left: 1.6 s
    assert label_until_stopped(undisturbed, tmp_path / "store", teacher, slow) == ([], 1)
    assert slow.calls in (4, 5, 6)  # the batch that a lane had begun meanwhile is gone through, and no other
    assert not list((tmp_path / "store" / "commits").glob("0000-*"))
    assert not list((tmp_path / "store" / "labels.zarr" / "shards").glob("0000-*"))
    assert (
        depthsieve.label(
            undisturbed.parent / "photos", tmp_path / "store", teacher=teacher, progress=False
        ).labelled_now
        == 12
    )
    assert decided_bytes(tmp_path / "store") == decided_bytes(undisturbed)


def test_what_only_waits_for_its_commit_is_committed_though_the_grace_is_over(
    tmp_path: Path, undisturbed: Path, teacher: str
) -> None:
    slow = Slow(load_teacher(teacher), Stop(grace_s=0.0), at=12)  # the last batch: the next shard has its turn

    def does() -> None:
        wait_for(lambda: slow.tasks == 2)
        slow.stop.request()

    slow.does = does
    assert label_until_stopped(undisturbed, tmp_path / "store", teacher, slow) == ([ShardResult(SHARDS[0], 6)], 2)
