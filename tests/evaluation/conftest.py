"""A store of ten labels, in disparity and in metres, and ground truth for all of them."""

from pathlib import Path

import pytest
from storemaker import Picture, make_store
from truths import COUNT, LABEL, METRIC, SOURCE, write_truth

from depthsieve.store import Store


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("made"), [Picture(f"{n}.png", SOURCE, LABEL) for n in range(COUNT)])


@pytest.fixture(scope="package")
def metric_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    images = [Picture(f"{n}.png", SOURCE, LABEL) for n in range(COUNT)]
    return make_store(tmp_path_factory.mktemp("metric"), images, spec=METRIC)


@pytest.fixture(scope="package")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_truth(tmp_path_factory.mktemp("truth") / "depth")
