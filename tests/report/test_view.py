"""``depthsieve view``: which labels are shown, where the picture goes, and what is said."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from commandline import command
from labelled import write_photos
from PIL import Image
from storemaker import Picture, make_store

import depthsieve
from depthsieve.core.errors import NoLabel, StoreError, UsageError
from depthsieve.images.sheet import draw_sheet
from depthsieve.report import contact_sheet
from depthsieve.store import Store

BY_RELIABILITY = [f"default/{n}.png" for n in (0, 3, 6, 9, 2, 5, 8, 1, 4, 7)]
"""Made labels are the more reliable the larger ``number * 7 % 10`` is."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Ten labels, one of them of a large photo, and one image that failed."""
    pictures = [Picture(f"{n}.png", (28, 42), (14, 21)) for n in range(10)]
    pictures[3] = dataclasses.replace(pictures[3], source=(140, 210))
    failed = Picture("broken.png", (28, 42), (14, 21), failed=True)
    return make_store(tmp_path_factory.mktemp("view"), [*pictures, failed])


def shown(store: Store, *ids: str, **options: object) -> list[str]:
    return [Path(one).stem for one in depthsieve.view(store, ids, progress=False, **options).ids]  # type: ignore[arg-type]


def test_worst_best_and_random_go_by_mean_reliability(store: Store) -> None:
    assert shown(store, worst=3) == ["0", "3", "6"]
    assert shown(store, best=2) == ["7", "4"]
    assert shown(store, worst=1, best=2) == ["0", "7", "4"]
    assert shown(store, best=99) == ["7", "4", "1", "8", "5", "2", "9", "6", "3", "0"]
    drawn = shown(store, random=4)
    assert len(set(drawn)) == 4 and drawn == shown(store, random=4) != shown(store, random=4, seed=1)
    assert shown(store, worst=10, random=4) == [Path(one).stem for one in BY_RELIABILITY], "each label once"


def test_without_a_wish_a_few_at_even_distances_are_shown(store: Store) -> None:
    assert shown(store) == ["0", "3", "9", "2", "5", "8", "4", "7"]
    assert shown(store, where="id < 'default/5'") == ["0", "3", "2", "1", "4"]
    assert depthsieve.view(store, progress=False).chosen == (
        "8 of 10 labels, at even distances from the least to the most reliable"
    )


def test_ids_are_whole_or_beginnings(store: Store) -> None:
    assert shown(store, "7.png", "default/2.png", "7.png") == ["7", "2"], "in the order asked for, each once"
    assert shown(store, "def", worst=2) == ["0", "3"]
    assert shown(store, "7", "2.") == ["2", "7"], "beginnings: least reliable first"
    assert shown(store, "7.png", "2.png", best=1) == ["7"]
    with pytest.raises(NoLabel, match=r"no image '12\.png'; did you mean 'default/2\.png'"):
        shown(store, "12.png")
    with pytest.raises(NoLabel, match=r"no label of 'broken\.png': it failed \(made up\)"):
        shown(store, "broken.png")
    with pytest.raises(NoLabel, match="no image ''"):
        shown(store, "")


def test_where_is_the_filter_of_curation(store: Store) -> None:
    assert shown(store, where="short_side > 28") == ["3"]
    assert shown(store, where="short_side = 28", worst=2) == ["0", "6"]
    with pytest.raises(StoreError, match="has no labels where short_side > 999; it has 10 in all"):
        shown(store, where="short_side > 999")
    with pytest.raises(UsageError, match="--where 'nonsense'"):
        shown(store, where="nonsense")


@pytest.mark.parametrize("options", [{"worst": 0}, {"best": True}, {"random": 1.5}, {"worst": 150, "best": 51}])
def test_counts_that_are_none_are_refused(store: Store, options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"whole number of at least 1|at most 200 labels, not 201"):
        shown(store, **options)


def test_a_store_without_labels_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no labelled image; label into it first"):
        depthsieve.view(make_store(tmp_path, [Picture("a.png", (28, 42), (14, 21), failed=True)]))


def test_the_picture_is_that_of_the_labels_and_drop_counts(store: Store, tmp_path: Path) -> None:
    for drop in (0.1, 0.4):
        seen = depthsieve.view(store, ["2.png", "7.png"], drop=drop)
        expected = draw_sheet([store["2.png"].panels(drop), store["7.png"].panels(drop)], drop)
        np.testing.assert_array_equal(np.asarray(seen.picture), np.asarray(expected))
        with Image.open(seen.save(tmp_path / "two.png")) as saved:
            np.testing.assert_array_equal(np.asarray(saved), np.asarray(expected))
        assert seen._repr_png_() == (tmp_path / "two.png").read_bytes()
    (tmp_path / "sheet.png").write_bytes(b"replaced")
    contact_sheet(store, ["2.png", "7.png"], tmp_path / "sheet.png", drop=0.4)
    with Image.open(tmp_path / "sheet.png") as sheet:
        np.testing.assert_array_equal(np.asarray(sheet), np.asarray(expected))


def test_only_a_picture_of_ours_is_replaced(store: Store, tmp_path: Path) -> None:
    seen = depthsieve.view(store, "2.png")
    other = tmp_path / "other.png"
    Image.new("RGB", (3, 3)).save(other)
    before = other.read_bytes()
    for place, message in (
        (other, "was not written by depthsieve"),
        (tmp_path / "a.jpg", r"ends in \.png"),
        (tmp_path / "none" / "a.png", "is not a folder"),
        (tmp_path, r"ends in \.png"),
    ):
        with pytest.raises(UsageError, match=message):
            seen.save(place)
    assert other.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["other.png"]


def test_photos_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture(f"{n}.png", (28, 42), (14, 21)) for n in range(3)])
    for name in ("0.png", "2.png"):
        (tmp_path / "images" / name).unlink()
    (note,) = depthsieve.view(store).notes
    assert note.startswith("2 of 3 photos cannot be read, and are chequered: default/0.png: its image cannot be read")


def test_the_command_names_what_it_shows_and_where(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "view", store.location, "--worst", 2) == 0
    assert command(monkeypatch, "view", store.location, "7.png", "-o", "seven.png") == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 of 10 labels: the 2 least reliable: depthsieve-view.png",
        "Reliability from signals: flip (made up).",
        "default/7.png: seven.png",
        "Reliability from signals: flip (made up).",
    ]
    assert command(monkeypatch, "view", store.location, "7.png", "--ply", "seven.ply", "--fov", 60, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        "store",
        "ids",
        "drop",
        "chosen",
        "reliability",
        "notes",
        "out",
        "ply",
        "points",
        "focal_px",
        "focal_from",
    }
    assert (found["ids"], found["out"], found["ply"]) == (["default/7.png"], None, "seven.ply")
    assert 200 < found["points"] < 294 and "up to scale and shift" in found["notes"][0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depthsieve-view.png", "seven.ply", "seven.png"]
    assert command(monkeypatch, "view", store.location, "7.png", "--focal", 60) == 2
    assert command(monkeypatch, "view", store.location, "--worst", 2, "--ply", "two.ply") == 2
    assert command(monkeypatch, "view", store.location, "nothing.png") == 1


def test_open_starts_the_viewer_or_says_that_there_is_none(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    viewer = tmp_path / "bin" / "xdg-open"
    viewer.parent.mkdir()
    monkeypatch.setenv("PATH", f"{viewer.parent}:/usr/bin:/bin")
    viewer.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/asked\n')
    viewer.chmod(0o755)
    assert command(monkeypatch, "view", store.location, "7.png", "--open") == 0
    assert (tmp_path / "asked").read_text() == f"{tmp_path}/depthsieve-view.png\n"
    viewer.write_text("#!/bin/sh\necho 'one' >&2\necho 'no screen' >&2\nexit 3\n")
    assert command(monkeypatch, "view", store.location, "7.png", "--open") == 0
    assert "Note: xdg-open could not show depthsieve-view.png: no screen\n" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command(monkeypatch, "view", store.location, "7.png", "--open") == 0
    assert "open depthsieve-view.png yourself" in capsys.readouterr().err


def test_a_quiet_run_of_label_does_not_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("depthsieve_cli.label.supervise", lambda store: None)  # in this process
    arguments = ("label", write_photos(tmp_path / "photos", 1), tmp_path / "labels", "--teacher", "tiny")
    assert command(monkeypatch, *arguments, "--signals", "none", "--quiet") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{tmp_path / 'labels'}: 1 of 1 image labelled."
