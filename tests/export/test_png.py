"""The target ``png``: read back by Pillow, within the precision that its README states."""

import json
from pathlib import Path

import numpy as np
import pytest
from exported import export, labels_of, small_store
from PIL import Image

from depthsieve.export.codecs import decode_png, encode_png, from_affine16, to_affine16


@pytest.mark.parametrize("drop", [None, 0.3])
def test_what_is_read_back_is_the_store(tmp_path: Path, drop: float | None) -> None:
    store = small_store(tmp_path)
    export(store, tmp_path / "out", "png", mask=drop)
    index = json.loads((tmp_path / "out" / "depth.json").read_text())
    assert (index["quantity"], index["unit"], index["invalid"]) == ("disparity", "1", 0)
    expected = labels_of(store, drop)
    assert [row["id"] for row in index["images"]] == sorted(expected)
    for row in index["images"]:
        depth_HW, reliability_HW = expected[row["id"]]
        with Image.open(tmp_path / "out" / row["depth"]) as image:
            assert image.mode == "I;16"
            codes_HW, text = np.asarray(image).astype(np.float64), image.text  # type: ignore[attr-defined]
        read_HW = np.where(codes_HW > 0, row["offset"] + row["scale"] * codes_HW, np.nan)
        assert np.array_equal(np.isnan(read_HW), np.isnan(depth_HW))
        assert np.nanmax(np.abs(read_HW - depth_HW)) <= row["scale"] / 2 * 1.001
        assert (float(text["depthsieve:scale"]), text["depthsieve:id"]) == (row["scale"], row["id"])
        with Image.open(tmp_path / "out" / row["reliability"]) as image:
            assert np.array_equal(np.asarray(image), reliability_HW)


def test_names_of_one_stem_do_not_collide(tmp_path: Path) -> None:
    export(small_store(tmp_path), tmp_path / "out", "png")
    names = {path.name for path in (tmp_path / "out" / "depth" / "default").glob("*.png")}
    assert names == {"a.jpg.png", "a.png.png"}


def test_at_source_resolution_maps_are_as_large_as_photos(tmp_path: Path) -> None:
    export(small_store(tmp_path), tmp_path / "out", "png", resolution="source")
    for row in json.loads((tmp_path / "out" / "depth.json").read_text())["images"]:
        with Image.open(tmp_path / "images" / row["id"].removeprefix("default/")) as photo:
            for kind in ("depth", "reliability"):
                with Image.open(tmp_path / "out" / row[kind]) as image:
                    assert image.size == photo.size == (row["width"], row["height"])


@pytest.mark.parametrize(
    ("values", "codes"), [([[1, 2, np.nan]], [[1, 65535, 0]]), ([[5, 5]], [[1, 1]]), ([[np.nan]], [[0]])]
)
def test_codes_take_the_whole_range_of_valid_values(values: list[list[float]], codes: list[list[int]]) -> None:
    values_HW = np.array(values, np.float32)
    coded = to_affine16(values_HW)
    assert coded.codes_HW.tolist() == codes
    assert np.allclose(from_affine16(coded), values_HW, equal_nan=True)


def test_text_of_a_png_is_read_back() -> None:
    text = {"depthsieve:id": "default/ünï\u0301.png", "depthsieve:scale": "0.5"}
    map_HW = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    read_HW, found = decode_png(encode_png(map_HW, text))
    assert np.array_equal(read_HW, map_HW) and found == text
