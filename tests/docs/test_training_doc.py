"""What docs/training.md shows works as it stands."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from labelled import write_photos

import depthsieve
from depthsieve.training.losses.threshold import DIGIT_BITS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
MASK_AND_TRIM, PROTECT, PROCESSES, SEGMENTATION, NORMALS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)

TORCHS_OWN_END = "terminate called without an active exception"
"""What a process says that torch ends when all is done: a thread of gloo that still held a tensor when Python was
ending (as https://github.com/pytorch/pytorch/pull/179291 describes; seen with torch 2.13 on a loaded machine)."""


def printed_by(example: str) -> str:
    """What an example prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), torch.random.fork_rng():
        exec(compile(example, "docs/training.md", "exec"), {"__name__": "example"})
    return output.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store ``labels`` of eight photos."""
    folder = tmp_path_factory.mktemp("training")
    write_photos(folder / "photos", 8)
    depthsieve.label(folder / "photos", folder / "labels", teacher="tiny-v1", runner="local", progress=False)
    return folder


def test_the_mask_and_the_trim_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    found = re.fullmatch(r"masked (\d+\.\d)%, left out in all (\d+\.\d)%\n", printed_by(MASK_AND_TRIM))
    assert found is not None
    masked, in_all = map(float, found.groups())
    assert 3 < masked <= 10
    assert in_all == pytest.approx(100 - (100 - masked) * 0.9, abs=0.15)


def test_the_thin_is_protected() -> None:
    without, protected = printed_by(PROTECT).splitlines()
    share = re.fullmatch(r"without protection (\d+)% of the pole is trained on", without)
    assert share is not None and int(share[1]) < 90
    assert protected == "with protection 100% of the pole is trained on"


def test_several_processes(place: Path) -> None:
    (place / "train.py").write_text(PROCESSES)
    started = re.search(r"torchrun (--nproc-per-node 2) (train.py)", PROCESSES)
    assert started is not None
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *started[1].split(), started[2]]
    for _ in range(5):
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
        if TORCHS_OWN_END not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"loss over all processes \d\.\d{4}\n", done.stdout)


def test_segmentation() -> None:
    found = re.fullmatch(r"kept (\d+)% of the right labels, (\d+)% of the doubtful\n", printed_by(SEGMENTATION))
    assert found is not None
    assert int(found[1]) > 95
    assert int(found[2]) < 60  # a third of those are right by chance


def test_surface_normals() -> None:
    found = re.fullmatch(r"(\d+\.\d) degrees from the true normals, kept 0% of the patch\n", printed_by(NORMALS))
    assert found is not None
    assert float(found[1]) < 5
    untrimmed = NORMALS.replace("drop=0.12", "drop=0.0")
    assert untrimmed != NORMALS
    assert float(printed_by(untrimmed).split()[0]) > 2 * float(found[1])


def test_what_is_sent_is_what_the_text_says() -> None:
    assert f"two all-reduces of {2**DIGIT_BITS * 8 // 1024} KiB" in DOCUMENT
