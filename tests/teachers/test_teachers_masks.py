"""What labelling makes of a teacher's masks, sky and cameras, and of what is no prediction."""

from pathlib import Path
from typing import Any

import numpy as np
import plug_in
import pytest
import torch
from decoding import with_exif
from labelled import write_photo, write_photos
from PIL import Image

import depthsieve
from depthsieve.core.errors import RunError
from depthsieve.store import open_store
from depthsieve.store.status import status
from depthsieve.teachers import Batch, centred_intrinsics, load_teacher

OPTIONS: dict[str, Any] = {"teacher": "brightness", "batch_size": 2, "threads": 1, "progress": False}
RETURN = "return Prediction(1 + batch.image.mean(1) * scale, confidence=1 + batch.image[:, 2] * scale)"
METRES = ('quantity = "disparity"\n    unit = ""', 'quantity = "depth"\n    unit = "m"')


def offer(site: Path, *changes: tuple[str, str]) -> None:
    module = plug_in.MODULE
    for before, after in changes:
        assert before in module
        module = module.replace(before, after)
    plug_in.install(site, module=module)


def masked(what: str) -> tuple[str, str]:
    """The teacher with a mask, True in the upper third of the picture, and depth that is no number there."""
    mask = "top = torch.arange(batch.image.shape[2])[:, None].expand_as(batch.image[:, 0]) < batch.image.shape[2] // 3"
    depth = "torch.where(top, torch.nan, 1 + batch.image.mean(1) * scale)"
    return RETURN, f"{mask}\n        return Prediction({depth}, confidence=1 + batch.image[:, 2] * scale, {what})"


@pytest.mark.parametrize("signals", ["none", "flip", "native"])
def test_pixels_without_a_label_are_stored_as_invalid(tmp_path: Path, site: Path, signals: str) -> None:
    offer(site, masked("valid=~top"))
    photos = write_photos(tmp_path / "photos", 2)
    summary = depthsieve.label(photos, tmp_path / "store", signals=signals, keep_signals=signals == "flip", **OPTIONS)
    assert (summary.labelled, summary.failed) == (2, ())
    store = open_store(tmp_path / "store")
    for number in range(2):
        label = store.label(f"default/photo {number}.png")
        rows = label.depth.shape[0] // 3
        assert not label.depth[:rows].any() and not label.reliability[:rows].any()
        assert (label.depth[rows:] > 0).all() and (label.reliability[rows:] > 0).all()


@pytest.mark.parametrize(("metres", "valid"), [(True, False), (False, True)])
def test_sky_is_invalid_in_metres_and_farthest_in_disparity(
    tmp_path: Path, site: Path, metres: bool, valid: bool
) -> None:
    offer(site, masked("sky=top"), *([METRES] if metres else []))
    write_photo(tmp_path / "photos" / "a.png", 60, 90, 1)
    depthsieve.label(tmp_path / "photos", tmp_path / "store", signals="none", **OPTIONS)
    label = open_store(tmp_path / "store").label("default/a.png")
    assert (label.reliability[:15] > 0).all() == valid and (label.reliability[15:] == 255).all()
    assert (np.unique(label.depth[:15]) == (label.depth[15:].min() if valid else 0)).all()


def test_an_image_without_any_label_fails_by_name(tmp_path: Path, site: Path) -> None:
    offer(site, masked("valid=top & (batch.image.mean((1, 2, 3)) > 1)[:, None, None]"))
    write_photo(tmp_path / "photos" / "a.png", 60, 90, 1)
    Image.new("RGB", (60, 90)).save(tmp_path / "photos" / "black.png")
    summary = depthsieve.label(tmp_path / "photos", tmp_path / "store", signals="none", **OPTIONS)
    reasons = {one.id: one.reason for one in summary.failed}
    assert reasons["default/black.png"] == "the teacher calls no pixel valid"
    assert reasons["default/a.png"] == "the teacher's output is not finite at 450 of 450 pixels"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            ("1 + batch.image.mean(1) * scale", "batch.image.mean(1) - 1000"),
            "the teacher's output is negative, down to",
        ),
        (
            ("confidence=1 +", "confidence=-1 -"),
            "the teacher's confidence is negative or no number at 450 of 450 pixel",
        ),
    ],
)
def test_negative_numbers_fail_their_image(tmp_path: Path, site: Path, change: tuple[str, str], reason: str) -> None:
    offer(site, change)
    write_photo(tmp_path / "photos" / "a.png", 60, 30, 1)
    summary = depthsieve.label(tmp_path / "photos", tmp_path / "store", signals="native", **OPTIONS)
    assert [one.reason[: len(reason)] for one in summary.failed] == [reason]


def test_a_teacher_that_needs_a_focal_length_fails_the_images_without(tmp_path: Path, site: Path) -> None:
    offer(site, ('intrinsics_in = "used"', 'intrinsics_in = "needed"'))
    picture = Image.new("RGB", (160, 120), (100, 100, 100))
    picture.putpixel((0, 0), (0, 0, 0))
    (tmp_path / "photos").mkdir()
    for name, focal_35mm in (("known", 26), ("unknown", None)):
        (tmp_path / "photos" / f"{name}.png").write_bytes(with_exif(picture, "PNG", 1, focal_35mm))
    summary = depthsieve.label(tmp_path / "photos", tmp_path / "store", signals="flip", **OPTIONS)
    needs = "teacher 'brightness' needs a focal length, and none is known of this image"
    told = f"{needs}: say --focal-length, --fov or --cameras"
    assert [(one.id, one.reason) for one in summary.failed] == [("default/unknown.png", told)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((RETURN, "return batch.image[:, 0]"), "predict returned Tensor, not a Prediction"),
        (("scale)\n", "scale, valid=scale)\n"), "its valid is torch.float32 [2, 1, 1], not torch.bool [2,"),
        (("scale)\n", "scale, sky=batch.image > 1)\n"), "its sky is torch.bool [2, 3,"),
        (("scale)\n", "scale, intrinsics=scale)\n"), "it returns intrinsics, and its intrinsics_out is False"),
        (("scale)\n", "scale, embedding=scale)\n"), "it returns embedding, and its embedding_size is None"),
        (('confidence_better = "higher"', "embedding_size = 3"), "it returns confidence, and its confidence_better is"),
        (('confidence_better = "higher"', 'confidence_better = "higher"; embedding_size = 3'), "its embedding is None"),
    ],
)
def test_what_is_no_prediction_ends_the_run_in_one_line(
    tmp_path: Path, site: Path, change: tuple[str, str], words: str
) -> None:
    offer(site, change)
    with pytest.raises(RunError) as caught:
        depthsieve.label(write_photos(tmp_path / "photos", 2), tmp_path / "store", signals="none", **OPTIONS)
    line = str(caught.value)
    assert line.startswith("teacher 'brightness' failed: ") and words in line and "\n" not in line
    assert status(tmp_path / "store").pending == 2


def test_views_of_an_image_have_its_camera(installed: Path) -> None:
    """Pinhole geometry: a point that is seen at x is at W - x in the mirror, and at x / 2 at half the size."""
    of_source = centred_intrinsics(500.0, (400, 800), (100, 100))
    np.testing.assert_allclose(of_source, [62.5, 125, 50, 50])
    assert np.isnan(centred_intrinsics(0.0, (400, 800), (100, 100))).all()
    batch = Batch(torch.zeros(2, 3, 100, 100), torch.tensor([[62.5, 125, 30, 50], [torch.nan] * 4]))
    half = batch.seen_as(torch.zeros(2, 3, 50, 25), mirrored=True)
    np.testing.assert_allclose(half.intrinsics[0], [62.5 / 4, 62.5, (100 - 30) / 4, 25])
    assert torch.isnan(half.intrinsics[1]).all() and torch.isnan(half.focal_px[1])
    assert load_teacher("brightness").intrinsics_in == "used"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("max(1, height // 2), max(1, width // 2)", "height / 2, width / 2"),
            "its label_shape is (45.0, 60.0), not (height, width),",
        ),
        (
            ("max(1, height // 2), max(1, width // 2)", "0, width // 2"),
            "its label_shape is (0, 60), not (height, width), whole numbers",
        ),
        (("max(1, height // 2), max(1, width // 2)", "height // [][0], 2"), "IndexError: list index out of range"),
        (("max(1, height // 2), max(1, width // 2)", "int('x'), 2"), "ValueError: invalid literal"),
        (
            ("dtype=np.float32", "dtype=np.float64"),
            "prepare returned ndarray of float64 [3, 45, 60], not ndarray of fl",
        ),
        (
            (".transpose(2, 0, 1)", ""),
            "prepare returned ndarray of float32 [45, 60, 3], not ndarray of float32 [3, 45,",
        ),
        (
            ("    def predict", "    def half_shape(self, shape):\n        return 3\n\n    def predict"),
            "its half_shape is 3",
        ),
    ],
)
def test_a_wrong_shape_or_input_ends_the_run_in_one_line(
    tmp_path: Path, site: Path, change: tuple[str, str], words: str
) -> None:
    offer(site, change)
    signals = "lowres" if "half" in words else "none"
    with pytest.raises(RunError) as caught:
        depthsieve.label(write_photos(tmp_path / "photos", 1), tmp_path / "store", signals=signals, **OPTIONS)
    line = str(caught.value)
    assert line.startswith("teacher 'brightness' failed: ") and words in line and "\n" not in line
