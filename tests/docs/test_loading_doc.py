"""What docs/loading.md shows works as printed: a training loop, stopped and resumed, in each framework."""

import contextlib
import io
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from labelled import write_photos

import depthsieve

DOCUMENT = (Path(__file__).parents[2] / "docs" / "loading.md").read_text()
FIRST, TRAIN, RESUME, PLAIN, LIGHTNING, ACCELERATE = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store ``labels`` of eight photos, which are two batches of crops."""
    folder = tmp_path_factory.mktemp("loading")
    write_photos(folder / "photos", 8)
    depthsieve.label(folder / "photos", folder / "labels", teacher="tiny-v1", runner="local", progress=False)
    return folder


def printed_here(example: str) -> str:
    """What an example prints in this process."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), torch.random.fork_rng():
        exec(compile(example, "docs/loading.md", "exec"), {"__name__": "example"})
    return output.getvalue()


def printed_by(example: str, place: Path) -> list[str]:
    """The lines that an example prints in a process of its own, which a framework may set up as it likes."""
    command = [sys.executable, "-c", example]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def expected(place: Path) -> list[str]:
    """The ids of each batch of three epochs."""
    loader = depthsieve.PseudoLabelDataset(place / "labels", images=False, drop=0.10, crop=112).loader(global_batch=4)
    return [" ".join(batch["id"]) for _ in range(3) for batch in loader]


def test_the_first_look(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert printed_here(FIRST).splitlines() == [
        f"PseudoLabelDataset({place / 'labels'}: 8 images, disparity, drop=0.1, scope='image', crop=112x112, seed=0, "
        f"images from {place / 'photos'})",
        "image (torch.float32, (3, 112, 112))",
        "depth (torch.float32, (112, 112))",
        "reliability (torch.uint8, (112, 112))",
        "mask (torch.bool, (112, 112))",
        f"id {depthsieve.open_store(place / 'labels').images[0]}",
    ]


def test_torchs_own_dataloader(place: Path) -> None:
    assert printed_by(PLAIN, place) == [f"{n} (4, 3, 112, 112) (4, 112, 112)" for n in (0, 0, 1, 1)]


def test_a_training_loop(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    lines = printed_here(TRAIN).splitlines()
    assert len(lines) == 2
    for epoch, line in enumerate(lines):
        found = re.fullmatch(rf"epoch {epoch}: (\d+\.\d)% of the valid pixels were masked", line)
        assert found is not None
        assert 2 < float(found[1]) < 18
    assert printed_here(RESUME) == "resumes in epoch 2 at batch 0\n"
    stops = TRAIN.replace('"training.pt")\n', '"training.pt")\n        1 / (1 - loader.epoch)\n')
    with pytest.raises(ZeroDivisionError):
        printed_here(stops)
    assert printed_here(RESUME) == "resumes in epoch 1 at batch 1\n"


@pytest.mark.skipif(find_spec("lightning") is None, reason="lightning is not installed")
def test_lightning(place: Path, expected: list[str]) -> None:
    lines = [line for line in printed_by(LIGHTNING, place) if line.startswith("step")]
    assert lines == [f"step {number} {ids}" for number, ids in enumerate(expected)]


@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed")
def test_accelerate(place: Path, expected: list[str]) -> None:
    assert printed_by(ACCELERATE, place) == [f"new {expected[0]}", f"resumed {expected[1]}"]
