"""Cameras that decide labels: given ones are planned with the images, and another one later plans them again."""

import sys
from pathlib import Path
from typing import Any

import light
import numpy as np
import plug_in
import pyarrow.parquet as pq
import pytest
from decoding import with_exif
from hostile import photo
from labelled import decided_bytes

import depthsieve
from depthsieve.core.cameras import Camera
from depthsieve.core.errors import UsageError
from depthsieve.images.exif import FULL_FRAME_DIAGONAL_MM

MODULE = '''
import hashlib

import numpy as np
import torch

from depthsieve.teachers import Prediction, Teacher


class Lens(Teacher):
    """Metres: what is bright is near, and all is the farther the longer the lens (fx + fy + cx + cy, over 300)."""

    name = "{name}"
    weights_digest = hashlib.sha256(b"{name}").hexdigest()
    quantity = "depth"
    unit = "m"
    dtype = "float32"
    preprocessing = {{"rule": "half size"}}
    intrinsics_in = "{takes}"
    intrinsics_out = {returns}

    def __init__(self, request):
        self.device = torch.device("cpu")

    def label_shape(self, height, width):
        return height // 2, width // 2

    def prepare(self, rgb_HW3, shape):
        height, width = shape
        return np.ascontiguousarray(rgb_HW3[: 2 * height : 2, : 2 * width : 2].transpose(2, 0, 1), dtype=np.float32)

    def predict(self, batch):
        focal_B = torch.nan_to_num(batch.intrinsics.sum(1), nan=300.0) / 300
        depth_BHW = focal_B[:, None, None] / (1 + batch.image.mean(1) / 64)
        seen_B4 = torch.tensor([[30.0, 40.0, 31.0, 22.0]]).repeat(len(depth_BHW), 1)
        return Prediction(depth_BHW, intrinsics=seen_B4 if self.intrinsics_out else None)


def load(request):
    return Lens(request)
'''
OPTIONS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 2, "signals": "none", "progress": False}
BY_35MM = 28 / FULL_FRAME_DIAGONAL_MM * 150


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photos: a has a focal length in EXIF. And teachers that need a camera, use one, and predict one."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name, takes, returns in (("needy", "needed", False), ("user", "used", False), ("guesser", "used", True)):
        monkeypatch.delitem(sys.modules, f"lens_{name}", raising=False)
        module = MODULE.format(name=name, takes=takes, returns=returns)
        plug_in.install(tmp_path / "site", name, f"lens_{name}", module)
    folder = tmp_path / "photos"
    folder.mkdir()
    for letter in "abcd":
        data = with_exif(photo(120, 90), "JPEG", 1, focal_35mm=28 if letter == "a" else None)
        (folder / f"{letter}.jpg").write_bytes(data)
    return folder


def lengths(store: Path) -> dict[str, float]:
    """What each label was multiplied by."""
    opened = depthsieve.open_store(store)
    bright_HW = np.asarray(photo(120, 90).convert("RGB"))[::2, ::2].mean(2)
    return {image[8]: 300 * float(np.mean(opened.label(image).depth * (1 + bright_HW / 64))) for image in opened}


def seen(fx: float, fy: float | None = None, cx: float = 60, cy: float = 45) -> Any:
    """What the teacher makes of a camera, at half the size; a JPEG is not quite what it was made of."""
    return pytest.approx((fx + (fy or fx) + cx + cy) / 2, rel=0.02)


def planned(store: Path) -> list[list[str]]:
    return [pq.read_schema(path).names for path in sorted((store / "plan").glob("*.0*.parquet"))]


def test_another_camera_plans_an_image_again_and_the_same_one_does_not(tmp_path: Path, photos: Path) -> None:
    store, options = tmp_path / "labels", {**OPTIONS, "teacher": "needy"}
    summary = depthsieve.label(photos, store, **options)
    assert [one.id[8] for one in summary.failed] == ["b", "c", "d"]
    needs = (
        "teacher 'needy' needs a focal length, and none is known of this image: say --focal-length, --fov or --cameras"
    )
    assert {one.reason for one in summary.failed} == {needs}
    assert lengths(store) == {"a": seen(BY_35MM)}
    assert "focal lengths: 1 from EXIF (35 mm equivalent)" in summary.notes
    assert "fx" not in planned(store)[0]

    summary = depthsieve.label(photos, store, focal_length=500.0, **options)
    assert (summary.failed, summary.planned_now, summary.labelled) == ((), 4, 4)
    assert "4 images of the store with another camera than before: labelled again" in summary.notes
    assert any(note.startswith("1 image with another focal length in EXIF than was given") for note in summary.notes)
    assert lengths(store) == dict.fromkeys("abcd", seen(500))
    assert planned(store)[1][-5:] == ["fx", "fy", "cx", "cy", "camera"]

    before = decided_bytes(store)
    for again in ({}, {"focal_length": 500.0}, {"retry_failed": True}):
        assert depthsieve.label(photos, store, **options, **again).planned_now == 0
    assert decided_bytes(store) == before

    (tmp_path / "cams.csv").write_text("image,fx,fy,cx,cy\nb.jpg,200,210,50,40\n")
    summary = depthsieve.label(photos, store, cameras=str(tmp_path / "cams.csv"), focal_length=500.0, **options)
    assert summary.planned_now == 1
    assert lengths(store) == {**dict.fromkeys("acd", seen(500)), "b": seen(200, 210, 50, 40)}
    assert depthsieve.open_store(store).label("b.jpg").camera == Camera(200, 210, 50, 40, "cameras.csv")

    data = (photos / "c.jpg").read_bytes()
    (photos / "c.jpg").write_bytes(data + b"\0")
    summary = depthsieve.label(photos, store, **options)
    assert (summary.changed, summary.failed) == (1, ()), "a file that has changed keeps the camera it was given"
    assert lengths(store)["c"] == seen(500)

    summary = depthsieve.label(photos, store, cameras="none", **options)
    assert lengths(store) == {"a": seen(BY_35MM)}
    assert [one.id[8] for one in summary.failed] == ["b", "c", "d"]
    assert "fx" not in planned(store)[-1]


def test_images_added_later_take_the_cameras_given_then_or_are_refused(tmp_path: Path, photos: Path) -> None:
    store, options = tmp_path / "labels", {**OPTIONS, "teacher": "user"}
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("image,fx\na.jpg,100\nb.jpg,200\nc.jpg,300\nd.jpg,400\n")
    depthsieve.label(photos, store, cameras=str(first), **options)
    before = decided_bytes(store)
    (photos / "e.jpg").write_bytes((photos / "a.jpg").read_bytes())
    (photos / "f.jpg").write_bytes((photos / "b.jpg").read_bytes())
    refused = r"2 new images have no camera, such as default/e\.jpg, and the earlier images of source 'default' were"
    with pytest.raises(UsageError, match=refused):
        depthsieve.plan(photos, store, trial=False, **options)
    with pytest.raises(UsageError, match=refused):
        depthsieve.label(photos, store, **options)
    assert decided_bytes(store) == before

    second.write_text("image,fx\nf.jpg,600\n")
    unnamed = "1 new image that the file of cameras does not name, such as default/e.jpg: what EXIF says counts"
    assert unnamed in depthsieve.plan(photos, store, cameras=str(second), trial=False, **options).notes
    summary = depthsieve.label(photos, store, cameras=str(second), **options)
    assert unnamed in summary.notes
    assert summary.planned_now == 2, "images that the file does not name keep what they were given"
    by_letter = {"a": seen(100), "b": seen(200), "c": seen(300), "d": seen(400), "e": seen(BY_35MM), "f": seen(600)}
    assert lengths(store) == by_letter

    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "g.jpg").write_bytes((photos / "b.jpg").read_bytes())
    summary = depthsieve.label(tmp_path / "more", store, name="other", **options)
    assert summary.labelled_now == 1, "no image of this source was given a camera"


def test_an_image_that_was_resized_keeps_its_camera_and_a_crop_does_not(tmp_path: Path, photos: Path) -> None:
    store, options = tmp_path / "labels", {**OPTIONS, "teacher": "needy"}
    depthsieve.label(photos, store, focal_length=500.0, **options)
    (photos / "b.jpg").write_bytes(with_exif(photo(240, 180), "JPEG", 1))
    depthsieve.label(photos, store, **options)
    cameras = {one.id[8]: one.camera for one in map(depthsieve.open_store(store).label, depthsieve.open_store(store))}
    assert cameras == {
        **dict.fromkeys("acd", Camera(500, 500, 60, 45, "given")),
        "b": Camera(1000, 1000, 120, 90, "given"),
    }
    (photos / "c.jpg").write_bytes(with_exif(photo(90, 90), "JPEG", 1))
    with pytest.raises(UsageError, match=r"default/c\.jpg has 90 x 90 pixels now, and had 120 x 90 when it was given"):
        depthsieve.label(photos, store, **options)


def test_a_camera_that_was_given_when_it_decided_nothing_counts_too(tmp_path: Path, photos: Path) -> None:
    options = {**OPTIONS, "teacher": "light"}
    with light.installed(tmp_path / "light"):
        depthsieve.label(photos, tmp_path / "labels", focal_length=500.0, **options)
        (photos / "e.jpg").write_bytes((photos / "a.jpg").read_bytes())
        with pytest.raises(UsageError, match=r"1 new image has no camera, such as default/e\.jpg"):
            depthsieve.label(photos, tmp_path / "labels", metric_from="user", **options)


def test_a_shared_plan_and_a_repair_have_the_cameras_that_were_planned(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "cams.csv").write_text("image,fx\na.jpg,100\nb.jpg,200\nc.jpg,300\nd.jpg,400\n")
    options = {**OPTIONS, "teacher": "needy"}
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    depthsieve.label(photos, whole, cameras=str(tmp_path / "cams.csv"), **options)
    depthsieve.plan(photos, shared, cameras=str(tmp_path / "cams.csv"), write=True, trial=False, **options)
    (tmp_path / "cams.csv").unlink()
    for part in ("1/2", "2/2"):
        depthsieve.label(photos, shared, part=part, **options)
    assert decided_bytes(shared) == decided_bytes(whole)
    assert lengths(shared) == {"a": seen(100), "b": seen(200), "c": seen(300), "d": seen(400)}
    damaged = next((shared / "labels.zarr" / "shards").glob("0000-000001-*/depth/c/0/0/0"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert depthsieve.verify(shared, repair=True, progress=False).relabelled == 2
    assert decided_bytes(shared) == decided_bytes(whole)


def test_what_a_teacher_predicts_is_kept_where_nothing_else_is_known(tmp_path: Path, photos: Path) -> None:
    store = tmp_path / "labels"
    (tmp_path / "cams.csv").write_text("image,fx\nb.jpg,200\n")
    summary = depthsieve.label(photos, store, teacher="guesser", cameras=str(tmp_path / "cams.csv"), **OPTIONS)
    opened = depthsieve.open_store(store)
    found = {label.id[8]: label.camera for label in map(opened.label, opened)}
    assert found["c"] == found["d"] == Camera(60, 80, 62, 44, "teacher")
    assert found["b"] == Camera(200, 200, 60, 45, "cameras.csv")
    assert found["a"] is not None and found["a"].origin == "exif-35mm"
    assert lengths(store) == {
        "a": seen(BY_35MM),
        "b": seen(200),
        "c": pytest.approx(300, rel=0.02),
        "d": pytest.approx(300, rel=0.02),
    }
    told = "focal lengths: 1 from EXIF (35 mm equivalent), 1 from the file of cameras, 2 from the teacher"
    assert told in summary.notes


def test_a_metric_teacher_gets_the_cameras_too(tmp_path: Path, photos: Path) -> None:
    options = {**OPTIONS, "teacher": "light"}
    scales = {}
    ways: dict[str, list[dict[str, Any]]] = {
        "at once": [{"metric_from": "user", "focal_length": 500.0}],
        "later": [{"focal_length": 500.0}, {"metric_from": "user"}],
        "another": [{"metric_from": "user", "focal_length": 500.0}, {"focal_length": 1055.0}],
    }
    with light.installed(tmp_path / "light"):
        for name, steps in ways.items():
            for step in steps:
                depthsieve.label(photos, tmp_path / name, **options, **step)
            opened = depthsieve.open_store(tmp_path / name)
            scales[name] = [opened.label(image).metric.scale for image in opened]
    assert scales["later"] == scales["at once"]
    ratio = (500 + 52.5) / (1055 + 52.5)
    np.testing.assert_allclose(scales["another"], np.array(scales["at once"]) * ratio, rtol=1e-4)
    assert all(scale > 0 for scale in scales["at once"])
