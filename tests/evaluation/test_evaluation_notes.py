"""Ground truth that is not what it is taken for: what is refused by name, and what is noted."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from storemaker import Picture, made_label, make_store
from truths import LABEL, SOURCE, evaluated, pfm, truth_of, write_truth

import depthsieve
from depthsieve.core.errors import GroundTruthError, UsageError
from depthsieve.evaluation.result import Evaluation
from depthsieve.store import Store


def kinds(result: Evaluation) -> list[str]:
    """The notes, except on labels that run against the ground truth: these labels are noise."""
    return [note.kind for note in result.notes if note.kind != "against-truth"]


def save_png(path: Path, metres_HW: np.ndarray, scale: float = 1000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(metres_HW * scale).astype(np.uint16)).save(path)


# An image that is its own ground truth


TIMES = ("1305031102.175304", "1305031102.208704", "1305031102.243211")


def test_a_tum_sequence_is_not_compared_with_itself(tmp_path: Path) -> None:
    """rgb/ and depth/ side by side, named by their own times, and all labelled, as a new user would do it."""
    random = np.random.default_rng(0)
    for number, (rgb, depth) in enumerate(zip(TIMES, ("1305031102.160407", "1305031102.194330", ""), strict=True)):
        truth_HW = truth_of(number, (96, 128)) / 4
        (tmp_path / "tum" / "rgb").mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (96, 128, 3)).astype(np.uint8)).save(tmp_path / f"tum/rgb/{rgb}.png")
        if depth:
            save_png(tmp_path / f"tum/depth/{depth}.png", truth_HW, 5000)
    depthsieve.label(tmp_path / "tum", tmp_path / "labels", teacher="tiny", runner="local", progress=False)
    store = depthsieve.open_store(tmp_path / "labels")
    options: dict[str, Any] = {"scale": 5000, "replace": (("rgb/", "depth/"),)}
    with pytest.raises(
        GroundTruthError,
        match=r"2 of them have themselves as ground truth, the first default/depth/1305031102.160407.png: the image is "
        r"its own .* label the folder of photos alone.*; --associate SECONDS matches names that are timestamps",
    ):
        evaluated(store, tmp_path / "tum", **options)

    result = evaluated(store, tmp_path / "tum", **options, associate=0.02)
    assert [score.id for score in result.images] == [f"default/rgb/{time}.png" for time in TIMES[:2]]
    assert [failure.id for failure in result.not_compared] == [
        "default/depth/1305031102.160407.png",
        "default/depth/1305031102.194330.png",
    ]
    assert result.without_truth == (f"default/rgb/{TIMES[2]}.png",)
    (note,) = [note for note in result.notes if note.kind == "associated-by-time"]
    assert "2 images matched by time, at most 0.0149 s apart" in note.text
    assert "1 without ground truth near enough" in note.text
    assert not any(place.startswith("depth/") for place in result.without_image)


@pytest.mark.parametrize("how", ["itself", "copy", "link", "copy without its source"])
def test_copies_and_links_of_an_image_are_not_its_ground_truth(tmp_path: Path, how: str) -> None:
    store = make_store(tmp_path, [Picture("a/0.png", SOURCE, LABEL), Picture("a/1.png", SOURCE, LABEL)])
    images = truth = tmp_path / "images"
    if how != "itself":
        truth = tmp_path / "truth"
        shutil.copytree(images, truth)
        if how == "link":
            (truth / "a" / "0.png").unlink()
            (truth / "a" / "0.png").hardlink_to(images / "a" / "0.png")
        if how == "copy without its source":
            shutil.rmtree(images)
    save_png(truth / "a" / "1.png", truth_of(1))
    if how == "itself":
        store = make_store(tmp_path / "again", [Picture("a/0.png", SOURCE, LABEL), Picture("a/1.png", SOURCE, LABEL)])
        truth = tmp_path / "again" / "images"
        save_png(truth / "a" / "1.png", truth_of(1))
    result = evaluated(store, truth, scale=1000)
    assert [score.id for score in result.images] == ["default/a/1.png"]
    (failure,) = result.not_compared
    assert failure.id == "default/a/0.png"
    assert failure.reason.startswith("a/0.png: the image is its own ground truth, one and the same file")
    assert result.without_image == ()


def test_ground_truth_of_an_images_name_and_size_is_not_the_image(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture("0.png", SOURCE, LABEL)])
    size = (tmp_path / "images" / "0.png").stat().st_size
    path = tmp_path / "truth" / "0.png"
    save_png(path, np.linspace(1, 2, SOURCE[0] * SOURCE[1]).reshape(SOURCE))
    path.write_bytes(path.read_bytes() + b"\0" * (size - path.stat().st_size))
    assert path.stat().st_size == size
    assert len(evaluated(store, tmp_path / "truth", scale=1000).images) == 1


# Too little to compare


def test_fits_without_a_rest_are_no_results(store: Store, tmp_path: Path) -> None:
    write_truth(tmp_path, range(6))
    known = np.flatnonzero((truth_of(1) > 0) & (np.kron(made_label(1, LABEL)[1], np.ones((2, 2))) > 0))
    for number, count in ((1, 1), (2, 2), (3, 99)):
        sparse = np.zeros(SOURCE, np.float32)
        sparse.flat[known[:count]] = truth_of(1).flat[known[:count]]
        np.save(tmp_path / f"{number}.npy", sparse)
    np.save(tmp_path / "4.npy", np.full(SOURCE, 2, np.float32))
    np.save(tmp_path / "5.npy", np.where(truth_of(1) > 5, 2.0, 2.001).astype(np.float32))
    result = evaluated(store, tmp_path)
    assert [score.id for score in result.images] == ["default/0.png"]
    assert result.mean["abs_rel"] == result.images[0].abs_rel > 0
    reasons = {failure.id[8]: failure.reason for failure in result.not_compared}
    for number in ("1", "2"):
        assert "which alignment by scale-shift fits exactly" in reasons[number]
    assert "have ground truth from 0.001 to 80 m and a label, fewer than the 100 of --min-pixels" in reasons["3"]
    for number in ("4", "5"):
        assert "its ground truth is the same depth everywhere (2 m), which alignment by" in reasons[number]
    fewer = evaluated(store, tmp_path, min_pixels=1)
    assert [score.id for score in fewer.images] == ["default/0.png", "default/3.png"]


def test_without_a_fit_one_pixel_and_a_flat_wall_are_results(metric_store: Store, tmp_path: Path) -> None:
    one = np.zeros(SOURCE, np.float32)
    one[14, 14] = 3
    np.save(tmp_path / "0.npy", one)
    np.save(tmp_path / "1.npy", np.full(SOURCE, 2, np.float32))
    assert [score.pixels == 1 for score in evaluated(metric_store, tmp_path, min_pixels=1).images] == [True, False]
    result = evaluated(metric_store, tmp_path)
    (wall,) = result.images
    assert (wall.id, wall.scale, wall.shift) == ("default/1.png", 1.0, 0.0)
    assert result.notes == ()
    (scaled,) = evaluated(metric_store, tmp_path, align="scale").images
    assert scaled.shift == 0.0 != scaled.abs_rel
    (tmp_path / "0.npy").unlink()
    with pytest.raises(GroundTruthError, match="the same depth everywhere"):
        evaluated(metric_store, tmp_path, align="scale-shift")


# Markers


@pytest.mark.parametrize("scale", [1000, 256])
def test_the_largest_value_of_16_bits_is_missing_and_told(store: Store, tmp_path: Path, scale: int) -> None:
    """7-Scenes and Stanford's 2D-3D-S mark missing depth by 65535."""
    holes = int((truth_of(0) == 0).sum())
    for name, filled in (("zero", 0), ("largest", 65535)):
        values = np.round(truth_of(0) * scale).astype(np.uint16)
        values[values == 0] = filled
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "0.png")
    want, found = (evaluated(store, tmp_path / name, scale=scale) for name in ("zero", "largest"))
    assert found.images == want.images
    assert kinds(want) == []
    (note,) = [note for note in found.notes if note.kind == "largest-value"]
    assert note.images == ("default/0.png",)
    assert f"{holes:,} pixels with the largest value of their file's type (65,535 in 16 bits)" in note.text


@pytest.mark.parametrize(("marker", "end"), [(65.535, "largest"), (0.01, "smallest")])
def test_a_frequent_value_at_an_end_is_noted_and_can_be_left_out(
    store: Store, tmp_path: Path, marker: float, end: str
) -> None:
    values = truth_of(0)
    holes = values == 0
    np.save(tmp_path / "0.npy", np.where(holes, np.float32(marker), values))
    np.save(tmp_path / "1.npy", truth_of(1))
    result = evaluated(store, tmp_path)
    (note,) = [note for note in result.notes if note.kind == "frequent-value"]
    assert note.images == ("default/0.png",)
    assert (
        f"{holes.mean():.0%} of the ground truth of default/0.png is exactly {marker} m, its {end} value" in note.text
    )
    assert "--missing" in note.text
    left_out = evaluated(store, tmp_path, missing=(marker,))
    assert kinds(left_out) == []
    np.save(tmp_path / "0.npy", values)
    assert evaluated(store, tmp_path).images == left_out.images


def test_a_mask_leaves_out_what_is_not_measured(store: Store, tmp_path: Path) -> None:
    """DIODE: filled values under the mask, which is no ground truth without an image."""
    values = truth_of(0)
    np.save(tmp_path / "0_depth.npy", np.where(values > 0, values, 30)[:, :, None])
    np.save(tmp_path / "0_depth_mask.npy", (values > 0).astype(np.float32))
    options: dict[str, Any] = {"pattern": "{dir}/{stem}_depth.npy"}
    without = evaluated(store, tmp_path, **options)
    assert without.without_image == ("0_depth_mask.npy",)
    result = evaluated(store, tmp_path, **options, mask_pattern="{dir}/{stem}_depth_mask.npy")
    assert result.without_image == ()
    (tmp_path / "plain").mkdir()
    np.save(tmp_path / "plain" / "0.npy", values)
    assert result.images == evaluated(store, tmp_path / "plain").images != without.images
    np.save(tmp_path / "0_depth_mask.npy", np.zeros(SOURCE))
    with pytest.raises(GroundTruthError, match="and a label \\(it is empty within its mask\\)"):
        evaluated(store, tmp_path, **options, mask_pattern="{dir}/{stem}_depth_mask.npy")


# Units and quantities


def agreeing(tmp_path: Path, count: int = 3) -> tuple[Store, list[np.ndarray]]:
    """A store of labels, and depth to which they are inverse but for noise."""
    store = make_store(tmp_path, [Picture(f"{n}.png", SOURCE, LABEL) for n in range(count)])
    depths = []
    for number in range(count):
        disparity = np.kron(made_label(number, LABEL)[0], np.ones((2, 2), np.float32))
        depths.append(10 / (disparity + 1 + np.random.default_rng(number).random(SOURCE)).astype(np.float32))
    return store, depths


def test_inverse_depth_taken_for_depth_is_noted_and_can_be_said(tmp_path: Path) -> None:
    store, depths = agreeing(tmp_path)
    for name, change in (("depth", lambda z: z), ("inverse", lambda z: 1 / z), ("pixels", lambda z: 50 / z)):
        (tmp_path / name).mkdir()
        for number, depth_HW in enumerate(depths):
            (tmp_path / name / f"{number}.pfm").write_bytes(pfm(change(depth_HW)))
    right = evaluated(store, tmp_path / "depth")
    assert right.notes == ()
    assert all(score.scale > 0 for score in right.images)
    for name, options in (
        ("inverse", {"ground_truth_quantity": "inverse"}),
        ("pixels", {"ground_truth_quantity": "disparity", "baseline_focal": 50.0}),
    ):
        wrong = evaluated(store, tmp_path / name)
        (note,) = [note for note in wrong.notes if note.kind == "against-truth"]
        assert note.images == tuple(f"default/{n}.png" for n in range(3))
        assert "labels run against the ground truth in 3 of 3 images" in note.text
        assert "is it inverse depth or disparity? Say so with --ground-truth-quantity" in note.text
        assert all(score.scale < 0 for score in wrong.images)
        found = evaluated(store, tmp_path / name, **options)
        assert found.notes == ()
        for score, want in zip(found.images, right.images, strict=True):
            assert (score.scale, score.abs_rel, score.rmse) == pytest.approx((want.scale, want.abs_rel, want.rmse))
    (note,) = evaluated(store, tmp_path / "depth", ground_truth_quantity="inverse", max_depth=1e3).notes
    assert "is it depth rather than inverse? Leave out --ground-truth-quantity" in note.text


@pytest.mark.parametrize("align", ["none", "scale", "scale-shift"])
def test_labels_in_metres_against_inverse_depth_are_noted_however_they_are_aligned(
    tmp_path: Path, align: str, metric_store: Store
) -> None:
    for number in range(3):
        label_HW = np.kron(made_label(number, LABEL)[0], np.ones((2, 2), np.float32))
        np.save(tmp_path / f"{number}.npy", label_HW)
    assert evaluated(metric_store, tmp_path, align=align).notes == ()
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", 1 / np.load(tmp_path / f"{number}.npy"))
    (note,) = evaluated(metric_store, tmp_path, align=align).notes
    assert (note.kind, len(note.images)) == ("against-truth", 3)


def test_a_single_label_that_runs_against_its_truth_is_named_with_another_cause(tmp_path: Path) -> None:
    store, depths = agreeing(tmp_path)
    (tmp_path / "truth").mkdir()
    for number, depth_HW in enumerate(depths):
        np.save(tmp_path / "truth" / f"{number}.npy", 1 / depth_HW if number == 1 else depth_HW)
    (note,) = evaluated(store, tmp_path / "truth").notes
    assert (note.kind, note.images) == ("against-truth", ("default/1.png",))
    assert "in 1 of 3 images" in note.text
    assert "their labels are wrong, or their ground truth is of other images" in note.text


def test_truth_outside_of_the_range_is_noted(store: Store, tmp_path: Path) -> None:
    far = truth_of(0)
    far[:7] *= 100
    np.save(tmp_path / "0.npy", far)
    np.save(tmp_path / "1.npy", truth_of(1))
    result = evaluated(store, tmp_path)
    (note,) = [note for note in result.notes if note.kind == "outside-range"]
    assert note.images == ("default/0.png",)
    assert "12% of the ground truth is outside of 0.001 to 80 m and does not count, most of it in 1 image" in note.text
    assert "frequent-value" not in kinds(result)
    assert kinds(evaluated(store, tmp_path, max_depth=5000)) == []
    np.save(tmp_path / "2.npy", truth_of(2))
    assert kinds(evaluated(store, tmp_path)) == []


@pytest.mark.parametrize(("factor", "metres"), [(1e-3, "0.00604 m"), (1e3, "6.04e+03 m")])
def test_depth_in_the_wrong_unit_is_noted(store: Store, tmp_path: Path, factor: float, metres: str) -> None:
    np.save(tmp_path / "0.npy", truth_of(0) * factor)
    result = evaluated(store, tmp_path, min_depth=1e-4, max_depth=1e5)
    (note,) = [note for note in result.notes if note.kind == "implausible-depth"]
    assert f"the ground truth is typically {metres}" in note.text
    assert "are --scale and --ground-truth-quantity right?" in note.text


def test_hypersims_distances_are_noted(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "0.depth_meters.npy", truth_of(0))
    options: dict[str, Any] = {"pattern": "{stem}.depth_meters.npy"}
    assert kinds(evaluated(store, tmp_path, **options)) == ["distance"]
    assert kinds(evaluated(store, tmp_path, **options, distance_to_depth=50.0)) == []


@pytest.mark.parametrize(("count", "noted"), [(15, []), (16, ["frequent-value"])])
def test_values_at_the_end_that_are_no_hundredth_are_not_noted(
    store: Store, tmp_path: Path, count: int, noted: list[str]
) -> None:
    depth_HW = np.linspace(1, 5, SOURCE[0] * SOURCE[1], dtype=np.float32).reshape(SOURCE)
    depth_HW.flat[-count:] = 5
    np.save(tmp_path / "0.npy", depth_HW)
    assert kinds(evaluated(store, tmp_path)) == noted


def test_a_png_still_needs_a_scale_in_every_quantity(store: Store, tmp_path: Path) -> None:
    save_png(tmp_path / "0.png", truth_of(0))
    for options in ({}, {"ground_truth_quantity": "inverse"}):
        with pytest.raises(UsageError, match="needs --scale"):
            evaluated(store, tmp_path, **options)
