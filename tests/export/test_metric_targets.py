"""The targets that hold metres: read back by the formula that their readers publish, and equal to the store.

What those readers do is written here again from their sources: KITTI's development kit; ultralytics
``data/utils.py`` and ``data/dataset.py`` (8.4.190); Depth Anything V2 ``metric_depth/dataset``; MoGe
``moge/utils/io.py`` and ``docs/train.md``. Where ultralytics is
installed, it reads itself.

Axes: H row, W column.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from exported import READERS, bytes_of, export, small_store
from metric_scenes import METRIC, SCENES, SHAPE, SOURCE, exact_depth, metric_store, scene_picture
from numpy.typing import NDArray
from PIL import Image, ImageOps
from storemaker import Picture, make_store

from depthsieve.core.errors import UsageError
from depthsieve.export.resize import resize_depth
from depthsieve.export.split import split_of
from depthsieve.scenes import render_scene
from depthsieve.store import Store

METRES = ("kitti", "ultralytics", "depth-anything-v2", "moge")


def expected(image_id: str, drop: float | None = None, store: Store | None = None) -> NDArray[np.float32]:
    """A label in metres, NaN where it is invalid or masked."""
    if store is not None and drop is not None:
        keep_HW = store[image_id].mask(drop)
    else:
        keep_HW = np.ones(SHAPE, bool)
        keep_HW[:3, :5] = False
    return np.where(keep_HW, exact_depth(SCENES[image_id.removeprefix("default/")]), np.nan).astype(np.float32)


def id_of(photo: Path) -> str:
    """Whose photo that is, by what it shows."""
    with Image.open(photo) as image:
        shown_HW3 = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    off = {name: np.abs(render_scene(seed, *SOURCE).rgb_HW3 - shown_HW3).mean() for name, seed in SCENES.items()}
    return f"default/{min(off, key=lambda name: off[name])}"


def agree(read_HW: NDArray[Any], wanted_HW: NDArray[Any], within: float | NDArray[Any], far: float = math.inf) -> None:
    """Invalid where it should be, and else as near as stated."""
    wanted_HW = np.where(wanted_HW > far, np.nan, wanted_HW)
    np.testing.assert_array_equal(np.isnan(read_HW), np.isnan(wanted_HW))
    off_HW = np.abs(read_HW - wanted_HW)
    assert (off_HW[~np.isnan(off_HW)] <= np.broadcast_to(within, off_HW.shape)[~np.isnan(off_HW)] * 1.001).all()


@pytest.mark.parametrize("drop", [None, 0.4])
def test_kitti(tmp_path: Path, drop: float | None) -> None:
    store = metric_store(tmp_path)
    export(store, tmp_path / "out", "kitti", mask=drop)
    maps = sorted((tmp_path / "out" / "depth").rglob("*.png"))
    assert len(maps) == len(SCENES)
    for path in maps:
        read_HW = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float32) / 256
        stem = tmp_path / "out" / "image" / path.relative_to(tmp_path / "out" / "depth")
        photo = next(one for one in stem.parent.iterdir() if one.stem == stem.stem)
        wanted_HW = resize_depth(expected(id_of(photo), drop, store), SOURCE)
        agree(np.where(read_HW > 0, read_HW, np.nan), wanted_HW, 1 / 512)


def load_depth(path: Path, scale: float) -> NDArray[np.float32]:
    """As ultralytics does."""
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "I;16")
        return np.asarray(image).astype(np.float32) / np.float32(scale)


def read_ultralytics(folder: Path) -> dict[str, dict[str, tuple[Path, Path]]]:
    """Photo and depth by split and id, as its dataset pairs them; no YAML reader is needed for what is written."""
    lines = (line.partition("#")[0].strip() for line in (folder / "dataset.yaml").read_text().splitlines())
    fields = dict(line.split(": ") for line in lines if ": " in line and not line.startswith("0"))
    assert (fields["nc"], fields["channels"]) == ("1", "3")
    found: dict[str, dict[str, tuple[Path, Path]]] = {}
    for split in ("train", "val"):
        found[split] = {}
        for photo in sorted((folder / fields[split]).glob("**/*.*")):
            parts = list(photo.parts)
            last = max(index for index, part in enumerate(parts) if part == "images")
            parts[last] = "depth"
            found[split][id_of(photo)] = photo, Path(*parts).with_suffix(".png")
    return found


def test_ultralytics(tmp_path: Path) -> None:
    store = metric_store(tmp_path)
    summary = export(store, tmp_path / "out", "ultralytics", options={"val": 0.6, "depth_scale": 256})
    found = read_ultralytics(tmp_path / "out")
    assert {split: sorted(images) for split, images in found.items()} == {
        split: [image_id for image_id in store if split_of(image_id, 0.6) == split] for split in ("train", "val")
    }
    assert found["train"]
    assert found["val"]
    for image_id, (photo, depth) in {**found["train"], **found["val"]}.items():
        read_HW = load_depth(depth, 256)
        with Image.open(photo) as image:
            assert abs(math.log(read_HW.shape[1] / read_HW.shape[0] / (image.width / image.height))) <= 0.02
        agree(np.where(read_HW > 0, read_HW, np.nan), expected(image_id), 1 / 512)
    assert summary.notes == ()


def test_ultralytics_itself_reads_it(tmp_path: Path) -> None:
    utils = pytest.importorskip("ultralytics.data.utils", reason="ultralytics is not installed")
    store = metric_store(tmp_path)
    export(store, tmp_path / "out", "ultralytics", options={"val": 0.6})
    data = utils.check_det_dataset(str(tmp_path / "out" / "dataset.yaml"))
    assert (data["depth_scale"], data["names"]) == (1000, {0: "depth"})
    for split, images in read_ultralytics(tmp_path / "out").items():
        assert Path(data[split]) == tmp_path / "out" / "images" / split
        for image_id, (photo, depth) in images.items():
            name, shape, good, missing, corrupt, message = utils.verify_image_depth((str(photo), str(depth), "", 1000))
            assert (name, shape, good, missing, corrupt, message) == (str(photo), SOURCE, 1, 0, 0, "")
            read_HW = utils.load_depth(depth, 1000)
            agree(np.where(read_HW > 0, read_HW, np.nan), expected(image_id), 1 / 2000, far=65.535)


def test_what_is_too_far_is_invalid_and_counted(tmp_path: Path) -> None:
    summary = export(metric_store(tmp_path), tmp_path / "out", "ultralytics", options={"val": 0.6})
    pixels = [int((expected(f"default/{name}") > 65.535).sum()) for name in SCENES]
    told = f"{sum(pixels):,} pixels of {sum(map(bool, pixels))} images farther than 65.535 m"
    assert sum(pixels) > 100
    assert [note.startswith(told) for note in summary.notes] == [True]
    for images in read_ultralytics(tmp_path / "out").values():
        for image_id, (_, depth) in images.items():
            read_HW = load_depth(depth, 1000)
            agree(np.where(read_HW > 0, read_HW, np.nan), expected(image_id), 1 / 2000, far=65.535)


def test_a_split_without_images_is_told_and_names_the_other(tmp_path: Path) -> None:
    summary = export(metric_store(tmp_path), tmp_path / "out", "ultralytics", options={"val": 0.0, "depth_scale": 256})
    assert summary.notes == (
        "of 4 images 4 are for training and 0 for validation, so dataset.yaml names the same folder for both; --val "
        "sets the share",
    )
    found = read_ultralytics(tmp_path / "out")
    assert found["val"] == found["train"]


def test_depth_of_another_aspect_than_the_photo_is_written_as_large_as_the_photo(tmp_path: Path) -> None:
    odd = Picture("odd.png", (30, 50), (14, 28))  # 1.67 and 2
    store = make_store(tmp_path, [odd], spec=METRIC)
    export(store, tmp_path / "out", "ultralytics")
    with Image.open(next((tmp_path / "out" / "depth").rglob("*.png"))) as image:
        assert image.size == (50, 30)


def test_the_split_is_stable_and_about_as_large_as_asked() -> None:
    ids = [f"default/{number}.jpg" for number in range(2000)]
    chosen = {image_id for image_id in ids if split_of(image_id, 0.1) == "val"}
    assert 150 < len(chosen) < 250
    assert chosen <= {image_id for image_id in ids if split_of(image_id, 0.2) == "val"}
    assert split_of("default/0.jpg", 0.1) == "train"  # by what sha256 gives, on every machine
    assert split_of("default/1.jpg", 0.1) == "train"


def read_list(path: Path) -> list[tuple[str, str]]:
    """As Depth Anything V2 does."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(line.split(" ")[0], line.split(" ")[1]) for line in lines]


def read_hypersim(path: str) -> NDArray[np.float64]:
    """As Depth Anything V2 does."""
    width, height, focal = 1024, 768, 886.81
    x_HW = np.linspace((-0.5 * width) + 0.5, (0.5 * width) - 0.5, width).reshape(1, width).repeat(height, 0)
    y_HW = np.linspace((-0.5 * height) + 0.5, (0.5 * height) - 0.5, height).reshape(height, 1).repeat(width, 1)
    plane_HW3 = np.stack([x_HW, y_HW, np.full((height, width), focal)], 2).astype(np.float32)
    with h5py.File(path, "r") as file:
        return np.asarray(np.array(file["dataset"]) / np.linalg.norm(plane_HW3, 2, 2) * focal)


def read_vkitti(path: str) -> NDArray[np.float64]:
    """As Depth Anything V2 does, whose valid pixels are those of 80 m or less."""
    depth_HW = cv2.imread(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH) / 100.0
    return np.where(depth_HW <= 80, depth_HW, np.nan)


@pytest.mark.parametrize(
    ("style", "read", "shape", "within"),
    [("vkitti", read_vkitti, SHAPE, 0.005), ("hypersim", read_hypersim, (768, 1024), 1e-4)],
)
def test_depth_anything_v2(
    tmp_path: Path, style: str, read: Callable[[str], NDArray[np.float64]], shape: tuple[int, int], within: float
) -> None:
    store = metric_store(tmp_path)
    export(store, tmp_path / "out", "depth-anything-v2", options={"style": style, "val": 0.6})
    pairs = {split: read_list(tmp_path / "out" / f"{split}.txt") for split in ("train", "val")}
    found = {split: sorted(id_of(Path(image)) for image, _ in both) for split, both in pairs.items()}
    assert found == {split: [one for one in store if split_of(one, 0.6) == split] for split in ("train", "val")}
    for image, depth in pairs["train"] + pairs["val"]:
        assert cv2.imread(image).shape == (*SOURCE, 3)
        agree(read(depth), resize_depth(expected(id_of(Path(image))), shape), within)


def test_depth_anything_v2_needs_paths_without_spaces(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a b has a space in it.*export into a folder without one"):
        export(metric_store(tmp_path), tmp_path / "a b", "depth-anything-v2")
    names = {"x y.jpg": 1, "x\u00a0y.jpg": 2, "x\u3000y.jpg": 3, "x_y.jpg": 4}
    store = metric_store(tmp_path / "more", names=names)
    export(store, tmp_path / "out", "depth-anything-v2", options={"val": 0.0})
    pairs = read_list(tmp_path / "out" / "train.txt")
    assert len({image for image, _ in pairs}) == len(pairs) == 4
    assert all(Path(one).is_file() for pair in pairs for one in pair)


def read_moge(path: Path) -> NDArray[np.float32]:
    """As MoGe's ``read_depth`` does."""
    with Image.open(path) as image:
        near, far = float(image.info["near"]), float(image.info["far"])
        code_HW = np.array(image)
    unknown_HW, infinite_HW = code_HW == 0, code_HW == 65535
    t_HW = (code_HW.astype(np.float32) - 1) / 65533
    depth_HW = near ** (1 - t_HW) * far**t_HW
    depth_HW[unknown_HW] = np.nan
    depth_HW[infinite_HW] = np.inf
    return depth_HW


def test_moge(tmp_path: Path) -> None:
    store = metric_store(tmp_path)
    export(store, tmp_path / "out", "moge")
    paths = (tmp_path / "out" / ".index.txt").read_text().splitlines()
    assert len(paths) == len(SCENES)
    seen = set()
    for path in paths:
        instance = tmp_path / "out" / path
        with Image.open(instance / "image.jpg") as image:
            assert image.format == "JPEG"
        meta = json.loads((instance / "meta.json").read_text())
        image_id = id_of(instance / "image.jpg")
        assert (meta["id"], meta["focal_from"]) == (image_id, "exif-35mm")
        focal = render_scene(SCENES[image_id.removeprefix("default/")], *SOURCE).focal_px
        intrinsics = [[focal / SOURCE[1], 0, 0.5], [0, focal / SOURCE[0], 0.5], [0, 0, 1]]
        np.testing.assert_allclose(meta["intrinsics"], intrinsics, rtol=1e-4)
        wanted_HW = expected(image_id)
        ratio = np.nanmax(wanted_HW) / np.nanmin(wanted_HW)
        agree(read_moge(instance / "depth.png"), wanted_HW, wanted_HW * (math.log(ratio) / 131066 + 1e-6))
        seen.add(image_id)
    assert seen == set(store)


def test_moge_needs_a_focal_length_or_an_angle_of_view(tmp_path: Path) -> None:
    pictures = [scene_picture("a.jpg", 1), scene_picture("b.jpg", 2, focal_px=0.0)]
    store = make_store(tmp_path, pictures, spec=METRIC)
    summary = export(store, tmp_path / "out", "moge")
    assert [one.id for one in summary.failed] == ["default/b.jpg"]
    assert "say the angle of view with --fov" in summary.failed[0].reason
    assert summary.remedy == "export into another folder with --fov for those without a focal length"
    summary = export(store, tmp_path / "again", "moge", options={"fov": 60.0})
    assert not summary.failed
    assert summary.notes == ("1 image without a known focal length got that of --fov 60",)
    meta = json.loads((tmp_path / "again" / "default" / "b" / "meta.json").read_text())
    assert meta["focal_from"] == "--fov"
    assert meta["intrinsics"][0][0] == pytest.approx(0.5 / math.tan(math.radians(30)))
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"none of 1 image has a known focal length.*: say .* with --fov DEGREES"):
            export(store, tmp_path / "third", "moge", subset=["default/b.jpg"], dry_run=dry_run)
    assert not (tmp_path / "third").exists()
    with pytest.raises(UsageError, match="--fov must be degrees"):
        export(store, tmp_path / "third", "moge", options={"fov": 180.0})


def test_exr_has_metres_in_the_channel_for_depth(tmp_path: Path) -> None:
    store = metric_store(tmp_path)
    export(store, tmp_path / "out", "exr")
    found = READERS["exr"].read(tmp_path / "out")
    assert set(found) == set(store)
    for image_id, read in found.items():
        np.testing.assert_array_equal(read.depth_HW, expected(image_id))


def test_a_photo_that_exif_turns_is_upright_like_its_depth_to_readers_that_follow_exif(tmp_path: Path) -> None:
    store = make_store(tmp_path, [scene_picture("turned.jpg", 5, orientation=6)], spec=METRIC)
    export(store, tmp_path / "out", "kitti")
    photo_HW3 = cv2.imread(str(next((tmp_path / "out" / "image").rglob("*.jpg"))))
    depth_HW = cv2.imread(str(next((tmp_path / "out" / "depth").rglob("*.png"))), cv2.IMREAD_UNCHANGED)
    assert photo_HW3.shape[:2] == depth_HW.shape == SOURCE
    assert np.abs(photo_HW3[..., ::-1].astype(int) - render_scene(5, *SOURCE).rgb_HW3).mean() < 12


@pytest.mark.parametrize("target", METRES)
def test_relative_disparity_has_no_metres(tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError, match="relative disparity has no metres"):
        export(small_store(tmp_path), tmp_path / "out", target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", [*METRES, "exr"])
def test_the_same_store_gives_the_same_bytes(tmp_path: Path, target: str) -> None:
    store = metric_store(tmp_path)
    options: dict[str, Any] = {"val": 0.6} if target in ("ultralytics", "depth-anything-v2") else {}
    export(store, tmp_path / "out", target, options=options)
    first = bytes_of(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "first")
    export(store, tmp_path / "out", target, options=options, threads=3)
    assert bytes_of(tmp_path / "out") == first


@pytest.mark.parametrize(
    ("target", "options"),
    [
        *((target, {}) for target in ("kitti", "ultralytics", "moge")),
        *(("depth-anything-v2", {"style": style, "val": 0.0}) for style in ("vkitti", "hypersim")),
    ],
)
def test_the_code_in_the_readme_reads_metres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, options: dict[str, Any]
) -> None:
    export(metric_store(tmp_path, names={"a.jpg": 6}), tmp_path / "out", target, options=options)
    monkeypatch.chdir(tmp_path / "out")
    found: dict[str, Any] = {}
    exec((tmp_path / "out" / "README.md").read_text().split("```python")[1].split("```")[0], found)
    read_HW = found.get("metres", found.get("depth"))
    usable_HW = (read_HW > 0) & (read_HW < 655)
    assert np.median(read_HW[usable_HW]) == pytest.approx(np.median(exact_depth(6)), rel=0.03)
