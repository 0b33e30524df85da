"""Which file of ground truth is an image's."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from truths import DEPTH_HW, METRES_HW, npy, opened, pfm

from depthsieve.core.errors import GroundTruthError, UsageError
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.sources.ids import encode_path


@pytest.mark.parametrize(
    ("image", "file", "settings"),
    [
        ("a.jpg", "a.npy", {}),
        ("one/two/a.b.jpg", "one/two/a.b.pfm", {}),
        ("a", "a.h5", {}),
        ("one/a.jpg", "one/a_depth.png", {"pattern": "{dir}/{stem}_depth.png"}),
        ("a.jpg", "a_depth.png", {"pattern": "{dir}/{stem}_depth.png"}),
        ("one/a.jpg", "a.jpg.npy", {"pattern": "{name}.npy"}),
        ("one/a.png", "default/one/a.png", {"pattern": "{source}/{dir}/{name}"}),
        ("rgb/a_rgb.jpg", "depth/a_depth.npy", {"replace": (("rgb", "depth"),)}),
        (
            "ai_1/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg",
            "ai_1/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5",
            {"replace": (("_final_preview", "_geometry_hdf5"), (".tonemap.", ".depth_meters."))},
        ),
        ("rgb/a.jpg", "d/depth.npy", {"replace": (("rgb/", "d/"),), "pattern": "{dir}/depth.npy"}),
        ("box.tar::in/a.jpg", "box.tar/in/a.npy", {}),
        ("00001.h5::/rgb::00000000", "00001.h5", {"replace": ((".h5/rgb/00000000", ""),)}),
        ("day/drive/a.jpg", "drive/a.npy", {"strip": 1}),
        ("day/drive/a.jpg", "a.npy", {"strip": 5}),
        ("day/drive/a.jpg", "out/drive.npy", {"strip": 1, "replace": (("drive/a", "out/drive"),)}),
        ("one/a.jpg", "train/one/a.npy", {"pattern": "*/{dir}/{stem}.npy"}),
        ("*/a.jpg", "*/a_depth.npy", {"pattern": "{dir}/{stem}_depth.npy"}),
        ("one/a.jpg", "x/one/y/z/a.npy", {"pattern": "*/{dir}/*/*/{name}", "replace": ((".jpg", ".npy"),)}),
        (
            "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png",
            "val/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png",
            {
                "strip": 1,
                "pattern": "*/{dir}/{stem}.png",
                "replace": (("image_02/data", "proj_depth/groundtruth/image_02"),),
            },
        ),
    ],
)
def test_names_are_matched(tmp_path: Path, image: str, file: str, settings: dict[str, Any]) -> None:
    truth = opened(tmp_path, {file: npy(DEPTH_HW), "other/zzz.npy": b""}, **settings)
    assert truth.place(f"default/{image}") == file
    assert list(truth.places()) == sorted([file, "other/zzz.npy"])
    assert truth.place("default/none.jpg" if "depth.npy" not in str(settings) else "default/x/a.jpg") is None


@pytest.mark.parametrize(
    "name", ["it's", 'a "b" c', "new\nline", "100%", "ä", "a:b", ":x", "\u202eevil", "a\\b", "{stem}"]
)
def test_odd_names_are_matched_and_printed_on_one_line(tmp_path: Path, name: str) -> None:
    truth = opened(tmp_path, {f"{name}/{name}.npy": npy(DEPTH_HW)})
    place = truth.place("default/" + encode_path(f"{name}/{name}.jpg"))
    assert place == encode_path(f"{name}/{name}.npy")
    assert place.isprintable()
    np.testing.assert_array_equal(truth.read(place, "default/x").metres_HW, METRES_HW)


def test_bytes_that_are_no_text_are_matched(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.npy")).write_bytes(npy(DEPTH_HW))
    truth = open_ground_truth(tmp_path, TruthSettings())
    assert truth.place("default/%FF%FE.png") == "%FF%FE.npy"
    np.testing.assert_array_equal(truth.read("%FF%FE.npy", "default/x").metres_HW, METRES_HW)


def test_two_candidates_are_an_error_that_names_both(tmp_path: Path) -> None:
    truth = opened(tmp_path, {"a.pfm": pfm(DEPTH_HW), "a.npy": npy(DEPTH_HW)})
    with pytest.raises(
        GroundTruthError, match=r"^default/a.jpg has two .*, a.npy and a.pfm; .*--pattern.*\{stem\}.npy'$"
    ):
        truth.place("default/a.jpg")
    assert open_ground_truth(tmp_path, TruthSettings(pattern="{stem}.pfm")).place("default/a.jpg") == "a.pfm"


COMPOSED, DECOMPOSED = "m\u00fcnchen", "mu\u0308nchen"


@pytest.mark.parametrize(
    ("image", "file"),
    [
        (f"{COMPOSED}.jpg", f"{DECOMPOSED}.npy"),
        (f"{DECOMPOSED}/{COMPOSED}.jpg", f"{COMPOSED}/{DECOMPOSED}.npy"),
        ("a.jpg", "a.NPY"),
        ("a.JPG", "a.Npy"),
        (f"{COMPOSED}.jpg", f"{DECOMPOSED}.HDF5"),
    ],
)
def test_letters_of_another_form_and_suffixes_in_capitals_are_matched(tmp_path: Path, image: str, file: str) -> None:
    truth = opened(tmp_path, {file: npy(DEPTH_HW)})
    assert truth.place(f"default/{image}") == file
    assert truth.place(f"default/{image.replace('a', 'A').replace('m', 'M')}") is None


def test_a_name_as_it_stands_comes_before_one_of_another_form(tmp_path: Path) -> None:
    truth = opened(tmp_path, {f"{name}.npy": npy(DEPTH_HW) for name in (COMPOSED, DECOMPOSED)})
    for name in (COMPOSED, DECOMPOSED):
        assert truth.place(f"default/{name}.jpg") == f"{name}.npy"
    opened(tmp_path, {"x.npy": b"", "x.NPY": b"", "X.NpY": b""})
    truth = open_ground_truth(tmp_path, TruthSettings(pattern="{stem}.nPy"))
    with pytest.raises(GroundTruthError, match=r"default/x.jpg has two ground truths in .*, x.NPY and x.npy"):
        truth.place("default/x.jpg")


def test_a_map_in_two_folders_of_a_star_is_an_error_that_names_both(tmp_path: Path) -> None:
    truth = opened(
        tmp_path, {"train/d/a.npy": b"", "val/d/a.npy": b"", "val/d/b.npy": b""}, pattern="*/{dir}/{stem}.npy"
    )
    with pytest.raises(GroundTruthError, match=r"default/d/a.jpg has two .*, train/d/a.npy and val/d/a.npy"):
        truth.place("default/d/a.jpg")
    assert truth.place("default/d/b.jpg") == "val/d/b.npy"
    assert truth.place("default/b.jpg") is None
    assert truth.looked_for("default/d/c.jpg") == "*/d/c.npy"


def test_hidden_files_and_linked_folders_are_not_ground_truth(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.npy").write_bytes(npy(DEPTH_HW))
    folder = tmp_path / "truth"
    truth = opened(folder, {".a.npy": b"", ".git/b.npy": b"", "c.npy": b"", "d.txt": b""})
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert list(truth.places()) == ["c.npy"]
    assert list(open_ground_truth(folder, TruthSettings()).places()) == ["c.npy"]


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    truth = opened(tmp_path, {"a.npy": b""})
    assert truth.looked_for("default/x/b.jpg") == "x/b.npy|.png|.pfm|.h5|.hdf5|.npz|.exr"


DISPARITY = {"ground_truth_quantity": "disparity"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0}, "scale must be a number above 0, not 0"),
        ({"scale": float("nan")}, "scale must be"),
        ({"distance_to_depth": -1.0}, "distance_to_depth must be"),
        ({"count_from": 2}, "count_from must be 0 or 1, not 2"),
        ({"pattern": "{folder}/{stem}.npy"}, r"unknown field \{folder\}"),
        ({"pattern": "/abs/{stem}.npy"}, "would leave"),
        ({"pattern": "a/../../{stem}.npy"}, "would leave"),
        ({"pattern": "{stem}.tga"}, "must end in one of .npy"),
        ({"replace": (("", "x"),)}, "pairs of a non-empty text"),
        ({"replace": ("ab",)}, "pairs of a non-empty text"),
        ({"pattern": "a*/{stem}.npy"}, r"\* stands for a whole folder"),
        ({"pattern": "{dir}/*.npy"}, r"\* stands for a whole folder"),
        ({"strip": -1}, "strip must be 0 or more folders, not -1"),
        ({"associate": 0.0}, "associate must be a number above 0, not 0.0"),
        ({"associate": 0.1, "pattern": "{name}"}, r"must contain \{stem\} once"),
        ({"associate": 0.1, "pattern": "*/{stem}.npy"}, r"must contain \{stem\} once"),
        ({"associate": 0.1, "pattern": "{stem}/depth.npy"}, r"must contain \{stem\} once"),
        ({"mask_pattern": "{stem}.pfm"}, "mask_pattern '{stem}.pfm' must end in one of .npy, .png"),
        ({"calib_pattern": "{stem}.yaml", **DISPARITY}, "calib_pattern '{stem}.yaml' must end in one of .txt"),
        ({"calib_pattern": "*/calib.txt", **DISPARITY}, r"must not contain \*"),
        ({"missing": (float("nan"),)}, "missing takes finite numbers, not nan"),
        ({"ground_truth_quantity": "metres"}, "must be one of depth, inverse, disparity, not 'metres'"),
        (DISPARITY, "needs either baseline_focal, .*, or calib_pattern"),
        ({"baseline_focal": 1.0, "calib_pattern": "calib.txt", **DISPARITY}, "not both"),
        ({"baseline_focal": 1.0}, "baseline_focal is for ground_truth_quantity='disparity'"),
        ({"baseline_focal": 0.0, **DISPARITY}, "baseline_focal must be a number above 0"),
        ({"distance_to_depth": 1.0, "ground_truth_quantity": "inverse"}, "distance_to_depth is for .* in metres"),
    ],
)
def test_invalid_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TruthSettings(**settings)
