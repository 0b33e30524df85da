"""Cameras of labels whose teacher takes none: from EXIF while labelling, given later, and what a store then says."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import light
import pytest
from commandline import command
from decoding import with_exif
from hostile import photo
from labelled import decided_bytes

import depthsieve
from depthsieve.core.cameras import Camera
from depthsieve.core.errors import SourceError, UsageError
from depthsieve.images.exif import FULL_FRAME_DIAGONAL_MM
from depthsieve.report.cloud import cloud_of

OPTIONS: dict[str, Any] = {"teacher": "light", "batch_size": 2, "threads": 1, "shard_size": 2, "progress": False}
BY_35MM = 28 / FULL_FRAME_DIAGONAL_MM * 150


@pytest.fixture
def photos(tmp_path: Path) -> Iterator[Path]:
    """Five photos in three shards: a and d have a focal length in EXIF."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for letter in "abcde":
        tags = 28 if letter in "ad" else None
        (folder / f"{letter}.jpg").write_bytes(with_exif(photo(120, 90), "JPEG", 1, focal_35mm=tags))
    with light.installed(tmp_path / "site"):
        yield folder


def cameras(store: Path) -> dict[str, tuple[float, str] | None]:
    """Focal length and origin of each, by its letter; the index says the same as the labels."""
    opened = depthsieve.open_store(store)
    index = {row["id"]: row for row in opened.index().to_pylist()}
    found: dict[str, tuple[float, str] | None] = {}
    for label in map(opened.label, opened):
        camera, row = label.camera, index[label.id]
        known = (None,) * 5 if camera is None else (*camera.intrinsics, camera.origin)
        assert tuple(row[name] for name in ("fx", "fy", "cx", "cy", "camera")) == known
        found[label.id[8]] = None if camera is None else (round(camera.fx, 2), camera.origin)
    return found


def test_cameras_are_kept_with_where_they_are_from_and_change_no_label(tmp_path: Path, photos: Path) -> None:
    store, plain = tmp_path / "labels", tmp_path / "plain"
    exif = (round(BY_35MM, 2), "exif-35mm")
    depthsieve.label(photos, plain, **OPTIONS)
    assert cameras(plain) == {"a": exif, "b": None, "c": None, "d": exif, "e": None}
    (tmp_path / "cams.csv").write_text("image,fx,cy,cx\nb.jpg,50,40,70\nd.jpg,60,,\nz.jpg,1,,\n")
    given = {"cameras": str(tmp_path / "cams.csv"), "fov": 90.0}
    summary = depthsieve.label(photos, store, **OPTIONS, **given)
    b, d, one = (50.0, "cameras.csv"), (60.0, "cameras.csv"), (60.0, "given")
    assert cameras(store) == {"a": one, "b": b, "c": one, "d": d, "e": one}
    assert depthsieve.open_store(store).label("b.jpg").camera == Camera(50, 50, 70, 40, "cameras.csv")
    assert summary.notes[-3:] == (
        "focal lengths: 2 from the file of cameras, 3 from --focal-length or --fov",
        f"1 camera of no image here, such as {tmp_path}/cams.csv, line 4",
        "2 images with another focal length in EXIF than was given, by more than 10%, such as default/a.jpg: the given "
        "one counts",
    )
    labels = {path: digest for path, digest in decided_bytes(store).items() if not path.startswith("layers/cameras")}
    assert labels == {path: one for path, one in decided_bytes(plain).items() if not path.startswith("layers/cameras")}
    assert depthsieve.label(photos, plain, **OPTIONS, **given).labelled_now == 0, "they can be given later"
    assert decided_bytes(plain) == decided_bytes(store)
    before = decided_bytes(store)
    depthsieve.label(photos, store, **OPTIONS)
    assert decided_bytes(store) == before, "what nobody says stays"
    assert depthsieve.verify(store, progress=False).findings == ()
    depthsieve.label(photos, store, cameras="none", **OPTIONS)
    assert cameras(store) == {"a": exif, "b": None, "c": None, "d": exif, "e": None}


def test_a_file_changes_the_cameras_that_it_names_and_says_so(tmp_path: Path, photos: Path) -> None:
    store, file = tmp_path / "labels", tmp_path / "cams.csv"
    file.write_text("image,fx\na.jpg,50\nb.jpg,60\n")
    depthsieve.label(photos, store, cameras=str(file), **OPTIONS)
    file.write_text("image,fx\nb.jpg,70\nc.jpg,80\n")
    summary = depthsieve.label(photos, store, cameras=str(file), **OPTIONS)
    named = {"a": (50.0, "cameras.csv"), "b": (70.0, "cameras.csv"), "c": (80.0, "cameras.csv")}
    assert cameras(store) == {**named, "d": (round(BY_35MM, 2), "exif-35mm"), "e": None}
    other = "1 image with another camera than was given before, such as default/b.jpg: labels do not depend on it; "
    assert f"{other}point clouds and exports take the new one" in summary.notes
    (photos / "f.jpg").write_bytes((photos / "a.jpg").read_bytes())
    summary = depthsieve.label(photos, store, **OPTIONS)
    assert cameras(store)["f"] == (round(BY_35MM, 2), "exif-35mm")
    (note,) = summary.notes
    assert note.startswith(
        "focal lengths: 2 from EXIF (35 mm equivalent), 3 from the file of cameras, 1 not known (say"
    )
    assert note.endswith("what is added or changed goes by EXIF until --cameras, --focal-length or --fov is said again")
    assert depthsieve.label(photos, store, **OPTIONS).notes == ()


def test_a_store_from_before_says_what_exif_said_and_takes_cameras(tmp_path: Path, photos: Path) -> None:
    store = tmp_path / "labels"
    depthsieve.label(photos, store, **OPTIONS)
    shutil.rmtree(store / "layers" / "cameras")
    shutil.rmtree(store / "copies" / "layers" / "cameras")
    opened = depthsieve.open_store(store)
    assert opened.label("b.jpg").camera is None
    known = opened.label("a.jpg").camera
    assert known is not None and known.intrinsics == pytest.approx((BY_35MM, BY_35MM, 60, 45))
    summary = depthsieve.label(photos, store, focal_length=100.0, exclude=["x/"], **OPTIONS)
    assert cameras(store) == dict.fromkeys("abcde", (100.0, "given"))
    assert "focal lengths: 5 from --focal-length or --fov" in summary.notes


def test_a_point_cloud_goes_by_the_whole_camera_and_says_so(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "labels"
    (tmp_path / "cams.csv").write_text("image,fx,fy,cx,cy\na.jpg,50,60,70,40\n")
    depthsieve.label(photos, store, cameras=str(tmp_path / "cams.csv"), **OPTIONS)
    label = depthsieve.open_store(store).label("a.jpg")
    (height, width), found = label.shape, cloud_of(label, drop=0.0)
    z = -found.vertices_N["z"].reshape(height, width)
    x, y = (found.vertices_N[name].reshape(height, width) for name in "xy")
    row, column = 7, 11
    scale_x, scale_y = width / 120, height / 90
    assert x[row, column] == pytest.approx((column + 0.5 - 70 * scale_x) / (50 * scale_x) * z[row, column], rel=1e-4)
    assert y[row, column] == pytest.approx(-(row + 0.5 - 40 * scale_y) / (60 * scale_y) * z[row, column], rel=1e-4)
    assert found.lens == "focal length 50.0 px of the photo, from the file of cameras"
    assert command(monkeypatch, "view", store, "a", "--ply", tmp_path / "a.ply") == 0
    assert "focal length 50.0 px of the photo, from the file of cameras" in capsys.readouterr().out
    assert (
        b"\ncomment focal length 50.0 px of the photo, from the file of cameras\n" in (tmp_path / "a.ply").read_bytes()
    )


def test_a_file_that_will_not_do_is_refused_before_anything_is_written(tmp_path: Path, photos: Path) -> None:
    store, file = tmp_path / "labels", tmp_path / "cams.csv"
    for rows, fault in (("a.jpg,0,,", "line 2: fx is 0"), ("a.jpg,5,90,90", r"line 2: is of an image of 90 x 90")):
        file.write_text(f"image,fx,width,height\n{rows}\n")
        with pytest.raises(SourceError, match=fault):
            depthsieve.label(photos, store, cameras=str(file), **OPTIONS)
    with pytest.raises(UsageError, match="say the same"):
        depthsieve.label(photos, store, focal_length=5.0, fov=5.0, **OPTIONS)
    with pytest.raises(UsageError, match="a part adds nothing to the plan: say fov"):
        depthsieve.label(photos, store, fov=5.0, part="1/2", **OPTIONS)
    assert not store.exists()
