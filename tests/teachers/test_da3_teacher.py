"""Depth Anything 3 as a teacher: what its published configuration asks for, what is on record, what is refused."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import da3_models as models
import numpy as np
import pytest
import torch
from decoding import with_exif
from PIL import Image
from teachers_builders import depth_of, refusal
from transformers import AutoModelForDepthEstimation

import depthsieve
from depthsieve.core.errors import ImageRejected, TeacherUnsupported, UsageError
from depthsieve.teachers import Batch, load_teacher
from depthsieve.teachers.da3 import network
from depthsieve.teachers.da3.published import NAMED, is_published, read_published
from depthsieve.teachers.da3.teacher import intrinsics_of
from depthsieve.testing import check_teacher

LARGE = {
    "model_name": "da3-large",
    "config": {
        "__object__": {"path": "depth_anything_3.model.da3", "name": "DepthAnything3Net", "args": "as_params"},
        "net": {
            "__object__": {"path": "depth_anything_3.model.dinov2.dinov2", "name": "DinoV2", "args": "as_params"},
            "name": "vitl",
            "out_layers": [11, 15, 19, 23],
            "alt_start": 8,
            "qknorm_start": 8,
            "rope_start": 8,
            "cat_token": True,
        },
        "head": {
            "__object__": {"path": "depth_anything_3.model.dualdpt", "name": "DualDPT", "args": "as_params"},
            "dim_in": 2048,
            "output_dim": 2,
            "features": 256,
            "out_channels": [256, 512, 1024, 1024],
        },
        "cam_dec": {"dim_in": 2048},
    },
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("da3")
    cases = {name: models.CASES[name] for name in ("small", "mono")}
    return {name: models.save(root / name, case, models.names_of(case)) for name, case in cases.items()}


def changed(raw: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    other = copy.deepcopy(dict(raw))
    for name, value in settings.items():
        part, _, key = name.partition("_")
        other["config"][part][key] = value
    return other


@pytest.mark.parametrize("name", ["small", "mono"])
def test_it_keeps_the_contract_of_teachers(name: str, folders: Mapping[str, Path]) -> None:
    assert check_teacher(str(folders[name]), size=56) == []


def test_a_published_configuration_says_the_shape_of_the_network() -> None:
    assert is_published(LARGE)
    found = read_published(LARGE)
    assert found == {
        "any_view": True,
        "metric": False,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "gated": False,
        "alternate_from": 8,
        "out_layers": [11, 15, 19, 23],
        "features": 256,
        "out_channels": [256, 512, 1024, 1024],
    }
    assert read_published({"model_name": "da3-large"}) == found
    assert {name: read_published({"model_name": name})["metric"] for name in NAMED} == {
        name: name == "da3metric-large" for name in NAMED
    }
    assert read_published({"model_name": "da3-giant"})["gated"] is True


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"model_name": "da3nested-giant-large"}, "two networks in one"),
        ({"model_name": "da3-huge"}, "names 'da3-huge'"),
        (changed(LARGE, net_rope_start=4), "rope_start 4"),
        (changed(LARGE, head_output_dim=3), "output_dim 3"),
        (changed(LARGE, net_name="vith"), "no Depth Anything 3 configuration: KeyError('vith')"),
        ({"model_name": "da3-large", "config": {"net": []}}, "no Depth Anything 3 configuration"),
    ],
)
def test_what_no_published_model_has_is_refused(raw: dict[str, Any], reason: str, tmp_path: Path) -> None:
    models.save(tmp_path, models.CASES["small"], {"model.head.norm.bias": (4,)})
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert reason in refusal(tmp_path, TeacherUnsupported)


def test_what_a_teacher_of_the_main_series_says_of_itself(folders: Mapping[str, Path]) -> None:
    teacher = load_teacher(str(folders["small"]))
    assert (teacher.quantity, teacher.unit, teacher.dtype, teacher.attention) == ("disparity", "", "float32", "sdpa")
    assert (teacher.confidence_better, teacher.intrinsics_in, teacher.intrinsics_out) == ("higher", "ignored", True)
    assert teacher.preprocessing == {
        "rule": "depth-anything-3-official",
        "longest_side": 504,
        "multiple": 14,
        "interpolation": "cv2 uint8, twice, INTER_AREA to smaller, INTER_CUBIC to larger",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "position_embedding": "official, offset 0.1",
        "heads": "float32",
    }
    found = teacher.predict(Batch.of(torch.from_numpy(models.image((56, 70)))))
    assert found.embedding is not None
    assert found.embedding.shape == (1, teacher.embedding_size) == (1, 4 * 48)
    assert float(found.embedding.norm()) == pytest.approx(1)


def test_metric_or_not_is_a_matter_of_the_models_name(folders: Mapping[str, Path], tmp_path: Path) -> None:
    mono = load_teacher(str(folders["mono"]))
    assert (mono.quantity, mono.confidence_better, mono.intrinsics_in) == ("disparity", None, "ignored")
    assert "it predicts disparity; leave out --quantity depth" in refusal(folders["mono"], UsageError, quantity="depth")
    nameless = {"model_type": network.KIND, **read_published({"config": models.CASES["mono"].published["config"]})}
    models.save(tmp_path, models.CASES["mono"], models.names_of(models.CASES["mono"]))
    (tmp_path / "config.json").write_text(
        json.dumps(nameless | {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "image_size": 70})
    )
    assert "declare it: --quantity" in refusal(tmp_path, TeacherUnsupported)
    metric = load_teacher(str(tmp_path), quantity="depth")
    assert (metric.unit, metric.intrinsics_in) == ("m", "needed")
    image = torch.from_numpy(models.image((56, 70)))
    camera = torch.tensor([[280.0, 320.0, 35.0, 28.0]])
    torch.testing.assert_close(
        metric.predict(Batch(image, camera)).depth * depth_of(mono, image), torch.ones(1, 56, 70)
    )


def test_size_is_the_longest_side(folders: Mapping[str, Path]) -> None:
    teacher = load_teacher(str(folders["small"]), size=98)
    assert teacher.label_shape(375, 500) == (70, 98)  # 73.5 rows, rounded to 74, are nearer to 70 than to 84
    assert teacher.label_shape(98, 91) == (98, 98)  # 91 is as near to 84: up
    assert teacher.half_shape((70, 98)) == (42, 56)
    assert "no multiple of the model's patch, 14" in refusal(folders["small"], UsageError, size=100)
    with pytest.raises(ImageRejected, match="too thin"):
        teacher.label_shape(10, 200)
    with pytest.raises(ImageRejected, match="35 tokens, above the limit of 30"):
        load_teacher(str(folders["small"]), size=98, max_tokens=30).label_shape(375, 500)
    shrinking = load_teacher(str(folders["small"]), size=98, max_tokens=30, oversize="shrink")
    assert shrinking.prepare(models.photo(375, 500), shrinking.label_shape(375, 500)).shape == (3, 56, 84)


def test_the_heads_stay_in_float32(folders: Mapping[str, Path]) -> None:
    """Depth is an exponential: rounded to 8 bits, its logit is wrong by percents of the depth."""
    exact, coarse = (load_teacher(str(folders["small"]), dtype=dtype) for dtype in ("float32", "bfloat16"))
    image = torch.from_numpy(models.image((56, 70)))
    apart = (depth_of(coarse, image) / depth_of(exact, image)).log().abs()
    assert 1e-4 < float(apart.median()) < 0.05
    dtypes = {name: value.dtype for name, value in coarse._model.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if ".head." in name or "cam_dec" in name} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if ".backbone.pretrained." in name} == {torch.bfloat16}


def test_it_loads_and_saves_as_other_models_of_transformers_do(folders: Mapping[str, Path], tmp_path: Path) -> None:
    network.register()
    model = AutoModelForDepthEstimation.from_pretrained(folders["small"])
    model.save_pretrained(tmp_path)
    image = torch.from_numpy(models.image((56, 70)))
    again = depth_of(load_teacher(str(tmp_path)), image)
    torch.testing.assert_close(again, depth_of(load_teacher(str(folders["small"])), image), rtol=0, atol=0)


def test_a_camera_of_no_angle_is_none() -> None:
    found = intrinsics_of(torch.tensor([[0.5, 1.0], [0.0, 1.0]]), 100, 200)
    torch.testing.assert_close(found[0], torch.tensor([100 / 0.546302, 50 / 0.255342, 100.0, 50.0]), rtol=1e-4, atol=0)
    assert found[1].isnan().all()


def test_the_focal_length_of_a_photo_decides_its_metres(tmp_path: Path) -> None:
    case = models.CASES["metric"]
    folder = models.save(tmp_path / "metric", case, models.names_of(case))
    photo = Image.fromarray(models.photo(60, 70))
    for name, focal in (("near", 20), ("far", 40), ("unknown", None)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{name}.png").write_bytes(with_exif(photo, "PNG", 1, focal))
    options: dict[str, Any] = {"teacher": str(folder), "size": 70, "batch_size": 1, "threads": 1, "progress": False}
    summary = depthsieve.label(tmp_path / "photos", tmp_path / "store", **options)
    assert summary.labelled == 2
    (failure,) = summary.failed
    assert failure.id == "default/unknown.png" and "needs a focal length" in failure.reason
    store = depthsieve.open_store(tmp_path / "store")
    near, far = (store.label(f"default/{name}.png") for name in ("near", "far"))
    assert (store.spec.quantity, store.spec.unit) == ("depth", "m")
    labelled = near.depth > 0
    assert 0 < labelled.sum() < labelled.size  # the rest is sky
    assert (near.reliability[~labelled] == 0).all() and (near.reliability[labelled] > 0).any()
    np.testing.assert_allclose(far.depth[labelled], 2 * near.depth[labelled], rtol=2e-3)
