"""Every block of code on every page runs: here, in the test of its own page, or with a reason why it cannot."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doc_pictures
import pytest
from pages import blocks, commands, run_page

import depthsieve
from depthsieve_cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = {str(page.relative_to(ROOT)): page for page in [*sorted((ROOT / "docs").rglob("*.md")), *ROOT.glob("*.md")]}

RUN_HERE = [
    "README.md",
    "docs/choosing_drop.md",
    "docs/choosing_teacher.md",
    "docs/command_line.md",
    "docs/curation.md",
    "docs/faq.md",
    "docs/label_a_folder.md",
    "docs/reliability_explained.md",
    "docs/see_and_check.md",
    "docs/sources.md",
    "docs/start.md",
    "docs/train_a_student.md",
    "docs/training_set.md",
]
"""Pages whose blocks run below, in a reader's folder."""

OWN_TESTS = {
    "docs/cluster": "test_cluster_doc.py",
    "docs/cluster.md": "test_cluster_doc.py",
    "docs/evaluation.md": "test_evaluation_doc.py",
    "docs/export": "../export/test_every_target.py",
    "docs/loading.md": "test_loading_doc.py",
    "docs/reading.md": "test_reading_doc.py",
    "docs/store_format.md": "test_store_format.py",
    "docs/teachers.md": "../teachers/test_installed_package.py",
    "docs/training.md": "test_training_doc.py",
}
"""Pages whose blocks run in a test of their own, or a folder of such pages."""

NOT_RUN = {
    ("docs/cameras.md", "depthsieve label photos/ labels/ --cameras"): "a table of the reader's cameras; tests/cameras",
    ("README.md", "make demo"): "the same command runs on docs/start.md with fewer scenes; tests/demo",
    ("README.md", "make test"): "this is it",
    (
        "docs/ablation.md",
        "nice -n 10 python benchmarks/ablation.py",
    ): "260 trainings; tests/benchmarks runs a few steps",
    ("docs/ablation.md", "python benchmarks/ablation.py"): "reports those",
    (
        "docs/command_line.md",
        'teacher = "depth-anything-v2-large"',
    ): "a settings file, no command; tests/cli/test_settings.py",
    (
        "docs/curation.md",
        "depthsieve curate labels/",
    ): "the 316 images of benchmarks/curation.py; runs on docs/training_set.md",
    ("docs/faults.md", "make faults"): "half an hour; tests/faults runs single faults",
    ("docs/metric.md", "depthsieve label photos/ labels/ --teacher depth-anything-v2-large"): "two teachers of the hub",
    (
        "docs/metric.md",
        'label = depthsieve.open_store("labels")["hall.png"]',
    ): "the store of that; tests/jobs/test_metric.py",
    ("docs/object_stores.md", "from depthsieve import PseudoLabelDataset"): "a bucket; tests/storage has a server",
    ("docs/start.md", "make setup"): "makes the environment that this test runs in",
    ("docs/start.md", "source .venv/bin/activate"): "likewise",
    ("docs/tiny_teacher.md", "pip install"): "tests reach no package index",
    ("docs/tiny_teacher.md", "python tools/train_tiny.py"): "hours of training",
    ("docs/tiny_teacher.md", "python benchmarks/evaluate_tiny.py"): "measures what that trained",
    ("docs/tiny_v1_teacher.md", "python tools/train_tiny_v1.py"): "hours of training",
    ("docs/tiny_v1_teacher.md", "python benchmarks/evaluate_tiny.py"): "measures what that trained",
}
"""Commands, and blocks by their first line, that no test can run as they stand, and why."""


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


def not_run(page: str, line: str) -> bool:
    return any(name == page and line.startswith(start) for name, start in NOT_RUN)


@pytest.mark.parametrize("name", RUN_HERE)
def test_what_a_page_shows_is_what_happens(name: str, folder: Path) -> None:
    if "label photos labels --teacher" in PAGES[name].read_text():
        shutil.rmtree(folder / "labels")
    run_page(PAGES[name], folder, skip=lambda line: not_run(name, line))


@pytest.mark.parametrize("name", PAGES)
def test_every_block_runs_or_has_a_reason(name: str) -> None:
    shown = [block for block in blocks(PAGES[name].read_text()) if block.language != "text"]
    own = name if name in OWN_TESTS else str(Path(name).parent)
    if own in OWN_TESTS:
        assert Path(own).name in (Path(__file__).parent / OWN_TESTS[own]).read_text()
    elif name not in RUN_HERE:
        lines = [
            line
            for block in shown
            for line in (
                [command for command, _ in commands(block.text)]
                if block.language == "console"
                else block.text.splitlines()[:1]
            )
        ]
        assert [line for line in lines if not not_run(name, line)] == []


def test_reasons_are_of_what_is_there() -> None:
    starts = {name: [*page.read_text().replace("$ ", "").splitlines()] for name, page in PAGES.items()}
    left = [key for key in NOT_RUN if not any(line.startswith(key[1]) for line in starts.get(key[0], []))]
    assert left == []


def shown_commands() -> list[Any]:
    """Every command line of depthsieve on every page, in whatever kind of block."""
    found = []
    for name, page in PAGES.items():
        text = page.read_text().replace("\\\n", " ")
        code = "".join(block.text for block in blocks(text)) + "\n".join(re.findall("^    (.*)$", text, re.MULTILINE))
        for line in re.findall(r"^(?:\$ )?(depthsieve [a-z].*)$", code, re.MULTILINE):
            words = shlex.split(line, comments=True)
            end = next((at for at, word in enumerate(words) if word in ("|", ">", "&&", "&", ";")), len(words))
            found.append(pytest.param(words[1:end], id=f"{name}: {line}"))
    return found


@pytest.mark.parametrize("words", shown_commands())
def test_commands_are_ones_that_parse(words: list[str]) -> None:
    verb, *arguments = words
    cli.commands[verb].make_context(verb, arguments)
