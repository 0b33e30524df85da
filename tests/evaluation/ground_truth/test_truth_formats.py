"""Ground truth in files: values, rows and units of each format."""

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from truths import DEPTH_HW, METRES_HW, hdf5, npy, opened, pfm, png

from depthsieve.core.errors import GroundTruthError
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.readers import read_npz
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.evaluation.ground_truth.values import planar_depth


def npz(**arrays: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.savez_compressed(held, **arrays)
    return held.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "scale"),
    [
        ("a.npy", npy(DEPTH_HW), None),
        ("a.npz", npz(values=DEPTH_HW), None),
        ("a.npy", npy(np.asfortranarray(DEPTH_HW)), None),
        ("a.npy", npy(DEPTH_HW.astype(">f8")), None),
        ("a.npy", npy(DEPTH_HW[None]), None),
        ("a.npy", npy(DEPTH_HW[:, :, None]), None),
        ("a.npy", npy((DEPTH_HW * 100).astype(np.int32)), 100),
        ("a.npy", npy(DEPTH_HW * 1000), 1000),
        ("a.png", png((DEPTH_HW * 256).astype(np.uint16)), 256),
        ("a.pfm", pfm(DEPTH_HW), None),
        ("a.pfm", pfm(DEPTH_HW, "1"), None),
        ("a.pfm", pfm(DEPTH_HW * 4, "-0.25"), 4),
        ("a.h5", hdf5(anything=DEPTH_HW), None),
        ("a.hdf5", hdf5(dataset=DEPTH_HW.astype(np.float16)), None),
        ("a.HDF5", hdf5(dataset=(DEPTH_HW * 4).astype(np.uint16)), 4),
    ],
)
def test_every_format_gives_the_same_metres(tmp_path: Path, name: str, data: bytes, scale: float | None) -> None:
    truth = opened(tmp_path, {name: data}, scale=scale, pattern=name)
    assert truth.place("default/a.jpg") == name
    found = truth.read(name, "default/x").metres_HW
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, METRES_HW)


def test_a_chosen_dataset_is_read_groups_included(tmp_path: Path) -> None:
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        file["a"], file["b/depth"] = DEPTH_HW * 2, DEPTH_HW
    truth = opened(tmp_path, {"x.h5": held.getvalue()}, dataset="b/depth")
    np.testing.assert_array_equal(truth.read("x.h5", "default/x").metres_HW, METRES_HW)


def test_distance_becomes_depth_by_hand() -> None:
    # Pixels of a 3x3 map lie -1, 0, 1 from its middle; f = 2.
    edge, corner = 2 / 5**0.5, 2 / 6**0.5
    expected = np.array([[corner, edge, corner], [edge, 1, edge], [corner, edge, corner]])
    np.testing.assert_allclose(planar_depth(np.ones((3, 3)), 2.0), expected)


def test_a_plane_in_front_of_hypersims_camera_is_flat(tmp_path: Path) -> None:
    """60 degrees wide, as its README says: a pixel's ray from the field of view, not from the focal length."""
    height, width = 48, 64
    half = np.tan(np.radians(30))
    x, y = np.meshgrid((np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1)
    distance = 3.0 * np.linalg.norm(np.stack([x * half, y * half * height / width, np.ones_like(x)]), axis=0)
    focal = 886.81 * width / 1024
    truth = opened(tmp_path, {"f.depth_meters.hdf5": hdf5(dataset=distance)}, distance_to_depth=focal)
    np.testing.assert_allclose(truth.read("f.depth_meters.hdf5", "default/x").metres_HW, 3.0, rtol=1e-5)
    assert distance.max() > 3.5


# One file with all maps


def stack(path: Path, name: str = "depths") -> np.ndarray:
    maps_NHW = np.random.default_rng(0).uniform(1, 9, (4, 6, 8)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file[name] = maps_NHW.transpose(0, 2, 1) if path.suffix == ".mat" else maps_NHW
        file["images"] = np.zeros((4, 3, 8, 6), np.uint8)
    return maps_NHW


@pytest.mark.parametrize("suffix", [".mat", ".h5"])
@pytest.mark.parametrize(
    ("image_id", "count_from", "index"),
    [
        ("nyu/0001.png", 1, 0),
        ("nyu/a/rgb_2_00004.jpg", 1, 3),
        ("nyu/0.png", 0, 0),
        ("nyu/3", 0, 3),
        ("nyu/nyu.mat::/images::0", 1, 0),
        ("nyu/nyu.mat::/images::3", 1, 3),
    ],
)
def test_maps_of_one_file_go_by_number(tmp_path: Path, suffix: str, image_id: str, count_from: int, index: int) -> None:
    maps_NHW = stack(tmp_path / f"nyu{suffix}")
    truth = open_ground_truth(tmp_path / f"nyu{suffix}", TruthSettings(count_from=count_from, dataset="depths"))
    place = truth.place(image_id)
    assert place == f"depths::{index}"
    np.testing.assert_array_equal(truth.read(place, "default/x").metres_HW, maps_NHW[index])
    assert list(truth.places()) == [f"depths::{n}" for n in range(4)]


def test_a_mat_file_needs_no_name_of_its_dataset(tmp_path: Path) -> None:
    maps_NHW = stack(tmp_path / "nyu.mat")
    np.testing.assert_array_equal(
        open_ground_truth(tmp_path / "nyu.mat", TruthSettings()).read("depths::2", "default/x").metres_HW, maps_NHW[2]
    )
    with pytest.raises(GroundTruthError, match=r"--dataset \(there are: 'depths', 'images'\)"):
        stack(tmp_path / "nyu.h5")
        open_ground_truth(tmp_path / "nyu.h5", TruthSettings())


def test_images_without_a_map_in_the_file(tmp_path: Path) -> None:
    stack(tmp_path / "nyu.mat")
    truth = open_ground_truth(tmp_path / "nyu.mat", TruthSettings())
    for image_id in ("nyu/5.png", "nyu/kitchen.png", "nyu/nyu.mat::/images::4"):
        assert truth.place(image_id) is None
    assert truth.looked_for("nyu/9.png") == "depths::8, of 0 to 3"
    assert truth.looked_for("nyu/kitchen.png") == "a number at the end of its name"


@pytest.mark.parametrize(("image_id", "first"), [("nyu/00.png", 1), ("nyu/4.png", 0)])
def test_a_number_that_shows_the_other_count_is_refused(tmp_path: Path, image_id: str, first: int) -> None:
    stack(tmp_path / "nyu.mat")
    truth = open_ground_truth(tmp_path / "nyu.mat", TruthSettings(count_from=first))
    with pytest.raises(GroundTruthError, match=f"^{image_id} has the number .*say --count-from {1 - first}$"):
        truth.place(image_id)


def test_an_npz_of_one_array_is_read_and_of_several_the_one_that_is_named() -> None:
    np.testing.assert_array_equal(read_npz(npz(depth=DEPTH_HW), None, None), DEPTH_HW)
    two = npz(depth=DEPTH_HW, mask=DEPTH_HW > 0)
    np.testing.assert_array_equal(read_npz(two, None, "depth"), DEPTH_HW)
    for data, name, message in (
        (two, None, r"which array holds the depth\? Name it with --dataset \(there are: 'depth', 'mask'\)"),
        (two, "other", "it has no array 'other'"),
        (two[:-30], "depth", r"damaged or not an \.npz file"),
        (npz(depth=np.array([[{}]], object)), None, "values of type object"),
        (npz(depth=np.zeros((3, 4), np.int16)), None, "whole numbers: say how many are a metre"),
    ):
        with pytest.raises(GroundTruthError, match=message):
            read_npz(data, None, name)


def test_an_npz_that_unpacks_to_too_much_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthsieve.evaluation.ground_truth.readers.MAX_PIXELS", 1000)
    with pytest.raises(GroundTruthError, match=r"'depth\.npy' has more bytes than a depth map may have"):
        read_npz(npz(depth=np.zeros((100, 100))), None, None)
