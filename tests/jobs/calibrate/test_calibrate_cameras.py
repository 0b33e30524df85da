"""Calibrating teachers that take cameras: scenes have theirs, pairs as `label` has them."""

from pathlib import Path
from typing import Any

import da3_models
import numpy as np
import pytest
import torch
from decoding import with_exif
from PIL import Image

import depthsieve
from depthsieve.cameras.given import given_cameras
from depthsieve.core.errors import SourceError, UsageError
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.jobs.calibrate.cameras import scene_camera, with_cameras
from depthsieve.jobs.calibrate.examples import example, scene_example, scene_photo
from depthsieve.jobs.calibrate.judging import FLIP, doubts
from depthsieve.jobs.calibrate.pairs import Pairs, find_pairs
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.scenes import render_scene
from depthsieve.teachers import Batch, Teacher, load_teacher

TRUTH = TruthSettings(pattern="{dir}/{stem}.npy")


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """A small Depth Anything 3 of metres, which needs focal lengths."""
    return load_teacher(str(da3_models.save_metric(tmp_path_factory.mktemp("da3") / "metric")), size=56, device="cpu")


def write_pair(folder: Path, seed: int, focal_35mm: int | None = None) -> None:
    """A rendered scene of 80 x 60 pixels as a photo, with its depth beside it."""
    folder.mkdir(exist_ok=True)
    scene = render_scene(seed, 60, 80)
    photo = Image.fromarray(scene.rgb_HW3)
    (folder / f"{seed}.jpg").write_bytes(with_exif(photo, "JPEG", 1, focal_35mm=focal_35mm))
    np.save(folder / f"{seed}.npy", np.where(scene.depth_HW < 60, scene.depth_HW, 0))


def focal_lengths(pairs: Pairs) -> dict[str, tuple[float, str] | None]:
    whole = (*pairs.learnt, *pairs.judged)
    return {
        f"{Path(pair.source.root).name}/{pair.id.partition('/')[2]}": pair.camera
        and (pair.camera.fx, pair.camera.origin)
        for pair in whole
    }


def test_a_scene_has_its_own_focal_length_in_every_view(metric: Teacher) -> None:
    scene = scene_photo(metric, 5, "home", 0)
    height, width = scene.rgb_HW3.shape[:2]
    seen = example(metric, scene.rgb_HW3, scene.depth_HW, scene_camera(scene))
    image_1CHW = torch.from_numpy(metric.prepare(scene.rgb_HW3, (height, width)))[None]
    at_300 = metric.predict(Batch(image_1CHW, torch.tensor([[300.0, 300.0, width / 2, height / 2]])))
    np.testing.assert_allclose(seen.depth_HW, at_300.depth[0].numpy() * scene.focal_px / 300, rtol=2e-3)
    assert example(metric, scene.rgb_HW3, scene.depth_HW).pixels == 0, "without one there is nothing to learn from"
    assert scene_example(metric, 5, "home", 0).pixels > 1000
    assert np.isfinite(doubts(seen, metric, ErrorNetwork.random(0, "depth"), scene.rgb_HW3)[FLIP]).all()


def test_pairs_have_cameras_as_label_has_them(metric: Teacher, tmp_path: Path) -> None:
    for folder, seed, focal in (("one", 0, 28), ("one", 1, 28), ("one", 2, None), ("two", 0, None)):
        write_pair(tmp_path / folder, seed, focal)
    found = find_pairs([tmp_path / "one", tmp_path / "two"], None, TRUTH)
    (tmp_path / "cams.csv").write_text("image,fx\none/0.jpg,200\n2.jpg,300\nz.jpg,1\n")
    pairs, notes = with_cameras(found, metric, given_cameras(tmp_path / "cams.csv"))
    by_exif = (pytest.approx(28 / 43.2666 * 100, rel=1e-4), "exif-35mm")
    given = {"one/0.jpg": (200, "cameras.csv"), "one/2.jpg": (300, "cameras.csv")}
    assert focal_lengths(pairs) == {**given, "one/1.jpg": by_exif, "two/0.jpg": None}
    assert notes == (
        "focal lengths: 1 from EXIF (35 mm equivalent), 2 from the file of cameras, 1 not known (say --focal-length "
        "PX, --fov DEGREES or --cameras FILE)",
        f"1 camera of no image here, such as {tmp_path}/cams.csv, line 4",
        "1 image with another focal length in EXIF than was given, by more than 10%, such as default/0.jpg: the given "
        "one counts",
    )
    pairs, _ = with_cameras(found, metric, given_cameras(fov=90))
    assert focal_lengths(pairs)["two/0.jpg"] == (pytest.approx(40), "given")
    (tmp_path / "cams.csv").write_text("image,fx\n0.jpg,200\n")
    with pytest.raises(SourceError, match=r"'0.jpg' could be .*one/0.jpg and .*two/0.jpg; write more of its path"):
        with_cameras(found, metric, given_cameras(tmp_path / "cams.csv"))
    only = find_pairs([tmp_path / "two"], None, TRUTH)
    with pytest.raises(UsageError, match="needs a focal length, and none is known of any pair: say --focal-length"):
        with_cameras(only, metric, given_cameras())


def test_a_teacher_that_needs_cameras_is_calibrated(metric: Teacher, tmp_path: Path) -> None:
    for seed, focal in ((0, 28), (1, None), (2, 28), (3, 28)):
        write_pair(tmp_path / "pairs", seed, focal)
    options: dict[str, Any] = {"pairs": [tmp_path / "pairs"], "pattern": TRUTH.pattern, "progress": False}
    small = {"scenes": 20, "judged": 1, "steps": 1}
    made = depthsieve.calibrate(metric, tmp_path / "made.safetensors", **options, **small)
    assert made.notes[0].startswith("focal lengths: 3 from EXIF (35 mm equivalent), 1 not known")
    assert [(one.id, one.reason.partition(": ")[2]) for one in made.failed] == [
        (
            "default/1.jpg",
            f"teacher {metric.name!r} needs a focal length, and none is known of this image: say "
            "--focal-length, --fov or --cameras",
        )
    ]
    judged = {one.data: one.images for one in made.scores}
    assert judged["scenes"] == 1 and judged["pairs"] in (1, 2)
    assert all(np.isfinite(one.ause) and one.ause > 0 for one in made.scores)


def test_cameras_that_would_do_nothing_are_refused(metric: Teacher, tmp_path: Path) -> None:
    write_pair(tmp_path / "pairs", 0)
    with pytest.raises(UsageError, match="focal_length and fov are for pairs; name folders of photos with pairs"):
        depthsieve.calibrate(metric, tmp_path / "made", fov=60.0, progress=False)
    with pytest.raises(UsageError, match="teacher 'tiny-v1' takes no camera: leave out cameras, focal_length and fov"):
        depthsieve.calibrate("tiny-v1", tmp_path / "made", pairs=[tmp_path / "pairs"], fov=60.0, progress=False)
