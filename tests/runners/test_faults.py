"""A short fault campaign: each kind that is quick, once. `make faults` does it at length, on Ray and S3 too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
QUICK = "^disk|^local(?!.*(decoder|SIGTERM|command))"


def campaign(*options: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS / "support"), *sys.path])}
    command = [sys.executable, "-m", "faults", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)


@pytest.mark.slow
def test_every_fault_is_survived_and_no_image_lost() -> None:
    done = campaign("--faults", "9", "--seed", "7", "--only", QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    (whole,) = [line for line in done.stdout.splitlines() if line.startswith("all ")]
    faults, _, survived, lost, _, _ = map(int, whole.split()[1:])
    assert faults == survived >= 9 and lost == 0


def test_a_kind_that_is_not_there_is_refused() -> None:
    done = campaign("--only", "no such kind")
    assert done.returncode == 2 and "no kind of fault matches" in done.stderr
