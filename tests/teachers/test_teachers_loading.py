"""What a teacher's name means, and one clear line for everything that cannot be loaded."""

import hashlib
import inspect
import json
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import teachers_builders as builders
import torch
import transformers
from safetensors.torch import load_file, save_file

from depthsieve.core.errors import DepthsieveError, TeacherError, TeacherNotFound, TeacherUnsupported, UsageError
from depthsieve.core.records import TeacherSettings
from depthsieve.teachers import PRESETS, cached, checkpoints, find_preset, load_teacher


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original")
    return builders.save(path, builders.depth_anything_config(), builders.DEPTH_ANYTHING_PROCESSOR)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "teacher"))


@pytest.fixture(autouse=True)
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a hub at a port where nothing listens."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")


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


def refusal(name: object, kind: type[DepthsieveError], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load_teacher(str(name), **options)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
        (damage_pickled, "has pickled weights only (pytorch_model.bin), which can run code when loaded; if you trust"),
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
        ({"model_type": "chmv2"}, "what chmv2 models predict is not known here; declare it: --quantity disparity"),
    ],
)
def test_depth_models_of_unknown_output_are_refused(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert reason in refusal(tmp_path, TeacherUnsupported)


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_that_mean_nothing(tmp_path: Path) -> None:
    assert "did you mean 'depth-anything-v2-small'?" in refusal("depth-anything-v2-smal", TeacherNotFound)
    assert "`depthsieve teachers` lists what there is" in refusal("xyz", TeacherNotFound)
    assert "there is no such folder" in refusal(tmp_path / "nothing", TeacherNotFound)
    assert "there is no such folder" in refusal("./nothing", TeacherNotFound)
    (tmp_path / "file").write_text("")
    assert "is a file; give the folder" in refusal(tmp_path / "file", TeacherUnsupported)


def test_paths_that_cannot_be_paths(tmp_path: Path) -> None:
    long = "x" * 300
    assert refusal("~nouser/x", TeacherNotFound) == "no teacher '~nouser/x': there is no such folder"
    assert refusal(tmp_path / long, TeacherNotFound).endswith(f"{long}': it cannot be reached (File name too long)")
    assert "cannot be reached (File name too long)" in refusal("~/" + "x/" * 3000, TeacherNotFound)
    assert "cannot be reached (Too many levels of symbolic links)" in refusal(looping(tmp_path), TeacherNotFound)
    assert "a plug-in's, a local folder or a hub id" in refusal(long, TeacherNotFound)
    assert "is no hub id" in refusal(f"owner/{long}", UsageError)
    assert "there is no such folder" in refusal("./a\0b", TeacherNotFound)
    (tmp_path / "file").write_text("")
    assert "there is no such folder" in refusal(tmp_path / "file" / "below", TeacherNotFound)


def looping(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def test_a_home_folder_is_found(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(original, tmp_path / "mine")
    assert load_teacher("~/mine").weights_digest == load_teacher(str(original)).weights_digest


def test_a_preset_goes_before_a_folder_of_its_name(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original, tmp_path / "zoedepth")
    assert "Intel/zoedepth-nyu-kitti" in refusal("zoedepth", TeacherNotFound)
    assert load_teacher("./zoedepth").label_shape(70, 70) == (70, 70)
    shutil.copytree(original, tmp_path / "owner" / "model")
    assert load_teacher("owner/model").name == "owner/model"


def test_no_cache_and_no_network_names_the_way_out() -> None:
    started = time.monotonic()
    message = refusal("depth-anything-v2-small", TeacherNotFound)
    assert time.monotonic() - started < 5
    assert message.startswith(
        "teacher 'depth-anything-v2-small' (depth-anything/Depth-Anything-V2-Small-hf) is not cached and could not be "
        "fetched from the hub ("
    )
    assert message.endswith("; give a local folder, or use the embedded --teacher tiny, which needs no download")


def test_a_name_that_no_hub_would_take() -> None:
    assert "is no hub id" in refusal("owner/mo del", UsageError)


# --- a small hub of our own ------------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """Serves one repository the way the Hugging Face hub does, as far as its client asks."""

    silent = False

    def __init__(self, folder: Path, repository: str, commit: str) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.folder, self.repository, self.commit = folder, repository, commit
        self.requests: list[str] = []


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        hub = self.server
        hub.requests.append(self.path)
        if hub.silent:
            time.sleep(3)
            return
        path = self.path.split("?")[0]
        if hub.repository not in path:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif f"/api/models/{hub.repository}/revision/" in path or path.endswith(hub.repository):
            if path.rsplit("/", 1)[1] in ("main", "v1", hub.commit, hub.repository.split("/")[1]):
                self.answer(200, json.dumps({"id": hub.repository, "sha": hub.commit, "siblings": []}).encode())
            else:
                self.answer(404, X_Error_Code="RevisionNotFound")
        elif f"/api/models/{hub.repository}/tree/" in path:
            files = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": self.etag(file)}
                for file in sorted(hub.folder.iterdir())
            ]
            self.answer(200, json.dumps(files).encode())
        else:
            file = hub.folder / path.rsplit("/", 1)[1]
            if file.is_file():
                self.answer(200, file.read_bytes(), ETag=f'"{self.etag(file)}"', X_Repo_Commit=hub.commit)
            else:
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=hub.commit)

    do_HEAD = do_GET

    @staticmethod
    def etag(file: Path) -> str:
        return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    server = Hub(folder, "owner/model", "a" * 40)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hub_model_is_fetched_once_without_its_pickles(hub: Hub, original: Path) -> None:
    first = load_teacher("owner/model", revision="v1")
    assert first.weights_digest == load_teacher(str(original)).weights_digest
    assert any("model.safetensors" in path for path in hub.requests)
    assert not any("pytorch_model.bin" in path for path in hub.requests)
    hub.requests.clear()
    assert load_teacher("owner/model", revision="v1").weights_digest == first.weights_digest
    assert hub.requests == []  # from the cache, without asking


def test_the_hubs_answers_are_told_apart(hub: Hub) -> None:
    assert refusal("owner/model", TeacherNotFound, revision="v9").endswith("has no revision 'v9' on the hub")
    assert "the hub has no model 'owner/other'" in refusal("owner/other", TeacherNotFound)


def test_a_hub_model_with_pickles_only(hub: Hub) -> None:
    (hub.folder / "model.safetensors").unlink()
    assert "no model.safetensors (pickled weights are never loaded)" in refusal("owner/model", TeacherUnsupported)


def test_a_hub_that_does_not_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.silent = True
    monkeypatch.setattr(checkpoints, "HUB_TIMEOUT_S", 0.2)
    started = time.monotonic()
    assert "timed out" in refusal("owner/model", TeacherNotFound)
    assert time.monotonic() - started < 2.5


# --- presets ---------------------------------------------------------------------------------------------------------


def test_presets_say_what_people_must_know() -> None:
    names = [preset.name for preset in PRESETS]
    assert len(set(names)) == len(names)
    assert "tiny" not in names
    families = ("depth-anything-v2-", "depth-anything-v1-", "distill-any-depth-", "dpt-", "zoedepth", "depth-pro")
    families += ("glpn-", "tipsv2-")
    assert all(any(name.startswith(family) for name in names) for family in families)
    for preset in PRESETS:
        assert preset.hub_id.count("/") == 1
        assert preset.licence
        assert preset.parameters.endswith("M")
        assert preset.unit == ("m" if preset.quantity == "depth" else "")
    licences = {preset.name: preset.licence for preset in PRESETS}
    assert licences["depth-anything-v2-small"] == "Apache-2.0"
    assert licences["depth-anything-v2-base"] == licences["depth-anything-v2-large"] == "CC-BY-NC-4.0"
    indoor = find_preset("depth-anything-v2-indoor-small")
    assert indoor is not None
    assert (indoor.quantity, indoor.unit) == ("depth", "m")


def test_cached_asks_the_cache_for_configuration_and_weights(tmp_path: Path, original: Path) -> None:
    preset = PRESETS[0]
    assert not cached(preset)
    repository = tmp_path / "hub" / ("models--" + preset.hub_id.replace("/", "--"))
    snapshot = repository / "snapshots" / ("b" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    shutil.copy(original / "config.json", snapshot)
    assert not cached(preset)
    shutil.copy(original / "model.safetensors", snapshot)
    assert cached(preset)
    assert not cached(PRESETS[1])
    # weights without processor settings load when nobody can be asked for them: the official ones are the default
    assert load_teacher(preset.name).label_shape(375, 500) == (518, 686)


def test_errors_can_be_caught_by_their_family() -> None:
    assert issubclass(TeacherNotFound, TeacherError)
    assert issubclass(TeacherUnsupported, TeacherError)
