"""What a teacher's name means: presets, folders, and models of a hub, fetched or cached."""

import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import da3_models
import huggingface_hub
import pytest
from patience import PATIENCE_S
from teachers_builders import refusal

from depthsieve.core.errors import TeacherError, TeacherNotFound, TeacherUnsupported, UsageError
from depthsieve.teachers import PRESETS, cached, checkpoints, find_preset, load_teacher

pytestmark = pytest.mark.usefixtures("empty_hub")


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_that_mean_nothing(tmp_path: Path) -> None:
    assert "did you mean 'depth-anything-v2-small'?" in refusal("depth-anything-v2-smal", TeacherNotFound)
    assert "`depthsieve teachers` lists what there is" in refusal("xyz", TeacherNotFound)
    assert "there is no such folder" in refusal(tmp_path / "nothing", TeacherNotFound)
    assert "there is no such folder" in refusal("./nothing", TeacherNotFound)
    (tmp_path / "file").write_text("")
    assert "is a file; give the folder" in refusal(tmp_path / "file", TeacherUnsupported)
    (tmp_path / "depth_anything_v2_vits.pth").touch()
    refused = refusal(tmp_path / "depth_anything_v2_vits.pth", TeacherUnsupported)
    assert "is a .pth file, which can run code and is not loaded; name one that was converted" in refused


def test_paths_that_cannot_be_paths(tmp_path: Path) -> None:
    long = "x" * 300
    assert refusal("~nouser/x", TeacherNotFound) == "no teacher '~nouser/x': there is no such folder"
    assert refusal(tmp_path / long, TeacherNotFound).endswith(f"{long}': it cannot be reached (File name too long)")
    assert "cannot be reached (File name too long)" in refusal("~/" + "x/" * 3000, TeacherNotFound)
    assert "cannot be reached (Too many levels of symbolic links)" in refusal(looping(tmp_path), TeacherNotFound)
    assert "a plug-in's, a local folder, a hub id owner/model or package.module:factory" in refusal(
        long, TeacherNotFound
    )
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


def test_no_cache_and_no_network_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def refuse(self: socket.socket, address: object) -> None:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    message = refusal("depth-anything-v2-small", TeacherNotFound)
    assert 0 < len(tried) < 4  # and no patience with what is not there
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
        self.over = threading.Event()


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
            hub.over.wait(PATIENCE_S)
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
    server.over.set()
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


def test_a_published_depth_anything_3_needs_no_processor_settings(hub: Hub) -> None:
    """Its repositories hold none, so there is nothing to ask the hub for once its weights are in the cache."""
    case = da3_models.CASES["whole small"]
    for file in hub.folder.iterdir():
        file.unlink()
    da3_models.save(hub.folder, case, {"model.head.norm.bias": (768,)})
    for message in (refusal("owner/model", TeacherUnsupported) for _ in range(2)):
        assert "weights that config.json asks for are missing" in message
        asked = [path for path in hub.requests if "/tree/" in path]
    assert len(asked) == 1


def test_the_hubs_answers_are_told_apart(hub: Hub) -> None:
    assert refusal("owner/model", TeacherNotFound, revision="v9").endswith("has no revision 'v9' on the hub")
    assert "the hub has no model 'owner/other'" in refusal("owner/other", TeacherNotFound)


def test_a_hub_model_with_pickles_only(hub: Hub) -> None:
    (hub.folder / "model.safetensors").unlink()
    assert "no model.safetensors (pickled weights are never loaded)" in refusal("owner/model", TeacherUnsupported)


def test_a_hub_that_does_not_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.silent = True
    monkeypatch.setattr(checkpoints, "HUB_TIMEOUT_S", 0.2)
    assert "timed out" in refusal("owner/model", TeacherNotFound)
    assert len(hub.requests) < 4


# --- presets ---------------------------------------------------------------------------------------------------------


def test_presets_say_what_people_must_know() -> None:
    names = [preset.name for preset in PRESETS]
    assert len(set(names)) == len(names)
    assert "tiny" not in names
    families = ("depth-anything-v2-", "depth-anything-v1-", "distill-any-depth-", "dpt-", "zoedepth", "depth-pro")
    families += ("glpn-", "tipsv2-", "depth-anything-3-", "moge-2-", "metric3d-v2-")
    assert all(any(name.startswith(family) for name in names) for family in families)
    for preset in PRESETS:
        assert preset.hub_id.count("/") == 1
        assert preset.licence
        assert preset.parameters.endswith("M")
        assert preset.unit == ("m" if preset.quantity == "depth" else "")
    licences = {preset.name: preset.licence for preset in PRESETS}
    assert licences["depth-anything-v2-small"] == "Apache-2.0"
    assert licences["depth-anything-v2-base"] == licences["depth-anything-v2-large"] == "CC-BY-NC-4.0"
    assert licences["depth-anything-3-small"] == licences["depth-anything-3-metric-large"] == "Apache-2.0"
    assert licences["depth-anything-3-large"] == licences["depth-anything-3-giant"] == "CC-BY-NC-4.0"
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
