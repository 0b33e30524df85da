"""How the command's process ends: with its exit code and all of its output, whatever Python does at its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ABORTS = """
import atexit, os, sys
import depthsieve_cli.main

class Held:
    def __del__(self):  # as threads of Arrow and torch do that hold an object while Python ends
        os.abort()

def main(real=depthsieve_cli.main.main):
    atexit.register(print, "called at the end")
    real()

held = Held()
sys.argv = ["depthsieve", *sys.argv[1:]]
depthsieve_cli.main.main = main
depthsieve_cli.main.entry()
"""


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, *arguments], stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(["teachers"], 0, ""), (["status", "nowhere"], 1, "nowhere is not a label store"), (["teach"], 2, "teach")],
)
def test_an_abort_at_pythons_end_changes_nothing(arguments: list[str], code: int, says: str) -> None:
    done = run("-c", ABORTS, *arguments, stdout=subprocess.PIPE)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stdout.endswith("called at the end\n")
    assert (len(done.stdout.splitlines()) > 5) == (code == 0)


def test_an_error_nobody_expected_is_exit_code_1() -> None:
    done = run("-c", ABORTS.replace("main.main = main", "main.main = None"), "teachers")
    assert done.returncode == 1 and "TypeError" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_finds_no_room_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("-m", "depthsieve", "teachers", stdout=full)
    assert (done.returncode, done.stderr) == (1, "Error: no space is left where the output goes\n")


def test_output_that_nobody_reads_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = run("-m", "depthsieve", "teachers", stdout=pipe)
    assert (done.returncode, done.stderr) == (1, "")
