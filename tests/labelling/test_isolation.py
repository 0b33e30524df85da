"""A shard whose images end the process that labels them: the culprits are named, and nobody else loses a label."""

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from labelled import decided_bytes, small_teacher, write_photo
from patience import wait_for
from PIL import Image
from poison import met, poison, poisoned

import depthsieve
from depthsieve.core.records import LabelJob, ShardResult, TeacherRequest
from depthsieve.core.stopping import Abandoned, Stop
from depthsieve.labelling import isolation
from depthsieve.labelling.isolation import label_isolated
from depthsieve.store import open_store

SHARD = "0000-000000"


@pytest.fixture(scope="module")
def teacher(light: str) -> str:
    return light


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photos of one shape: with batches of 3, two whole batches and a short one. The fourth is white."""
    folder = tmp_path_factory.mktemp("source") / "photos"
    for number in range(7):
        write_photo(folder / f"{number}.png", 120, 90, seed=number)
    Image.new("RGB", (120, 90), "white").save(folder / "3.png")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, photos: Path, teacher: str) -> Path:
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    summary = depthsieve.label(photos, store, teacher=teacher, signals="flip", batch_size=3, threads=1, progress=False)
    assert summary.labelled == 7
    return store


@pytest.fixture
def store(tmp_path: Path, undisturbed: Path) -> Path:
    """The same store, planned, but not labelled yet."""
    copy = tmp_path / "store"
    shutil.copytree(undisturbed, copy)
    uncommit(copy)
    return copy


def uncommit(store: Path) -> None:
    (store / "commits" / f"{SHARD}.json").unlink()
    (group,) = (store / "labels.zarr" / "shards").glob(f"{SHARD}-*")
    shutil.rmtree(group)


@pytest.fixture
def bugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bugs"
    monkeypatch.setenv("PYTHONPATH", poisoned(folder)["PYTHONPATH"])
    return folder


def job_for(store: Path, photos: Path, teacher: str) -> LabelJob:
    fingerprint = open_store(store).fingerprint
    return LabelJob(store, TeacherRequest(teacher), fingerprint, ("flip",), (("default", str(photos)),))


def check_labels(store: Path, undisturbed: Path, reasons: dict[int, str]) -> None:
    """The rows in ``reasons`` stand failed with these, and all others have the labels of an undisturbed run."""
    found, expected = open_store(store), open_store(undisturbed)
    failed = {row["id"]: row["reason"] for row in found.index().to_pylist() if row["status"] == "failed"}
    assert failed == {f"default/{number}.png": reason for number, reason in reasons.items()}
    for number in set(range(7)) - set(reasons):
        ours, theirs = (each.label(f"default/{number}.png") for each in (found, expected))
        np.testing.assert_array_equal(ours.depth, theirs.depth)
        np.testing.assert_array_equal(ours.reliability, theirs.reliability)


def test_without_poison_the_bytes_are_those_of_an_undisturbed_run(
    store: Path, undisturbed: Path, photos: Path, teacher: str
) -> None:
    assert label_isolated(job_for(store, photos, teacher), SHARD) == ShardResult(SHARD, labelled=7)
    assert decided_bytes(store) == decided_bytes(undisturbed)


@pytest.mark.slow
def test_several_images_that_end_their_process_are_named_and_cost_the_others_nothing(
    bugs: Path, store: Path, undisturbed: Path, photos: Path, teacher: str
) -> None:
    for number, does, where in ((1, "SIGSEGV", "decode"), (3, "SIGABRT", "predict"), (5, "exit", "decode")):
        poison(bugs, photos / f"{number}.png", does, where)
    result = label_isolated(job_for(store, photos, teacher), SHARD)
    assert result == ShardResult(SHARD, labelled=4)
    reasons = {
        1: "ends the process that decodes it (signal 11, SIGSEGV)",
        3: "ends the process that has the teacher look at it (signal 6, SIGABRT)",
        5: "ends the process that decodes it (exit code 7)",
    }
    check_labels(store, undisturbed, reasons)
    # Decoded in the shard once, alone once to confirm. The teacher's needs one run more, to tell it from its batch; the
    # run that shows it an empty picture instead meets no bug.
    assert [met(bugs, photos / f"{number}.png") for number in (1, 3, 5)] == [2, 3, 2]


@pytest.mark.slow
def test_two_images_of_one_batch_that_end_their_process_are_both_named(
    bugs: Path, tmp_path: Path, teacher: str
) -> None:
    photos, store = tmp_path / "photos", tmp_path / "store"
    write_photo(photos / "0.png", 120, 90, seed=0)
    for number in (1, 2):
        Image.new("RGB", (120, 90), "white").save(photos / f"{number}.png")
    depthsieve.label(photos, store, teacher=teacher, signals="flip", batch_size=3, threads=1, progress=False)
    uncommit(store)
    poison(bugs, photos / "1.png", "SIGABRT", "predict")  # and whatever else is white
    assert label_isolated(job_for(store, photos, teacher), SHARD) == ShardResult(SHARD, labelled=1)
    failed = {row["id"]: row["reason"] for row in open_store(store).index().to_pylist() if row["status"] == "failed"}
    reason = "ends the process that has the teacher look at it (signal 6, SIGABRT)"
    assert failed == {"default/1.png": reason, "default/2.png": reason}


@pytest.mark.slow
def test_the_machine_may_kill_a_process_too_so_sigkill_needs_one_proof_more(
    bugs: Path, store: Path, undisturbed: Path, photos: Path, teacher: str
) -> None:
    poison(bugs, photos / "0.png", "SIGKILL", times=2)
    poison(bugs, photos / "6.png", "SIGKILL")
    assert label_isolated(job_for(store, photos, teacher), SHARD) == ShardResult(SHARD, labelled=6)
    check_labels(store, undisturbed, {6: "ends the process that decodes it (signal 9, SIGKILL)"})
    assert met(bugs, photos / "6.png") == 3


@pytest.mark.slow
@pytest.mark.parametrize("where", ["decode", "predict"])
def test_a_death_that_does_not_come_again_costs_no_image_its_label(
    bugs: Path, store: Path, undisturbed: Path, photos: Path, teacher: str, where: str
) -> None:
    poison(bugs, photos / "3.png", "SIGSEGV", where, times=1)
    assert label_isolated(job_for(store, photos, teacher), SHARD) == ShardResult(SHARD, labelled=7)
    assert decided_bytes(store) == decided_bytes(undisturbed)
    assert met(bugs, photos / "3.png") >= 2


@pytest.mark.slow
def test_an_order_to_end_is_no_image_s_fault_and_the_shard_is_given_up_in_the_end(
    bugs: Path, store: Path, photos: Path, teacher: str
) -> None:
    poison(bugs, photos / "2.png", "SIGHUP")
    result = label_isolated(job_for(store, photos, teacher), SHARD)
    assert not result.fatal and result.labelled == 0
    assert result.error == (
        "4 isolated processes died, and no image alone does that; the last at decode of rows 2..2 (signal 1, SIGHUP)"
    )
    assert met(bugs, photos / "2.png") == isolation.DEATHS
    assert not (store / "commits" / f"{SHARD}.json").exists()


@pytest.mark.slow
def test_an_image_that_takes_for_ever_is_named(
    bugs: Path, store: Path, undisturbed: Path, photos: Path, teacher: str
) -> None:
    """No other image may take a step of that length: it is as much as a whole run takes without the poison."""
    job = job_for(store, photos, teacher)
    start = time.monotonic()
    assert label_isolated(job, SHARD).labelled == 7
    step_s = math.ceil(time.monotonic() - start)
    uncommit(store)
    poison(bugs, photos / "4.png", "hang")
    assert label_isolated(job, SHARD, step_s=step_s) == ShardResult(SHARD, labelled=6)
    check_labels(store, undisturbed, {4: f"takes more than {step_s} s to decode"})


@pytest.mark.slow
def test_an_exception_of_the_teacher_is_named_by_its_type_alone(
    bugs: Path, store: Path, undisturbed: Path, photos: Path, teacher: str
) -> None:
    poison(bugs, photos / "3.png", "raise", "predict")
    assert label_isolated(job_for(store, photos, teacher), SHARD) == ShardResult(SHARD, labelled=6)
    check_labels(
        store, undisturbed, {3: "ends the process that has the teacher look at it (exit code 1, RuntimeError)"}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("decode", "the first 3 images fail alike: each ends the process that decodes it (signal 4, SIGILL); is this"),
        ("predict", "2 isolated processes died, and no image alone does that; the last at predict of rows 0..2 (si"),
    ],
)
def test_a_machine_that_can_label_nothing_fails_no_image(
    bugs: Path, store: Path, photos: Path, teacher: str, where: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "DEATHS", 2)
    poison(bugs, None, "SIGILL", where)
    result = label_isolated(job_for(store, photos, teacher), SHARD)
    assert not result.fatal and result.error and result.error.startswith(error)
    assert not (store / "commits" / f"{SHARD}.json").exists()


def test_a_teacher_that_does_not_load_is_the_shard_s_fault(store: Path, photos: Path, tmp_path: Path) -> None:
    result = label_isolated(job_for(store, photos, str(tmp_path / "gone")), SHARD)
    assert result.fatal and result.error and "gone" in result.error
    other = str(small_teacher(tmp_path / "other", seed=1))
    result = label_isolated(job_for(store, photos, other), SHARD)
    assert result.fatal and result.error and "other weights or settings" in result.error


def children() -> set[int]:
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for path in listed for pid in path.read_text().split()}


def test_a_stop_ends_it_and_its_child(bugs: Path, store: Path, photos: Path, teacher: str) -> None:
    poison(bugs, photos / "0.png", "hang")
    stop, before = Stop(grace_s=0.0), children()

    def request_when_met() -> None:
        wait_for(lambda: met(bugs, photos / "0.png"), "the image is met")
        stop.request()

    threading.Thread(target=request_when_met).start()
    with pytest.raises(Abandoned):
        label_isolated(job_for(store, photos, teacher), SHARD, stop)
    assert met(bugs, photos / "0.png") == 1
    assert children() <= before
    with pytest.raises(Abandoned):  # and none is begun
        label_isolated(job_for(store, photos, teacher), SHARD, stop)
    assert met(bugs, photos / "0.png") == 1


SCRIPT = """
import sys
from pathlib import Path
from depthsieve.labelling.isolation import label_isolated
from depthsieve.core.records import LabelJob, TeacherRequest
store, fingerprint, photos, teacher = sys.argv[1:]
label_isolated(LabelJob(Path(store), TeacherRequest(teacher), fingerprint, ("flip",), (("default", photos),)), %r)
"""


def test_a_child_dies_with_its_parent(bugs: Path, store: Path, photos: Path, teacher: str) -> None:
    poison(bugs, photos / "0.png", "hang")
    arguments = [str(store), open_store(store).fingerprint, str(photos), teacher]
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT % SHARD, *arguments])
    wait_for(lambda: met(bugs, photos / "0.png"), "the image is met")
    (child,) = (int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not running(child), "the child ends")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
