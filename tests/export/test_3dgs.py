"""The target ``3dgs``: read as gaussian-splatting reads it, inverse depth is that of the COLMAP model.

What that reader does is written here again from its sources: names and the median scale from
``scene/dataset_readers.py``, the division from ``utils/camera_utils.py``, the rest from ``scene/cameras.py``.

Axes: H row, W column.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from colmap_models import Shot, shoot, write_model
from exported import bytes_of, export
from metric_scenes import METRIC, SHAPE, SOURCE, exact_depth, metric_store, scene_picture
from numpy.typing import NDArray
from storemaker import Picture, make_store

from depthsieve.core.errors import DepthsieveError, LoaderError, UsageError
from depthsieve.scenes import Scene, render_scene
from depthsieve.store import Store

UNIT = 3.7
"""Metres that are one unit of the models here."""

NAMES = {"cam1/a.jpg": 5, "cam1/b.jpg": 6, "cam2/a.jpg": 8, "c.png": 4}
"""Photos as COLMAP calls them, and the seed of the scene that each shows: rooms, without sky."""


def relative(seed: int) -> NDArray[np.float32]:
    """What a perfect relative teacher says: disparity up to a scale and a shift that differ by image."""
    disparity_HW = 1 / exact_depth(seed).astype(np.float64)
    return ((2 + seed) * disparity_HW + 0.1 * seed).astype(np.float16).astype(np.float32)


def relative_pictures(names: dict[str, int], **changes: Any) -> list[Picture]:
    return [scene_picture(name, seed, **{"depth_HW": relative(seed), **changes}) for name, seed in names.items()]


def shots(names: dict[str, int], size: tuple[int, int] = SOURCE, **changes: Any) -> list[Shot]:
    """Points that COLMAP found, at photos of some ``size``."""
    return [_shot(name, render_scene(seed, *size), seed, **changes) for name, seed in names.items()]


def _shot(name: str, scene: Scene, seed: int, **changes: Any) -> Shot:
    return shoot(name, scene.depth_HW, scene.focal_px, **{"points": 150, "seed": seed, "unit": UNIT, **changes})


def read(scene: Path, out: Path, size: tuple[int, int]) -> dict[str, NDArray[np.float32] | None]:
    """Inverse depth by photo as training sees it at a ``size`` [H,W]; None for one that is left out."""
    params = json.loads((out / "sparse" / "0" / "depth_params.json").read_text())
    scales = np.array([params[key]["scale"] for key in params])
    middle = np.median(scales[scales > 0]) if (scales > 0).sum() else 0
    found: dict[str, NDArray[np.float32] | None] = {}
    for line in (scene / "sparse" / "0" / "images.txt").read_text().splitlines()[2::2]:
        name = line.split()[9]
        key = name[: -len(name.split(".")[-1]) - 1]
        map_HW = cv2.imread(str(out / "depths" / f"{key}.png"), -1).astype(np.float32) / float(2**16)
        map_HW = cv2.resize(map_HW, size[::-1])
        map_HW[map_HW < 0] = 0
        scale = params[key]["scale"]
        if scale > 0:
            map_HW = map_HW * scale + params[key]["offset"]
        found[name] = None if scale < 0.2 * middle or scale > 5 * middle else map_HW
    return found


def off(read_HW: NDArray[np.float32] | None, seed: int) -> float:
    """The median error of inverse depth, relative to its median, where the label is valid."""
    assert read_HW is not None
    wanted_HW = UNIT / cv2.resize(exact_depth(seed), read_HW.shape[::-1])
    return float(np.median(np.abs(read_HW - wanted_HW)) / np.median(wanted_HW))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store"), relative_pictures(NAMES))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("scene"), shots(NAMES), text=True)


def test_relative_labels_become_inverse_depth_in_the_units_of_the_model(
    tmp_path: Path, store: Store, scene: Path
) -> None:
    summary = export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    for name, map_HW in read(scene, tmp_path / "out", SHAPE).items():
        assert off(map_HW, NAMES[name]) < 0.01
    assert summary.notes == (
        "60 invalid pixels got the value of the nearest valid one: gaussian-splatting has no invalid pixels",
    )
    fits = {fit["photo"]: fit for fit in json.loads((tmp_path / "out" / "fits.json").read_text())}
    assert set(fits) == set(NAMES)
    for fit in fits.values():
        assert 100 < fit["inliers"] <= fit["points"] <= 150
        assert fit["residual"] < 0.02
        assert fit["id"] == f"default/{fit['photo']}"


def test_metric_labels_do_too_though_their_metres_are_not_those_of_the_model(tmp_path: Path, scene: Path) -> None:
    store = metric_store(tmp_path / "store", names=NAMES)
    export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    for name, map_HW in read(scene, tmp_path / "out", SHAPE).items():
        assert off(map_HW, NAMES[name]) < 0.01


def test_wrong_points_and_unreliable_pixels_lead_the_fit_less_astray_than_upstreams_script(tmp_path: Path) -> None:
    """A quarter of the points is wrong, and a third of the label, which its reliability says."""
    names = {name: seed for name, seed in NAMES.items() if name != "c.png"}
    bad_HW = np.zeros(SHAPE, bool)
    bad_HW[:, :14] = True
    pictures = [
        scene_picture(
            name,
            seed,
            depth_HW=np.where(bad_HW, 0.2 * relative(seed).max() + 0 * relative(seed), relative(seed)),
            reliability_HW=np.where(bad_HW, 60, 180).astype(np.uint8),
        )
        for name, seed in names.items()
    ]
    store = make_store(tmp_path / "store", pictures)
    wild = shots(names)
    for shot in wild:
        shot.z_P[::4] *= np.random.default_rng(0).uniform(0.1, 0.5, len(shot.z_P[::4]))
    scene = write_model(tmp_path / "scene", wild, text=True)
    export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    for name, map_HW in read(scene, tmp_path / "out", SHAPE).items():
        code_HW = cv2.imread(str(tmp_path / "out" / "depths" / f"{name[:-4]}.png"), -1)
        shot = next(shot for shot in wild if shot.name == name)
        ours, theirs = (_good_off(each, names[name], ~bad_HW) for each in (map_HW, _upstream(code_HW, shot)))
        assert ours < 0.02
        assert theirs > 10 * ours


def _good_off(map_HW: NDArray[np.float32] | None, seed: int, good_HW: NDArray[np.bool_]) -> float:
    assert map_HW is not None
    wanted_HW = UNIT / exact_depth(seed)
    return float((np.abs(map_HW - wanted_HW) / wanted_HW)[good_HW].mean())


def _upstream(code_HW: NDArray[np.uint16], shot: Shot) -> NDArray[np.float32]:
    """What its make_depth_scale.py makes of it."""
    map_HW = code_HW.astype(np.float32) / (2**16 - 1)
    at_P2 = (shot.xy_P2 * (map_HW.shape[0] / shot.shape[0])).astype(np.float32)
    mono_P = cv2.remap(map_HW, at_P2[:, :1], at_P2[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
    inverse_P = 1 / shot.z_P
    t, t_mono = np.median(inverse_P), np.median(mono_P)
    scale = np.abs(inverse_P - t).mean() / np.abs(mono_P - t_mono).mean()
    return np.asarray(code_HW / 65536 * scale + t - t_mono * scale, np.float32)


def test_photos_that_were_resized_since_and_distorted_cameras_fit_as_well(tmp_path: Path, store: Store) -> None:
    big = shots(NAMES, (112, 168), camera="OPENCV")
    scene = write_model(tmp_path / "scene", big, text=True)
    summary = export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    for name, map_HW in read(scene, tmp_path / "out", SHAPE).items():
        assert off(map_HW, NAMES[name]) < 0.01
    assert any("cameras of kind OPENCV" in note and "image_undistorter" in note for note in summary.notes)


def test_a_photo_that_exif_turns_is_fitted_as_colmap_and_the_reader_see_it(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", relative_pictures({"a.jpg": 5}, orientation=6))
    upright = render_scene(5, *SOURCE)
    turned = _shot("a.jpg", _turned(upright), 5)
    scene = write_model(tmp_path / "scene", [turned], text=True)
    export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    map_HW = read(scene, tmp_path / "out", SHAPE[::-1])["a.jpg"]
    assert map_HW is not None
    assert off(np.rot90(map_HW, -1), 5) < 0.01
    assert "EXIF orientation not undone" in (tmp_path / "out" / "README.md").read_text()


def _turned(scene: Scene) -> Scene:
    return Scene(np.rot90(scene.rgb_HW3), np.ascontiguousarray(np.rot90(scene.disparity_HW)), "room", 40.0, 0)


def test_names_are_matched_and_what_has_no_partner_is_told(tmp_path: Path) -> None:
    """The labelled folder lies above COLMAP's; one photo was converted; one name could be two labels."""
    pictures = relative_pictures(
        {"site/cam1/a.jpg": 5, "site/c.jpg": 4, "x/b.jpg": 6, "y/b.jpg": 8, "stray.jpg": 10, "twin.jpg": 2}
    )
    store = make_store(tmp_path / "store", pictures)
    known = {"cam1/a.jpg": 5, "c.png": 4, "b.jpg": 6, "lost.jpg": 8, "twin.jpg": 2, "twin.png": 2}
    scene = write_model(tmp_path / "scene", shots(known, points=40), text=True)
    summary = export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    assert summary.left_out == {
        "no photo of the COLMAP model has this name": 3,
        "the COLMAP model has two photos that differ in the suffix alone": 1,
    }
    told = "\n".join(summary.notes)
    assert "1 photo of the model without a label, and so without depth: lost.jpg" in told
    assert "photo b.jpg of the model could be default/x/b.jpg, default/y/b.jpg" in told
    assert "share a file, and get no depth: twin.jpg, twin.png" in told
    assert "3 labels left out, as no photo of the model has the name: default/stray.jpg, default/x/b.jpg" in told
    found = read(scene, tmp_path / "out", SHAPE)  # which fails where a photo of the model has no file
    assert {name for name, map_HW in found.items() if map_HW is not None} == {"cam1/a.jpg", "c.png"}


def test_a_subset_makes_a_name_clear(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", relative_pictures({"x/b.jpg": 6, "y/b.jpg": 8}))
    scene = write_model(tmp_path / "scene", shots({"b.jpg": 8}), text=True)
    options = {"colmap": str(scene)}
    with pytest.raises(LoaderError, match="none of 2 images is exported: no photo of the COLMAP model has this name"):
        export(store, tmp_path / "none", "3dgs", options=options)
    export(store, tmp_path / "out", "3dgs", subset=["default/y/b.jpg"], options=options)
    assert off(read(scene, tmp_path / "out", SHAPE)["b.jpg"], 8) < 0.01


def test_images_that_the_reader_leaves_out_are_named(tmp_path: Path, store: Store) -> None:
    made = shots(NAMES)
    few = Shot("c.png", SOURCE, made[3].xy_P2[:10], made[3].z_P[:10], made[3].focal)
    near = shots({"cam2/a.jpg": 8}, unit=UNIT * 12)  # of another reconstruction
    scene = write_model(tmp_path / "scene", [made[0], made[1], *near, few], text=True)
    summary = export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    told = "\n".join(summary.notes)
    assert "gaussian-splatting leaves out c.png: 10 points, of 11 at least" in told or "c.png: 9 points" in told
    assert "gaussian-splatting leaves out cam2/a.jpg: its scale" in told
    assert "is not within 0.2 to 5 times the median" in told
    found = read(scene, tmp_path / "out", SHAPE)
    assert {name for name, map_HW in found.items() if map_HW is None} == {"c.png", "cam2/a.jpg"}


def test_a_photo_of_another_shape_than_colmap_saw_is_not_fitted(tmp_path: Path, store: Store) -> None:
    made = shots(NAMES)
    square = shots({"c.png": 4}, (64, 64))
    scene = write_model(tmp_path / "scene", [*made[:3], *square], text=True)
    summary = export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    assert any(
        "leaves out c.png: COLMAP saw 64 x 64 pixels, another shape than 84 x 56" in note for note in summary.notes
    )


def test_a_label_need_not_have_the_shape_of_its_photo(tmp_path: Path) -> None:
    """Sides of labels are multiples of what a teacher works in."""
    source = (50, 84)  # 1.68, and a label of 1.5
    store = make_store(tmp_path / "store", relative_pictures({"a.jpg": 5}, source=source, rgb_HW3=None))
    made = _shot("a.jpg", render_scene(5, 2 * SHAPE[0], 2 * SHAPE[1]), 5)
    squeezed = Shot("a.jpg", source, made.xy_P2 * [1, 50 / 56], made.z_P, made.focal)
    scene = write_model(tmp_path / "scene", [squeezed], text=True)
    summary = export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    assert not any("leaves out" in note for note in summary.notes)
    assert off(read(scene, tmp_path / "out", SHAPE)["a.jpg"], 5) < 0.01


def test_nothing_is_said_of_scale_where_nothing_fits(tmp_path: Path) -> None:
    """With scales of 0 alone the reader would take the maps as they are."""
    store = make_store(tmp_path / "store", relative_pictures({"a.jpg": 5}))
    scene = write_model(tmp_path / "scene", shots({"a.jpg": 5}, points=8), text=True)
    summary = export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})
    assert not (tmp_path / "out" / "sparse").exists()
    assert any("no image could be fitted to the model, so sparse/0/depth_params.json" in note for note in summary.notes)


def test_without_a_model_there_are_maps_and_a_word_that_the_scale_is_missing(tmp_path: Path, store: Store) -> None:
    summary = export(store, tmp_path / "out", "3dgs")
    assert "without --colmap there is no sparse/0/depth_params.json" in summary.notes[0]
    assert not (tmp_path / "out" / "sparse").exists()
    for name, seed in NAMES.items():
        map_HW = cv2.imread(str(tmp_path / "out" / "depths" / Path(name).with_suffix(".png")), -1)
        valid_HW = np.ones(SHAPE, bool)
        valid_HW[:3, :5] = False
        assert map_HW.dtype == np.uint16
        assert np.corrcoef(map_HW[valid_HW], relative(seed)[valid_HW])[0, 1] > 0.99999
        assert (map_HW[valid_HW].min(), map_HW[valid_HW].max()) == (0, 65535)


def test_a_pixel_at_the_lens_does_not_take_all_the_codes(tmp_path: Path) -> None:
    depth_HW = exact_depth(5)
    depth_HW[20, 20] = 0.001
    store = make_store(tmp_path, [scene_picture("a.jpg", 5, depth_HW=depth_HW)], spec=METRIC)
    summary = export(store, tmp_path / "out", "3dgs")
    assert any("1 pixel nearer than 1/64 of their image's median depth got that depth" in one for one in summary.notes)
    map_HW = cv2.imread(str(tmp_path / "out" / "depths" / "a.png"), -1)
    assert (map_HW[20, 20], np.unique(map_HW).size > 200) == (65535, True)


def test_a_mask_has_no_value_to_write(tmp_path: Path, store: Store) -> None:
    with pytest.raises(UsageError, match="gaussian-splatting knows no invalid pixels, so --mask has no value"):
        export(store, tmp_path / "out", "3dgs", mask=0.1)


def test_names_that_leave_the_folder_are_refused(tmp_path: Path, store: Store) -> None:
    for name in ("../../a.jpg", "/tmp/a.jpg", "nodot", "a//b.jpg"):
        scene = write_model(tmp_path / str(len(name)), shots({name: 5}), text=True)
        with pytest.raises(DepthsieveError, match="has no name that a file could be made of"):
            export(store, tmp_path / "out", "3dgs", options={"colmap": str(scene)})


def test_a_folder_is_resumed_with_the_same_model_only(tmp_path: Path, store: Store) -> None:
    scene = write_model(tmp_path / "scene", shots(NAMES), text=True)
    options = {"colmap": str(scene)}
    export(store, tmp_path / "out", "3dgs", options=options)
    first = bytes_of(tmp_path / "out")
    assert export(store, tmp_path / "out", "3dgs", options=options, threads=3).images_now == 0
    (tmp_path / "out" / "depths" / "c.png").unlink()
    export(store, tmp_path / "out", "3dgs", options=options, threads=3)
    assert bytes_of(tmp_path / "out") == first
    points = scene / "sparse" / "0" / "points3D.txt"
    points.write_text(points.read_text() + "1000000 0 0 1 0 0 0 0\n")
    with pytest.raises(UsageError, match="colmap_sha256"):
        export(store, tmp_path / "out", "3dgs", options=options)


def test_the_code_in_the_readme_reads_it(tmp_path: Path, store: Store, scene: Path, monkeypatch: Any) -> None:
    for out, options, name in (
        (tmp_path / "one", {"colmap": str(scene)}, "inverse_depth"),
        (tmp_path / "two", {}, "value"),
    ):
        export(store, out, "3dgs", options=options)
        monkeypatch.chdir(out)
        found: dict[str, Any] = {}
        exec((out / "README.md").read_text().split("```python")[1].split("```")[0], found)
        assert found[name].shape == SHAPE
        assert 0 <= found[name].min() < found[name].max()
