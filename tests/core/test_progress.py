"""Progress in a log: few whole lines that say how far it is, and none where none is wanted."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from depthsieve.core import progress
from depthsieve.core.progress import progress_bar, with_progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that stands until it is set."""
    now = [100.0]
    monkeypatch.setattr("depthsieve.core.progress.time.monotonic", lambda: now[0])
    yield now


def test_a_log_has_a_line_every_half_minute(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("label", total=340) as bar:
        for done in range(1, 121):
            clock[0] = 100 + done * 0.5
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "label: 60 of 340 images, 2 images/s, 02:20 left",
        "label: 120 of 340 images, 2 images/s, 01:50 left",
    ]


def test_what_has_no_total_says_no_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("list", unit="files") as bar:
        clock[0] += progress.LOG_EVERY_S
        bar.update(2048)
    assert capsys.readouterr().err == "list: 2,048 files, 68.3 files/s\n"


def test_a_log_is_not_told_of_steps(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("Scanning.")
    assert capsys.readouterr().err == ""


def test_nothing_is_written_unless_shown_or_where_there_is_no_stderr(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for hidden in (False, True):
        if hidden:
            monkeypatch.setattr(sys, "stderr", None)
        with progress_bar("label", total=2, shown=hidden) as bar:
            clock[0] += 2 * progress.LOG_EVERY_S
            bar.update()
    assert capsys.readouterr().err == ""


def test_items_come_as_they_are_and_are_counted(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    taken = []
    for item in with_progress(["a", "b", "c"], "evaluate", unit="labels"):
        taken.append(item)
        clock[0] += progress.LOG_EVERY_S
    assert taken == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines()[1] == "evaluate: 2 of 3 labels, 0.0333 labels/s, 00:30 left"


def test_a_terminal_has_a_bar_that_says_so() -> None:
    """In a real terminal, since that is what decides it."""
    code = "from depthsieve.core.progress import say, with_progress as bar\nsay('Scanning.')"
    code += "\nfor _ in bar(range(3), 'label'): pass"
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=slave, stdin=subprocess.DEVNULL, check=True)
    os.set_blocking(master, False)
    shown = os.read(master, 65536).decode()
    os.close(slave)
    os.close(master)
    assert shown.startswith("Scanning.\r\n") and "label: " in shown and "0/3" in shown and "\r" in shown
