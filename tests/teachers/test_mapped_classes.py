"""Every class that transformers maps for depth estimation labels, or says in a line why not; and the bins of some."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import teachers_builders as builders
import torch
import transformers
from labelled import write_photo
from safetensors.torch import save_file
from teachers_builders import refusal
from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES

import depthsieve
from depthsieve.core.errors import TeacherUnsupported
from depthsieve.reliability.signals import native_disagreement
from depthsieve.store import open_store
from depthsieve.teachers import Batch, load_teacher
from depthsieve.teachers.bins import BinSpread, spread

OURS = ("depthsieve_lite", "depth_anything_3")
"""Classes that depthsieve registers there itself."""

LABELS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "depth_anything": (builders.depth_anything_config, builders.DEPTH_ANYTHING_PROCESSOR, {}),
    "dpt": (builders.dpt_config, builders.DPT_SQUARE_PROCESSOR, {}),
    "glpn": (builders.glpn_config, builders.GLPN_PROCESSOR, {}),
    "zoedepth": (builders.zoedepth_config, builders.ZOEDEPTH_PROCESSOR, {"signals": "native"}),
}

REFUSED = {
    "chmv2": "it predicts how high trees are, seen from above, and no depth",
    "prompt_depth_anything": "it needs a measured depth map beside each image",
}

TORCHVISION = {
    "depth_pro": (builders.depth_pro_config, builders.DEPTH_PRO_PROCESSOR),
    "tipsv2_dpt": (builders.tipsv2_config, builders.TIPSV2_PROCESSOR),
}
"""Classes whose processors need it: without it they are refused."""


@pytest.mark.parametrize("kind", sorted({*MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES, *LABELS} - {*OURS, *TORCHVISION}))
def test_each_mapped_class_labels_or_says_why_not(tmp_path: Path, kind: str) -> None:
    if kind in LABELS:
        config, processor, options = LABELS[kind]
        teacher = builders.save(tmp_path / "teacher", config(), processor)
        write_photo(tmp_path / "photos" / "a.png", 120, 90, 1)
        options = {"signals": "none", "batch_size": 1, "threads": 1, "progress": False} | options
        summary = depthsieve.label(tmp_path / "photos", tmp_path / "store", teacher=str(teacher), **options)
        assert (summary.labelled, summary.failed) == (1, ())
        codes = np.unique(open_store(tmp_path / "store").label("default/a.png").reliability)
        assert (len(codes) > 5) == (options["signals"] == "native")
        return
    assert kind in REFUSED, f"transformers maps {kind} now: see what it predicts, and add it here and to teachers.md"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "use_fov_model": True}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert REFUSED[kind] in refusal(tmp_path, TeacherUnsupported)


@pytest.mark.parametrize("kind", sorted(TORCHVISION))
def test_classes_whose_processor_needs_torchvision(tmp_path: Path, kind: str) -> None:
    """With it a label is what the processor makes of the model's output, in float16; without it they are refused."""
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {kind}")
    config, processor = TORCHVISION[kind]
    teacher = builders.save(tmp_path / "teacher", config(), processor)
    if importlib.util.find_spec("torchvision") is None:
        assert "it needs torchvision, which is not installed: pip install torchvision" in refusal(
            teacher, TeacherUnsupported
        )
        return
    photo = write_photo(tmp_path / "photos" / "a.png", 120, 90, 1)
    options = {"signals": "none", "batch_size": 1, "threads": 1, "progress": False}
    depthsieve.label(tmp_path / "photos", tmp_path / "store", teacher=str(teacher), **options)
    label = open_store(tmp_path / "store").label("default/a.png").depth
    theirs = transformers.AutoImageProcessor.from_pretrained(teacher)
    model = transformers.AutoModelForDepthEstimation.from_pretrained(teacher).eval()
    rgb_HW3 = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    with torch.inference_mode():
        output = model(**theirs(images=rgb_HW3, return_tensors="pt"))
    (wanted,) = theirs.post_process_depth_estimation(output, target_sizes=[label.shape])
    np.testing.assert_allclose(label, wanted["predicted_depth"].numpy(), rtol=1e-3)


def test_the_page_says_what_became_of_each() -> None:
    page = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text()
    for kind in {*LABELS, *REFUSED, *TORCHVISION}:
        assert f"| `{kind}` |" in page


def test_spread_is_the_standard_deviation_over_the_mean() -> None:
    weights_K, centres_K = np.array([0.5, 0.3, 0.2]), np.array([1.0, 4.0, 6.0])
    mean = (weights_K * centres_K).sum()
    wanted = np.sqrt((weights_K * (centres_K - mean) ** 2).sum()) / mean
    maps = (torch.tensor(one)[None, :, None, None].expand(1, 3, 2, 2) for one in (weights_K, centres_K))
    torch.testing.assert_close(spread(*maps), torch.full((1, 2, 2), wanted), check_dtype=False)


@pytest.mark.parametrize("heads", [1, 2])
def test_zoedepths_bins_are_its_confidence(tmp_path: Path, heads: int) -> None:
    folder = builders.save(tmp_path / "zoe", builders.zoedepth_config(heads), builders.ZOEDEPTH_PROCESSOR)
    teacher = load_teacher(str(folder))
    assert teacher.confidence_better == "lower" and "bins" in teacher.confidence_meaning
    images = torch.randn(2, 3, 84, 112, generator=torch.Generator().manual_seed(0))
    found = teacher.predict(Batch.of(images))
    assert found.confidence is not None and found.confidence.shape == found.depth.shape == (2, 84, 112)
    assert found.confidence.std() > 0 and (found.confidence >= 0).all()
    alone = teacher.predict(Batch.of(images[1:]))
    torch.testing.assert_close(alone.confidence, found.confidence[1:])
    assert torch.isfinite(native_disagreement(found.depth, found.confidence, "lower")).all()


def test_tipsv2s_bins_are_its_confidence() -> None:
    """Its processor needs torchvision; its network does not."""
    if "tipsv2_dpt" not in transformers.CONFIG_MAPPING:
        pytest.skip("this transformers has no tipsv2_dpt")
    config = builders.tipsv2_config()
    torch.manual_seed(0)
    model = transformers.AutoModelForDepthEstimation.from_config(config).eval()
    spreads, logits = BinSpread(model), []
    model.bin_regressor.register_forward_pre_hook(lambda module, inputs: logits.append(inputs[0]))
    with torch.inference_mode():
        depth = model(pixel_values=torch.randn(1, 3, 56, 56)).predicted_depth
    found = spreads.take()
    assert found is not None and found.shape == depth.shape and spreads.take() is None
    weights = torch.relu(logits[0]) + config.min_depth
    weights = weights / weights.sum(1, keepdim=True)
    centres = torch.linspace(config.min_depth, config.max_depth, 8)[:, None, None]
    wanted = ((weights * (centres - depth[:, None]) ** 2).sum(1)).sqrt() / depth
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
