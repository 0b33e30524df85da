"""One batch through the teacher: too large for the memory, or with output that is no label."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled import small_teacher, write_photo
from scanned import scanned

import depthsieve
from depthsieve.core.records import LabelJob, Shard, ShardResult, ShardTask, TeacherRequest, digest_of
from depthsieve.core.stopping import Stop
from depthsieve.labelling.batch import LabelWork
from depthsieve.labelling.lanes import Lanes
from depthsieve.labelling.numerics import make_profile
from depthsieve.labelling.shard import Labelled, ShardWork, label_shard, label_spec
from depthsieve.runners.local import local_runner
from depthsieve.sources import Source, open_source, reopen_source
from depthsieve.store import open_store
from depthsieve.teachers import Batch, Prediction, Teacher, load_teacher

SHARD = "0000-000000"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven photos of one shape: with batches of four, two whole ones and one of three."""
    folder = tmp_path_factory.mktemp("source") / "photos"
    for number in range(11):
        write_photo(folder / f"{number:02d}.png", 120, 90, seed=number)
    return folder


class Tight:
    """The real teacher on a device with memory for ``room`` images, during the passes in ``while_`` (all if None)."""

    def __init__(self, inner: Teacher, room: int, error: Exception, passes: tuple[int, ...] | None = None) -> None:
        self.inner, self.room, self.error, self.passes = inner, room, error, passes
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def predict(self, batch: Batch) -> Prediction:
        self.sizes.append(len(batch.image))
        if len(batch.image) > self.room and (self.passes is None or len(self.sizes) in self.passes):
            raise self.error
        return self.inner.predict(batch)


def label_planned(photos: Path, store: Path, teacher: str, model: object) -> tuple[ShardResult, Path]:
    """Plan ``store`` with batches of four, and label its only shard with ``model``. Also the store it is like."""
    whole = store.parent / "whole"
    depthsieve.label(photos, whole, teacher=teacher, signals="flip", batch_size=4, threads=1, progress=False)
    depthsieve.plan(photos, store, teacher=teacher, signals="flip", batch_size=4, threads=1, progress=False, write=True)
    opened = open_store(store)
    sources = (("default", str(photos)),)
    job = LabelJob(opened.location, TeacherRequest(teacher), opened.fingerprint, ("flip",), sources, cores=1)
    run = local_runner(LabelWork(model, ("flip",)), lambda shard_id, count: None)  # type: ignore[arg-type]
    (result,) = run(job, iter([ShardTask(SHARD)]), Stop())
    return result, whole


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_batch_that_does_not_fit_goes_in_parts_and_the_next_is_tried_whole(
    tmp_path: Path, photos: Path, teacher: str, error: Exception
) -> None:
    model = Tight(load_teacher(teacher), 1, error, passes=(1, 2))
    result, whole = label_planned(photos, tmp_path / "store", teacher, model)
    assert model.sizes == [4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 4, 4, 3, 3]  # each image twice, for the flip
    note = (
        f"shard {SHARD}: batch of rows 0..3 did not fit into memory and was labelled in parts of 1; "
        "its labels may differ in the last bits"
    )
    assert result == ShardResult(SHARD, 11, notes=(note,))
    record, usual = (
        json.loads((store / "commits" / f"{SHARD}.json").read_text()) for store in (tmp_path / "store", whole)
    )
    assert record["split_batches"] == [[0, 4, 1]] and "split_batches" not in usual
    profile = make_profile(load_teacher(teacher), 4, 1).to_json()
    assert usual["profile"] == digest_of(profile)
    assert record["profile"] == digest_of(profile | {"split_batches": [[0, 4, 1]]})
    found, expected = open_store(tmp_path / "store"), open_store(whole)
    for number in range(11):
        ours, theirs = (store.label(f"default/{number:02d}.png") for store in (found, expected))
        within_profiles(ours.depth, theirs.depth)
        steps = np.abs(ours.reliability.astype(int) - theirs.reliability)
        assert (steps <= 1).mean() > 0.99
        if number >= 4:
            np.testing.assert_array_equal(ours.depth, theirs.depth)


def within_profiles(ours_HW: np.ndarray, theirs_HW: np.ndarray) -> None:
    """One float16 step and two millionths of the map's maximum: what labels of two profiles may differ by."""
    step_HW = np.spacing(np.maximum(np.abs(ours_HW), np.abs(theirs_HW)).astype(np.float16)).astype(np.float64)
    off_HW = np.abs(ours_HW.astype(np.float64) - theirs_HW.astype(np.float64))
    assert (off_HW <= step_HW + 2e-6 * float(theirs_HW.max())).all()


def test_halves_are_no_smaller_than_they_must_be(tmp_path: Path, photos: Path, teacher: str) -> None:
    model = Tight(load_teacher(teacher), 2, ERRORS[0])
    result, _ = label_planned(photos, tmp_path / "store", teacher, model)
    assert result.labelled == 11 and len(result.notes) == 3
    record = json.loads((tmp_path / "store" / "commits" / f"{SHARD}.json").read_text())
    assert record["split_batches"] == [[0, 4, 2], [4, 4, 2], [8, 3, 2]]


def test_one_image_that_does_not_fit_ends_the_run_with_advice(tmp_path: Path, photos: Path, teacher: str) -> None:
    model = Tight(load_teacher(teacher), 0, ERRORS[0])
    result, _ = label_planned(photos, tmp_path / "store", teacher, model)
    assert result.fatal and result.error and "out of memory with one image at a time" in result.error
    assert model.sizes[:3] == [4, 2, 1]
    assert not (tmp_path / "store" / "commits" / f"{SHARD}.json").exists()


def test_another_error_of_the_teacher_is_not_taken_for_want_of_memory(
    tmp_path: Path, photos: Path, teacher: str
) -> None:
    model = Tight(load_teacher(teacher), 3, RuntimeError("shape mismatch"))
    result, _ = label_planned(photos, tmp_path / "store", teacher, model)
    assert result.error == "the teacher failed: shape mismatch" and result.fatal
    assert set(model.sizes) == {4}


class Odd:
    """The real teacher, but what it says of the second image of a batch is no label."""

    def __init__(self, inner: Teacher, value: float, pixels: slice) -> None:
        self.inner, self.value, self.pixels = inner, value, pixels

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def predict(self, batch: Batch) -> Prediction:
        prediction = self.inner.predict(batch)
        depth_BHW = prediction.depth.clone()
        depth_BHW[1, self.pixels] = self.value
        return replace(prediction, depth=depth_BHW)


@pytest.mark.parametrize(
    ("value", "pixels", "reason"),
    [
        (float("nan"), slice(0, 1), "the teacher's output is not finite at 98 of 6860 pixels"),
        (float("inf"), slice(None), "the teacher's output is not finite at 6860 of 6860 pixels"),
        (0.0, slice(None), "the teacher's output is 0 at every pixel"),
    ],
)
def test_output_that_is_no_label_fails_its_image_by_name_and_no_other(
    photos: Path, teacher: str, value: float, pixels: slice, reason: str
) -> None:
    model = load_teacher(teacher)
    source = open_source(photos, "default")
    images = scanned(source).images[:4]
    shard = Shard(SHARD, (70, 98), images)
    found, expected = (label_all(shard, each, source, teacher) for each in (Odd(model, value, pixels), model))
    (failure,) = found.content.failures
    assert (failure.id, failure.reason) == (images[1].id, reason)
    assert expected.content.failures == ()
    for name in ("depth", "reliability", "histogram"):
        ours, theirs = found.content.arrays[name], expected.content.arrays[name]
        np.testing.assert_array_equal(np.delete(ours, 1, axis=0), np.delete(theirs, 1, axis=0))
    assert not found.content.arrays["depth"][1].any() and not found.content.arrays["reliability"][1].any()
    assert found.content.arrays["histogram"][1, 0] == 70 * 98


def label_all(shard: Shard, model: object, source: Source, teacher: str) -> Labelled:
    real = load_teacher(teacher)
    job = LabelJob("unused", TeacherRequest(teacher), label_spec(LabelWork(real, ("flip",))).fingerprint, ("flip",), ())
    sources = {"default": reopen_source("default", source.root)}
    work = ShardWork(LabelWork(model, ("flip",)), sources, job, make_profile(real, 4, 1))  # type: ignore[arg-type]
    return label_shard(shard, work, Lanes(2))
