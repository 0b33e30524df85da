"""Ground truth in files: values, rows and units of each format; which file is an image's; and hostile input."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from depthsieve.core.errors import GroundTruthError, UsageError
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.protocol import GroundTruth, planar_depth
from depthsieve.evaluation.ground_truth.readers import MAX_PIXELS, read_npy, read_pfm, read_png
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.sources.ids import encode_path

DEPTH_HW = np.array([[1.0, 2.5, 0.0], [4.0, 80.25, 0.5]], dtype=np.float32)


def npy(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


def png(values: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(values).save(held, "PNG")
    return held.getvalue()


def pfm(array: np.ndarray, factor: str = "-1.0", kind: str = "Pf") -> bytes:
    order = "<f4" if factor.startswith("-") else ">f4"
    height, width = array.shape[:2]
    return f"{kind}\n{width} {height}\n{factor}\n".encode() + array[::-1].astype(order).tobytes()


def hdf5(**datasets: Any) -> bytes:
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return held.getvalue()


def opened(folder: Path, files: dict[str, bytes], **settings: Any) -> GroundTruth:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return open_ground_truth(folder, TruthSettings(**settings))


# Formats


@pytest.mark.parametrize(
    ("name", "data", "scale"),
    [
        ("a.npy", npy(DEPTH_HW), None),
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
    found = truth.read(name)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, DEPTH_HW)


def test_a_chosen_dataset_is_read_groups_included(tmp_path: Path) -> None:
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        file["a"], file["b/depth"] = DEPTH_HW * 2, DEPTH_HW
    truth = opened(tmp_path, {"x.h5": held.getvalue()}, dataset="b/depth")
    np.testing.assert_array_equal(truth.read("x.h5"), DEPTH_HW)


def test_nothing_known_stays_nothing(tmp_path: Path) -> None:
    holes = np.array([[np.nan, np.inf, -1.0, 1e300]])
    found = opened(tmp_path, {"x.npy": npy(holes)}).read("x.npy")
    np.testing.assert_array_equal(found, np.array([[np.nan, np.inf, -1.0, np.inf]], dtype=np.float32))


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
    np.testing.assert_allclose(truth.read("f.depth_meters.hdf5"), 3.0, rtol=1e-5)
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
    np.testing.assert_array_equal(truth.read(place), maps_NHW[index])
    assert list(truth.places()) == [f"depths::{n}" for n in range(4)]


def test_a_mat_file_needs_no_name_of_its_dataset(tmp_path: Path) -> None:
    maps_NHW = stack(tmp_path / "nyu.mat")
    np.testing.assert_array_equal(
        open_ground_truth(tmp_path / "nyu.mat", TruthSettings()).read("depths::2"), maps_NHW[2]
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


# Which file is an image's


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
    np.testing.assert_array_equal(truth.read(place), DEPTH_HW)


def test_bytes_that_are_no_text_are_matched(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.npy")).write_bytes(npy(DEPTH_HW))
    truth = open_ground_truth(tmp_path, TruthSettings())
    assert truth.place("default/%FF%FE.png") == "%FF%FE.npy"
    np.testing.assert_array_equal(truth.read("%FF%FE.npy"), DEPTH_HW)


def test_two_candidates_are_an_error_that_names_both(tmp_path: Path) -> None:
    truth = opened(tmp_path, {"a.pfm": pfm(DEPTH_HW), "a.npy": npy(DEPTH_HW)})
    with pytest.raises(
        GroundTruthError, match=r"^default/a.jpg has two .*, a.npy and a.pfm; .*--pattern.*\{stem\}.npy'$"
    ):
        truth.place("default/a.jpg")
    assert open_ground_truth(tmp_path, TruthSettings(pattern="{stem}.pfm")).place("default/a.jpg") == "a.pfm"


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
    assert truth.looked_for("default/x/b.jpg") == "x/b.npy|.png|.pfm|.h5|.hdf5"


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
        ({"pattern": "{stem}.exr"}, "must end in one of .npy"),
        ({"replace": (("", "x"),)}, "pairs of a text that is not empty"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TruthSettings(**settings)


# Hostile input


def bomb_png() -> bytes:
    small = bytearray(png(np.zeros((4, 4), np.uint16)))
    small[16:24] = (10**6).to_bytes(4, "big") * 2
    return bytes(small)


def npy_header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00v\x00" + text.encode()


def huge_offset() -> bytes:
    """The root group's address lies beyond what fits into a C integer."""
    data = bytearray(hdf5(d=DEPTH_HW))
    data[24:32] = b"\xff" * 7 + b"\x7f"
    data[64:72] = b"\xfe" * 8
    return bytes(data)


NOISE = np.random.default_rng(0).integers(0, 65536, (64, 64)).astype(np.uint16)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.npy", b"", "no whole .npy"),
        ("a.npy", b"\x93NUMPY\x01\x00", "no whole .npy"),
        ("a.npy", npy(DEPTH_HW)[:-1], "23 bytes of values instead of 24"),
        ("a.npy", npy(DEPTH_HW) + b"x", "25 bytes of values instead of 24"),
        ("a.npy", npy_header("(1000000, 1000000)"), "declares 1,000,000,000,000 pixels"),
        ("a.npy", npy_header("(-2, -3)") + b"\0" * 24, r"shape \[-2, -3\]"),
        ("a.npy", npy_header("__import__('os').getpid()"), "no whole .npy"),
        ("a.npy", npy_header("((((((("), "no whole .npy"),
        ("a.npy", npy(np.array([[{}]], dtype=object)), "type object"),
        ("a.npy", npy(np.zeros((2, 2), bool)), "type bool"),
        ("a.npy", npy(np.zeros((2, 2), complex)), "type complex128"),
        ("a.npy", npy(np.zeros((2, 3, 4))), r"shape \[2, 3, 4\]"),
        ("a.npy", npy(np.zeros((0, 4))), r"shape \[0, 4\]"),
        ("a.npy", npy(np.zeros(4)), r"shape \[4\]"),
        ("a.npy", npy(np.zeros((2, 2), np.uint16)), "--scale"),
        ("a.png", b"hello", "no PNG"),
        ("a.png", png(np.zeros((4, 4, 3), np.uint8)), "a PNG in colour"),
        ("a.png", png(np.zeros((4, 4), np.uint8)), "a PNG of 8 bits"),
        ("a.png", png(NOISE), "--scale"),
        ("b.png", png(NOISE)[:-4000], "truncated or damaged PNG"),
        ("b.png", bomb_png(), "declares 1,000,000,000,000 pixels"),
        ("a.pfm", b"Pf 3 2", "no .pfm"),
        ("a.pfm", pfm(DEPTH_HW, "0"), "no .pfm"),
        ("a.pfm", pfm(DEPTH_HW, "1e999"), "no .pfm"),
        ("a.pfm", pfm(DEPTH_HW, "-+-"), "no .pfm"),
        ("a.pfm", pfm(DEPTH_HW, kind="PF"), "in colour"),
        ("a.pfm", pfm(DEPTH_HW)[:-3], "21 bytes of values instead of 24"),
        ("a.pfm", pfm(DEPTH_HW, "-0.5"), "factor -0.5.*--scale"),
        ("a.pfm", b"Pf\n999999 999999\n-1\n", "declares 999,998,000,001 pixels"),
        ("a.h5", b"", "no HDF5 file"),
        ("a.h5", hdf5(d=NOISE.astype(np.float32))[:5000], "no HDF5 file"),
        ("a.h5", huge_offset(), "no HDF5 file"),
        ("a.h5", hdf5(a=DEPTH_HW, b=DEPTH_HW), "there are: 'a', 'b'"),
        ("a.h5", hdf5(d="text"), "shape|type"),
    ],
)
def test_what_is_no_map_is_refused_with_its_reason(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    truth = opened(tmp_path, {name: data}, scale=1000 if name.startswith("b") else None)
    with pytest.raises(GroundTruthError, match=reason) as refused:
        truth.read(name)
    assert "\n" not in str(refused.value)


WHOLE = {"a.npy": npy(DEPTH_HW), "a.png": png(NOISE[:8, :8]), "a.pfm": pfm(DEPTH_HW)}


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    end=st.integers(0, 10_000),
)
def test_damage_is_refused_or_gives_a_map(tmp_path: Path, name: str, changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(WHOLE[name])
    for place, value in changes:
        data[place % len(data)] = value
    data = data[: max(end, 1)] if end < len(data) else data
    for other in WHOLE:
        (tmp_path / other).unlink(missing_ok=True)
    try:
        found = opened(tmp_path, {name: bytes(data)}, scale=1000).read(name)
    except GroundTruthError as refused:
        assert "\n" not in str(refused)
    else:
        assert found.ndim == 2
        assert found.dtype == np.float32


def external(file: h5py.File) -> None:
    file["d"] = h5py.ExternalLink("secret.h5", "d")


def soft(file: h5py.File) -> None:
    file["d"] = h5py.SoftLink("/hidden/d")
    file["hidden/d"] = DEPTH_HW


def by_group(file: h5py.File) -> None:
    file["d"] = DEPTH_HW
    file.create_group("g")
    file["g/d"] = h5py.ExternalLink("secret.h5", "d")


def raw(file: h5py.File) -> None:
    file.create_dataset("d", shape=(2, 3), dtype="f4", external=[("secret.h5", 0, 24)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "d", (2, 3))
    file.create_virtual_dataset("d", layout)


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (external, "d", "links are not followed"),
        (external, None, "there are: none"),
        (soft, "d", "links are not followed"),
        (by_group, "g/d", "links are not followed"),
        (by_group, "g", "is no dataset"),
        (by_group, "d/x", "no dataset 'd/x'"),
        (by_group, "nothing", "no dataset 'nothing'"),
        (raw, "d", "other files"),
        (virtual, "d", "other files"),
    ],
)
def test_hdf5_stays_within_its_file(
    tmp_path: Path, make: Callable[[h5py.File], None], name: str | None, reason: str
) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["d"] = DEPTH_HW
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)
    with pytest.raises(GroundTruthError, match=reason):
        open_ground_truth(tmp_path, TruthSettings(dataset=name)).read("a.h5")
    with pytest.raises(GroundTruthError, match=reason):
        open_ground_truth(tmp_path / "a.h5", TruthSettings(dataset=name))


def test_links_and_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret.npy").write_bytes(npy(DEPTH_HW))
    folder = tmp_path / "truth"
    truth = opened(folder, {"real.npy": npy(DEPTH_HW), "out.npy": b"", "fifo.npy": b"", "gone.npy": b""})
    for name in ("out", "fifo", "gone"):
        (folder / f"{name}.npy").unlink()
    (folder / "out.npy").symlink_to(tmp_path / "secret.npy")
    (folder / "within.npy").symlink_to("real.npy")
    os.mkfifo(folder / "fifo.npy")
    for name, reason in (
        ("out", "leads out of the folder"),
        ("fifo", "not a file but a FIFO"),
        ("gone", "No such file"),
    ):
        with pytest.raises(GroundTruthError, match=reason):
            truth.read(f"{name}.npy")
    np.testing.assert_array_equal(truth.read("within.npy"), DEPTH_HW)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such folder or file"),
        ("empty", "holds no ground truth: no .npy, .png"),
        ("a.npy", "name a folder with a file an image"),
        ("a.mat", "a.mat: it is damaged or no HDF5 file .*-v7.3"),
        ("flat.h5", r"flat.h5: its dataset has the shape \[2, 3\]"),
        ("s3://bucket/depth", "copy it to a folder"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.npy").write_bytes(npy(DEPTH_HW))
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    (tmp_path / "flat.h5").write_bytes(hdf5(d=DEPTH_HW))
    with pytest.raises(GroundTruthError, match=message):
        open_ground_truth(name if ":" in name else tmp_path / name, TruthSettings())


def test_the_largest_map_is_as_large_as_the_largest_image() -> None:
    side = int(MAX_PIXELS**0.5)
    with pytest.raises(GroundTruthError, match="truncated"):
        read_npy(npy_header(f"({side}, {side})"), None)
    with pytest.raises(GroundTruthError, match="truncated"):
        read_pfm(f"Pf\n{side} {side}\n-1\n".encode(), None)
    with pytest.raises(GroundTruthError, match="pixels, more than"):
        read_npy(npy_header(f"({side + 1}, {side + 1})"), None)
    with pytest.raises(GroundTruthError, match="no PNG"):
        read_png(b"\x89PNG\r\n\x1a\n", 1)
