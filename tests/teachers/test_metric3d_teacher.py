"""Metric3D v2 as a teacher: its authors' file, what is on record, the contract, and what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import da3_models
import metric3d_models as models
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from decoding import with_exif
from PIL import Image
from safetensors.torch import load_file, save_file
from teachers_builders import refusal

import depthsieve
from depthsieve import convert_weights
from depthsieve.core.errors import ImageRejected, TeacherUnsupported, UsageError
from depthsieve.teachers import Batch, load_teacher
from depthsieve.teachers.metric3d.preprocessing import CanvasPreprocessing
from depthsieve.teachers.metric3d.published import CANVAS, config_of
from depthsieve.teachers.preprocessing import TokenLimit
from depthsieve.testing import check_teacher
from depthsieve_cli.main import cli


@pytest.fixture(scope="module")
def expected() -> Mapping[str, np.ndarray]:
    with np.load(models.EXPECTED) as file:
        return dict(file)


@pytest.fixture(scope="module")
def folder(expected: Mapping[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("metric3d")
    return models.save(root / "model", models.CASES["small"], models.names_of(expected["small names"]))


def test_the_authors_file_is_converted_and_labels_as_the_official_code_does(
    expected: Mapping[str, np.ndarray], tmp_path: Path
) -> None:
    """The small network at its published size, as training writes it: weights beside the state of an optimiser."""
    names = models.names_of(expected["whole names"])
    held = {
        "model_state_dict": models.weights(names),
        "optimizer": {"state": {0: {"step": torch.ones(1)}}},
        "scheduler": {"last_epoch": 800000},
        "max_iter": 800000,
    }
    file = tmp_path / "metric_depth_vit_small_800k.pth"
    torch.save(held, file)
    ran = CliRunner().invoke(cli, ["convert-weights", str(file), str(tmp_path / "m")])
    assert ran.exit_code == 0, ran.output
    assert "config.json: the settings of the network" in ran.output
    assert "Left out, as it is no weight: max_iter, optimizer, scheduler." in ran.output
    assert json.loads((tmp_path / "m" / "config.json").read_text()) == {
        "model_type": "depthsieve_metric3d2",
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "gated": False,
        "every_quarter": False,
        "features": [96, 192],
        "recurrent_size": 48,
        "iterations": 4,
    }
    assert load_teacher(str(tmp_path / "m")).label_shape(480, 640) == (616, 821)
    teacher = load_teacher(str(tmp_path / "m"), size=196)
    image = torch.from_numpy(da3_models.image(models.CANVAS))
    found = teacher.predict(Batch(image, torch.tensor([[1000.0, 1000, 98, 56]])))
    assert found.confidence is not None
    assert da3_models.apart(da3_models.kept(found.depth[0].numpy()), expected["whole depth"]) < 1e-4
    wanted = expected["whole confidence"].clip(min=0)
    assert da3_models.apart(da3_models.kept(found.confidence[0].numpy()), wanted) < 1e-4


def shapes_of(size: int, layers: int, channels: tuple[int, int, int], *, gated: bool) -> dict[str, tuple[int, ...]]:
    """Some of the names that a published file has."""
    decoder, encoder = "depth_model.decoder", "depth_model.encoder"
    linear = "mlp.w12.weight" if gated else "mlp.fc1.weight"
    return {
        f"{encoder}.pos_embed": (1, 1370, size),
        f"{decoder}.token2feature.read_0.sample.0.weight": (channels[0], size, 1, 1),
        f"{decoder}.token2feature.read_1.sample.weight": (size, channels[1], 2, 2),
        f"{decoder}.context_zqr_convs.0.weight": (3 * channels[2], channels[2], 3, 3),
        **{f"{encoder}.blocks.0.{number}.{linear}": (4 * size, size) for number in range(layers)},
    }


def test_names_and_shapes_say_what_the_network_is() -> None:
    found = config_of(shapes_of(1536, 40, (384, 768, 192), gated=True))
    assert found is not None
    assert (found["num_hidden_layers"], found["num_attention_heads"], found["iterations"]) == (40, 24, 8)
    assert (found["gated"], found["every_quarter"]) == (True, True)
    assert (found["features"], found["recurrent_size"]) == ([384, 768], 192)
    large = config_of(shapes_of(1024, 24, (256, 512, 128), gated=False))
    assert large is not None
    assert (large["num_attention_heads"], large["iterations"], large["every_quarter"]) == (16, 8, False)
    assert config_of({"depth_model.encoder.downsample_layers.0.0.weight": (96, 3, 4, 4)}) is None  # Metric3D v1
    with pytest.raises(TeacherUnsupported, match="768 channels; how many steps its decoder takes is known for 384"):
        config_of(shapes_of(768, 12, (192, 384, 96), gated=False))


def test_an_encoder_of_another_size_needs_a_configuration_of_its_own(folder: Path, tmp_path: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "narrow.pth")
    with pytest.raises(TeacherUnsupported, match="has 64 channels"):
        convert_weights(tmp_path / "narrow.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text((folder / "config.json").read_text())
    assert convert_weights(tmp_path / "narrow.pth", tmp_path / "out").config is None
    assert load_teacher(str(tmp_path / "out")).label_shape(112, 196) == (112, 196)


@pytest.mark.parametrize(
    "name",
    [
        "depth_model.decoder.update_block.gru16.convq.weight",
        "depth_model.encoder.register_tokens",
        "depth_model.decoder.context_feature_encoder.outputs08.1.0.norm3.bias",
    ],
)
def test_a_layer_without_weights_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    weights.pop(name.replace("norm3", "downsample.1"), None)  # the same layer by its other name
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(weights, tmp_path / "model.safetensors")
    assert "random weights must not label" in refusal(tmp_path, TeacherUnsupported)


def test_it_keeps_the_contract_of_teachers(folder: Path) -> None:
    assert check_teacher(str(folder), size=112) == []


def test_what_a_teacher_says_of_itself(folder: Path) -> None:
    teacher = load_teacher(str(folder))
    assert (teacher.quantity, teacher.unit, teacher.dtype, teacher.attention) == ("depth", "m", "float32", "sdpa")
    assert (teacher.confidence_better, teacher.intrinsics_in, teacher.intrinsics_out) == ("higher", "needed", False)
    assert teacher.confidence_meaning == "trained as 1 - abs(error) / truth; 0 where that is less"
    assert teacher.preprocessing == {
        "rule": "metric3d-v2-official",
        "canvas": [112, 196],
        "interpolation": "cv2 uint8, INTER_LINEAR",
        "margin": "mean colour, 8 bits",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "position_embedding": "official, offset 0.1",
        "decoder": "float32",
    }
    assert "it predicts depth; leave out --quantity disparity" in refusal(folder, UsageError, quantity="disparity")


def test_images_fit_into_the_canvas(folder: Path) -> None:
    published = CanvasPreprocessing(CANVAS, TokenLimit(14, 16384, "reject"))
    shapes = {(480, 640): (616, 821), (640, 480): (616, 462), (375, 1242): (321, 1064), (616, 1064): (616, 1064)}
    assert {photo: published.label_shape(*photo) for photo in shapes} == shapes
    assert published.half_shape((321, 1064)) == (161, 532)
    for shape, canvas, start in (
        ((616, 821), (616, 1064), (0, 121)),
        ((321, 1064), (616, 1064), (147, 0)),
        ((308, 411), (308, 532), (0, 60)),
        ((161, 532), (308, 532), (73, 0)),
    ):
        padded, found = published.padded(torch.ones(1, 3, *shape))
        assert (tuple(padded.shape[2:]), found) == (canvas, start)
    with pytest.raises(ImageRejected, match="too thin"):
        published.label_shape(1, 2000)
    assert load_teacher(str(folder), size=392).label_shape(1000, 2000) == (196, 392)
    assert "no multiple of 28" in refusal(folder, UsageError, size=210)


def test_a_limit_of_tokens_makes_the_canvas_smaller_or_refuses(folder: Path) -> None:
    with pytest.raises(ImageRejected, match="196x112, 112 tokens, above the limit of 100"):
        load_teacher(str(folder), max_tokens=100).label_shape(90, 120)
    shrinking = load_teacher(str(folder), max_tokens=100, oversize="shrink")
    shape = shrinking.label_shape(90, 120)
    assert shape == (84, 112)
    camera = torch.tensor([[90.0, 90, 56, 42]])
    image = torch.from_numpy(shrinking.prepare(da3_models.photo(90, 120), shape))[None]
    smaller = load_teacher(str(folder), size=168)  # 84 x 168, 72 tokens
    wanted = smaller.predict(Batch(image, camera))
    torch.testing.assert_close(shrinking.predict(Batch(image, camera)).depth, wanted.depth, rtol=0, atol=0)
    assert shrinking.preprocessing["max_tokens"] == 100


def test_the_decoder_stays_in_float32(folder: Path) -> None:
    teacher = load_teacher(str(folder), dtype="bfloat16")
    dtypes = {name: value.dtype for name, value in teacher._model.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if ".decoder." in name} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if ".encoder." in name} == {torch.bfloat16}
    image, camera = torch.from_numpy(da3_models.image(models.CANVAS)), torch.tensor([[1000.0, 1000, 98, 56]])
    coarse, exact = (one.predict(Batch(image, camera)).depth for one in (teacher, load_teacher(str(folder))))
    assert 1e-4 < float((coarse / exact).log().abs().median()) < 0.05


def test_a_preset_says_how_to_convert_it() -> None:
    assert refusal("metric3d-v2-giant", TeacherUnsupported) == (
        "teacher 'metric3d-v2-giant' is published as a pickle, which is not loaded: get "
        "metric_depth_vit_giant2_800k.pth of JUGGHM/Metric3D from the hub, and say `depthsieve convert-weights "
        "metric_depth_vit_giant2_800k.pth metric3d-v2-giant/`, then --teacher ./metric3d-v2-giant"
    )


def test_photos_are_labelled_with_its_confidence_and_need_a_focal_length(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, focal in (("near", 20), ("far", 40), ("unknown", None)):
        photo = Image.fromarray(da3_models.photo(60, 70))
        (tmp_path / "photos" / f"{name}.png").write_bytes(with_exif(photo, "PNG", 1, focal))
    options: dict[str, Any] = {"batch_size": 1, "threads": 1, "progress": False}
    summary = depthsieve.label(
        tmp_path / "photos", tmp_path / "store", teacher=str(folder), signals="native", **options
    )
    assert summary.labelled == 2
    (failure,) = summary.failed
    assert failure.id == "default/unknown.png" and "needs a focal length" in failure.reason
    store = depthsieve.open_store(tmp_path / "store")
    near, far = (store.label(f"default/{name}.png") for name in ("near", "far"))
    assert (store.spec.quantity, store.spec.unit) == ("depth", "m")
    np.testing.assert_allclose(far.depth, 2 * near.depth, rtol=2e-3)
    assert (far.reliability == near.reliability).all() and np.unique(near.reliability).size > 2
