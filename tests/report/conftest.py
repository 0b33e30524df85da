"""Stores for the tests of reports, and a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from reported import HOSTILE, PLAIN
from storemaker import Picture, make_store

from depthsieve.store import Store


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Labels with ties, invalid pixels and two shapes, of images with hostile names; one failed, one was refused."""
    names = [*PLAIN, *HOSTILE]
    pictures = [
        Picture(name, (56, 84), (28, 42)) if n % 3 else Picture(name, (84, 56), (42, 28))
        for n, name in enumerate(names)
    ]
    pictures.append(Picture("plain/broken.png", (56, 84), (28, 42), failed=True))
    folder = tmp_path_factory.mktemp("made") / "a store"
    return make_store(folder, pictures, rejected=("<b>refused</b>.png",))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium. Playwright has an event loop in this thread while it is there, so it goes with the module."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def page(made: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of :func:`made`."""
    from depthsieve.report.write import report_labels

    return Path(report_labels(made, tmp_path_factory.mktemp("report") / "out", progress=False).page)
