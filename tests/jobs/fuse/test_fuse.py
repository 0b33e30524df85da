"""Fusing: the store that is made of several stores."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled import decided_bytes, small_teacher, write_photo, write_photos

import depthsieve
from depthsieve.core.errors import StoreError, StoreMismatch, UsageError
from depthsieve.core.records import DatasetNote, Shard
from depthsieve.jobs.verify.repair import verify
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.fusion import shipped_calibration
from depthsieve.reliability.merging import OneLabel, merge_labels
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.store import open_store
from depthsieve.store.create import add_generation
from depthsieve.store.plan import PlannedShard, rejected_table, removed_table
from depthsieve.training import PseudoLabelDataset
from depthsieve_cli.main import main

SETTINGS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 3, "progress": False}
CALIBRATION = shipped_calibration()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos labelled by two teachers: six in both stores a and b, one in a alone, one that is broken in both."""
    folder = tmp_path_factory.mktemp("fusing")
    photos = write_photos(folder / "photos", 6)
    broken = write_photo(photos / "photo x.png", 120, 90, seed=99)
    broken.write_bytes(broken.read_bytes()[:600])
    small_teacher(folder / "teacher a")
    small_teacher(folder / "teacher b", seed=1)
    depthsieve.label(photos, folder / "b", teacher=str(folder / "teacher b"), size=98, **SETTINGS)
    write_photo(photos / "photo new.png", 120, 90, seed=7)
    depthsieve.label(photos, folder / "a", teacher=str(folder / "teacher a"), **SETTINGS)
    depthsieve.fuse([folder / "a", folder / "b"], folder / "fused", shard_size=2, threads=1, progress=False)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed. The fused store knows its parents in the first place."""
    shutil.copytree(made, tmp_path / "made", symlinks=True)
    return tmp_path / "made"


def run(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exited:
        patch.setattr(sys, "argv", ["depthsieve", *map(str, arguments)])
        main()
    out, err = capsys.readouterr()
    return int(exited.value.code or 0), out, err


def test_the_fused_store_holds_the_merged_labels(made: Path) -> None:
    stores = [open_store(made / name) for name in ("a", "b")]
    fused = open_store(made / "fused")
    assert fused.images == [f"default/photo {number}.png" for number in range(6)]
    for image in fused.images:
        labels = [store.label(image) for store in stores]
        assert labels[0].depth.shape != labels[1].depth.shape
        parts = [
            OneLabel(torch.from_numpy(part.depth), torch.from_numpy(part.reliability), "disparity") for part in labels
        ]
        depth, e = merge_labels(parts, CALIBRATION)
        found = fused.label(image)
        assert np.array_equal(found.depth, depth.half().float().numpy())
        assert np.array_equal(found.reliability, encode_error(e, version=CODE_VERSION).numpy())
        assert found.source_shape == labels[0].source_shape
    spec = fused.spec
    assert (spec.kind, spec.parents) == ("fused", tuple(store.fingerprint for store in stores))
    assert (spec.signals, spec.quantity) == (("teachers",), "disparity")
    assert spec.calibration == f"teachers-{CALIBRATION.version}-transferred"
    assert fused.sources() == stores[0].sources()
    index, theirs = (store.index().to_pylist() for store in (fused, stores[0]))
    of_a = {row["id"]: row for row in theirs}
    for row in index:
        for name in ("size", "mtime_ns", "width", "height", "orientation", "label_height", "label_width"):
            assert row[name] == of_a[row["id"]][name]
    reader, row = fused.reader(index[0]["shard"]), index[0]["row"]
    first = stores[0].reader(of_a[index[0]["id"]]["shard"])
    assert reader.column("content_sha256")[row] == first.column("content_sha256")[of_a[index[0]["id"]]["row"]]
    assert np.array_equal(reader.column("histogram")[row], np.bincount(reader.reliability(row).ravel(), minlength=256))


def test_a_fused_store_is_sound_and_trains(made: Path) -> None:
    report = verify(made / "fused", progress=False)
    assert (report.findings, report.images) == ((), 6)
    dataset = PseudoLabelDataset(made / "fused", drop=0.1)
    sample = dataset[0]
    assert sample["image"].shape[1:] == sample["depth"].shape
    assert 0.85 < float(sample["mask"].float().mean()) < 0.95
    assert depthsieve.status(made / "fused").labelled == 6


def test_what_lies_in_one_store_alone_is_told(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("fuse", made / "a", made / "b", "-o", made / "fused", capsys=capsys)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "0 images to do.",
        f"{made}/fused: 6 of 6 images labelled.",
        f"1 image of {made}/a skipped, without a label in another store: default/photo new.png",
    ]
    code, out, _ = run("fuse", made / "a", made / "b", "-o", made / "fused", "--json", capsys=capsys)
    told = json.loads(out)["left_out"]
    assert told[0] == {"store": f"{made}/a", "images": 1, "first": ["default/photo new.png"]}
    assert told[1]["images"] == 0


def test_threads_and_kills_do_not_move_a_byte(made: Path, tmp_path: Path) -> None:
    """Killed after a commit, and before that between a group and its record: the bytes are those of one quiet run."""
    killed = f"""
import os, signal
from depthsieve.jobs.fuse import run as running
from depthsieve.jobs import committing
whole, create = committing.commit_shard, type(running.open_root({str(tmp_path)!r})).create
def commit(*arguments):
    whole(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
def create_not(self, key, *rest, **more):
    if key.startswith("commits/0000-"):
        os.kill(os.getpid(), signal.SIGKILL)
    return create(self, key, *rest, **more)
if os.path.exists({str(tmp_path / "once")!r}):
    committing.commit_shard = commit
else:
    open({str(tmp_path / "once")!r}, "w").close()
    type(running.open_root({str(tmp_path)!r})).create = create_not
running.fuse([{str(made / "a")!r}, {str(made / "b")!r}], {str(tmp_path / "fused")!r}, shard_size=2, threads=3,
    progress=False)
"""
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    done = depthsieve.fuse([made / "a", made / "b"], tmp_path / "fused", shard_size=2, threads=3, progress=False)
    assert (done.labelled, done.pending, done.planned_now, 0 < done.fused_now < 6) == (6, 0, 0, True)
    assert verify(tmp_path / "fused", repair=True, progress=False).sound  # takes the orphan away, if it is one
    assert decided_bytes(tmp_path / "fused") == decided_bytes(made / "fused")


def test_shard_size_counts_for_what_is_added(made: Path, tmp_path: Path) -> None:
    depthsieve.fuse([made / "a", made / "b"], tmp_path / "fused", shard_size=3, progress=False)
    fused = open_store(tmp_path / "fused")
    assert sorted(fused.images_of(fused.committed()).values()) == [1, 2, 3]


def test_the_order_of_stores_decides(made: Path, tmp_path: Path) -> None:
    depthsieve.fuse([made / "b", made / "a"], tmp_path / "other", progress=False)
    here, there = open_store(made / "fused"), open_store(tmp_path / "other")
    assert here.fingerprint != there.fingerprint
    image = here.images[0]
    assert there.label(image).depth.shape == open_store(made / "b").label(image).depth.shape
    order = rf"was fused of these stores in another order \({made}/a, {made}/b\), and the order counts"
    with pytest.raises(StoreMismatch, match=order):
        depthsieve.fuse([made / "b", made / "a"], made / "fused", progress=False)


def test_what_is_labelled_since_is_added_and_what_is_labelled_anew_replaced(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {image: open_store(copy / "fused").label(image) for image in open_store(copy / "fused").images}
    depthsieve.label(
        copy / "photos", copy / "b", teacher=str(copy / "teacher b"), size=98, moved=True, **SETTINGS
    )  # adds "photo new"
    done = depthsieve.fuse([copy / "a", copy / "b"], copy / "fused", progress=False)
    assert (done.planned_now, done.fused_now, done.labelled) == (1, 1, 7)
    _plan_anew(copy / "b", "default/photo 0.png", copy / "teacher b")
    done = depthsieve.fuse([copy / "a", copy / "b"], copy / "fused", progress=False)
    assert (done.planned_now, done.fused_now, done.labelled) == (1, 1, 7)
    fused = open_store(copy / "fused")
    rows = {row["id"]: row for row in fused.index().to_pylist()}
    assert rows["default/photo 0.png"]["generation"] == 2
    for image, label in before.items():
        assert np.array_equal(fused.label(image).depth, label.depth)
    done = depthsieve.fuse([copy / "a", copy / "b"], copy / "fused", progress=False)
    assert (done.planned_now, done.labelled, verify(copy / "fused", progress=False).sound) == (0, 7, True)


def _plan_anew(store: Path, image: str, teacher: Path) -> None:
    """Label an image again, as a "replace" row of a new generation."""
    opened = open_store(store)
    (row,) = (row for row in opened.index().to_pylist() if row["id"] == image)
    generations = opened.generations()
    planned = opened.planned_shard(row["shard"])
    shard = Shard(f"{len(generations):04d}-000000", planned.shape, (planned.images[row["row"]],))
    before = generations[-1]
    nothing = (rejected_table([]), removed_table([]))
    assert before.teacher is not None
    tables = [PlannedShard(shard, ("replace",)).table()]
    add_generation(opened, tables, *nothing, opened.sources(), before.profile, before.teacher)
    photos = opened.sources()["default"]
    done = depthsieve.label(photos, store, teacher=str(teacher), size=98, **SETTINGS)
    assert done.labelled_now == 1


def test_labels_of_different_contents_of_a_file_are_not_fused(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, image = copy / "photos", "photo 1.png"
    write_photo(photos / image, 120, 90, seed=55)
    depthsieve.label(photos, tmp_path / "b", teacher=str(copy / "teacher b"), size=98, **SETTINGS)
    code, out, _ = run("fuse", copy / "a", tmp_path / "b", "-o", tmp_path / "fused", capsys=capsys)
    assert code == 3
    assert "failed: default/photo 1.png: the stores labelled different contents of this file" in out
    assert f"{tmp_path}/fused: 6 of 7 images labelled." in out


def test_a_damaged_label_of_a_parent_is_named_and_costs_its_shard_alone(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_store(copy / "b")
    shard = opened.index().to_pylist()[0]["shard"]
    damaged = next((copy / "b" / "labels.zarr" / "shards").glob(f"{shard}-*/depth/c/0/0/0"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    code, out, err = run("fuse", copy / "a", copy / "b", "-o", tmp_path / "fused", "--shard-size", "1", capsys=capsys)
    assert code == 1
    assert "depthsieve verify --repair" in err
    assert str(copy / "b") in err
    assert "5 of 6 images labelled" in out
    assert "1 image left; the same command resumes" in err
    damaged.write_bytes(whole)
    code, out, _ = run("fuse", copy / "a", copy / "b", "-o", tmp_path / "fused", "--shard-size", "1", capsys=capsys)
    assert (code, "Fused 1 image" in out, "6 of 6" in out) == (0, True, True)


def test_a_fused_store_is_mended_from_its_parents(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The parents have moved with it: the first repair says so, and what to do."""
    shutil.move(copy / "a", copy / "elsewhere")
    fused = copy / "fused"
    _tell_parents(fused, copy)
    want = {image: open_store(fused).label(image) for image in open_store(fused).images}
    file = sorted((fused / "labels.zarr" / "shards").glob("*/depth/c/0/0/0"))[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:60] + bytes([whole[60] ^ 4]) + whole[61:])
    code, _, err = run("verify", fused, "--repair", capsys=capsys)
    assert code == 1
    assert "is not a label store" in err
    assert f"-o {fused} first" in err
    done = depthsieve.fuse([copy / "elsewhere", copy / "b"], fused, progress=False)
    assert (done.planned_now, done.labelled) == (0, 6)
    code, out, _ = run("verify", fused, "--repair", capsys=capsys)
    assert code == 0, out
    assert file.read_bytes() == whole
    for image, label in want.items():
        assert np.array_equal(open_store(fused).label(image).depth, label.depth)
    (fused / "commits" / "0000-000000.json").write_text("{}")
    shutil.rmtree(next((fused / "labels.zarr" / "shards").glob("0000-000000-*")))
    report = verify(fused, repair=True, progress=False)
    assert (report.relabelled, report.sound) == (2, True)
    assert file.read_bytes() == whole


def _tell_parents(fused: Path, copy: Path) -> None:
    """Let the copied store know the copies of its parents."""
    shutil.move(copy / "elsewhere", copy / "a")
    depthsieve.fuse([copy / "a", copy / "b"], fused, progress=False)
    shutil.move(copy / "a", copy / "elsewhere")


@pytest.mark.parametrize(
    ("stores", "output", "code", "says"),
    [
        (["a"], "new", 2, "two labels or more"),
        (["a", "a"], "new", 2, "hold labels of one label spec"),
        (["a", "b"], "a", 2, "is one of the stores to fuse"),
        (["a", "gone"], "new", 1, "is not a label store"),
        (["a", "b", "--threads", "0"], "new", 2, "threads must be a whole number of at least 1"),
        (["a", "b", "--shard-size", "0"], "new", 2, "shard_size must be a whole number of at least 1"),
        (["a", "b"], "photos", 1, "is not empty and not a label store"),
        (["a", "fused"], "b", 1, "holds labels of kind 'teacher', and these would be 'fused'"),
    ],
)
def test_what_cannot_be_fused_is_said_in_a_line(
    made: Path, stores: list[str], output: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [one if one.startswith("-") or one == "0" else made / one for one in stores]
    found, out, err = run("fuse", *arguments, "-o", made / output, capsys=capsys)
    assert (found, out) == (code, "")
    assert says in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert not (made / "new").exists()


def test_stores_without_a_common_image_are_refused(made: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    depthsieve.label(photos, tmp_path / "c", teacher=str(made / "teacher b"), name="other", **SETTINGS)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())
    for fused in ("new/fused", "empty"):
        with pytest.raises(
            StoreError, match=r"no image has a label in all of .*default/photo 0.*other/photo 0.*--name"
        ):
            depthsieve.fuse([made / "a", tmp_path / "c"], tmp_path / fused, progress=False)
    assert sorted(tmp_path.iterdir()) == before
    assert not list((tmp_path / "empty").iterdir())
    with pytest.raises(StoreMismatch, match=rf"was fused of other stores \({made}/a, {made}/b\); name those, or"):
        depthsieve.fuse([made / "a", tmp_path / "c"], made / "fused", progress=False)


def test_the_terms_of_datasets_go_along(copy: Path, tmp_path: Path) -> None:
    """Of two stores that say something of a source, the first counts; a source without an image is not spoken of."""
    notes = {name: DatasetNote(name, *[""] * 9) for name in ("one", "two")}
    nothing = (rejected_table([]), removed_table([]))
    for store, learnt in (("a", {"default": notes["one"]}), ("b", {"default": notes["two"], "more": notes["two"]})):
        opened = open_store(copy / store)
        before = opened.generations()[-1]
        assert before.teacher is not None
        add_generation(opened, [], *nothing, opened.sources(), before.profile, before.teacher, learnt)
    depthsieve.fuse([copy / "a", copy / "b"], tmp_path / "fused", progress=False)
    assert open_store(tmp_path / "fused").datasets() == {"default": notes["one"]}


def test_a_teacher_does_not_label_into_a_fused_store(made: Path) -> None:
    with pytest.raises(StoreMismatch, match="holds labels of kind 'fused', and these would be 'teacher'"):
        depthsieve.label(made / "photos", made / "fused", teacher=str(made / "teacher a"), **SETTINGS)


def test_what_a_fused_store_lacks_for_curation_is_in_those_it_was_fused_of(made: Path) -> None:
    advice = rf"fused stores keep none: curate one of the stores that it was fused of \({made}/a or {made}/b\)"
    for options in ({"faulty": True}, {"near_duplicates": 0.9}):
        with pytest.raises(StoreError, match=advice) as caught:
            depthsieve.curate(made / "fused", **options, progress=False)
        assert "depthsieve features" not in str(caught.value)
    (note,) = depthsieve.curate(made / "fused", where="true", progress=False).notes
    assert f"fused of ({made}/a or {made}/b)" in note
    assert "depthsieve features" not in note


def test_one_path_is_not_taken_for_a_list(made: Path) -> None:
    with pytest.raises(UsageError, match="two stores or more"):
        depthsieve.fuse(str(made / "a"), made / "new", progress=False)
