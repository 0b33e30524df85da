"""MoGe-2 against what the official code made of the same weights and scenes (``tests/support/moge_official.py``)."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import da3_models
import moge_models as models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from teachers_builders import refusal
from transformers import AutoModelForDepthEstimation

from depthsieve import convert_weights
from depthsieve.core.errors import ImageRejected, TeacherUnsupported, UsageError
from depthsieve.teachers import Batch, load_teacher
from depthsieve.teachers.depth_anything import IMAGENET_MEAN, IMAGENET_STD
from depthsieve.teachers.moge import network
from depthsieve.teachers.moge.camera import focal_and_shift
from depthsieve.teachers.moge.published import read_published
from depthsieve.teachers.moge.teacher import TokensPreprocessing
from depthsieve.teachers.preprocessing import TokenLimit
from depthsieve.testing import check_teacher


@pytest.fixture(scope="module")
def expected() -> Mapping[str, np.ndarray]:
    with np.load(models.EXPECTED) as file:
        return dict(file)


@pytest.fixture(scope="module")
def folder(expected: Mapping[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with every weight that the official network has."""
    named = (row.decode().split(" ", 1) for row in expected["names"])
    names = {name: tuple(int(side) for side in re.findall(r"\d+", shape)) for name, shape in named}
    return models.save(tmp_path_factory.mktemp("moge") / "model", names)


def normalised(shape: tuple[int, int]) -> torch.Tensor:
    mean, std = (np.asarray(values, np.float32)[None, :, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.from_numpy((models.unit_image(shape) - mean) / std)


@pytest.mark.parametrize("shape", models.SHAPES)
def test_the_network_computes_what_the_official_code_does(
    shape: tuple[int, int], folder: Path, expected: Mapping[str, np.ndarray]
) -> None:
    network.register()
    model = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = model(normalised(shape))
    key = f"{shape[0]}x{shape[1]}"
    points = da3_models.kept(found.points[0].permute(2, 0, 1).numpy())
    for axis in range(3):
        assert da3_models.apart(points[axis], expected[f"{key} points"][axis]) < 1e-4
    assert da3_models.apart(da3_models.kept(found.mask[0].numpy()), expected[f"{key} mask"]) < 1e-4
    np.testing.assert_allclose(found.scale.numpy(), expected[f"{key} scale"], rtol=1e-4)
    torch.testing.assert_close(found.predicted_depth, found.points[..., 2])


@pytest.mark.parametrize(("height", "width", "focal", "shift"), models.CAMERAS)
def test_the_camera_is_the_one_that_the_official_code_finds(
    height: int, width: int, focal: float, shift: float, expected: Mapping[str, np.ndarray]
) -> None:
    points, mask = models.scene(height, width, focal, shift)
    wanted_focal, wanted_shift, wanted_alone = expected[f"camera {height}x{width}"]
    found = focal_and_shift(points, mask)
    # the official solver stops when a step gains less than a thousandth
    np.testing.assert_allclose(found, (wanted_focal, wanted_shift), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found, (focal, shift), rtol=0.02)
    assert focal_and_shift(points, mask, focal) == (focal, pytest.approx(wanted_alone, abs=1e-3))
    assert focal_and_shift(points, np.zeros_like(mask)) == (1.0, 0.0)


FOCAL = 1.2


def save_pinhole(folder: Path, other: Path) -> Path:
    """The same model, but its points are those that a pinhole camera of this focal length sees of a slanted plane."""
    weights = load_file(folder / "model.safetensors")
    for name in ("neck.resamplers.3.1", "points_head.resamplers.3.1"):  # nothing from coarser levels
        weights[f"{name}.weight"].zero_()
        weights[f"{name}.bias"].zero_()
    for name in ("neck.input_blocks.4", "points_head.input_blocks.4"):  # places on the picture as they are
        weights[f"{name}.weight"][:, :, 0, 0] = torch.eye(*weights[f"{name}.weight"].shape[:2])
        weights[f"{name}.bias"].zero_()
    slant = torch.tensor([[1 / FOCAL, 0], [0, 1 / FOCAL], [0.3, 0.8]])
    weights["points_head.output_blocks.4.weight"].zero_()[:, :2, 0, 0] = slant
    weights["points_head.output_blocks.4.bias"] = torch.tensor([0, 0, 0.5])
    other.mkdir()
    shutil.copy(folder / "config.json", other)
    save_file(weights, other / "model.safetensors")
    return other


def test_labels_are_metres_of_valid_pixels_and_a_known_camera_is_taken(folder: Path, tmp_path: Path) -> None:
    pinhole = save_pinhole(folder, tmp_path / "pinhole")
    teacher = load_teacher(str(pinhole))
    assert (teacher.quantity, teacher.unit, teacher.confidence_better) == ("depth", "m", None)
    assert (teacher.intrinsics_in, teacher.intrinsics_out) == ("used", True)
    image, diagonal = normalised((56, 98)), float(np.hypot(56, 98))
    with torch.inference_mode():
        raw = AutoModelForDepthEstimation.from_pretrained(pinhole).eval()(image)
    points, seen = raw.points[0].numpy(), (raw.mask[0] > 0.5).numpy()
    assert 0 < seen.sum() < seen.size
    cameras = torch.tensor([[np.nan] * 4, [80.0, 80.0, 49.0, 28.0]])
    found = teacher.predict(Batch(image.repeat(2, 1, 1, 1), cameras))
    assert found.valid is not None and found.intrinsics is not None and found.embedding is not None
    assert found.embedding.shape == (2, teacher.embedding_size)
    np.testing.assert_allclose(found.intrinsics[:, 0].numpy(), [FOCAL * diagonal / 2, 80], rtol=1e-3)
    np.testing.assert_allclose(
        found.intrinsics[:, 1:].numpy(), [[*found.intrinsics[row, :1], 49, 28] for row in (0, 1)]
    )
    for row, known in enumerate((None, 2 * 80 / diagonal)):
        _, shift = focal_and_shift(points, seen, known)
        assert abs(shift) < 0.01 if known is None else abs(shift) > 0.05
        depth = (raw.points[0, ..., 2] + shift) * raw.scale[0]
        torch.testing.assert_close(found.depth[row], depth, rtol=1e-3, atol=1e-4)
        assert (found.valid[row] == (torch.from_numpy(seen) & (depth > 0))).all()


def test_points_that_no_camera_sees_are_not_valid(folder: Path) -> None:
    """Those of random weights, for instance."""
    found = load_teacher(str(folder)).predict(Batch.of(normalised((56, 98))))
    assert found.valid is not None and found.intrinsics is not None
    assert not found.valid.any() and found.intrinsics[0].isnan().all()


def test_it_keeps_the_contract_of_teachers(folder: Path, tmp_path: Path) -> None:
    assert check_teacher(str(save_pinhole(folder, tmp_path / "pinhole"))) == []
    broken = check_teacher(str(folder))  # points of random weights, which no camera sees, are no labels
    assert [(one.rule, one.found.partition(" ")[0]) for one in broken] == [("depth", "it"), ("cameras", "its")]


def test_the_label_has_about_as_many_patches_as_asked_for(folder: Path) -> None:
    teacher = load_teacher(str(folder))
    assert teacher.label_shape(375, 500) == (70, 98)  # 5 x 7 patches, for 36
    assert load_teacher(str(folder), size=840).label_shape(480, 640) == (728, 966)
    assert teacher.half_shape((70, 98)) == (42, 56)
    assert "no multiple of the model's patch, 14" in refusal(folder, UsageError, size=100)
    with pytest.raises(ImageRejected, match="too thin"):
        teacher.label_shape(2, 500)
    photo = da3_models.photo(375, 500)
    got = teacher.prepare(photo, (70, 98))
    unit = torch.from_numpy(photo.transpose(2, 0, 1).astype(np.float32)[None] / 255)
    wanted = torch.nn.functional.interpolate(unit, (70, 98), mode="bilinear", antialias=True)[0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    np.testing.assert_allclose(got, ((wanted - mean) / std).numpy(), atol=1e-5)
    assert teacher.preprocessing["tokens"] == 36
    assert TokensPreprocessing(3600, TokenLimit(14, 16384, "reject")).label_shape(1000, 1000) == (840, 840)


def test_the_authors_file_is_converted_and_loads(folder: Path, tmp_path: Path) -> None:
    """``model.pt`` as it is published: settings and weights in one pickle. Its sizes are those of ViT-S/14."""
    settings = models.MODEL_CONFIG | {"scale_head": {"dims": [384, 24, 1]}}
    with torch.device("meta"):
        whole = network.MoGeForDepthEstimation(network.MoGeConfig(**read_published({"model_config": settings})))
    weights = {
        name: torch.from_numpy(models.weight(name, tuple(value.shape))) for name, value in whole.state_dict().items()
    }
    torch.save({"model_config": settings, "model": weights}, tmp_path / "model.pt")
    convert_weights(tmp_path / "model.pt", tmp_path / "moge")
    teacher = load_teacher(str(tmp_path / "moge"))
    assert teacher.predict(Batch.of(normalised((56, 56)))).depth.shape == (1, 56, 56)
    assert json.loads((tmp_path / "moge" / "config.json").read_text()) == {"model_config": settings}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder": "dinov2_vitl14"}, "it is a MoGe-1"),
        ({"scale_head": None}, "no scale_head"),
        ({"remap_output": "cube"}, "remap_output is cube"),
        ({"neck": models.MODEL_CONFIG["neck"] | {"activation": "silu"}}, "neck asks for silu"),
        ({"neck": models.MODEL_CONFIG["neck"] | {"resamplers": "avg_pool"}}, "neck asks for avg_pool"),
        ({"neck": models.MODEL_CONFIG["neck"] | {"dim_in": [1]}}, "no MoGe-2 configuration"),
    ],
)
def test_other_models_are_refused(changes: dict[str, object], reason: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_config": models.MODEL_CONFIG | changes}))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    assert reason in refusal(tmp_path, TeacherUnsupported)


def test_a_preset_that_is_a_pickle_says_how_to_convert_it() -> None:
    assert refusal("moge-2-small", TeacherUnsupported) == (
        "teacher 'moge-2-small' is published as a pickle, which is not loaded: get model.pt of "
        "Ruicheng/moge-2-vits-normal from the hub, and say `depthsieve convert-weights model.pt moge-2-small/`, then "
        "--teacher ./moge-2-small"
    )
