"""Depth in channels of OpenEXR files, as OpenEXR's own library writes them; and files that are damaged."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest

from depthsieve.core.errors import GroundTruthError
from depthsieve.evaluation.ground_truth.exr import _unpacked, read_exr

DEPTH_HW = np.random.default_rng(0).uniform(0.5, 9, (37, 53)).astype(np.float32)
RED_HW = DEPTH_HW.astype(np.float16) / 2
NUMBER_HW = np.arange(37 * 53, dtype=np.uint32).reshape(37, 53)


def written(path: Path, compression: Any = OpenEXR.ZIP_COMPRESSION, **channels: Any) -> bytes:
    head = {"compression": compression, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(head, channels) as file:
        file.write(str(path))
    return path.read_bytes()


@pytest.mark.parametrize("compression", ["NO", "ZIPS", "ZIP"])
def test_channels_of_any_type_are_read_exactly(tmp_path: Path, compression: str) -> None:
    kind = getattr(OpenEXR, f"{compression}_COMPRESSION")
    data = written(tmp_path / "a.exr", kind, Z=DEPTH_HW, R=RED_HW, number=NUMBER_HW)
    for dataset, expected_HW in ((None, DEPTH_HW), ("Z", DEPTH_HW), ("R", RED_HW), ("number", NUMBER_HW)):
        found_HW = read_exr(data, 1.0, dataset)
        np.testing.assert_array_equal(found_HW, expected_HW)
        assert found_HW.dtype == expected_HW.dtype


def test_depth_is_z_or_y_or_the_only_channel(tmp_path: Path) -> None:
    for number, names in enumerate((("Z", "Y", "R"), ("Y", "A"), ("depth",))):
        channels = dict(zip(names, (DEPTH_HW, RED_HW, RED_HW), strict=False))
        np.testing.assert_array_equal(read_exr(written(tmp_path / f"{number}.exr", **channels), None, None), DEPTH_HW)
    colour = written(tmp_path / "c.exr", R=RED_HW, G=RED_HW, B=RED_HW)
    with pytest.raises(GroundTruthError, match=r"Name it with --dataset \(there are: 'B', 'G', 'R'\)"):
        read_exr(colour, None, None)
    with pytest.raises(GroundTruthError, match="no channel 'Z'"):
        read_exr(colour, None, "Z")
    with pytest.raises(GroundTruthError, match="--scale"):
        read_exr(written(tmp_path / "n.exr", number=NUMBER_HW), None, None)


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    for name in ("RLE", "PIZ", "PXR24"):
        data = written(tmp_path / "a.exr", getattr(OpenEXR, f"{name}_COMPRESSION"), Z=DEPTH_HW)
        with pytest.raises(GroundTruthError, match=f"compressed with {name}; .*convert it to .npy"):
            read_exr(data, None, None)
    tiled = bytearray(written(tmp_path / "a.exr", Z=DEPTH_HW))
    tiled[4:8] = struct.pack("<I", 2 | 0x200)
    with pytest.raises(GroundTruthError, match="in tiles"):
        read_exr(bytes(tiled), None, None)
    with pytest.raises(GroundTruthError, match="it is not an OpenEXR file"):
        read_exr(b"\x89PNG\r\n\x1a\n", None, None)


def test_a_window_that_nothing_can_hold_is_refused(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "a.exr", Z=DEPTH_HW))
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    data[at + 8 : at + 16] = struct.pack("<ii", 2**30, 2**30)
    with pytest.raises(GroundTruthError, match="pixels, more than the"):
        read_exr(bytes(data), None, None)


def test_damage_is_refused_in_one_way(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.exr", Z=DEPTH_HW, R=RED_HW)
    random = np.random.default_rng(0)
    for attempt in range(600):
        data = bytearray(whole)
        if attempt % 3:
            for at in random.integers(0, 500 if attempt % 2 else len(data), 3):
                data[at] = random.integers(256)
        else:
            del data[random.integers(len(data)) :]
        try:
            found_HW = read_exr(bytes(data), None, None)
        except GroundTruthError:
            continue
        assert attempt % 3, "a file that is cut is never taken for whole"
        assert found_HW.ndim == 2


def test_a_block_that_unpacks_to_less_than_it_should_is_damaged() -> None:
    assert _unpacked(memoryview(zlib.compress(bytes([1, 129, 128, 130]))), 4) == bytes([1, 2, 2, 4])
    with pytest.raises(ValueError, match="3"):
        _unpacked(memoryview(zlib.compress(bytes(3))), 4)
