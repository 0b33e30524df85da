"""Growth: images that change, are touched, go, come back or move, and what their store makes of it."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelled import decided_bytes, write_photo, write_photos
from light import NAME

import depthsieve
from depthsieve.core.errors import LoaderError, SourceError, UsageError
from depthsieve.jobs.verify.repair import verify
from depthsieve.planning.options import LabelOptions
from depthsieve.planning.summary import LabelSummary
from depthsieve.sources.folder import FolderSource
from depthsieve.store import Store, open_store
from depthsieve.store.times import NAME as TIMES
from depthsieve.training import PseudoLabelDataset
from depthsieve_cli.main import main

SETTINGS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 3, "progress": False}
FIRST = "default/photo 0.png"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, light: str) -> Path:
    """Five photos, and a store of their labels."""
    folder = tmp_path_factory.mktemp("growth")
    write_photos(folder / "photos", 5)
    label(folder, folder / "photos")
    return folder


@pytest.fixture
def grown(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed: a store whose photos lie beside it, with the times that it knows."""
    shutil.copytree(made, tmp_path / "grown")
    label(tmp_path / "grown", tmp_path / "grown" / "photos", moved=True)
    return tmp_path / "grown"


def label(folder: Path, photos: Path, **more: Any) -> LabelSummary:
    return depthsieve.label(photos, folder / "labels", teacher=NAME, **SETTINGS | more)


def again(folder: Path, **more: Any) -> LabelSummary:
    return label(folder, folder / "photos", **more)


def contents(store: Store) -> dict[str, str]:
    """sha256 of the file that each label was made of, by id."""
    found = {}
    for row in store.index().to_pylist():
        if row["status"] == "labelled":
            found[row["id"]] = str(store.reader(row["shard"]).column("content_sha256")[row["row"]])
    return found


def files(photos: Path) -> dict[str, str]:
    return {
        f"default/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(photos.glob("*.png"))
    }


def edit_unseen(path: Path) -> None:
    """Change the content of an uncompressed picture, and neither its size nor its time."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-40] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_touched_image_is_no_change_and_is_compared_once(grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = decided_bytes(grown / "labels")
    os.utime(grown / "photos" / "photo 0.png", ns=(1, 1))
    done = again(grown)
    assert (done.planned_now, done.changed, done.labelled) == (0, 0, 5)
    assert decided_bytes(grown / "labels") == before, "not even a generation"
    kept = {row["id"]: row for row in pq.read_table(grown / "labels" / TIMES).to_pylist()}
    assert kept[FIRST]["mtime_ns"] == 1
    read: list[str] = []
    whole = FolderSource.read
    monkeypatch.setattr(FolderSource, "read", lambda self, one: read.append(one) or whole(self, one))  # type: ignore[func-returns-value]
    assert (again(grown).planned_now, read) == (0, [])
    (grown / "labels" / TIMES).write_bytes(b"PAR1 nonsense")
    assert (again(grown).planned_now, len(read) > 0) == (0, True), "it is derived"
    assert verify(grown / "labels", progress=False).findings == ()


def test_a_changed_image_is_labelled_again_and_its_old_label_is_not_lost(grown: Path) -> None:
    before = open_store(grown / "labels")
    old = before.label(FIRST)
    state = PseudoLabelDataset(grown / "labels").loader(2).state_dict()
    index = {row["id"]: row for row in before.index().to_pylist()}
    kept = {name: digest for name, digest in decided_bytes(grown / "labels").items() if name.startswith("labels.zarr")}
    write_photo(grown / "photos" / "photo 0.png", 120, 90, seed=77)
    done = again(grown)
    assert (done.planned_now, done.changed, done.labelled_now, done.labelled) == (1, 1, 1, 5)
    store = open_store(grown / "labels")
    assert not np.array_equal(store.label(FIRST).depth, old.depth)
    assert contents(store) == files(grown / "photos")
    now = decided_bytes(grown / "labels")
    assert {name: now.get(name) for name in kept} == kept
    for row in store.index().to_pylist():
        assert (row == index[row["id"]]) is (row["id"] != FIRST)
    events = store.history(FIRST)
    assert [(one.action, one.status, one.counts) for one in events] == [
        ("add", "labelled", False),
        ("replace", "labelled", True),
    ]
    assert events[0].shard is not None and events[0].row is not None
    assert np.array_equal(store.reader(events[0].shard).depth(events[0].row), old.depth)
    dataset = PseudoLabelDataset(grown / "labels", subset=[FIRST])
    sample = dataset[0]
    assert np.array_equal(sample["depth"].numpy(), store.label(FIRST).depth)
    with pytest.raises(LoaderError, match="snapshot"):
        PseudoLabelDataset(grown / "labels").loader(2).load_state_dict(state)
    assert again(grown).planned_now == 0
    assert verify(grown / "labels", progress=False).sound


def test_until_it_is_labelled_again_a_changed_image_is_refused_and_its_old_label_counts(grown: Path) -> None:
    old = open_store(grown / "labels").label(FIRST)
    write_photo(grown / "photos" / "photo 0.png", 120, 90, seed=77)
    summary = depthsieve.plan(grown / "photos", grown / "labels", teacher=NAME, write=True, trial=False, **SETTINGS)
    assert (summary.images, summary.changed, summary.removed) == (1, 1, 0)
    store = open_store(grown / "labels")
    assert np.array_equal(store.label(FIRST).depth, old.depth)
    assert [(one.status, one.counts) for one in store.history(FIRST)] == [("labelled", True), ("pending", False)]
    dataset = PseudoLabelDataset(grown / "labels", subset=[FIRST])
    with pytest.raises(LoaderError, match="so the label may be another image's"):
        dataset[0]
    assert depthsieve.status(grown / "labels").labelled == 5
    done = again(grown)
    assert (done.planned_now, done.labelled_now) == (0, 1)
    assert contents(open_store(grown / "labels")) == files(grown / "photos")


def test_what_neither_size_nor_time_tell_is_found_when_contents_are_compared(grown: Path) -> None:
    photo = grown / "photos" / "photo 0.png"
    photo.unlink()
    photo = grown / "photos" / "photo 0.bmp"
    write_photo(photo, 120, 90, seed=3)
    again(grown, prune=True)
    edit_unseen(photo)
    image = f"default/{photo.name}"
    assert again(grown).planned_now == 0
    for planned in (1, 0):  # the second time it is pending already
        summary = depthsieve.plan(
            grown / "photos",
            grown / "labels",
            teacher=NAME,
            write=True,
            trial=False,
            check_content=True,
            **SETTINGS,
        )
        assert (summary.images, summary.changed) == (1, planned)
    assert again(grown).labelled_now == 1
    assert contents(open_store(grown / "labels"))[image] == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert again(grown, check_content=True).planned_now == 0


def test_an_image_that_breaks_is_named_and_one_that_is_mended_needs_no_retry(grown: Path) -> None:
    photos = grown / "photos"
    whole = {name: (photos / name).read_bytes() for name in ("photo 0.png", "photo 1.png")}
    (photos / "photo 0.png").write_bytes(b"no picture")  # refused by the scan
    (photos / "photo 1.png").write_bytes(whole["photo 1.png"][:600])  # fails when it is decoded
    done = again(grown)
    assert {failure.id for failure in done.failed} == {FIRST, "default/photo 1.png"}
    assert (done.labelled, again(grown).planned_now) == (3, 0)
    store = open_store(grown / "labels")
    assert [one.action for one in store.history(FIRST)] == ["add", "reject"]
    assert FIRST not in store.images
    for name, data in whole.items():
        (photos / name).write_bytes(data)
    done = again(grown)
    assert (done.planned_now, done.changed, done.labelled, done.failed) == (2, 2, 5, ())
    assert contents(open_store(grown / "labels")) == files(photos)
    assert open_store(grown / "labels").history("default/photo 1.png")[-1].action == "replace"


def test_what_is_gone_leaves_only_where_that_is_asked_for_and_may_come_back(grown: Path) -> None:
    photos, aside = grown / "photos", grown / "aside.png"
    (photos / "broken.png").write_bytes(b"no picture")
    assert len(again(grown).failed) == 1
    (photos / "broken.png").unlink()
    shutil.move(photos / "photo 0.png", aside)
    for _ in range(2):
        done = again(grown)
        assert (done.labelled, done.removed, done.gone) == (5, 0, 2)
        assert done.notes == (
            f"1 image is no longer in {photos}; their labels stay (--prune removes them)",
            f"1 failed image is no longer in {photos} (--prune or --retry-failed removes them)",
        )
    planned = depthsieve.plan(photos, grown / "labels", trial=False, **SETTINGS)
    assert (planned.removed, planned.gone) == (0, 2) and planned.notes[-2:] == done.notes
    done = again(grown, prune=True)
    assert (done.removed, done.labelled, done.failed, done.gone, done.notes) == (2, 4, (), 0, ())
    store = open_store(grown / "labels")
    assert FIRST not in store.images
    assert [(one.action, one.counts) for one in store.history(FIRST)] == [("add", False), ("remove", True)]
    assert again(grown, prune=True).removed == 0
    shutil.move(aside, photos / "photo 0.png")
    done = again(grown)
    assert (done.planned_now, done.changed, done.labelled) == (1, 0, 5)
    assert verify(grown / "labels", progress=False).sound


def test_a_disk_that_is_not_there_prunes_nothing(grown: Path) -> None:
    photos = grown / "photos"
    for number in range(4):
        shutil.move(photos / f"photo {number}.png", grown / f"{number}.png")
    with pytest.raises(SourceError, match=r"4 of the 5 images .* are not in .*photos; is the disk there\?"):
        again(grown, prune=True)
    shutil.move(photos / "photo 4.png", grown / "4.png")
    with pytest.raises(SourceError, match="no images in"):
        again(grown, prune_most=True)
    assert depthsieve.status(grown / "labels").labelled == 5
    shutil.move(grown / "4.png", photos / "photo 4.png")
    assert (again(grown, prune_most=True).removed, depthsieve.status(grown / "labels").labelled) == (4, 1)


def test_other_sources_and_other_files_are_not_gone(grown: Path) -> None:
    """A second source knows nothing of the first, and one file nothing of its neighbours."""
    write_photos(grown / "more", 1, first=9)
    assert label(grown, grown / "more", name="second", prune_most=True).labelled == 6
    assert label(grown, grown / "photos" / "photo 0.png", prune_most=True).removed == 0
    assert depthsieve.status(grown / "labels").labelled == 6
    (grown / "photos" / "photo 1.png").unlink()
    assert (again(grown, prune=True).removed, depthsieve.status(grown / "labels").labelled) == (1, 5)


def test_a_move_that_loses_times_labels_only_what_has_changed(grown: Path) -> None:
    moved = grown / "elsewhere"
    shutil.copytree(grown / "photos", moved, copy_function=shutil.copyfile)
    for path in moved.iterdir():
        os.utime(path, ns=(5, 5))
    write_photo(moved / "photo 2.png", 90, 120, seed=44)
    done = label(grown, moved, moved=True)
    assert (done.planned_now, done.changed, done.labelled) == (1, 1, 5)
    assert label(grown, moved).planned_now == 0
    store = open_store(grown / "labels")
    assert store.sources() == {"default": str(moved)}
    assert contents(store) == files(moved)
    assert len(PseudoLabelDataset(store.path)) == 5


def test_killed_at_any_step_it_ends_with_the_same_bytes(grown: Path, tmp_path: Path) -> None:
    """After the plan of a changed image was written, and again before its label is committed."""
    photos = grown / "photos"
    write_photo(photos / "photo 0.png", 120, 90, seed=77)
    (photos / "photo 1.png").unlink()
    shutil.copytree(grown / "labels", tmp_path / "killed")
    killed = f"""
import os, signal
import depthsieve.jobs.label, depthsieve.store.writer
from depthsieve.storage.local import LocalRoot
create = LocalRoot.create
def create_or_die(self, key, *rest, **more):
    if key.startswith("commits/0002-"):
        os.kill(os.getpid(), signal.SIGKILL)
    done = create(self, key, *rest, **more)
    if key == "commits/generation-0002.json":
        os.kill(os.getpid(), signal.SIGKILL)
    return done
LocalRoot.create = create_or_die
depthsieve.jobs.label.label({str(photos)!r}, {str(tmp_path / "killed")!r},
    teacher={NAME!r}, prune=True,
    **{SETTINGS!r})
"""
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert depthsieve.status(tmp_path / "killed").labelled == 4
    shutil.move(grown / "labels", grown / "kept")
    shutil.move(tmp_path / "killed", grown / "labels")
    done = again(grown, prune=True)
    assert (done.planned_now, done.removed, done.labelled_now, done.labelled) == (0, 0, 1, 4)
    verify(grown / "labels", repair=True, progress=False)
    ended = decided_bytes(grown / "labels")
    shutil.move(grown / "labels", grown / "ended")
    shutil.move(grown / "kept", grown / "labels")
    again(grown, prune=True)
    assert ended == decided_bytes(grown / "labels")


@pytest.mark.parametrize("seed", [0])
def test_whatever_happens_labels_are_those_of_the_files_there_are(grown: Path, seed: int) -> None:
    chance = random.Random(seed)
    photos = grown / "photos"
    for step in range(4):
        paths = sorted(photos.glob("*.png"))
        for path in chance.sample(paths, 3):
            what = chance.choice(["edit", "touch", "remove", "move there and back"])
            if what == "edit":
                write_photo(path, *chance.choice([(120, 90), (90, 120)]), seed=100 * seed + 10 * step)
            elif what == "touch":
                os.utime(path, ns=(step, step))
            elif what == "remove":
                path.unlink()
        write_photo(photos / f"new {step}.png", 120, 90, seed=step)
        done = again(grown, prune_most=True, check_content=chance.random() < 0.3)
        assert (done.failed, done.errors, done.pending) == ((), (), 0)
        store = open_store(grown / "labels")
        assert contents(store) == files(photos)
        assert done.labelled == len(files(photos)) == depthsieve.status(grown / "labels").labelled
        sizes = {row["id"]: row["size"] for row in store.index().to_pylist()}
        assert sizes == {f"default/{path.name}": path.stat().st_size for path in photos.glob("*.png")}
        assert again(grown, prune_most=True).planned_now == 0
    assert verify(grown / "labels", progress=False).sound


def run(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exited:
        patch.setattr(sys, "argv", ["depthsieve", *map(str, arguments)])
        main()
    out, err = capsys.readouterr()
    return int(exited.value.code or 0), out, err


def test_status_tells_the_history_of_an_image(grown: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (grown / "photos" / "photo 0.png").unlink()
    again(grown, prune=True)
    code, out, _ = run("status", grown / "labels", "--history", FIRST, capsys=capsys)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[1][:4] == ["0", "add", "labelled", "0000-000000"]
    assert lines[2] == ["2", "remove", "removed", "current"]
    code, out, _ = run("status", grown / "labels", "--history", FIRST, "--json", capsys=capsys)
    assert [event["action"] for event in json.loads(out)] == ["add", "remove"]
    code, out, err = run("status", grown / "labels", "--history", "default/nothing.png", capsys=capsys)
    assert (code, out) == (2, "")
    assert f"{grown / 'labels'} knows no image 'default/nothing.png'" in err
    code, _, err = run("status", grown / "labels", "--history", FIRST, "--watch", capsys=capsys)
    assert (code, "do not go together" in err) == (2, True)


def test_the_history_says_why_an_image_that_counts_has_no_label(
    grown: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = grown / "photos" / "broken.png"
    broken.write_bytes((grown / "photos" / "photo 0.png").read_bytes()[:600])
    again(grown)
    monkeypatch.chdir(grown)
    code, out, _ = run("status", "labels", "--history", "default/broken.png", capsys=capsys)
    (failure,) = open_store(grown / "labels").history("default/broken.png")
    assert (code, failure.status, failure.counts) == (0, "failed", True)
    assert out.endswith(f"current: {failure.reason}\n")
    for asked in ("status labels --history", "curate labels --explain"):
        code, out, err = run(*asked.split(), "default/nothing.png", capsys=capsys)
        assert (code, out) == (2, "")
        assert err.startswith(f"Error: {grown / 'labels'} knows no image 'default/nothing.png'; ids ")


def test_the_summary_says_what_changed_and_what_is_gone(grown: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photo(grown / "photos" / "photo 0.png", 120, 90, seed=77)
    (grown / "photos" / "photo 1.png").unlink()
    arguments = [grown / "photos", grown / "labels", "--teacher", NAME, "--batch-size", "2", "--prune"]
    code, out, _ = run("plan", *arguments, "--threads", "1", capsys=capsys)
    assert code == 0
    assert "1 image changed on the disk: to be labelled again.\n1 image no longer there: removed.\n" in out
    code, out, _ = run("label", *arguments, "--threads", "1", "--json", capsys=capsys)
    assert code == 0
    summary = json.loads(out)
    assert (summary["changed"], summary["removed"], summary["labelled"]) == (1, 1, 4)


@pytest.mark.parametrize("option", ["prune", "prune_most", "check_content", "moved", "retry_failed"])
def test_a_part_adds_nothing(option: str) -> None:
    with pytest.raises(UsageError, match=f"a part adds nothing to the plan: say {option}"):
        LabelOptions(part="1/2", **{option: True})  # type: ignore[arg-type]
