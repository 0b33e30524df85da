"""Ground truth that is damaged, not a map, or not what its name says; and links out of it."""

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from truths import DEPTH_HW, METRES_HW, hdf5, npy, opened, pfm, png

from depthsieve.core.errors import GroundTruthError
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.readers import MAX_PIXELS, read_npy, read_pfm, read_png
from depthsieve.evaluation.ground_truth.settings import TruthSettings


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
        ("a.npy", b"", "not a whole .npy"),
        ("a.npy", b"\x93NUMPY\x01\x00", "not a whole .npy"),
        ("a.npy", npy(DEPTH_HW)[:-1], "23 bytes of values instead of 24"),
        ("a.npy", npy(DEPTH_HW) + b"x", "25 bytes of values instead of 24"),
        ("a.npy", npy_header("(1000000, 1000000)"), "declares 1,000,000,000,000 pixels"),
        ("a.npy", npy_header("(-2, -3)") + b"\0" * 24, r"shape \[-2, -3\]"),
        ("a.npy", npy_header("__import__('os').getpid()"), "not a whole .npy"),
        ("a.npy", npy_header("((((((("), "not a whole .npy"),
        ("a.npy", npy(np.array([[{}]], dtype=object)), "type object"),
        ("a.npy", npy(np.zeros((2, 2), bool)), "type bool"),
        ("a.npy", npy(np.zeros((2, 2), complex)), "type complex128"),
        ("a.npy", npy(np.zeros((2, 3, 4))), r"shape \[2, 3, 4\]"),
        ("a.npy", npy(np.zeros((0, 4))), r"shape \[0, 4\]"),
        ("a.npy", npy(np.zeros(4)), r"shape \[4\]"),
        ("a.npy", npy(np.zeros((2, 2), np.uint16)), "--scale"),
        ("a.png", b"hello", "not a PNG"),
        ("a.png", png(np.zeros((4, 4, 3), np.uint8)), "a PNG in colour"),
        ("a.png", png(np.zeros((4, 4), np.uint8)), "a PNG of 8 bits"),
        ("a.png", png(NOISE), "--scale"),
        ("b.png", png(NOISE)[:-4000], "truncated or damaged PNG"),
        ("b.png", bomb_png(), "declares 1,000,000,000,000 pixels"),
        ("a.pfm", b"Pf 3 2", "not a .pfm"),
        ("a.pfm", pfm(DEPTH_HW, "0"), "not a .pfm"),
        ("a.pfm", pfm(DEPTH_HW, "1e999"), "not a .pfm"),
        ("a.pfm", pfm(DEPTH_HW, "-+-"), "not a .pfm"),
        ("a.pfm", pfm(DEPTH_HW, kind="PF"), "in colour"),
        ("a.pfm", pfm(DEPTH_HW)[:-3], "21 bytes of values instead of 24"),
        ("a.pfm", pfm(DEPTH_HW, "-0.5"), "factor -0.5.*--scale"),
        ("a.pfm", b"Pf\n999999 999999\n-1\n", "declares 999,998,000,001 pixels"),
        ("a.h5", b"", "not an HDF5 file"),
        ("a.h5", hdf5(d=NOISE.astype(np.float32))[:5000], "not an HDF5 file"),
        ("a.h5", huge_offset(), "not an HDF5 file"),
        ("a.h5", hdf5(a=DEPTH_HW, b=DEPTH_HW), "there are: 'a', 'b'"),
        ("a.h5", hdf5(d="text"), "shape|type"),
    ],
)
def test_what_is_no_map_is_refused_with_its_reason(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    truth = opened(tmp_path, {name: data}, scale=1000 if name.startswith("b") else None)
    with pytest.raises(GroundTruthError, match=reason) as refused:
        truth.read(name, "default/x")
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
        found = opened(tmp_path, {name: bytes(data)}, scale=1000).read(name, "default/x").metres_HW
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
        (by_group, "g", "is not a dataset"),
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
        open_ground_truth(tmp_path, TruthSettings(dataset=name)).read("a.h5", "default/x")
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
            truth.read(f"{name}.npy", "default/x")
    np.testing.assert_array_equal(truth.read("within.npy", "default/x").metres_HW, METRES_HW)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such folder or file"),
        ("empty", "holds no ground truth: no .npy, .png, .pfm, .h5, .hdf5, .npz, .exr file in it$"),
        ("other", "no .npy, .* file in it, but 2 .tga, 1 .pgm: convert to one of these$"),
        ("a.npy", "name a folder with a file per image"),
        ("a.mat", "a.mat: it is damaged or not an HDF5 file .*-v7.3"),
        ("flat.h5", r"flat.h5: its dataset has the shape \[2, 3\]"),
        ("s3://bucket/depth", "copy it to a folder"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "b").mkdir(parents=True)
    for path in ("a.TGA", "b/b.tga", "b/c.pgm", "README"):
        (tmp_path / "other" / path).write_bytes(b"")
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
    with pytest.raises(GroundTruthError, match="not a PNG"):
        read_png(b"\x89PNG\r\n\x1a\n", 1)
