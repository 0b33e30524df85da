"""What holds of any export: it resumes to the same bytes, grows, refuses what does not fit, and names what failed."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import READERS, bytes_of, check_equal, export, labels_of, small_store
from labelled import label, write_photos
from storemaker import Picture, made_label, make_store, pictures

from depthsieve.core.errors import LoaderError, RunError, UsageError
from depthsieve.core.processes import cores
from depthsieve.export import run
from depthsieve.export.ledger import Ledger
from depthsieve.store import open_store

KILLED = """
import os, signal, sys
from depthsieve.export import run
from depthsieve.export.ledger import Ledger

run.PER_PART = 2
whole, left = Ledger._renamed, [int(sys.argv[4])]

def renamed(ledger, path):  # the one way in which any file comes to be
    left[0] -= 1
    if left[0] == 0:
        (ledger._folder / "tmp" / "half").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(ledger, path)

Ledger._renamed = renamed
options = {"images_per_file": 2} if sys.argv[3] not in ("png", "npz") else {}
run.export_labels(*sys.argv[1:3], target=sys.argv[3], options=options, threads=1, progress=False)
"""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PER_PART", 2)


@pytest.mark.parametrize(("target", "at"), [("png", 8), ("webdataset", 5), ("hdf5", 4), ("huggingface", 6)])
def test_killed_and_run_again_it_has_the_same_bytes(target: str, at: int, tmp_path: Path, small_parts: None) -> None:
    store = small_store(tmp_path)
    options = {} if target == "png" else {"images_per_file": 2}
    export(store, tmp_path / "whole", target, options=options)
    out = tmp_path / "out"
    arguments = [store.location, str(out), target, str(at)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (out / ".depthsieve" / "tmp" / "half").exists()
    left = bytes_of(tmp_path / "whole").keys() - bytes_of(out).keys()
    assert 0 < len(left) < len(bytes_of(tmp_path / "whole"))
    export(store, out, target, options=options)
    assert bytes_of(out) == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("target", ["npy", "webdataset"])
def test_a_store_that_grew_adds_what_is_new_and_moves_nothing(target: str, tmp_path: Path, small_parts: None) -> None:
    small_store(tmp_path)
    options = {} if target == "npy" else {"images_per_file": 2}
    export(tmp_path / "labels", tmp_path / "out", target, options=options)
    before = {name: digest for name, digest in bytes_of(tmp_path / "out").items() if ".json" not in name}
    make_store(tmp_path, [Picture("0.png", (28, 56), (14, 28)), Picture("z.png", (28, 56), (14, 28))])
    grown = export(tmp_path / "labels", tmp_path / "out", target, options=options)
    assert (grown.images, grown.images_now) == (6, 2)
    after = bytes_of(tmp_path / "out")
    del before["README.md"]
    assert {name: after[name] for name in before} == before
    check_equal(READERS[target].read(tmp_path / "out"), labels_of(open_store(tmp_path / "labels")), READERS[target])


@pytest.mark.parametrize("target", ["npy", "webdataset"])
def test_an_image_that_was_labelled_again_is_written_again(target: str, tmp_path: Path, small_parts: None) -> None:
    store = small_store(tmp_path)
    options = {} if target == "npy" else {"images_per_file": 2}
    export(store, tmp_path / "out", target, options=options)
    grown = make_store(tmp_path, [Picture("0.png", (28, 56), (14, 28)), Picture("a.jpg", (28, 56), (14, 28))])
    before, after = labels_of(store)["default/a.jpg"], labels_of(grown)["default/a.jpg"]
    assert not (before.depth_HW == after.depth_HW).all()
    export(grown, tmp_path / "out", target, options=options)
    check_equal(READERS[target].read(tmp_path / "out"), labels_of(grown), READERS[target])


def test_a_later_image_never_takes_the_name_of_an_earlier_one(tmp_path: Path) -> None:
    export(make_store(tmp_path, [Picture("a.jpg", (28, 28), (14, 14))]), tmp_path / "out", "npy")
    grown = make_store(tmp_path, [Picture("A.jpg", (28, 28), (14, 14))])  # which sorts before it
    export(grown, tmp_path / "out", "npy")
    names = {path.name for path in (tmp_path / "out" / "depth" / "default").iterdir()}
    assert "a.jpg.npy" in names and "A.jpg.npy" not in names and len(names) == 2
    check_equal(READERS["npy"].read(tmp_path / "out"), labels_of(grown), READERS["npy"])


def test_what_was_written_before_an_interruption_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = small_store(tmp_path)
    export(store, tmp_path / "whole", "npy")
    whole = Ledger.write

    def write(ledger: Ledger, path: str, *more: Any) -> int:
        if "c.d" in path:
            raise KeyboardInterrupt
        return whole(ledger, path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "write", write)
        with pytest.raises(KeyboardInterrupt):
            export(store, tmp_path / "out", "npy")
    assert 0 < export(store, tmp_path / "out", "npy").images_now < 4
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_what_is_damaged_or_gone_is_written_again(tmp_path: Path, small_parts: None) -> None:
    store = small_store(tmp_path)
    export(store, tmp_path / "out", "png")
    whole = bytes_of(tmp_path / "out")
    (tmp_path / "out" / "depth" / "default" / "a.jpg.png").write_bytes(b"cut")
    (tmp_path / "out" / "depth.json").unlink()
    assert export(store, tmp_path / "out", "png").images_now == 1
    assert bytes_of(tmp_path / "out") == whole


def test_a_missing_photo_is_named_and_tried_again(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    photo = tmp_path / "images" / "a.png"
    data = photo.read_bytes()
    photo.write_bytes(data + b"changed")
    (tmp_path / "images" / "b" / "c.d.png").unlink()
    summary = export(store, tmp_path / "out", "webdataset", resolution="source")
    assert [one.id for one in summary.failed] == ["default/a.png", "default/b/c.d.png"]
    assert "has changed since it was labelled" in summary.failed[0].reason
    assert (summary.images, summary.images_now) == (2, 2)
    assert "2 images could not be exported" in (tmp_path / "out" / "README.md").read_text()
    assert set(READERS["webdataset"].read(tmp_path / "out")) == {"default/a.jpg", "default/b/turned.jpg"}

    photo.write_bytes(data)
    again = export(store, tmp_path / "out", "webdataset", resolution="source")
    assert [one.id for one in again.failed] == ["default/b/c.d.png"]
    assert "default/a.png" in READERS["webdataset"].read(tmp_path / "out")


def test_other_options_are_refused_in_one_line(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    export(store, tmp_path / "out", "png")
    with pytest.raises(UsageError, match=r"was exported without mask, not with mask 0\.1; export into another folder"):
        export(store, tmp_path / "out", "png", mask=0.1)
    with pytest.raises(UsageError, match="target png, not npy"):
        export(store, tmp_path / "out", "npy")
    export(store, tmp_path / "masked", "png", mask=0.1)
    with pytest.raises(UsageError, match=r"was exported with mask 0\.1, not without; export"):
        export(store, tmp_path / "masked", "png")
    with pytest.raises(UsageError, match=r"has 3 images that are not exported now \(the first is default/a\.png\)"):
        export(store, tmp_path / "out", "png", subset=["default/a.jpg"])


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, dry_run: bool) -> None:
    store = small_store(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"is not empty, .*'thesis\.tex'"):
        export(store, tmp_path / "out", "png", dry_run=dry_run)
    with pytest.raises(UsageError, match="is a file"):
        export(store, tmp_path / "out" / "thesis.tex", "png", dry_run=dry_run)
    for inside in ("labels/out", "images/b/out"):
        with pytest.raises(UsageError, match="name a folder outside"):
            export(store, tmp_path / inside, "png", dry_run=dry_run)
    with pytest.raises(UsageError, match="a folder of this machine"):
        export(store, "s3://bucket/out", "png", dry_run=dry_run)  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_beside_a_single_file_that_was_labelled_there_is_room(tmp_path: Path, light: str) -> None:
    photo = write_photos(tmp_path, 1) / "photo 0.png"
    label(photo, tmp_path / "labels", light, signals="none")
    assert export(tmp_path / "labels", tmp_path / "out", "png").images == 1
    with pytest.raises(UsageError, match="lies in the store"):
        export(tmp_path / "labels", tmp_path / "labels" / "out", "png")


def test_what_does_not_fit_on_the_disk_is_refused_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = small_store(tmp_path)
    monkeypatch.setattr(run, "free_bytes", lambda out: 1000)
    with pytest.raises(RunError, match=r"4 images take about 0\.\d+ MB and 0\.001 MB are free"):
        export(store, tmp_path / "out", "npy")
    assert not (tmp_path / "out").exists()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    export(store, tmp_path / "out", "png")
    ledger = Ledger(tmp_path / "out")
    asked = json.loads((tmp_path / "out" / ".depthsieve" / "export.json").read_text())
    ledger.open({name: value for name, value in asked.items() if name != "format"})
    with pytest.raises(RunError, match="another process exports into"):
        export(store, tmp_path / "out", "png")
    ledger.close()
    assert export(store, tmp_path / "out", "png").images_now == 0


def test_only_what_is_chosen_is_exported(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    some = export(store, tmp_path / "some", "npy", subset=["default/a.jpg", "default/b/c.d.png"])
    assert set(READERS["npy"].read(tmp_path / "some")) == {"default/a.jpg", "default/b/c.d.png"}
    assert some.left_out == {"not selected": 2, "failed": 1}
    tall = export(store, tmp_path / "tall", "npy", where="height > width")
    assert (tall.images, set(READERS["npy"].read(tmp_path / "tall"))) == (1, {"default/b/c.d.png"})
    short = export(store, tmp_path / "short", "npy", where="short_side < width and source = 'default'")
    assert short.images == sum(store[one].source_shape[0] < store[one].source_shape[1] for one in store) > 0
    with pytest.raises(UsageError) as refused:
        export(store, tmp_path / "wrong", "npy", where="shortside > 3")
    assert str(refused.value).startswith("--where 'shortside > 3': there is no column \"shortside\"; columns are id, ")
    assert str(refused.value).endswith(", source, short_side, unreliable")
    with pytest.raises(LoaderError, match="keeps none of 4 images"):
        export(store, tmp_path / "none", "npy", where="height > 99")


def test_a_target_takes_its_own_options_only(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    for options, message in (
        ({"images_per_file": 5}, "target png has no option 'images_per_file'; it belongs to hdf5"),
        ({"colour": 5}, "target png has no option 'colour'"),
    ):
        with pytest.raises(UsageError, match=message):
            export(store, tmp_path / "out", "png", options=options)
    with pytest.raises(UsageError, match="images_per_file must be a int, not 'many'"):
        export(store, tmp_path / "out", "hdf5", options={"images_per_file": "many"})
    with pytest.raises(UsageError, match="did you mean hdf5"):
        export(store, tmp_path / "out", "hdf")
    with pytest.raises(UsageError, match="nothing to link"):
        export(store, tmp_path / "out", "png", link="symlink")


def test_threads_write_the_same_as_one(tmp_path: Path) -> None:
    store = make_store(tmp_path, pictures({(14, 28): 20}), shard_size=8)
    export(store, tmp_path / "one", "webdataset", options={"images_per_file": 8})
    export(store, tmp_path / "more", "webdataset", options={"images_per_file": 8}, threads=max(4, cores()))
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "more")
    found = READERS["webdataset"].read(tmp_path / "more")
    assert (
        (found["default/7.png"].depth_HW[found["default/7.png"].reliability_HW > 0]).max()
        <= made_label(7, (14, 28))[0].max()
    )


def test_a_folder_without_any_image_is_taken_over_with_other_options(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture("a.jpg", (28, 28), (14, 14))])
    photo = tmp_path / "images" / "a.jpg"
    data = photo.read_bytes()
    photo.unlink()
    assert export(store, tmp_path / "out", "webdataset", options={"images_per_file": 2}).images == 0
    photo.write_bytes(data)
    export(store, tmp_path / "whole", "npy", mask=0.1)
    assert export(store, tmp_path / "out", "npy", mask=0.1, dry_run=True).images_now == 1
    export(store, tmp_path / "out", "npy", mask=0.1)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def test_a_folder_that_was_killed_in_its_first_part_is_not_taken_over(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    export(store, tmp_path / "out", "npy")
    (tmp_path / "out" / ".depthsieve" / "part-0000-000000.json").unlink()
    with pytest.raises(UsageError, match="target npy, not png"):
        export(store, tmp_path / "out", "png")


def test_where_counts_unreliable_pixels_at_the_mask(tmp_path: Path) -> None:
    codes_HW = np.repeat(np.array([[10], [20]], np.uint8), 7, 0).repeat(14, 1)
    pictures = [
        Picture("a.png", (28, 28), (14, 14), reliability_HW=codes_HW),
        Picture("b.png", (28, 28), (14, 14), reliability_HW=codes_HW + np.uint8(10)),
    ]
    store = make_store(tmp_path, pictures)
    assert export(store, tmp_path / "a", "npy", where="unreliable = 0").images == 2
    assert export(store, tmp_path / "b", "npy", where="unreliable = 0", mask=0.3).images == 1


def test_what_a_wider_choice_adds_is_counted(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    assert export(store, tmp_path / "out", "npy", where="height > width").notes == ()
    for dry_run in (True, False):
        (note,) = export(store, tmp_path / "out", "npy", dry_run=dry_run).notes
        assert note.startswith(
            f"3 images added to the 1 that {tmp_path / 'out'} was made for: labelled since, or chosen"
        )
    assert export(store, tmp_path / "out", "npy").notes == ()


def test_a_reason_ends_in_what_to_do_however_long_the_paths_are(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    store = small_store(deep)
    (deep / "images" / "a.jpg").unlink()
    (failed,) = export(store, tmp_path / "out", "webdataset").failed
    assert failed.reason.endswith("(`depthsieve label --store-images` keeps a copy beside each label)")
