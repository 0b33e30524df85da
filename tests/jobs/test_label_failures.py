"""Images that fail: named, retried, and no other loses its label by them."""

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hostile import DEPENDS_ON_SHAPE, SKIPPED, make_hostile_folder
from labelled import decided_bytes, label, write_photo, write_photos

from depthsieve.jobs import label as run
from depthsieve.labelling import shard as labelling
from depthsieve.runners import dispatch
from depthsieve.sources import Source
from depthsieve.store import open_store


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
