"""Every block of code on every page runs: here, in the test of its own page, or with a reason why it cannot."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import doc_pictures
import pytest
from pages import run_page

import depthsieve

ROOT = Path(__file__).parents[2]
PAGES = {str(page.relative_to(ROOT)): page for page in [*sorted((ROOT / "docs").rglob("*.md")), *ROOT.glob("*.md")]}

RUN_HERE = [
    "docs/choosing_drop.md",
    "docs/choosing_teacher.md",
    "docs/faq.md",
    "docs/label_a_folder.md",
    "docs/reliability_explained.md",
    "docs/see_and_check.md",
    "docs/start.md",
    "docs/train_a_student.md",
    "docs/training_set.md",
]
NOT_RUN = {
    "make setup": "makes the environment that this test runs in",
    "source .venv/bin/activate": "likewise",
}
"""Commands on these pages that cannot run within a test, and why."""


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: photos, their measured depth, more photos, and labels by the embedded teacher."""
    folder = tmp_path_factory.mktemp("reader") / "ann"
    doc_pictures.render_photos(folder / "photos", folder / "depth")
    (folder / "more").mkdir()
    for photo in ("street-1.png", "park-1.png"):
        shutil.copy(folder / "photos" / photo, folder / "more")
    depthsieve.label(folder / "photos", folder / "labels", teacher="tiny", threads=1, batch_size=4, progress=False)
    return folder


@pytest.fixture
def folder(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder in the place where it was labelled, and put back afterwards."""
    kept = shutil.copytree(labelled, tmp_path / "kept")
    monkeypatch.chdir(labelled)
    yield labelled
    shutil.rmtree(labelled)
    shutil.move(kept, labelled)


@pytest.mark.parametrize("name", RUN_HERE)
def test_what_a_page_shows_is_what_happens(name: str, folder: Path) -> None:
    if "label photos labels --teacher" in PAGES[name].read_text():
        shutil.rmtree(folder / "labels")
    run_page(PAGES[name], folder, skip=frozenset(NOT_RUN))
