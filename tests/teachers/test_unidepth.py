"""UniDepth v2 by the package of its authors: what is told without it, and, where it is installed, that labels are what
its ``infer`` returns."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import unidepth_models as models
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from teachers_builders import refusal

from depthsieve.core.errors import TeacherUnsupported, UsageError
from depthsieve.scenes import render_scene
from depthsieve.teachers import Batch, Teacher, load_teacher
from depthsieve.teachers.preprocessing import TokenLimit
from depthsieve.teachers.unidepth import installed
from depthsieve.teachers.unidepth.published import read_published
from depthsieve.teachers.unidepth.teacher import UniDepthPreprocessing
from depthsieve.testing import check_teacher
from depthsieve_cli.main import cli

SIZES = {"small": "vits14", "base": "vitb14", "large": "vitl14"}
NOT_INSTALLED = (
    "it needs its authors' package unidepth (CC-BY-NC-4.0: not for commercial use), which is not installed: pip install"
    " --no-deps git+https://github.com/lpiccinelli-eth/UniDepth && pip install einops matplotlib scipy timm torchvision"
    " wandb"
)


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unidepth", None)


# --- without the package ---------------------------------------------------------------------------------------------


def test_presets_say_where_they_are_under_which_licence_and_what_they_need() -> None:
    listed = {one["name"]: one for one in json.loads(CliRunner().invoke(cli, ["teachers", "--json"]).output)}
    for size, encoder in SIZES.items():
        body = listed[f"unidepth-v2-{size}"]
        assert body["hub_id"] == f"lpiccinelli/unidepth-v2-{encoder}"
        assert (body["licence"], body["commercial_use"]) == ("CC-BY-NC-4.0", False)
        assert (body["quantity"], body["unit"], body["needs"]) == ("depth", "m", "unidepth")
    assert listed["tiny"]["needs"] == ""
    printed = CliRunner().invoke(cli, ["teachers"]).output
    assert "unidepth-v2-large: not for commercial use, code and weights;" in printed


@pytest.mark.usefixtures("no_package", "empty_hub")
@pytest.mark.parametrize("size", SIZES)
def test_a_preset_says_what_to_install_before_anything_is_fetched(size: str) -> None:
    wanted = f"teacher 'unidepth-v2-{size}': {NOT_INSTALLED}"
    assert refusal(f"unidepth-v2-{size}", TeacherUnsupported) == wanted


@pytest.mark.usefixtures("no_package")
def test_a_folder_is_recognised_by_its_config(tmp_path: Path) -> None:
    folder = models.save(tmp_path / "model", models.config())
    assert refusal(folder, TeacherUnsupported) == f"teacher {str(folder)!r}: {NOT_INSTALLED}"


def test_a_folder_of_that_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "unidepth", raising=False)
    (tmp_path / "unidepth").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert importlib.util.find_spec("unidepth") is not None
    assert installed.folder() is None


def test_the_code_of_the_package_has_a_digest_of_its_own(tmp_path: Path) -> None:
    def digest(name: str, text: str, file: str = "models/network.py") -> str:
        for part in ("models", "layers", "datasets"):
            (tmp_path / name / part).mkdir(parents=True)
        (tmp_path / name / file).write_text(text)
        return installed.code_digest(tmp_path / name)

    whole = digest("one", "a = 1")
    assert whole == digest("two", "a = 1")
    assert len({whole, digest("three", "a = 2"), digest("four", "a = 1", "layers/network.py")}) == 3
    assert digest("five", "a = 1", "datasets/kitti.py") == digest("six", "a = 2", "datasets/kitti.py")


def test_a_package_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "unidepth"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "site" / "unidepth" / "models").mkdir(parents=True)
    (tmp_path / "site" / "unidepth" / "models" / "__init__.py").write_text("print('loud')\nimport not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    line = refusal(models.save(tmp_path / "model", models.config()), TeacherUnsupported)
    assert "package unidepth cannot be imported (ModuleNotFoundError: No module named 'not_there_at_all'); " in line
    for name in [one for one in sys.modules if one.partition(".")[0] == "unidepth"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"name": "UniDepthV1"}, "it is a UniDepthV1; UniDepthV2 is supported"),
        ({"name": "UniDepthV2old"}, "it is a UniDepthV2old; UniDepthV2 is supported"),
        ({"pixel_encoder": {"name": "convnextv2_base"}}, "its backbone is convnextv2_base; dinov2_vits14,"),
        ({"pixel_encoder": None}, "config.json is no UniDepth v2 configuration"),
    ],
)
def test_other_models_are_refused(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert line in refusal(models.save(tmp_path / "model", models.config(**changes)), TeacherUnsupported)


def test_bounds_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    body = models.config()
    limits = body["data"]["augmentations"]["shape_constraints"]
    limits["pixels_min"] = 700000
    assert "asks for 700000 to 600000 pixels" in refusal(models.save(tmp_path / "one", body), TeacherUnsupported)
    limits |= {"pixels_min": 1, "ratio_bounds": [2.5, 0.5]}
    assert "a width of 2.5 to 0.5 times" in refusal(models.save(tmp_path / "two", body), TeacherUnsupported)
    del limits["ratio_bounds"]
    assert "no UniDepth v2 configuration" in refusal(models.save(tmp_path / "three", body), TeacherUnsupported)


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = models.save(tmp_path / "model", models.config())
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "has pickled weights only (pytorch_model.bin), which can run code" in refusal(folder, TeacherUnsupported)


def test_nothing_in_a_config_leads_to_other_weights() -> None:
    body = models.config()
    taken = read_published(body)
    assert taken["model"]["pixel_encoder"]["pretrained"] is None
    assert taken["training"]["losses"] == {}
    assert body == models.config()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"dtype": "bfloat16"}, "its authors' code computes in float32 on cpu; leave out --dtype bfloat16"),
        ({"quantity": "disparity"}, "it predicts depth in metres; leave out --quantity disparity"),
        ({"size": 500}, "size 500 is no multiple of the model's patch, 14"),
    ],
)
def test_options_that_do_not_suit_it(options: dict[str, Any], line: str, tmp_path: Path) -> None:
    folder = models.save(tmp_path / "model", models.config())
    with pytest.raises(UsageError, match=line):
        load_teacher(str(folder), device="cpu", **options)


def test_preparing_normalises_and_then_resizes_without_antialias() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    limit = TokenLimit(14, 16384, "reject")
    preprocessing = UniDepthPreprocessing((200000, 600000), (0.5, 2.5), limit, {}, never, never)
    rgb = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    unit = (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    half = unit[:, 0::2] / 2 + unit[:, 1::2] / 2  # a pixel between two, and rows as they are
    got = preprocessing.prepare(rgb, (80, 50))
    np.testing.assert_allclose(got, half.transpose(2, 0, 1), atol=1e-5)
    quarter = preprocessing.prepare(rgb, (80, 25))  # four columns into one: the middle two, where antialias takes all
    np.testing.assert_allclose(quarter, (unit[:, 1::4] / 2 + unit[:, 2::4] / 2).transpose(2, 0, 1), atol=1e-5)
    assert preprocessing.half_shape((490, 644)) == (252, 322)
    assert preprocessing.half_shape((287, 644)) == (144, 322)


# --- with the package, which is not for commercial use and no dependency of ours --------------------------------------

with_package = pytest.mark.skipif(installed.folder() is None, reason="needs the package unidepth of its authors")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of their package with random weights, and the folder that it saved itself into."""
    code, _ = installed.load()
    torch.manual_seed(0)
    with installed.quiet():
        model = code.UniDepthV2(read_published(models.config())).eval()
        with torch.no_grad():
            for value in model.parameters():
                if value.ndim > 1:
                    value.normal_(0, value[0].numel() ** -0.5)
        folder = tmp_path_factory.mktemp("unidepth") / "model"
        model.save_pretrained(folder)
    body = json.loads((folder / "config.json").read_text())
    body["data"]["augmentations"]["shape_constraints"] |= {"pixels_min": 20000, "pixels_max": 60000}
    (folder / "config.json").write_text(json.dumps(body))
    model.shape_constraints |= {"pixels_min": 20000, "pixels_max": 60000}
    return model, folder


@pytest.fixture(scope="module")
def teacher(official: tuple[Any, Path]) -> Teacher:
    return load_teacher(str(official[1]), device="cpu")


@with_package
@pytest.mark.filterwarnings("ignore:!! self.resolution_level not set")
@pytest.mark.parametrize("shape", [(120, 160), (300, 200), (100, 252), (100, 400), (400, 100)])
def test_labels_are_what_infer_returns(shape: tuple[int, int], teacher: Teacher, official: tuple[Any, Path]) -> None:
    rgb = render_scene(3, *shape, family="home").rgb_HW3
    wanted = official[0].infer(torch.from_numpy(rgb).permute(2, 0, 1))
    size = teacher.label_shape(*shape)
    found = teacher.predict(Batch.of(torch.from_numpy(teacher.prepare(rgb, size))[None]))
    for ours, theirs in ((found.depth, wanted["depth"]), (found.confidence, wanted["confidence"])):
        assert ours is not None
        enlarged = torch.nn.functional.interpolate(ours[:, None], shape, mode="bilinear")
        if 0.5 <= shape[1] / shape[0] <= 2.6:
            torch.testing.assert_close(enlarged, theirs, rtol=1e-4, atol=0)
        else:  # here it is padded after it was resized
            assert torch.corrcoef(torch.stack((enlarged.flatten(), theirs.flatten())))[0, 1] > 0.7


@with_package
@pytest.mark.filterwarnings("ignore:!! self.resolution_level not set")
def test_a_photo_of_which_infer_returns_one_column_is_labelled(teacher: Teacher, official: tuple[Any, Path]) -> None:
    shape = 206, 500
    rgb = render_scene(3, *shape, family="home").rgb_HW3
    assert official[0].infer(torch.from_numpy(rgb).permute(2, 0, 1))["depth"].shape[-1] == 1
    size = teacher.label_shape(*shape)
    found = teacher.predict(Batch.of(torch.from_numpy(teacher.prepare(rgb, size))[None]))
    assert found.depth.shape[1:] == size == (168, 392)
    assert (found.depth.std(dim=2) > 0).all()


@with_package
def test_a_known_camera_goes_before_the_predicted_one(teacher: Teacher) -> None:
    size = teacher.label_shape(120, 160)
    image = torch.from_numpy(teacher.prepare(render_scene(3, 120, 160, family="home").rgb_HW3, size))[None]
    known = torch.tensor([[300.0, 310.0, 100.0, 90.0]])
    alone, told = teacher.predict(Batch.of(image)), teacher.predict(Batch(image, known))
    both = teacher.predict(Batch(image.expand(2, -1, -1, -1), torch.cat((torch.full((1, 4), torch.nan), known))))
    torch.testing.assert_close(told.intrinsics, known)
    assert alone.intrinsics is not None and (alone.intrinsics[:, :2] > 1).all()
    assert not torch.equal(alone.depth, told.depth)
    assert torch.equal(both.depth, torch.cat((alone.depth, told.depth)))


@with_package
def test_it_keeps_the_contract(official: tuple[Any, Path]) -> None:
    assert check_teacher(str(official[1])) == []


@with_package
def test_weights_must_fit(official: tuple[Any, Path], tmp_path: Path) -> None:
    weights = load_file(official[1] / "model.safetensors")
    (tmp_path / "config.json").write_bytes((official[1] / "config.json").read_bytes())
    name = "pixel_encoder.norm.weight"
    save_file({key: value for key, value in weights.items() if key != name}, tmp_path / "model.safetensors")
    assert f"1 weights that config.json asks for are missing, the first is {name};" in refusal(
        tmp_path, TeacherUnsupported
    )
