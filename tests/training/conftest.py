"""The store that most tests of the loader read."""

from pathlib import Path

import pytest
from served import SHAPES
from storemaker import make_store, pictures


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``labels`` and ``images``, for reading only."""
    folder = tmp_path_factory.mktemp("home")
    make_store(folder, pictures(SHAPES))
    return folder


@pytest.fixture
def labels(home: Path) -> Path:
    return home / "labels"
