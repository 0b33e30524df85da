"""The Ray runner under fire, on a cluster of several nodes on this machine: nothing is lost, nothing hangs."""

import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from labelled import decided_bytes, job_of, unlabelled_copy, write_photos
from patience import PATIENCE_S, wait_for
from ray_workers import CREEPS, ORDERS, OrderedWorker, begun, counts, note_answer, order, questions

import depthsieve
from depthsieve.core.errors import RunError, RunInterrupted
from depthsieve.core.records import RESUME, LabelJob, ShardResult, ShardTask
from depthsieve.core.stopping import Stop
from depthsieve.core.waiting import TELL_S, telling
from depthsieve.runners import Runner
from depthsieve.runners import ray as ray_module
from depthsieve.runners.ray import RayOptions, ray_runner
from depthsieve.runners.ray_session import connected
from depthsieve.runners.ray_worker import RayWorker
from depthsieve.store import open_store

pytestmark = pytest.mark.slow

TWO = RayOptions(workers=2, cpus_per_worker=1)


@pytest.fixture(scope="module")
def teacher(light: str) -> Path:
    return Path(light)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("source") / "photos", 12)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, photos: Path, teacher: Path) -> Path:
    """Twelve shards of one image, labelled by the local runner."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    options: dict[str, Any] = {"batch_size": 1, "threads": 1, "shard_size": 1, "progress": False}
    assert depthsieve.label(photos, store, teacher=str(teacher), runner="local", **options).labelled == 12
    return store


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, light: str) -> Iterator[Any]:
    """A head that labels nothing, and two nodes of one CPU each, which ask for no token.

    The process had a private session with one before. Ray keeps a token as long as a process lives, and would refuse
    what the cluster asks of its driver: no worker would ever begin.
    """
    import ray
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    folder = tmp_path_factory.mktemp("orders")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp", prefix="r-") as sessions:
        patch.setenv(ORDERS, str(folder))
        patch.setenv("RAY_TMPDIR", sessions)  # of its own, as the ports are; its path must be short
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv(
            "PYTHONPATH",
            os.pathsep.join([str(Path(__file__).parents[1] / "support"), os.environ.get("PYTHONPATH", "")]),
        )
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        with connected(None, 1, 0):
            pass
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                nodes.add_node(num_cpus=1)
            ray.init(address=nodes.address, log_to_driver=False)
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()
            signal.signal(signal.SIGTERM, before)


@pytest.fixture
def orders(cluster: Any) -> Path:
    folder = Path(os.environ[ORDERS])
    for file in folder.iterdir():
        file.unlink()
    (folder / "all").write_text("")
    return folder


@pytest.fixture
def store(tmp_path: Path, undisturbed: Path) -> Path:
    return unlabelled_copy(undisturbed, tmp_path / "store")


@pytest.fixture
def job(store: Path, photos: Path, teacher: Path) -> LabelJob:
    return job_of(store, photos, teacher)


def shards_of(job: LabelJob) -> list[str]:
    return sorted(open_store(job.store).pending())


def runner(options: RayOptions = TWO, worker: type[RayWorker] = OrderedWorker) -> Runner:
    return ray_runner(options, lambda shard_id, images: None, worker)


def run(
    job: LabelJob, options: RayOptions = TWO, tasks: Iterable[ShardTask] | None = None, stop: Stop | None = None
) -> list[ShardResult]:
    """The results of the tasks, or of all shards; what has come is noted for the workers."""
    results = []
    for result in runner(options)(job, iter(tasks or map(ShardTask, shards_of(job))), stop or Stop()):
        note_answer(Path(os.environ[ORDERS]), result.shard_id)
        results.append(result)
    return results


def notes_of(results: list[ShardResult]) -> list[str]:
    return [note for result in results for note in result.notes]


def check_whole(results: list[ShardResult], store: Path, undisturbed: Path) -> None:
    assert {(result.labelled, result.error) for result in results} == {(1, None)}
    assert len(results) == len({result.shard_id for result in results}) == 12
    assert decided_bytes(store) == decided_bytes(undisturbed)


def times_begun(folder: Path, shard_id: str) -> int:
    return [begun_shard for begun_shard, _ in begun(folder)].count(shard_id)


def test_a_killed_workers_shard_is_tried_again_its_next_one_is_no_suspect_and_a_late_duplicate_changes_nothing(
    orders: Path, job: LabelJob, store: Path, undisturbed: Path
) -> None:
    shards = shards_of(job)
    order(orders, shards[2], "killed once")
    order(orders, shards[6], "commits, then killed once")
    results = run(job, replace(TWO, workers=1))
    check_whole(results, store, undisturbed)
    again = {shards[2], shards[6]}
    assert {shard: times_begun(orders, shard) for shard in shards} == {
        shard: 2 if shard in again else 1 for shard in shards
    }
    assert [note.partition(", which")[0] for note in notes_of(results)] == [
        f"a Ray worker died while working on shard {shard}" for shard in sorted(again)
    ]
    assert len({pid for _, pid in begun(orders)}) == 3


def test_poison_is_labelled_in_isolation_after_two_deaths_or_at_once_where_it_is_known(
    orders: Path, job: LabelJob, store: Path, undisturbed: Path
) -> None:
    poison, *others, known = shards_of(job)
    order(orders, poison, "killed")
    order(orders, known, "killed")
    tasks = [ShardTask(poison), ShardTask(known, isolate=True), *map(ShardTask, others)]
    results = run(job, tasks=tasks)
    check_whole(results, store, undisturbed)
    assert (times_begun(orders, poison), times_begun(orders, known)) == (3, 1), notes_of(results)
    assert any(
        f"died while working on shard {poison}, which is now labelled in isolation" in note
        for note in notes_of(results)
    )


def test_what_ends_isolating_workers_too_is_given_up_in_this_run_and_the_rest_is_labelled(
    orders: Path, job: LabelJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_module, "LONGEST_PAUSE_S", 0.1)
    poison = shards_of(job)[0]
    order(orders, poison, "killed even isolated")
    results = run(job, replace(TWO, workers=1))
    (error,) = [result.error for result in results if result.shard_id == poison]
    assert error is not None
    assert error.startswith("4 Ray workers died while working on it, the last: Worker unexpectedly exits")
    assert {(result.labelled, result.error) for result in results if result.shard_id != poison} == {(1, None)}
    assert len(results) == 12


def test_nodes_may_come_and_go_and_need_not_be_replaced(
    cluster: Any, orders: Path, job: LabelJob, store: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a number of workers the cluster decides how many there are, also later."""
    monkeypatch.setattr(ray_module, "COUNT_S", 0.5)
    (orders / "all").write_text("slow")
    joined: list[Any] = []

    def tasks() -> Iterator[ShardTask]:
        """Shards over and over, until the node that joined had one and is gone."""
        for number in range(5000):
            workers = {pid for _, pid in begun(orders)}
            if len(workers) == 3 and joined:
                cluster.remove_node(joined.pop(), allow_graceful=False)
                yield from map(ShardTask, shards)
                return
            if len(workers) == 2 and not joined:
                joined.append(cluster.add_node(num_cpus=1))
            yield ShardTask(shards[number % 12])

    shards = shards_of(job)
    results = run(job, replace(TWO, workers=None), tasks())
    assert {(result.labelled, result.error) for result in results} == {(1, None)}
    assert {result.shard_id for result in results} == set(shards)
    assert decided_bytes(store) == decided_bytes(undisturbed)
    assert joined == []
    assert len({pid for _, pid in begun(orders)}) == 3
    assert [note for result in results for note in result.notes if "which is retried" in note]


def test_tasks_are_pulled_as_there_is_room_and_an_exception_is_an_error_of_its_shard(
    orders: Path, job: LabelJob
) -> None:
    pulled: list[str] = []

    def tasks() -> Iterator[ShardTask]:
        for shard_id in shards:
            pulled.append(shard_id)
            yield ShardTask(shard_id)

    shards = shards_of(job)
    order(orders, shards[1], "raise")
    errors = {}
    for done, result in enumerate(runner()(job, tasks(), Stop()), start=1):
        assert len(pulled) <= done + 3 * 2  # two at each worker, and one ahead for each
        errors[result.shard_id] = result.error
    assert errors == {shard_id: "a bug of two lines" if shard_id == shards[1] else None for shard_id in shards}
    assert len({pid for _, pid in begun(orders)}) == 2  # it goes on


def test_silence_ends_the_run_with_the_name_of_the_shard_and_its_place_but_slowness_does_not(
    orders: Path, job: LabelJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the driver's clock an answer to each question takes three seconds. The first shard takes five answers, and at
    each one more image is done."""
    slow, hung, *_ = shards_of(job)
    order(orders, slow, "creep")
    order(orders, hung, "hang")
    monkeypatch.setattr(ray_module, "time", SimpleNamespace(monotonic=lambda: 3.0 * questions(orders)))
    monkeypatch.setattr(ray_module, "PROGRESS_S", 0.0)
    monkeypatch.setattr(ray_module, "MOST_POLLS", math.inf)
    told: list[tuple[str, int]] = []
    run = ray_runner(RayOptions(1, 1, watchdog_s=4), lambda *done: told.append(done), OrderedWorker)
    assert list(run(job, iter([ShardTask(slow)]), Stop())) == [ShardResult(slow, labelled=1)]
    assert told[:CREEPS] == [(slow, number) for number in range(1, CREEPS + 1)]
    silent = rf"no Ray worker has made progress for 4 s; look at shard {hung} on node [\d.]+, process \d+$"
    with pytest.raises(RunError, match=silent):
        list(run(job, iter([ShardTask(hung)]), Stop()))


def test_each_batch_of_a_shard_counts(orders: Path, job: LabelJob) -> None:
    shards = shards_of(job)
    run(job)
    assert sorted(counts(orders)) == [f"{shard_id}:1" for shard_id in shards]


def request_when_begun(orders: Path, stop: Stop) -> None:
    wait_for(lambda: begun(orders), "a shard is begun")
    stop.request()


def test_after_a_stop_what_was_begun_is_finished_and_the_next_one_does_not_begin(
    orders: Path, job: LabelJob, store: Path
) -> None:
    (orders / "all").write_text("until stopped")
    stop = Stop(grace_s=PATIENCE_S)
    threading.Thread(target=request_when_begun, args=(orders, stop)).start()
    done = [result.shard_id for result in run(job, replace(TWO, workers=1), stop=stop)]
    committed = [path.stem for path in (store / "commits").glob("0000-*.json")]
    assert done == [shard_id for shard_id, _ in begun(orders)] == committed
    assert len(done) == 1


def test_the_grace_ends_what_does_not_end(orders: Path, job: LabelJob) -> None:
    (orders / "all").write_text("hang")
    stop = Stop(grace_s=1)
    threading.Thread(target=request_when_begun, args=(orders, stop)).start()
    assert run(job, stop=stop) == []
    assert stop.seconds_left() == 0


def test_no_room_for_any_worker_is_told_at_once_and_ends_the_run_in_one_line(
    cluster: Any, job: LabelJob, capfd: pytest.CaptureFixture[str]
) -> None:
    why = "each needs 64 CPUs, and the largest of 3 nodes has 1 CPU; --threads 1 would fit"
    with telling(True), pytest.raises(RunInterrupted) as caught:
        run(job, replace(TWO, cpus_per_worker=64, wait_s=TELL_S + 2))
    assert str(caught.value) == f"no Ray worker for {TELL_S + 2:.0f} s: {why}; {RESUME}"
    ends = r"the run ends in \d s, exit code 4, unless one starts"
    assert re.search(rf"waiting for a Ray worker for \d s: {re.escape(why)}; {ends}\n", capfd.readouterr().err)


def test_a_cluster_that_cannot_call_the_driver_back_is_one_line(
    cluster: Any, tmp_path: Path, photos: Path, teacher: Path
) -> None:
    """It knows no token, and the driver takes no call without one."""
    command = [sys.executable, "-m", "depthsieve", "label", str(photos), str(tmp_path / "store"), "--quiet"]
    options = ["--teacher", str(teacher), "--batch-size", "1", "--address", cluster.address, "--workers", "1"]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=PATIENCE_S, env=os.environ | token
    )
    assert done.returncode == 1
    assert "since it cannot call this process back: RAY_AUTH_MODE is token here, and must be what" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_with_another_depthsieve_are_refused(
    cluster: Any, job: LabelJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_module, "__version__", "99.0")
    says = rf"it has depthsieve {depthsieve.__version__}, this run 99\.0; give every node the same$"
    with pytest.raises(RunError, match=rf"^the Ray worker on node [\d.]+, process \d+: {says}"):
        run(job)


@pytest.mark.parametrize("hidden", ["store", "photos"])
def test_workers_that_see_neither_store_nor_images_are_named(
    cluster: Any, job: LabelJob, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    """Below ``/proc/self/cwd`` each process sees its own working folder, as each node sees its own disks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    mine = Path("/proc/self/cwd") / hidden
    if hidden == "store":
        unseen, says = replace(job, store=str(mine)), f"{mine} is not a label store"
    else:
        unseen, says = replace(job, sources=(("default", str(mine)),)), f"it does not see the images in {mine}; mount"
    tasks = iter([ShardTask(shard_id) for shard_id in shards_of(job)])
    with pytest.raises(RunError, match=rf"^the Ray worker on node [\d.]+, process \d+: {says}"):
        list(runner(worker=RayWorker)(unseen, tasks, Stop()))
