"""Labelling end to end with a small teacher of the real class: what is labelled, resumed and refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from labelled import decided_bytes, label, small_teacher, write_photo, write_photos
from PIL import Image

import depthsieve
from depthsieve.core.errors import (
    RunError,
    SourceError,
    StoreBusy,
    StoreError,
    StoreMismatch,
    TeacherError,
    UsageError,
)
from depthsieve.core.processes import Process
from depthsieve.core.records import LabelJob, TeacherRequest
from depthsieve.labelling import batch as forward
from depthsieve.labelling import shard as labelling
from depthsieve.planning.options import LabelOptions
from depthsieve.planning.request import teacher_request
from depthsieve.storage import open_root
from depthsieve.store import Store, open_store
from depthsieve.store.leases import PLAN, Lease, Leases
from depthsieve.teachers import Prediction


def test_a_second_run_does_nothing_and_new_photos_make_a_new_generation(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos"), tmp_path / "store"
    label(photos, store, teacher)
    before = decided_bytes(store)
    again = label(photos, store, teacher)
    assert (again.labelled_now, again.planned_now, again.labelled) == (0, 0, 5)
    assert decided_bytes(store) == before
    write_photos(photos, 2, first=5)
    grown = label(photos, store, teacher)
    assert (grown.labelled_now, grown.planned_now, grown.labelled) == (2, 2, 7)
    after = decided_bytes(store)
    assert {name: after[name] for name in before} == before
    plan = pq.read_table(store / "plan" / "generation-0001.00000.parquet")
    assert sorted(plan["id"].to_pylist()) == ["default/photo 5.png", "default/photo 6.png"]


def test_a_store_reads_with_plain_zarr_and_xarray(tmp_path: Path, teacher: str) -> None:
    xarray = pytest.importorskip("xarray")
    label(write_photos(tmp_path / "photos"), tmp_path / "store", teacher)
    root = zarr.open_group(tmp_path / "store" / "labels.zarr", mode="r")
    assert root.attrs["format"] == "depthsieve-labels"
    assert root.attrs["fingerprint"] == open_store(tmp_path / "store").fingerprint
    shards = dict(root["shards"].groups())  # type: ignore[union-attr]
    assert len(shards) == 2
    for name, group in shards.items():
        depth_NHW, code_NHW = group["depth"][...], group["reliability"][...]
        assert depth_NHW.dtype == np.float16 and code_NHW.dtype == np.uint8
        counted = np.stack([np.bincount(code_HW.ravel(), minlength=256) for code_HW in code_NHW])
        np.testing.assert_array_equal(group["histogram"][...], counted)
        assert group["depth"].attrs["quantity"] == "disparity"
        assert group["depth"].metadata.dimension_names == ("image", "y", "x")
        assert group["depth"].shards == depth_NHW.shape and group["depth"].chunks == (1, *depth_NHW.shape[1:])
        path = tmp_path / "store" / "labels.zarr" / "shards" / name
        with xarray.open_zarr(path, consolidated=False) as dataset:
            np.testing.assert_array_equal(dataset["depth"].values, depth_NHW)
            assert dataset["depth"].dims == ("image", "y", "x")
            assert [str(image) for image in dataset["id"].values] == list(group["id"][...])


def test_shard_size_bounds_shards(tmp_path: Path, teacher: str) -> None:
    label(write_photos(tmp_path / "photos", 6), tmp_path / "store", teacher, shard_size=3)
    opened = open_store(tmp_path / "store")
    counts = {one: len(opened.planned_shard(one).images) for one in ("0000-000000", "0000-000001", "0000-000002")}
    assert counts == {"0000-000000": 3, "0000-000001": 1, "0000-000002": 2}


def test_orientation_is_undone_before_labelling(tmp_path: Path, teacher: str) -> None:
    upright = Image.open(write_photo(tmp_path / "photos" / "upright.png", 90, 120, seed=3))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photos" / "turned.png", exif=exif)
    label(tmp_path / "photos", tmp_path / "store", teacher)
    store = open_store(tmp_path / "store")
    expected, found = store.label("default/upright.png"), store.label("default/turned.png")
    np.testing.assert_array_equal(found.depth, expected.depth)
    np.testing.assert_array_equal(found.reliability, expected.reliability)
    assert found.source_shape == (120, 90)
    index = {row["id"]: row for row in store.index().to_pylist()}
    assert index["default/turned.png"]["orientation"] == 6


def test_transparent_pixels_are_never_trained_on(tmp_path: Path, teacher: str) -> None:
    image = Image.open(write_photo(tmp_path / "photos" / "a.png", 140, 70, seed=1)).convert("RGBA")
    alpha = np.full((70, 140), 255, np.uint8)
    alpha[:, :35] = 0
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "photos" / "a.png")
    label(tmp_path / "photos", tmp_path / "store", teacher)
    code_HW = open_store(tmp_path / "store").label("default/a.png").reliability
    assert code_HW.shape == (70, 140)
    assert not code_HW[:, :35].any() and code_HW[:, 35:].all()


def test_the_index_file_is_brought_up_to_date_by_every_run(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 3), tmp_path / "store"
    label(photos, store, teacher)
    current = pq.read_table(store / "index.parquet")
    assert current["status"].to_pylist() == ["labelled"] * 3
    pq.write_table(
        current.slice(0, 2), store / "index.parquet"
    )  # as a run left it that was killed after its last commit
    label(photos, store, teacher)
    assert pq.read_table(store / "index.parquet").equals(current)


def test_a_worker_with_other_weights_labels_nothing(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    label(photos, store, teacher)
    other = str(small_teacher(tmp_path / "other", seed=1))
    job = LabelJob(store, TeacherRequest(other), open_store(store).fingerprint, ("flip",), (("default", str(photos)),))
    with pytest.raises(TeacherError, match="other weights or settings"):
        labelling.ShardLabeller(job)


def test_a_folder_called_tiny_is_not_the_teacher(tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_teacher(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert teacher_request(LabelOptions(teacher="tiny")).name == "tiny"
    assert teacher_request(LabelOptions(teacher="./tiny")).name == str(tmp_path / "tiny")


def test_enormous_values_fail_by_name() -> None:
    def fault(depth_HW: torch.Tensor) -> str:
        labels = forward._Labels.of(Prediction(depth_HW[None]), torch.zeros(1, 4, 4, dtype=torch.uint8), [])
        return str(labels.fault(0))

    depth_HW = torch.zeros(4, 4)
    depth_HW[0, 0] = 1e5
    assert "reaches 100000, more than float16 holds" in fault(depth_HW)
    depth_HW[0, 0] = float("nan")
    assert "not finite at 1 of 16 pixels" in fault(depth_HW)
    assert "is 2 at every pixel" in fault(torch.full((4, 4), 2.0))
    assert fault(torch.arange(16.0).reshape(4, 4)) == "None"


def test_sources_keep_their_names_and_roots(tmp_path: Path, teacher: str) -> None:
    first, second, store = write_photos(tmp_path / "a"), write_photos(tmp_path / "b", 2), tmp_path / "store"
    label(first, store, teacher)
    before = decided_bytes(store)
    with pytest.raises(SourceError, match="give the new folder its own --name"):
        label(second, store, teacher)
    assert decided_bytes(store) == before
    assert label(second, store, teacher, name="second").labelled == 7
    assert "second/photo 0.png" in open_store(store).images
    first.rename(tmp_path / "moved")
    summary = label(tmp_path / "moved", store, teacher, moved=True)
    assert (summary.labelled_now, summary.labelled) == (0, 7)
    assert open_store(store).sources() == {"default": str(tmp_path / "moved"), "second": str(second)}
    (tmp_path / "empty").mkdir()
    write_photo(tmp_path / "empty" / "other.png", 80, 80, seed=1)
    with pytest.raises(SourceError, match="none of the images"):
        label(tmp_path / "empty", store, teacher, moved=True)


def test_another_label_spec_is_refused_and_the_difference_shown(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    label(photos, store, teacher, signals="flip")
    before = decided_bytes(store)
    with pytest.raises(StoreMismatch, match=r"preprocessing\.size: \[70, 70\] in the store, \[84, 84\] now"):
        label(photos, store, teacher, size=84)
    with pytest.raises(StoreMismatch, match=r'signals: .*"flip".* in the store'):
        label(photos, store, teacher, signals="none")
    other = str(small_teacher(tmp_path / "other", seed=1))
    with pytest.raises(StoreMismatch, match="weights_digest"):
        label(photos, store, other)
    moved = Path(teacher).parent / "copy under another name"
    small_teacher(moved)
    assert label(photos, store, str(moved)).labelled_now == 0  # names and paths do not count
    assert decided_bytes(store) == before


def test_what_cannot_be_meant_is_refused_before_anything_is_written(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("do not touch")
    with pytest.raises(SourceError, match="no images in"):
        label(tmp_path / "empty", tmp_path / "store", teacher)
    with pytest.raises(UsageError, match="inside each other"):
        label(photos, photos / "labels", teacher)
    with pytest.raises(StoreError, match="not empty and not a label store"):
        label(photos, tmp_path / "full", teacher)
    for option, value in {"batch_size": 0, "runner": "slurm", "signals": "flip,x", "oversize": "crop"}.items():
        with pytest.raises(UsageError, match=option.rstrip("s")):
            label(photos, tmp_path / "store", teacher, **{option: value})
    with pytest.raises(UsageError, match="local runner has one worker"):
        label(photos, tmp_path / "store", teacher, runner="local", workers=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "photos"]


def test_two_runs_on_one_store(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    label(photos, store, teacher)
    with Leases(open_root(store)) as leases:
        lease = leases.take_or_raise(PLAN)
        with pytest.raises(StoreBusy, match=f"process {os.getpid()} on "):
            label(photos, store, teacher)
        leases.give_back(lease, settled=True)
    assert label(photos, store, teacher).labelled == 1


def test_what_was_planned_but_never_begun_is_not_planned_again(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 3), tmp_path / "store"
    depthsieve.plan(photos, store, teacher=teacher, write=True, batch_size=2, threads=1, progress=False)
    summary = label(photos, store, teacher)
    assert (summary.planned_now, summary.labelled_now) == (0, 3)


def test_a_teacher_that_cannot_load_fails_before_anything_is_written(tmp_path: Path) -> None:
    photos, broken = write_photos(tmp_path / "photos", 1), small_teacher(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(TeacherError):
        label(photos, tmp_path / "store", str(broken))
    assert not (tmp_path / "store").exists()


def test_every_record_carries_a_digest_that_is_checked(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    label(photos, store, teacher)
    for name in ("commits/0000-000000.json", "commits/generation-0000.json", "labels.zarr/zarr.json"):
        path = store / name
        intact = path.read_text()
        body = json.loads(intact)
        changed = body["attributes"]["label_spec"] if name.endswith("zarr.json") else body
        changed["dtype" if name.endswith("zarr.json") else "images"] = 7
        path.write_text(json.dumps(body))
        with pytest.raises(StoreError, match="does not fit its own digest"):
            open_store(store).index()
        path.write_text(intact)
    assert open_store(store).index().num_rows == 1


def test_disk_space_is_estimated_before_the_start(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    monkeypatch.setattr("depthsieve.planning.generation.pixel_bytes", lambda options, encoding: 1e15)
    with pytest.raises(RunError, match="make room"):
        label(photos, tmp_path / "store", teacher)
    assert not (tmp_path / "store" / "plan").exists()
    monkeypatch.undo()
    assert label(photos, tmp_path / "store", teacher, size=84).labelled == 1  # no plan, so nothing holds it to a spec


def test_an_interrupted_retry_is_not_planned_twice(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    bad = photos / "photo 1.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    label(photos, store, teacher)
    bad.write_bytes(whole)
    label(photos, store, teacher, retry_failed=True)
    after = decided_bytes(store)
    (store / "commits" / "0001-000000.json").unlink()  # as if the retry had been killed before its commit
    assert label(photos, store, teacher, retry_failed=True).labelled == 2
    assert decided_bytes(store) == after


def test_parts_share_a_written_plan(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 12), tmp_path / "store"
    settings = {"progress": False, "batch_size": 2, "threads": 1, "shard_size": 2, "teacher": teacher}
    with pytest.raises(StoreError, match="no plan to take a part of"):
        label(photos, store, teacher, part="1/2")
    assert not store.exists()
    left = depthsieve.plan(photos, store, trial=False, **settings)
    assert (left.images, left.shards, left.written) == (12, 6, False) and not store.exists()
    fixed = depthsieve.plan(photos, store, write=True, trial=False, **settings)
    assert replace(fixed, free_bytes=0) == replace(left, written=True, free_bytes=0)
    first = label(photos, store, teacher, part="1/2", shard_size=9)
    committed = sorted(path.stem for path in store.glob("commits/0000-*.json"))
    assert committed == ["0000-000000", "0000-000002", "0000-000004"]
    assert (first.labelled_now, first.pending, first.errors, first.planned_now) == (6, 6, (), 0)
    write_photo(photos / "later.png", 120, 90, seed=99)
    assert label(photos, store, teacher, part="1/2").labelled_now == 0
    assert label(photos, store, teacher, part="2/2").pending == 0
    (photos / "later.png").unlink()
    label(photos, tmp_path / "whole", teacher, shard_size=2)
    assert decided_bytes(store) == decided_bytes(tmp_path / "whole")
    assert list((store / "leases").iterdir()) == []


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "x/y", "1/2/3", "-1/2", ""])
def test_a_part_that_is_none_is_refused(tmp_path: Path, teacher: str, part: str) -> None:
    with pytest.raises(UsageError, match="part must be I/N"):
        label(write_photos(tmp_path / "photos", 1), tmp_path / "store", teacher, part=part)


def test_a_shard_that_another_process_has_in_hand_is_left_to_it(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 4), tmp_path / "store"
    depthsieve.plan(photos, store, write=True, progress=False, batch_size=2, threads=1, shard_size=2, teacher=teacher)
    with Leases(open_root(store)) as others:
        lease = others.take("0000-000000")
        assert isinstance(lease, Lease)
        summary = label(photos, store, teacher, part="1/1")
        assert (summary.labelled_now, summary.pending) == (2, 2)
        assert summary.errors == (f"{Process.current()} is labelling 1 of the shards",)
        others.give_back(lease, settled=False)
    assert label(photos, store, teacher, part="1/1").pending == 0


def test_a_shard_that_was_committed_meanwhile_is_not_labelled_again(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, store = write_photos(tmp_path / "photos", 4), tmp_path / "store"
    settings = {"progress": False, "batch_size": 2, "threads": 1, "shard_size": 2, "teacher": teacher}
    depthsieve.plan(photos, store, write=True, **settings)
    kept = open_store(store).pending((1, 1))
    label(photos, store, teacher, part="1/1")
    monkeypatch.setattr(Store, "pending", lambda self, part=None: kept)
    assert label(photos, store, teacher, part="1/1").labelled_now == 0


def test_a_teacher_that_fails_otherwise_than_for_memory_ends_the_run_in_one_line(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, store = write_photos(tmp_path / "photos", 4), tmp_path / "store"

    def lost(*arguments: object) -> None:
        raise RuntimeError("CUDA error: device lost\nCompile with TORCH_USE_CUDA_DSA")

    with monkeypatch.context() as patch:
        patch.setattr("depthsieve.teachers.huggingface.HuggingFaceTeacher.predict", lost)
        with pytest.raises(RunError, match=r"^the teacher failed: CUDA error: device lost; what is committed is kept"):
            label(photos, store, teacher)
    assert not list((store / "leases").iterdir())
    assert label(photos, store, teacher).labelled == 4


def test_a_stop_that_left_nothing_is_no_interruption(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 4)
    stop = depthsieve.Stop(grace_s=600)
    stop.request()
    summary = label(photos, tmp_path / "store", teacher, stop=stop)
    assert (summary.interrupted, summary.labelled, summary.pending) == (True, 0, 4)
    label(photos, tmp_path / "store", teacher)
    summary = label(photos, tmp_path / "store", teacher, stop=stop)
    assert (summary.interrupted, summary.labelled, summary.pending) == (False, 4, 0)
