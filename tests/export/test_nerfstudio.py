"""The target ``nerfstudio``: read as its dataparser reads it, by its rules written here again, and by itself where it
is installed (``data/dataparsers/nerfstudio_dataparser.py``, ``data/utils/data_utils.py``).

Axes: H row, W column.
"""

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from exported import bytes_of, export, small_store
from metric_scenes import METRIC, SHAPE, SOURCE, exact_depth, metric_store, scene_picture
from numpy.typing import NDArray
from PIL import Image
from storemaker import make_store

from depthsieve.core.errors import DepthsieveError, UsageError
from depthsieve.scenes import render_scene
from depthsieve.store import Store

FRAMES = {"images/cam1/a.jpg": 5, "./images/cam2/a.png": 6, "images/b.jpg": 1}
"""What transforms.json calls its photos; each is labelled without ``images/``. The last is of a park, with sky."""


def write_transforms(folder: Path, frames: dict[str, int], **more: Any) -> Path:
    """``transforms.json`` with its photos beside it."""
    height, width = SOURCE
    meta: dict[str, Any] = {"fl_x": 60.0, "fl_y": 60.0, "cx": width / 2, "cy": height / 2, "h": height, "w": width}
    meta |= {"k1": 0.1, "applied_scale": 1.0, **more, "frames": []}
    for number, (name, seed) in enumerate(frames.items()):
        pose = np.eye(4)
        pose[:3, 3] = [number, 0, 1]
        meta["frames"].append({"file_path": name, "transform_matrix": pose.tolist(), "colmap_im_id": number})
        if not name.startswith("/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(render_scene(seed, *SOURCE).rgb_HW3).save(folder / name)
    path = folder / "transforms.json"
    path.write_text(json.dumps(meta))
    return path


def read(out: Path, shape: tuple[int, int] = SHAPE) -> dict[str, NDArray[np.float32]]:
    """Metres by file_path, 0 where unknown, resized as it does."""
    frames = json.loads((out / "transforms.json").read_text())["frames"]
    assert all("depth_file_path" in frame for frame in frames)  # for every frame or for none
    found = {}
    for frame in frames:
        assert (out / frame["file_path"]).is_file()
        path = out / frame["depth_file_path"]
        if path.suffix == ".npy":
            map_HW = np.load(path).astype(np.float32) * 1e-3
        else:
            map_HW = cv2.imread(str(path.absolute()), cv2.IMREAD_ANYDEPTH).astype(np.float32) * 1e-3
        found[frame["file_path"]] = cv2.resize(map_HW, shape[::-1], interpolation=cv2.INTER_NEAREST)
    return found


def wanted(seed: int, farthest: float) -> NDArray[np.float32]:
    depth_HW = exact_depth(seed).copy()
    depth_HW[:3, :5] = 0
    depth_HW[depth_HW > farthest] = 0
    return depth_HW


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    names = {"cam1/a.jpg": 5, "cam2/a.png": 6, "b.jpg": 1}
    return metric_store(tmp_path_factory.mktemp("store"), names=names)


@pytest.mark.parametrize(("kind", "farthest", "within"), [("png", 65.535, 0.0005), ("npy", 1e9, 1e-5)])
def test_every_frame_has_its_depth_in_millimetres(
    tmp_path: Path, store: Store, kind: str, farthest: float, within: float
) -> None:
    given = write_transforms(tmp_path / "scene", FRAMES)
    options = {"transforms": str(given), "depth_format": kind}
    summary = export(store, tmp_path / "out", "nerfstudio", options=options)
    found = read(tmp_path / "out")
    assert set(found) == set(FRAMES)
    for name, map_HW in found.items():
        expected_HW = wanted(FRAMES[name], farthest)
        np.testing.assert_array_equal(map_HW > 0, expected_HW > 0)
        assert np.abs(map_HW - expected_HW).max() <= within * 1.01
    too_far = int((wanted(1, 1e9) > 65.535).sum())
    assert too_far > 50
    assert [f"{too_far:,} pixels of 1 image farther than 65.535 m" in note for note in summary.notes] == (
        [False, True] if kind == "png" else [False]
    )
    assert "only where the poses of transforms.json are in metres" in summary.notes[0]


def test_transforms_keep_all_else_and_photos_are_the_frames_own(tmp_path: Path, store: Store) -> None:
    given = write_transforms(tmp_path / "scene", FRAMES, camera_model="OPENCV")
    other = io.BytesIO()
    Image.new("RGB", SOURCE[::-1]).save(other, "JPEG")
    (tmp_path / "scene" / "images" / "b.jpg").write_bytes(other.getvalue())  # undistorted, say
    export(store, tmp_path / "out", "nerfstudio", options={"transforms": str(given.parent)}, link="symlink")
    written, before = json.loads((tmp_path / "out" / "transforms.json").read_text()), json.loads(given.read_text())
    for frame in written["frames"]:
        del frame["depth_file_path"]
    assert written == before
    assert (tmp_path / "out" / "images" / "b.jpg").read_bytes() == other.getvalue()
    assert (tmp_path / "out" / "images" / "b.jpg").is_symlink()


def test_frames_without_a_label_have_depth_of_zeros_and_stray_labels_are_left_out(tmp_path: Path) -> None:
    store = metric_store(tmp_path / "store", names={"b.jpg": 1, "x/c.jpg": 2, "y/c.jpg": 3})
    given = write_transforms(tmp_path / "scene", {"images/b.jpg": 1, "images/lost.jpg": 2, "c.jpg": 3})
    summary = export(store, tmp_path / "out", "nerfstudio", options={"transforms": str(given)})
    assert [name for name, map_HW in read(tmp_path / "out").items() if map_HW.any()] == ["images/b.jpg"]
    told = "\n".join(summary.notes)
    assert "1 frame of 3 without a label got depth of zeros (unknown)" in told
    assert "frame c.jpg could be default/x/c.jpg, default/y/c.jpg: its depth is zeros" in told
    assert "2 labels left out, as no frame has the name: default/x/c.jpg, default/y/c.jpg" in told
    assert summary.left_out == {"no frame of transforms.json has this name": 2}


def test_masks_and_points_come_along_and_what_lies_outside_is_named_where_it_is(tmp_path: Path, store: Store) -> None:
    given = write_transforms(tmp_path / "scene", {"images/b.jpg": 1, "../cam1/a.jpg": 5}, ply_file_path="sparse.ply")
    (tmp_path / "scene" / "sparse.ply").write_bytes(b"ply")
    (tmp_path / "scene" / "mask.png").write_bytes(b"mask")
    meta = json.loads(given.read_text())
    for frame in meta["frames"]:
        frame["mask_path"] = "mask.png"
    given.write_text(json.dumps(meta))
    export(store, tmp_path / "out", "nerfstudio", options={"transforms": str(given)})
    assert (tmp_path / "out" / "sparse.ply").read_bytes() == b"ply"
    assert (tmp_path / "out" / "mask.png").read_bytes() == b"mask"
    found = read(tmp_path / "out")
    outside = str((tmp_path / "cam1" / "a.jpg").resolve())
    assert set(found) == {"images/b.jpg", outside}
    assert found[outside].any()
    inside = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert all(path.resolve().is_relative_to(tmp_path / "out") for path in inside)


def test_maps_are_turned_as_the_files_are(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [scene_picture("a.jpg", 5, orientation=6)], spec=METRIC)
    given = write_transforms(tmp_path / "scene", {"images/a.jpg": 5})
    (tmp_path / "scene" / "images" / "a.jpg").write_bytes((tmp_path / "store" / "images" / "a.jpg").read_bytes())
    export(store, tmp_path / "out", "nerfstudio", options={"transforms": str(given)})
    map_HW = read(tmp_path / "out", SHAPE[::-1])["images/a.jpg"]
    with Image.open(tmp_path / "out" / "images" / "a.jpg") as image:
        assert image.size[0] < image.size[1]  # as nerfstudio opens it
    assert np.abs(np.rot90(map_HW, -1) - wanted(5, 65)).max() < 0.001


def test_what_cannot_be_is_refused(tmp_path: Path, store: Store) -> None:
    given = write_transforms(tmp_path / "scene", {"images/other.jpg": 1})
    bad = tmp_path / "bad.json"
    bad.write_text('{"frames": [{"transform_matrix": []}]}')
    cases = [
        ({}, "--transforms says where its transforms.json is"),
        ({"transforms": str(given)}, "none of the 1 frames of .* has a label here .its first is 'images/other.jpg'"),
        ({"transforms": str(bad)}, "is no transforms.json of nerfstudio.* 'file_path'"),
        ({"transforms": str(tmp_path / "nowhere.json")}, "cannot read .*nowhere.json: No such file"),
    ]
    for options, words in cases:
        with pytest.raises(DepthsieveError, match=words):
            export(store, tmp_path / "out", "nerfstudio", options=options)
    with pytest.raises(UsageError, match="relative disparity has no metres"):
        export(small_store(tmp_path / "relative"), tmp_path / "out", "nerfstudio", options={"transforms": str(given)})
    assert not (tmp_path / "out").exists()


def test_a_folder_is_resumed_with_the_same_poses_only(tmp_path: Path, store: Store) -> None:
    given = write_transforms(tmp_path / "scene", FRAMES)
    options = {"transforms": str(given)}
    export(store, tmp_path / "out", "nerfstudio", options=options)
    first = bytes_of(tmp_path / "out")
    (tmp_path / "out" / "depths" / "b.png").unlink()
    export(store, tmp_path / "out", "nerfstudio", options=options, threads=3)
    assert bytes_of(tmp_path / "out") == first
    given.write_text(given.read_text().replace("60.0", "61.0"))
    with pytest.raises(UsageError, match="transforms_sha256"):
        export(store, tmp_path / "out", "nerfstudio", options=options)


def test_nerfstudio_itself_reads_it(tmp_path: Path, store: Store) -> None:
    parser = pytest.importorskip(
        "nerfstudio.data.dataparsers.nerfstudio_dataparser", reason="nerfstudio is not installed"
    )
    from nerfstudio.data.utils.data_utils import get_depth_image_from_path

    export(store, tmp_path / "out", "nerfstudio", options={"transforms": str(write_transforms(tmp_path / "s", FRAMES))})
    config = parser.NerfstudioDataParserConfig(data=tmp_path / "out", eval_mode="all", auto_scale_poses=False)
    outputs = config.setup().get_dataparser_outputs(split="train")
    scale = outputs.metadata["depth_unit_scale_factor"] * outputs.dataparser_scale
    files = zip(outputs.image_filenames, outputs.metadata["depth_filenames"], strict=True)
    for photo, depth in files:
        name = str(photo.relative_to(tmp_path / "out"))
        seed = {**FRAMES, "images/cam2/a.png": 6}[name]
        read_HW = get_depth_image_from_path(depth, *SHAPE, scale)[..., 0].numpy()
        assert np.abs(read_HW - wanted(seed, 65.535)).max() < 0.00051


def test_the_code_in_the_readme_reads_it(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    given = write_transforms(tmp_path / "scene", FRAMES)
    export(store, tmp_path / "out", "nerfstudio", options={"transforms": str(given)})
    monkeypatch.chdir(tmp_path / "out")
    found: dict[str, Any] = {}
    exec((tmp_path / "out" / "README.md").read_text().split("```python")[1].split("```")[0], found)
    assert np.abs(found["metres"] - wanted(5, 65)).max() < 0.001
