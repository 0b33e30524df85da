"""One clear line for every checkpoint and option that cannot be loaded."""

import hashlib
import inspect
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import teachers_builders as builders
import torch
import transformers
from safetensors.torch import load_file, save_file
from teachers_builders import refusal

from depthsieve.core.errors import TeacherUnsupported, UsageError
from depthsieve.core.records import TeacherSettings
from depthsieve.teachers import load_teacher

pytestmark = pytest.mark.usefixtures("empty_hub")


def label(folder: Path, **options: Any) -> torch.Tensor:
    return builders.depth_of(load_teacher(str(folder), **options), torch.ones(1, 3, 70, 98))


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# --- loading ---------------------------------------------------------------------------------------------------------


def test_a_local_folder_loads_and_says_what_it_is(folder: Path) -> None:
    teacher = load_teacher(str(folder))
    assert teacher.name == str(folder)
    assert (teacher.dtype, teacher.attention, teacher.device) == ("float32", "sdpa", torch.device("cpu"))
    model = teacher._model  # type: ignore[attr-defined]
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        assert builders.depth_of(teacher, torch.ones(1, 3, 70, 70)).is_inference()


def test_the_digest_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    first = load_teacher(str(folder)).weights_digest
    parts = [hashlib.sha256((folder / name).read_bytes()).digest() for name in ("config.json", "model.safetensors")]
    assert first == hashlib.sha256(b"".join(parts)).hexdigest()
    moved = Path(shutil.copytree(folder, tmp_path / "another name"))
    (moved / "README.md").write_text("a note")
    assert load_teacher(str(moved)).weights_digest == first
    edit_weights(moved, lambda weights: weights["head.conv3.bias"].add_(1))
    second = load_teacher(str(moved)).weights_digest
    edit_config(folder, lambda config: config.update(note="changed"))
    assert len({first, second, load_teacher(str(folder)).weights_digest}) == 3


def test_sharded_weights_give_the_same_label(original: Path, tmp_path: Path) -> None:
    folder = builders.save(
        tmp_path / "sharded",
        builders.depth_anything_config(),
        builders.DEPTH_ANYTHING_PROCESSOR,
        max_shard_size="100KB",
    )
    shards = sorted(folder.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    torch.testing.assert_close(label(folder), label(original), rtol=0, atol=0)
    shards[1].unlink()
    assert f"{shards[1].name}, which model.safetensors.index.json lists, is missing" in refusal(
        folder, TeacherUnsupported
    )


def test_an_index_cannot_point_outside_its_folder(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {"head.conv1.bias": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "'../model.safetensors', which is no file beside it" in refusal(folder, TeacherUnsupported)


def test_nothing_is_printed_and_the_users_settings_stay(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    edit_weights(folder, lambda weights: weights.update(foreign=torch.zeros(1)))  # transformers would warn of it
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        load_teacher(str(folder))
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(verbosity)
    assert capfd.readouterr() == ("", "")
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", stacklevel=1)


def test_importing_teachers_is_light() -> None:
    code = (
        "import sys, depthsieve.teachers as t; assert t.find_preset('zoedepth'); "
        "assert not {'torch', 'transformers', 'ray', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": "float64"}, "dtype must be one of auto, float32, bfloat16, float16, not 'float64'"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1, not 0"),
        ({"size": -14}, "size must be a whole number of at least 1, not -14"),
        ({"oversize": "crop"}, "oversize must be one of reject, shrink, not 'crop'"),
        ({"quantity": "metres"}, "quantity must be one of disparity, depth, not 'metres'"),
        ({"device": "gpu"}, "unknown device 'gpu': use cpu, cuda, cuda:N or auto"),
        ({"device": "meta"}, "unknown device 'meta'"),
        ({"revision": "main"}, "--revision main is for models of the hub"),
    ],
)
def test_options_that_cannot_be_meant(folder: Path, options: dict[str, Any], reason: str) -> None:
    assert reason in refusal(folder, UsageError, **options)


def test_defaults_are_declared_once() -> None:
    """``load_teacher`` spells its options out for editors; they are those of :class:`TeacherSettings`."""
    spelled = {name: option.default for name, option in inspect.signature(load_teacher).parameters.items()}
    assert spelled.pop("name") is inspect.Parameter.empty
    assert spelled == TeacherSettings().settings()


def test_devices(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_teacher(str(folder), device="auto").device == torch.device("cpu")
    assert "'cuda' was asked for, but torch sees no CUDA device" in refusal(folder, UsageError, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "'cuda:2' was asked for, but there are only 2" in refusal(folder, UsageError, device="cuda:2")


# --- checkpoints that are refused ------------------------------------------------------------------------------------


def damage_pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def damage_truncated(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def damage_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def damage_other_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))


def damage_remote_code(folder: Path) -> None:
    edit_config(folder, lambda c: c.update(model_type="mine", auto_map={"AutoConfig": "code.Config"}))
    (folder / "code.py").write_text("raise SystemExit('ran')")


def damage_outside_backbone(folder: Path) -> None:
    edit_config(folder, lambda c: c.update(backbone="someone/else", backbone_config=None))


def damage_wider(folder: Path) -> None:
    edit_config(folder, lambda c: c.update(fusion_hidden_size=24))


def damage_deeper(folder: Path) -> None:
    edit_config(folder, lambda c: c["backbone_config"].update(num_hidden_layers=5))


def damage_shallower(folder: Path) -> None:
    edit_weights(
        folder,
        lambda w: w.update({k.replace("layer.3.", "layer.4."): v.clone() for k, v in w.items() if "layer.3." in k}),
    )


def damage_lost_weight(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop("head.conv2.bias"))


def damage_bad_setting(folder: Path) -> None:
    edit_config(folder, lambda c: c.update(depth_estimation_type="sideways"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_pickled, "has pickled weights only (pytorch_model.bin), which can run code when loaded; convert"),
        (damage_truncated, "model.safetensors is damaged or no safetensors file"),
        (damage_not_json, "config.json cannot be read"),
        (damage_other_model, "it is no depth model, but a bert model"),
        (damage_remote_code, "knows no model type 'mine' and brings code of its own, which is never run"),
        (damage_outside_backbone, "takes the backbone's settings from elsewhere (someone/else)"),
        (damage_wider, "have other shapes than config.json asks for, the first is head.conv1.bias: [8], not [12]"),
        (damage_deeper, "weights that config.json asks for are missing, the first is backbone"),
        (damage_shallower, "the weights hold more layers than config.json says, the first is backbone"),
        (damage_lost_weight, "1 weights that config.json asks for are missing, the first is head.conv2.bias"),
        (damage_bad_setting, "cannot be loaded: depth_estimation_type must be one of"),
        (lambda folder: (folder / "config.json").unlink(), "its folder holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "config.json is not a JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors (pickled weights are never"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("no"), "preprocessor_config.json cannot be"),
    ],
)
def test_one_line_for_each_bad_checkpoint(folder: Path, damage: Callable[[Path], Any], reason: str) -> None:
    damage(folder)
    message = refusal(folder, TeacherUnsupported)
    assert reason in message
    assert message.startswith(f"teacher {str(folder)!r}")


def test_weights_that_no_forward_pass_reads_may_be_missing(folder: Path) -> None:
    before = label(folder)
    unused = "neck.fusion_stage.layers.0.residual_layer1."
    edit_weights(folder, lambda w: [w.pop(key) for key in list(w) if key.startswith(unused) or "mask_token" in key])
    torch.testing.assert_close(label(folder), before, rtol=0, atol=0)
    edit_weights(folder, lambda weights: weights.pop("neck.fusion_stage.layers.1.residual_layer1.convolution1.bias"))
    assert "1 weights that config.json asks for are missing" in refusal(folder, TeacherUnsupported)


@pytest.mark.parametrize("kind", ["depth_pro", "tipsv2_dpt"])
def test_processors_that_need_torchvision_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {kind}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "use_fov_model": True}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    message = refusal(tmp_path, TeacherUnsupported)
    assert "it needs torchvision, which is not installed: pip install torchvision" in message


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_type": "prompt_depth_anything"}, "needs a measured depth map"),
        ({"model_type": "chmv2"}, "it predicts how high trees are, seen from above"),
    ],
)
def test_depth_models_of_unknown_output_are_refused(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert reason in refusal(tmp_path, TeacherUnsupported)
