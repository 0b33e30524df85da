"""What the tests of teachers share: a checkpoint, a copy to damage, a hub that is not there, and a package."""

import shutil
import sys
from pathlib import Path

import huggingface_hub
import plug_in
import pytest
import teachers_builders as builders


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original")
    return builders.save(path, builders.depth_anything_config(), builders.DEPTH_ANYTHING_PROCESSOR)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "teacher"))


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a hub at a port where nothing listens."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that Python looks into; modules of an earlier test are forgotten."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    for module in ("acme", "other"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path / "site"


@pytest.fixture
def installed(site: Path) -> Path:
    return plug_in.install(site)
