"""Depth Anything 3 against what the official code made of the same weights (``tests/support/da3_official.py``)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import da3_models as models
import numpy as np
import pytest
import torch

from depthsieve.teachers import Batch, Prediction, load_teacher
from depthsieve.teachers.da3.preprocessing import LongestSidePreprocessing
from depthsieve.teachers.preprocessing import TokenLimit

CLOSE = 1e-4
"""Of a map's range; what is promised is 1e-3."""


@pytest.fixture(scope="module")
def expected() -> Mapping[str, np.ndarray]:
    with np.load(models.EXPECTED) as file:
        return dict(file)


@pytest.fixture(scope="module")
def folders(expected: Mapping[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A checkpoint of each case, with every weight that the official network has."""
    root = tmp_path_factory.mktemp("da3")
    return {
        name: models.save(root / name, case, official_names(expected[f"{name} names"]))
        for name, case in models.CASES.items()
    }


def official_names(rows: np.ndarray) -> dict[str, tuple[int, ...]]:
    named = (row.decode().split(" ", 1) for row in rows)
    return {name: tuple(int(side) for side in re.findall(r"\d+", shape)) for name, shape in named}


def predicted(teacher: Any, shape: tuple[int, int], focal: tuple[float, float] | None = None) -> Prediction:
    image = torch.from_numpy(models.image(shape))
    if focal is None:
        return teacher.predict(Batch.of(image))
    camera = torch.tensor([[*focal, shape[1] / 2, shape[0] / 2]])
    return teacher.predict(Batch(image, camera))


def close(got: torch.Tensor, wanted: np.ndarray) -> None:
    assert models.apart(models.kept(got[0].numpy()), wanted) < CLOSE


@pytest.mark.parametrize("name", ["whole small", "small", "base", "giant"])
def test_the_main_series_predicts_what_the_official_code_does(
    name: str, folders: Mapping[str, Path], expected: Mapping[str, np.ndarray]
) -> None:
    teacher = load_teacher(str(folders[name]))
    for shape in models.CASES[name].shapes:
        key = f"{name} {shape[0]}x{shape[1]}"
        found = predicted(teacher, shape)
        close(1 / found.depth, expected[f"{key} depth"])
        assert found.confidence is not None
        close(found.confidence, expected[f"{key} depth_conf"])
        assert found.intrinsics is not None
        matrix = expected[f"{key} intrinsics"]
        wanted = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]
        np.testing.assert_allclose(found.intrinsics[0].numpy(), wanted, rtol=1e-4)
        assert found.sky is None


def test_the_monocular_model_predicts_what_the_official_code_does(
    folders: Mapping[str, Path], expected: Mapping[str, np.ndarray]
) -> None:
    teacher = load_teacher(str(folders["mono"]))
    for shape in models.CASES["mono"].shapes:
        key = f"mono {shape[0]}x{shape[1]}"
        found = predicted(teacher, shape)
        close(1 / found.depth, expected[f"{key} depth"])
        assert found.sky is not None
        sky = models.kept(found.sky[0].numpy())
        np.testing.assert_array_equal(sky, expected[f"{key} sky"] >= 0.3)
        # the official code has put the sky far away, and left the rest alone
        assert (expected[f"{key} filled"][~sky] == expected[f"{key} depth"][~sky]).all()
        assert np.unique(expected[f"{key} filled"][sky]).size == 1
        assert found.confidence is None
        assert found.intrinsics is None


def test_the_metric_models_metres_are_depth_times_focal_length_by_300(
    folders: Mapping[str, Path], expected: Mapping[str, np.ndarray]
) -> None:
    teacher = load_teacher(str(folders["metric"]))
    for shape in models.CASES["metric"].shapes:
        key = f"metric {shape[0]}x{shape[1]}"
        found = predicted(teacher, shape, focal=(590, 610))
        close(found.depth, expected[f"{key} depth"] * np.float32(600 / 300))
        assert found.sky is not None
        np.testing.assert_array_equal(models.kept(found.sky[0].numpy()), expected[f"{key} sky"] >= 0.3)


def test_images_of_a_batch_do_not_see_each_other(folders: Mapping[str, Path]) -> None:
    """The official network takes several views of one scene; a batch is several scenes."""
    teacher = load_teacher(str(folders["small"]))
    first = torch.from_numpy(models.image((56, 98)))
    both = teacher.predict(Batch.of(torch.cat((first, first.flip(3)))))
    for row, image in enumerate((first, first.flip(3))):
        alone = teacher.predict(Batch.of(image))
        torch.testing.assert_close(both.depth[row], alone.depth[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), models.PHOTOS)
def test_the_input_is_the_official_one(height: int, width: int, expected: Mapping[str, np.ndarray]) -> None:
    photo = models.photo(height, width)
    for size in (98, 504):
        rule = LongestSidePreprocessing(size, TokenLimit(14, 16384, "reject"))
        shape = rule.label_shape(height, width)
        assert shape == tuple(expected[f"photo {height}x{width} {size} shape"])
        if size == 98:
            got = rule.prepare(photo, shape)
            assert got.dtype == np.float32
            assert got.flags.c_contiguous
            np.testing.assert_allclose(models.kept(got), expected[f"photo {height}x{width} 98"], atol=1e-5)
