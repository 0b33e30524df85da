"""Metric3D v2 against what the official code made of the same weights (``tests/support/metric3d_official.py``)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import da3_models
import metric3d_models as models
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from transformers import AutoModelForDepthEstimation

from depthsieve.teachers import Batch, load_teacher
from depthsieve.teachers.metric3d import network
from depthsieve.teachers.protocol import centred_intrinsics

CLOSE = 1e-4
"""Of a map's range; what is promised is 1e-3."""


@pytest.fixture(scope="module")
def expected() -> Mapping[str, np.ndarray]:
    with np.load(models.EXPECTED) as file:
        return dict(file)


@pytest.fixture(scope="module")
def folders(expected: Mapping[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A checkpoint of each case, with every weight that the official network has."""
    root = tmp_path_factory.mktemp("metric3d")
    return {
        name: models.save(root / name, case, models.names_of(expected[f"{name} names"]))
        for name, case in models.CASES.items()
    }


def computed(folder: Path, shape: tuple[int, int], **changes: Any) -> dict[str, np.ndarray]:
    network.register()
    model = AutoModelForDepthEstimation.from_pretrained(folder, **changes).eval()
    with torch.inference_mode():
        found = model(torch.from_numpy(da3_models.image(shape)))
    return {"depth": found.predicted_depth[0].numpy(), "confidence": found.confidence[0].numpy()}


@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for name, case in models.CASES.items() for shape in case.shapes]
)
def test_the_network_computes_what_the_official_code_does(
    name: str, shape: tuple[int, int], folders: Mapping[str, Path], expected: Mapping[str, np.ndarray]
) -> None:
    for key, got in computed(folders[name], shape).items():
        assert da3_models.apart(da3_models.kept(got), expected[f"{name} {shape[0]}x{shape[1]} {key}"]) < CLOSE


@pytest.mark.parametrize("name", list(models.CASES))
def test_every_step_of_the_decoder_counts(
    name: str, folders: Mapping[str, Path], expected: Mapping[str, np.ndarray]
) -> None:
    """One step less is far from the official numbers, and so they hold the number of steps."""
    case = models.CASES[name]
    height, width = case.shapes[0]
    for key, got in computed(folders[name], (height, width), iterations=case.iterations - 1).items():
        assert da3_models.apart(da3_models.kept(got), expected[f"{name} {height}x{width} {key}"]) > 100 * CLOSE


@pytest.mark.parametrize(("height", "width"), models.PHOTOS)
def test_a_photo_is_labelled_as_the_official_example_does(
    height: int, width: int, folders: Mapping[str, Path], expected: Mapping[str, np.ndarray]
) -> None:
    """Resized, padded, cropped, and in metres for the photo's focal length."""
    teacher = load_teacher(str(folders["small"]))
    photo = da3_models.photo(height, width)
    shape = teacher.label_shape(height, width)
    image = torch.from_numpy(teacher.prepare(photo, shape))[None]
    padded, _ = teacher._canvas.padded(image)
    key = f"photo {height}x{width}"
    np.testing.assert_allclose(da3_models.kept(padded[0].numpy()), expected[f"{key} input"], rtol=0, atol=1e-5)
    camera = torch.from_numpy(centred_intrinsics(models.FOCAL, (height, width), shape))[None]
    metres = teacher.predict(Batch(image, camera)).depth
    assert metres.shape == (1, *shape)
    # the official focal length does not know that columns were rounded down to whole ones
    rounded = shape[1] / width / min(models.CANVAS[0] / height, models.CANVAS[1] / width)
    assert 0.98 < rounded <= 1
    enlarged = interpolate(metres[None] / rounded, (height, width), mode="bilinear")[0, 0].numpy()
    assert da3_models.apart(da3_models.kept(enlarged), expected[f"{key} metres"]) < CLOSE


def test_labels_are_metres_for_the_focal_length_and_confidence_starts_at_0(
    folders: Mapping[str, Path], expected: Mapping[str, np.ndarray]
) -> None:
    teacher = load_teacher(str(folders["giant"]), size=112)
    shape = (56, 112)  # fills its canvas
    image = torch.from_numpy(da3_models.image(shape)).repeat(2, 1, 1, 1)
    found = teacher.predict(Batch(image, torch.tensor([[250.0, 900.0, 56, 28], [4000.0, 900.0, 56, 28]])))
    canonical, sure = (expected[f"giant 56x112 {key}"] for key in ("depth", "confidence"))
    near, far = (da3_models.kept(depth.numpy()) for depth in found.depth)
    np.testing.assert_allclose(near, 0.25 * canonical, rtol=1e-3, atol=1e-3)
    assert 0.1 < (far == 300).mean() < 0.9
    np.testing.assert_allclose(far, np.minimum(4 * canonical, 300), rtol=1e-3, atol=1e-2)
    assert found.confidence is not None
    assert 0.05 < (sure < 0).mean() < 0.95
    np.testing.assert_allclose(da3_models.kept(found.confidence[0].numpy()), sure.clip(min=0), atol=1e-3)


def test_the_margin_is_none_of_the_images_embedding(folders: Mapping[str, Path]) -> None:
    """An image of half the canvas, of the margin's colour in the middle: patches beside it do not count."""
    teacher = load_teacher(str(folders["small"]))
    image = torch.from_numpy(da3_models.image((112, 84)))
    found = teacher.predict(Batch(image, torch.tensor([[100.0, 100, 42, 56]])))
    padded, (top, left) = teacher._canvas.padded(image)
    assert (top, left, padded.shape) == (0, 56, (1, 3, 112, 196))
    with torch.inference_mode():
        patches = teacher._model(pixel_values=padded).patches.reshape(1, 8, 14, -1)
    inside = patches[:, :, 4:10].reshape(1, 2, 4, 2, 3, -1).mean(dim=(2, 4))
    wanted = torch.nn.functional.normalize(inside.permute(0, 3, 1, 2).flatten(1))
    assert found.embedding is not None
    torch.testing.assert_close(found.embedding, wanted, rtol=1e-4, atol=1e-5)
