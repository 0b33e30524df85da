"""What every target of the table is held to: it reads back as the store, says so in its README, and tells its size."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from exported import OF_VIDEOS, READ_ELSEWHERE, READERS, bytes_of, check_equal, export, labels_of, small_store
from films import film, film_store

from depthsieve.export.table import TARGETS
from depthsieve.store import Store

ROOT = Path(__file__).parents[2]
TEACHES_PHOTOS = ("webdataset", "huggingface")
"""Targets whose samples have the photo on the pixels of the depth."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        yield


def test_every_target_has_a_reader_here_and_a_row_in_the_docs() -> None:
    page = (ROOT / "docs" / "exporting.md").read_text()
    rows = set(re.findall(r"^\| \[`([\w-]+)`\]\(export/\1\.md\) \|", page, re.MULTILINE))
    assert {*READERS, *READ_ELSEWHERE} == set(TARGETS)
    assert set(TARGETS) <= rows


@pytest.mark.parametrize("target", READERS)
def test_what_is_read_back_is_the_store(target: str, store: Store, tmp_path: Path) -> None:
    reader = READERS[target]
    summary = export(store, tmp_path / "out", target, mask=0.3, options=dict(reader.options or {}))
    assert (summary.images, summary.images_now, summary.failed, summary.left_out) == (4, 4, (), {"failed": 1})
    found = reader.read(tmp_path / "out")
    check_equal(found, labels_of(store, 0.3), reader)
    for image_id, read in found.items():
        if target in TEACHES_PHOTOS:
            assert read.photo_HW3 is not None
            difference = np.abs(read.photo_HW3.astype(float) - store[image_id].image())
            assert read.photo_HW3.shape[:2] == read.depth_HW.shape and difference.mean() < 6


@pytest.mark.parametrize("target", READERS)
def test_the_code_in_the_readme_reads_it(target: str, store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "out", target, options=dict(READERS[target].options or {}))
    readme = (tmp_path / "out" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    for word in ("**Depth**", "**Invalid pixels**", "**Precision**", "**Photos**", "1 image of the store: failed"):
        assert word in readme
    save = "\nimport sys, numpy\nnumpy.savez(sys.argv[1], depth=depth, reliability=reliability)"
    command = [sys.executable, "-c", code + save, str(tmp_path / "read.npz")]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    subprocess.run(command, cwd=tmp_path / "out", check=True, capture_output=True, env=environment)
    expected = labels_of(store)["default/a.jpg"]
    with np.load(tmp_path / "read.npz") as arrays:
        assert np.allclose(arrays["depth"], expected.depth_HW, rtol=1e-2, equal_nan=True)
        assert np.array_equal(arrays["reliability"], expected.reliability_HW)


def test_the_docs_show_the_code_of_the_readmes(store: Store, tmp_path: Path) -> None:
    """Which the test above runs."""
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "export").glob("*.md")}
    assert set(pages) == set(TARGETS)
    shown = {
        target: code for target, page in pages.items() for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    }
    assert len(shown) >= 6
    frames = film_store(tmp_path, film(tmp_path, "a.mp4", (0,)))
    for target, code in shown.items():
        export(frames if target in OF_VIDEOS else store, tmp_path / target, target)
        assert f"```python\n{code}```" in (tmp_path / target / "README.md").read_text(), target


@pytest.mark.parametrize("target", READERS)
def test_the_size_is_told_before(target: str, store: Store, tmp_path: Path) -> None:
    options = dict(READERS[target].options or {})
    told = export(store, tmp_path / "out", target, dry_run=True, options=options)
    assert told.dry_run and told.images_now == 4 and not (tmp_path / "out").exists()
    written = export(store, tmp_path / "out", target, options=options)
    overhead = 4 * 8192  # headers, which count in so small a store
    assert told.bytes / 3 - overhead <= written.bytes <= 3 * told.bytes + overhead
    files = (path for path in (tmp_path / "out").rglob("*") if path.is_file() and ".depthsieve" not in path.parts)
    assert written.bytes <= sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("target", READERS)
def test_two_exports_are_of_the_same_bytes_and_a_third_writes_nothing(
    target: str, store: Store, tmp_path: Path
) -> None:
    options = dict(READERS[target].options or {})
    export(store, tmp_path / "one", target, options=options)
    export(store, tmp_path / "two", target, options=options, threads=3)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert export(store, tmp_path / "one", target, options=options).images_now == 0
    assert {path for path, time in before.items() if path.stat().st_mtime_ns != time} <= {
        tmp_path / "one" / ".depthsieve" / "lock"
    }
