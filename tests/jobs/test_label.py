"""Labelling end to end with a small teacher of the real class: what is labelled, resumed, refused and named."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from hostile import DEPENDS_ON_SHAPE, SKIPPED, make_hostile_folder
from labelled import decided_bytes, small_teacher, write_photo, write_photos
from patience import PATIENCE_S, wait_for
from PIL import Image
from poison import let_go, met, poison, poisoned
from teachers_builders import GLPN_PROCESSOR, glpn_config, save

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
from depthsieve.core.records import LabelJob, TeacherRequest, default_dtype
from depthsieve.jobs import label as run
from depthsieve.labelling import batch as forward
from depthsieve.labelling import shard as labelling
from depthsieve.planning.options import LabelOptions
from depthsieve.planning.request import teacher_request
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.fusion import fuse, relative_error, shipped_calibration
from depthsieve.reliability.signals import (
    edges_disagreement,
    flip_disagreement,
    lowres_disagreement,
    lowres_view,
    photometric_disagreement,
    photometric_view,
    teachers_disagreement,
)
from depthsieve.runners import dispatch
from depthsieve.sources import Source
from depthsieve.storage import open_root
from depthsieve.store import Store, open_store
from depthsieve.store.leases import PLAN, Lease, Leases
from depthsieve.teachers import Batch, load_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


def label(source: Path, store: Path, teacher: str, **options: object) -> depthsieve.LabelSummary:
    settings = {"progress": False, "batch_size": 2, "threads": 1} | options
    return depthsieve.label(source, store, teacher=teacher, **settings)  # type: ignore[arg-type]


def test_labels_are_the_teachers_own_and_rows_say_which_image(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos")
    summary = label(photos, tmp_path / "store", teacher)
    assert (summary.labelled, summary.labelled_now, summary.failed, summary.pending) == (5, 5, (), 0)
    store = open_store(tmp_path / "store")
    assert store.images == [f"default/photo {number}.png" for number in range(5)]
    model = load_teacher(teacher)
    for number in range(5):
        rgb_HW3 = np.asarray(Image.open(photos / f"photo {number}.png").convert("RGB"))
        shape = model.label_shape(*rgb_HW3.shape[:2])
        image_1CHW = torch.from_numpy(model.prepare(rgb_HW3, shape))[None]
        depth_1HW = model.predict(Batch.of(image_1CHW)).depth
        found = store.label(f"default/photo {number}.png")
        assert found.depth.shape == shape == ((98, 70) if number % 3 == 2 else (70, 98))
        np.testing.assert_allclose(found.depth, depth_1HW[0], rtol=5e-4, atol=2e-6 * float(depth_1HW.max()))
        delta = flip_disagreement(depth_1HW, model.predict(Batch.of(image_1CHW.flip(-1))).depth, "disparity")
        codes = codes_of(depth_1HW, {"flip": delta})
        assert np.mean(np.abs(codes.astype(int) - found.reliability) <= 1) > 0.99
        assert len(np.unique(codes)) > 8
        assert found.source_shape == rgb_HW3.shape[:2]


def codes_of(depth_1HW: torch.Tensor, deltas: dict[str, torch.Tensor]) -> np.ndarray:
    """The codes [H,W] that labels of these disagreements have."""
    relative = {name: relative_error(depth_1HW, delta) for name, delta in deltas.items()}
    return encode_error(fuse(depth_1HW, relative, "disparity", shipped_calibration()))[0].numpy()


@pytest.mark.parametrize("signals", ["lowres", "flip,lowres", "edges", "flip,photometric"])
def test_reliability_follows_from_the_signals(tmp_path: Path, teacher: str, signals: str) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    label(photos, tmp_path / "store", teacher, signals=signals)
    store = open_store(tmp_path / "store")
    assert store.spec.calibration == f"{signals.replace(',', '+')}-2-transferred"  # it was not fitted on this teacher
    model = load_teacher(teacher)
    for number in range(3):
        rgb_HW3 = np.asarray(Image.open(photos / f"photo {number}.png").convert("RGB"))
        shape = model.label_shape(*rgb_HW3.shape[:2])
        image_1CHW = torch.from_numpy(model.prepare(rgb_HW3, shape))[None]
        depth_1HW, half = model.predict(Batch.of(image_1CHW)).depth, model.half_shape(shape)
        assert half == ((56, 42) if number == 2 else (42, 56))
        lowres_1Chw, warmer_1CHW = lowres_view(image_1CHW, half), photometric_view(image_1CHW)
        deltas = {
            "edges": edges_disagreement(depth_1HW),
            "flip": flip_disagreement(depth_1HW, model.predict(Batch.of(image_1CHW.flip(-1))).depth, "disparity"),
            "lowres": lowres_disagreement(depth_1HW, model.predict(Batch.of(lowres_1Chw)).depth, "disparity"),
            "photometric": photometric_disagreement(depth_1HW, model.predict(Batch.of(warmer_1CHW)).depth, "disparity"),
        }
        codes = codes_of(depth_1HW, {name: deltas[name] for name in signals.split(",")})
        found = store.label(f"default/photo {number}.png").reliability
        assert np.mean(np.abs(codes.astype(int) - found) <= 1) > 0.99
        assert len(np.unique(codes)) > 8


def test_the_calibration_is_the_embedded_teachers_own(tmp_path: Path) -> None:
    label(write_photos(tmp_path / "photos", 1), tmp_path / "store", "tiny")
    assert open_store(tmp_path / "store").spec.calibration == "flip-2"


@pytest.mark.parametrize("metric", [False, True])
def test_a_second_teacher_judges_the_first(tmp_path: Path, teacher: str, metric: bool) -> None:
    photos, store = write_photos(tmp_path / "photos", 3), tmp_path / "store"
    second = str(save(tmp_path / "second", glpn_config(), GLPN_PROCESSOR)) if metric else "tiny"
    label(photos, store, teacher, second_teacher=second, signals="edges")
    opened = open_store(store)
    assert opened.spec.signals == ("edges", "teachers")
    first, other = load_teacher(teacher), load_teacher(second)
    assert opened.spec.second == {
        "weights_digest": other.weights_digest,
        "quantity": "depth" if metric else "disparity",
        "unit": "m" if metric else "",
        "dtype": "float32",
        "preprocessing": other.preprocessing,
    }
    for number in range(3):
        rgb_HW3 = np.asarray(Image.open(photos / f"photo {number}.png").convert("RGB"))
        shape = first.label_shape(*rgb_HW3.shape[:2])
        depth_1HW = first.predict(Batch.of(torch.from_numpy(first.prepare(rgb_HW3, shape))[None])).depth
        smaller = shape[0] * shape[1] < rgb_HW3.shape[0] * rgb_HW3.shape[1]
        small_HW3 = cv2.resize(rgb_HW3, shape[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
        second_1Chw = torch.from_numpy(other.prepare(small_HW3, other.label_shape(*shape)))[None]
        delta = teachers_disagreement(
            depth_1HW, other.predict(Batch.of(second_1Chw)).depth, "disparity", other.quantity
        )
        codes = codes_of(depth_1HW, {"edges": edges_disagreement(depth_1HW), "teachers": delta})
        found = opened.label(f"default/photo {number}.png").reliability
        assert np.mean(np.abs(codes.astype(int) - found) <= 1) > 0.99
        assert len(np.unique(codes)) > 8
    assert label(photos, store, teacher, second_teacher=second, signals="edges").labelled_now == 0
    with pytest.raises(StoreMismatch, match="second"):
        label(photos, store, teacher, second_teacher=teacher)


def test_what_a_teacher_cannot_tell_is_refused_before_anything_is_written(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    metric = str(save(tmp_path / "metric", glpn_config(), GLPN_PROCESSOR))
    refused: list[tuple[str, dict[str, object], str]] = [
        (teacher, {"signals": "flip,native"}, "gives no confidence of its own"),
        (teacher, {"signals": "teachers"}, "compares two; name one: --second-teacher NAME"),
        (metric, {"second_teacher": teacher}, "cannot judge the metres of teacher"),
        (teacher, {"signals": "none", "keep_signals": True}, "no signals to keep"),
    ]
    for name, options, words in refused:
        with pytest.raises(UsageError, match=words):
            label(photos, store, name, **options)
        assert not store.exists()


def test_a_teacher_of_fixed_sizes_gives_no_lowres_signal(tmp_path: Path) -> None:
    fixed = str(save(tmp_path / "glpn", glpn_config(), GLPN_PROCESSOR))
    with pytest.raises(UsageError, match=r"signal 'lowres' needs half of them; leave it out"):
        label(write_photos(tmp_path / "photos", 1), tmp_path / "store", fixed, signals="lowres")
    assert not (tmp_path / "store").exists()


def test_the_dtype_is_the_stores_own_unless_one_is_named(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    label(photos, store, teacher, dtype="bfloat16")
    write_photos(photos, 1, first=2)
    assert label(photos, store, teacher).labelled == 3
    assert open_store(store).spec.dtype == "bfloat16"
    with pytest.raises(StoreMismatch, match="dtype"):
        label(photos, store, teacher, dtype="float32")
    label(photos, tmp_path / "another", teacher)
    assert open_store(tmp_path / "another").spec.dtype == "float32"
    assert [default_dtype(kind) for kind in ("cpu", "mps", "cuda")] == ["float32", "float32", "float16"]


def test_without_signals_every_pixel_counts_as_reliable(tmp_path: Path, teacher: str) -> None:
    label(write_photos(tmp_path / "photos", 1), tmp_path / "store", teacher, signals="none")
    store = open_store(tmp_path / "store")
    assert store.spec.signals == ()
    assert set(np.unique(store.label("default/photo 0.png").reliability)) == {255}


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


def test_hostile_folder(tmp_path: Path, teacher: str) -> None:
    expected = make_hostile_folder(tmp_path / "hostile")
    assert sum(reason is not None for reason in expected.values()) >= 20
    summary = label(tmp_path / "hostile", tmp_path / "store", teacher, batch_size=4)
    reasons = {failure.id.removeprefix("default/"): failure.reason for failure in summary.failed}
    labelled = {image.removeprefix("default/") for image in open_store(tmp_path / "store").images}
    for path, reason in expected.items():
        if path in DEPENDS_ON_SHAPE:
            assert (path in labelled) != (path in reasons)
        elif reason is not None:
            assert reason in reasons[path]
        else:
            assert (path in labelled) != (path in SKIPPED)
            assert path not in reasons
    assert summary.labelled == len(labelled) and summary.pending == 0
    again = label(tmp_path / "hostile", tmp_path / "store", teacher)
    assert again.labelled_now == again.planned_now == 0
    assert again.failed == summary.failed


def test_an_image_that_fails_costs_no_other_its_label_and_can_be_retried(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 4), tmp_path / "store"
    bad = photos / "photo 1.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    summary = label(photos, store, teacher)
    assert [failure.id for failure in summary.failed] == ["default/photo 1.png"]
    assert summary.labelled == 3
    clean = tmp_path / "clean"
    bad.write_bytes(whole)
    label(photos, clean, teacher)
    failing, undisturbed = open_store(store), open_store(clean)
    for image in failing.images:
        np.testing.assert_array_equal(failing.label(image).depth, undisturbed.label(image).depth)
    before = decided_bytes(store)
    bad.write_bytes(whole[: len(whole) // 2])
    os.utime(bad, ns=(planned_ns := failing.index()["mtime_ns"][1].as_py(), planned_ns))
    waiting = label(photos, store, teacher)
    assert (waiting.labelled_now, len(waiting.failed)) == (0, 1), "as long as it has not changed"
    bad.write_bytes(whole)
    retried = label(photos, store, teacher, retry_failed=True)
    assert (retried.labelled_now, retried.labelled, retried.failed) == (1, 4, ())
    after = decided_bytes(store)
    assert {name: after[name] for name in before} == before
    assert pq.read_table(store / "plan" / "generation-0001.00000.parquet")["action"].to_pylist() == ["replace"]


def test_an_image_gone_since_the_scan_fails_by_name(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 3), tmp_path / "store"
    kept_scan = run.take_inventory

    def scan_then_lose(*arguments: object) -> object:
        found = kept_scan(*arguments)  # type: ignore[arg-type]
        (photos / "photo 0.png").unlink()
        write_photo(photos / "photo 1.png", 50, 60, seed=9)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "take_inventory", scan_then_lose)
        summary = label(photos, store, teacher)
    reasons = {failure.id: failure.reason for failure in summary.failed}
    assert "no such file" in reasons["default/photo 0.png"]
    assert "120x90 then, 50x60 now" in reasons["default/photo 1.png"]
    assert open_store(store).images == ["default/photo 2.png"]
    group = open_store(store).reader("0000-000000")
    assert not group.depth(0).any() and not group.reliability(0).any()
    assert list(group.column("status")) == [1, 1]
    assert list(group.column("histogram")[:, 0]) == [70 * 98, 70 * 98]


class FlakySource:
    """The real source, but its first reads fail as a network disk's do."""

    def __init__(self, inner: Source, faults: int) -> None:
        self._inner, self._faults = inner, faults
        self.root, self.name, self.is_one_file = inner.root, inner.name, False

    def read(self, image_id: str) -> bytes:
        if self._faults:
            self._faults -= 1
            raise OSError(errno.EIO, "Input/output error")
        return self._inner.read(image_id)


@pytest.mark.parametrize(("faults", "labelled"), [(1, 4), (10**6, 0)])
def test_transient_faults_are_retried_and_never_committed(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, faults: int, labelled: int
) -> None:
    photos, store = write_photos(tmp_path / "photos", 4), tmp_path / "store"
    genuine = labelling.reopen_source
    flaky = FlakySource(genuine("default", str(photos)), faults)
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "PAUSE_S", 0.0)
        patch.setattr(labelling, "reopen_source", lambda name, root: flaky)
        summary = label(photos, store, teacher)
    assert (summary.labelled, summary.pending, summary.failed) == (labelled, 4 - labelled, ())
    assert all("is the disk there?" in error and "input/output error" in error for error in summary.errors)
    assert bool(summary.errors) == (labelled == 0)
    assert label(photos, store, teacher).labelled == 4


class BadSector(FlakySource):
    """The real source, but one file can never be read."""

    def read(self, image_id: str) -> bytes:
        if image_id.endswith("photo 1.png"):
            raise OSError(errno.EIO, "Input/output error")
        return self._inner.read(image_id)


def test_one_file_on_a_bad_sector_costs_no_other_its_label(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, store = write_photos(tmp_path / "photos", 4), tmp_path / "store"
    source = BadSector(labelling.reopen_source("default", str(photos)), 0)
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "PAUSE_S", 0.0)
        patch.setattr(labelling, "reopen_source", lambda name, root: source)
        summary = label(photos, store, teacher)
    assert (summary.labelled, summary.pending, summary.errors) == (3, 0, ())
    assert [failure.id for failure in summary.failed] == ["default/photo 1.png"]
    assert summary.failed[0].reason == "cannot be read any more: input/output error"
    assert label(photos, store, teacher, retry_failed=True).labelled == 4


def test_a_disk_that_is_gone_fails_no_image(tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, store = write_photos(tmp_path / "photos", 4), tmp_path / "store"
    kept_scan, away = run.take_inventory, tmp_path / "unmounted"

    def scan_then_unmount(*arguments: object) -> object:
        found = kept_scan(*arguments)  # type: ignore[arg-type]
        photos.rename(away)
        photos.mkdir()
        return found

    monkeypatch.setattr(dispatch, "PAUSE_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(run, "take_inventory", scan_then_unmount)
        summary = label(photos, store, teacher)
    assert (summary.labelled, summary.failed, summary.pending) == (0, (), 4)
    assert all("is the disk there?" in error for error in summary.errors)
    photos.rmdir()
    away.rename(photos)
    assert label(photos, store, teacher).labelled == 4


def test_a_photo_that_became_a_link_outward_fails_by_name(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 3), tmp_path / "store"
    kept_scan = run.take_inventory

    def scan_then_link(*arguments: object) -> object:
        found = kept_scan(*arguments)  # type: ignore[arg-type]
        (photos / "photo 0.png").unlink()
        (photos / "photo 0.png").symlink_to(write_photo(tmp_path / "private.png", 120, 90, seed=7))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "take_inventory", scan_then_link)
        summary = label(photos, store, teacher)
    assert [failure.id for failure in summary.failed] == ["default/photo 0.png"]
    assert "leads out of the root" in summary.failed[0].reason and summary.labelled == 2


def test_a_failed_image_whose_file_is_gone_leaves_the_store(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    (photos / "empty.jpg").write_bytes(b"")
    whole = (photos / "photo 1.png").read_bytes()
    (photos / "photo 1.png").write_bytes(whole[: len(whole) // 2])
    assert len(label(photos, store, teacher).failed) == 2
    (photos / "empty.jpg").unlink()
    (photos / "photo 1.png").unlink()
    assert len(label(photos, store, teacher).failed) == 2
    summary = label(photos, store, teacher, retry_failed=True)
    assert (summary.labelled, summary.failed, summary.pending) == (1, (), 0)


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
        labels = forward._Labels.of(depth_HW[None], torch.zeros(1, 4, 4, dtype=torch.uint8), [])
        return str(labels.fault(0))

    depth_HW = torch.zeros(4, 4)
    depth_HW[0, 0] = -1e5
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
    label(photos, store, teacher)
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


def command(source: Path, store: Path, teacher: str, *options: str) -> list[str]:
    start = [sys.executable, "-m", "depthsieve", "label", str(source), str(store)]
    return [*start, "--teacher", teacher, "--batch-size", "2", "--threads", "1", *options]


def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 60)
    label(photos, tmp_path / "undisturbed", teacher, shard_size=3)
    store = tmp_path / "store"
    poison(tmp_path / "bugs", photos / "photo 59.png", "wait")
    whole = command(photos, store, teacher, "--shard-size", "3")
    process = subprocess.Popen(whole, stderr=subprocess.DEVNULL, env=poisoned(tmp_path / "bugs"))
    wait_for(lambda: len(list(store.glob("commits/0000-*.json"))) >= 2, "two shards are committed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    committed = len(list(store.glob("commits/0000-*.json")))
    assert 2 <= committed < 20
    summary = label(photos, store, teacher, shard_size=50)
    assert 0 < summary.labelled_now < 60
    assert decided_bytes(store) == decided_bytes(tmp_path / "undisturbed")
    assert not list((store / "tmp").iterdir())


def test_a_store_that_cannot_be_written_ends_in_one_line_and_goes_on_later(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 4)
    for number in range(4):
        write_photo(photos / f"photo {number}.png", 900, 90, seed=number)  # labels above the limit, plan below it
    store = tmp_path / "store"
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *command(photos, store, teacher)]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert "cannot write to" in line and line.endswith("again to resume")
    assert not list(store.glob("commits/0000-*.json"))
    assert label(photos, store, teacher).labelled == 4


def test_an_interrupted_command_exits_with_4_and_can_go_on(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 60), tmp_path / "store"
    poison(tmp_path / "bugs", photos / "photo 30.png", "wait")
    whole = command(photos, store, teacher, "--shard-size", "3")
    process = subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, env=poisoned(tmp_path / "bugs"))
    assert process.stderr
    wait_for(lambda: met(tmp_path / "bugs", photos / "photo 30.png"), "the run is at the photo")
    process.send_signal(signal.SIGTERM)
    while "Interrupted: finishing" not in (line := process.stderr.readline()):
        assert line, "it ended before it was interrupted"
    let_go(tmp_path / "bugs")
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 4
    assert "run the same command again to resume" in stderr and "Traceback" not in stderr
    assert label(photos, store, teacher).labelled == 60


@pytest.mark.slow
def test_images_that_kill_the_command_are_named_and_cost_the_others_nothing(tmp_path: Path, teacher: str) -> None:
    photos, store, bugs = write_photos(tmp_path / "photos", 9), tmp_path / "store", tmp_path / "bugs"
    label(photos, tmp_path / "undisturbed", teacher)
    poison(bugs, photos / "photo 1.png", "SIGSEGV")
    poison(bugs, photos / "photo 4.png", "SIGABRT")
    done = subprocess.run(
        command(photos, store, teacher), env=poisoned(bugs), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 3, done.stderr
    assert "  failed: default/photo 1.png: ends the process that decodes it (signal 11, SIGSEGV)\n" in done.stdout
    assert "  failed: default/photo 4.png: ends the process that decodes it (signal 6, SIGABRT)\n" in done.stdout
    assert done.stderr.count("Warning: the labelling process died (signal 11, SIGSEGV); restarting it") == 2
    found, expected = open_store(store), open_store(tmp_path / "undisturbed")
    assert found.images == [image for image in expected.images if "photo 1" not in image and "photo 4" not in image]
    for image in found.images:
        np.testing.assert_array_equal(found.label(image).depth, expected.label(image).depth)
    assert label(photos, store, teacher, retry_failed=True).labelled == 9


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
