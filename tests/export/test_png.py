"""The target ``png``, beside what every target is held to: its codes, texts and sizes."""

import json
from pathlib import Path

import numpy as np
import pytest
from exported import export, small_store
from PIL import Image

from depthsieve.export.codecs import decode_png, encode_png, from_affine16, to_affine16


def test_scale_and_offset_are_in_the_file_too(tmp_path: Path) -> None:
    export(small_store(tmp_path), tmp_path / "out", "png")
    index = json.loads((tmp_path / "out" / "depth.json").read_text())
    assert (index["quantity"], index["unit"], index["invalid"]) == ("disparity", "1", 0)
    for row in index["images"]:
        with Image.open(tmp_path / "out" / row["depth"]) as image:
            text: dict[str, str] = image.text  # type: ignore[attr-defined]
            assert image.mode == "I;16"
        assert (float(text["depthsieve:scale"]), float(text["depthsieve:offset"])) == (row["scale"], row["offset"])
        assert (text["depthsieve:id"], text["depthsieve:quantity"]) == (row["id"], "disparity")


def test_names_of_one_stem_do_not_collide(tmp_path: Path) -> None:
    export(small_store(tmp_path), tmp_path / "out", "png")
    names = {path.name for path in (tmp_path / "out" / "depth" / "default").glob("*.png")}
    assert names == {"a.jpg.png", "a.png.png"}


def test_at_source_resolution_maps_are_as_large_as_upright_photos(tmp_path: Path) -> None:
    export(small_store(tmp_path), tmp_path / "out", "png", resolution="source")
    sizes = {}
    for row in json.loads((tmp_path / "out" / "depth.json").read_text())["images"]:
        for kind in ("depth", "reliability"):
            with Image.open(tmp_path / "out" / row[kind]) as image:
                assert image.size == (row["width"], row["height"])
                sizes[row["id"]] = image.size
    assert sizes["default/b/turned.jpg"] == (50, 30)
    assert sizes["default/b/c.d.png"] == (28, 56)


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
