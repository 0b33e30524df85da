"""A store with layers for every test here."""

import shutil
from pathlib import Path

import pytest
from layered import make_layered


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a teacher, a calibration, and a store with kept signals and a layer: see :func:`make_layered`."""
    return make_layered(tmp_path_factory.mktemp("layered"))


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of that store."""
    copy = tmp_path / "store"
    shutil.copytree(made / "store", copy)
    return copy
