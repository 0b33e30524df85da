"""Waits are told of within seconds, once, and with how they would end; short ones and repeated ones are not."""

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from patience import wait_for

from depthsieve.core import waiting as module
from depthsieve.core.progress import LOG_EVERY_S
from depthsieve.core.waiting import ASK_S, LONG_S, TELL_S, WARN_S, Teller, Wait, oldest_by_what, telling, waiting


def bucket(since: float = 100.0, **more: object) -> Wait:
    return Wait("s3://labels", since, "gives up in {left}", 180.0, **more)  # type: ignore[arg-type]


def told(teller: Teller, *moments: float, waits: list[Wait]) -> list[str]:
    return [line for now in moments for line in teller.look(waits, now)]


def test_a_wait_says_what_since_when_why_and_how_it_would_end() -> None:
    wait = bucket(why="it answered 503")
    assert wait.line(104.0) == "waiting for s3://labels for 4 s: it answered 503; gives up in 176 s"
    assert wait.line(104.0, why=False) == "waiting for s3://labels for 4 s; gives up in 176 s"
    assert wait.line(300.0) == "waiting for s3://labels for 200 s: it answered 503; gives up in 0 s"
    assert Wait("the index", 100.0).line(107.2) == "waiting for the index for 7 s"


def test_it_is_told_of_within_five_seconds_but_not_if_it_is_soon_over() -> None:
    assert TELL_S <= 5 and ASK_S < TELL_S
    teller, wait = Teller(shown=True, repeats=True), bucket()
    assert told(teller, 100.0, 100 + TELL_S - 0.1, waits=[wait]) == []
    assert told(teller, 101 + TELL_S, waits=[]) == []  # nor is its end
    (line,) = told(teller, 200 + TELL_S, waits=[bucket(200.0)])
    assert line == "waiting for s3://labels for 4 s; gives up in 176 s"


@pytest.mark.parametrize(("repeats", "lines"), [(True, 3), (False, 1)])
def test_a_log_is_told_again_and_a_terminal_which_has_a_line_that_counts_is_not(repeats: bool, lines: int) -> None:
    moments = [100 + half / 2 for half in range(int(2 * (TELL_S + 2 * LOG_EVERY_S)) + 1)]
    assert len(told(Teller(shown=True, repeats=repeats), *moments, waits=[bucket()])) == lines


def test_another_reason_is_told_of_but_not_that_none_is_known() -> None:
    teller, wait = Teller(shown=True, repeats=False), bucket()
    assert len(told(teller, 104.0, waits=[wait])) == 1
    wait.why = "it answered 503"
    assert told(teller, 104.5, 108.0, 108.5, waits=[wait]) == [
        "waiting for s3://labels for 8 s: it answered 503; gives up in 172 s"
    ]
    wait.why = ""
    assert told(teller, 120.0, waits=[wait]) == []


def test_the_end_of_a_long_wait_is_told_of() -> None:
    teller = Teller(shown=True, repeats=True)
    told(teller, 104.0, 100 + LONG_S, waits=[bucket()])
    assert told(teller, 101 + LONG_S, 102 + LONG_S, waits=[]) == [f"waited {LONG_S + 1:.0f} s for s3://labels"]


def test_waits_for_the_same_that_follow_one_another_are_one_trouble() -> None:
    teller = Teller(shown=True, repeats=True)
    lines = [told(teller, start + TELL_S, start + TELL_S + 1, waits=[bucket(start)]) for start in (100.0, 106.0, 112.0)]
    assert [len(each) for each in lines] == [1, 0, 0]
    assert told(teller, 117.0, waits=[]) == []
    assert len(told(teller, 200.0, 206.0, waits=[bucket(200.0)])) == 1  # long after


def test_waits_for_several_things_are_told_of_each_the_oldest_for_one() -> None:
    waits = [bucket(102.0), bucket(101.0), Wait("a worker", 100.0)]
    assert [(wait.what, wait.since) for wait in oldest_by_what(waits).values()] == [
        ("a worker", 100.0),
        ("s3://labels", 101.0),
    ]
    assert told(Teller(shown=True, repeats=True), 110.0, waits=waits) == [
        "waiting for a worker for 10 s",
        "waiting for s3://labels for 9 s; gives up in 171 s",
    ]


def test_a_wait_may_be_one_that_takes_its_time_anyway() -> None:
    teller, wait = Teller(shown=True, repeats=True), bucket(tell_s=60.0)
    assert told(teller, 159.0, waits=[wait]) == []
    assert len(told(teller, 160.0, waits=[wait])) == 1


def test_without_progress_it_is_one_line_after_a_while() -> None:
    teller, wait = Teller(shown=False, repeats=True), bucket()
    moments = [100.0 + second for second in range(170)]
    assert told(teller, *moments, waits=[wait]) == [f"waiting for s3://labels for {WARN_S:.0f} s; gives up in 150 s"]
    assert told(teller, 271.0, waits=[]) == []


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK_S", "TELL_S", "ASK_S", "WARN_S", "LONG_S"):
        monkeypatch.setattr(module, name, 0.01)


def test_a_log_reads_of_it_with_the_reason(fast: None, capfd: pytest.CaptureFixture[str]) -> None:
    seen = ""

    def has(text: str) -> bool:
        nonlocal seen
        seen += capfd.readouterr().err
        return text in seen

    with telling(True):
        with waiting("a worker", "ends in {left}", limit_s=99, ask=lambda: "none is free", tell_s=0.0):
            wait_for(lambda: has("waiting for a worker for 0 s: none is free; ends in 99 s\n"))
        wait_for(lambda: has("waited 0 s for a worker\n"))


def test_where_no_progress_is_shown_it_is_a_warning(fast: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "depthsieve"), telling(False), waiting("a lock", tell_s=0.0):
        wait_for(lambda: [record.getMessage() for record in caplog.records] == ["waiting for a lock for 0 s"])


def test_a_question_that_fails_is_no_reason_to_be_silent(fast: None, capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise ValueError

    with telling(True), waiting("its answer", ask=broken, tell_s=0.0):
        wait_for(lambda: "waiting for its answer for 0 s\n" in capfd.readouterr().err)


def test_a_terminal_has_a_line_below_the_bar_that_goes() -> None:
    """In a real terminal, since that is what decides it."""
    code = """
import time
from depthsieve.core import waiting
from depthsieve.core.progress import progress_bar
waiting.LOOK_S = 0.2
with waiting.telling(True), progress_bar("label", total=3, leave=True) as bar:
    with waiting.waiting("a worker", "ends in {left}", limit_s=99, tell_s=0.0) as wait:
        wait.why = "none is free"
        time.sleep(1.5)
    time.sleep(1.0)
    bar.update(3)
"""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=slave, stdin=subprocess.DEVNULL, check=True)
    os.set_blocking(master, False)
    shown = os.read(master, 65536).decode()
    os.close(slave)
    os.close(master)
    assert re.search(r"waiting for a worker for \d s: none is free; ends in \d\d s\r\n", shown)  # stays
    assert re.search(r"\rwaiting for a worker for \d s; ends in \d\d s", shown)  # counts
    assert shown.rindex("label: 100%") > shown.rindex("waiting for a worker")
