"""The supervisor: restarts after a crash, one signal for a good end, two for an end at once, and nothing left behind.

Each test runs the real ``main()`` in processes of its own, with a command of a few lines in the place of ``label``.
"""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENCE_S, wait_for

from depthsieve.core.stopping import Stop
from depthsieve_cli import supervise
from depthsieve_cli.interrupt import graceful

PROLOGUE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from depthsieve.core.stopping import Stop
from depthsieve_cli import main, supervise
from depthsieve_cli.interrupt import graceful

here, supervise.TOGETHER_S = Path(sys.argv[1]), float(sys.argv[2])
sys.argv = ["depthsieve", "work"]
pass_on = supervise._Keeper._pass_on


def and_note_it(keeper, number, frame):
    pass_on(keeper, number, frame)
    with (here / "heard").open("a") as file:
        file.write("x")


supervise._Keeper._pass_on = and_note_it


def told(name, text=""):
    part = here / (name + ".part")
    part.write_text(str(text))
    part.rename(here / name)


@main.cli.command()
def work():
    supervise.supervise(str(here))
    with (here / "starts").open("a") as file:
        file.write("x")
    stop = Stop(5)
    with graceful(stop):
        return job(stop)
"""

WORKS = """
def job(stop):
    stop.armed = ARMED
    told("pid", os.getpid())
    while not stop.wait(0.05):
        pass
    told("asked")
    while not (here / "end").exists():
        time.sleep(0.02)
    print("ended well")
    return 4
"""

DEAF = """
def job(stop):
    signal.pthread_sigmask(signal.SIG_BLOCK, supervise.ORDERS)  # as a long computation: Python hears nothing
    below = subprocess.Popen(["sleep", "600"])
    told("below", below.pid)
    told("pid", os.getpid())
    time.sleep(600)
"""

EPILOGUE = """
main.main()
"""

INTERRUPTED = "Interrupted; what is committed is kept; run the same command again to resume."
FINISHING = "Interrupted: finishing the shards that fit into 5 s; interrupt again to exit at once."


def arguments(folder: Path, body: str, together_s: float) -> list[str]:
    return [sys.executable, "-c", PROLOGUE + body + EPILOGUE, str(folder), str(together_s)]


def start(folder: Path, body: str, together_s: float = PATIENCE_S, **options: object) -> "subprocess.Popen[str]":
    """The command. Signals that come closer than ``together_s`` seconds are one: here that is all of them, or none."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(arguments(folder, body, together_s), **pipes)  # type: ignore[call-overload, no-any-return]


def number_in(path: Path) -> int:
    wait_for(path.exists)
    return int(path.read_text())


def wait_until_heard(folder: Path, signals: int = 1) -> None:
    """Until the supervisor has done with so many signals."""
    heard = folder / "heard"
    wait_for(lambda: heard.exists() and heard.stat().st_size >= signals)


def let_end(folder: Path) -> None:
    """The work ends well, once it is asked to."""
    (folder / "end").touch()


def state(pid: int) -> str:
    """The letter that the system has for what a process does; Z and nothing for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_crash_is_told_and_the_work_goes_on(tmp_path: Path) -> None:
    body = """
def job(stop):
    print("begun", flush=True)
    crashes = [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL]
    starts = (here / "starts").stat().st_size
    if starts <= 3:
        os.kill(os.getpid(), crashes[starts - 1])
    return 3
"""
    process = start(tmp_path, body)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3
    assert out == "begun\n" * 4
    kinds = ["signal 11, SIGSEGV", "signal 6, SIGABRT", "signal 9, SIGKILL"]
    assert err == "".join(f"\nWarning: the labelling process died ({kind}); restarting it\n" for kind in kinds)


@pytest.mark.parametrize(("committed", "starts"), [(0, 5), (7, 12)])
def test_it_gives_up_when_nothing_is_committed_between_deaths(tmp_path: Path, committed: int, starts: int) -> None:
    body = f"""
def job(stop):
    (here / "commits").mkdir(exist_ok=True)
    starts = (here / "starts").stat().st_size
    if starts <= {committed}:
        (here / "commits" / str(starts)).touch()
    os.kill(os.getpid(), signal.SIGBUS)
"""
    process = start(tmp_path, body)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert (tmp_path / "starts").stat().st_size == starts
    assert err.splitlines()[-1] == (
        "Error: the labelling process died (signal 7, SIGBUS), 5 times in a row without finishing a shard; "
        "what is committed is kept; run the same command again to resume"
    )


def test_another_death_is_not_tried_again(tmp_path: Path) -> None:
    process = start(tmp_path, "\ndef job(stop):\n    os.kill(os.getpid(), signal.SIGUSR1)\n")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, (tmp_path / "starts").stat().st_size) == (1, 1)
    assert err.startswith("\nError: the labelling process died (signal 10, SIGUSR1); what is committed is kept")


@pytest.mark.parametrize("to_group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_is_one_however_it_comes(tmp_path: Path, number: signal.Signals, to_group: bool) -> None:
    let_end(tmp_path)
    process = start(tmp_path, WORKS.replace("ARMED", "True"), start_new_session=True)
    worker = number_in(tmp_path / "pid")
    assert worker != process.pid
    (os.killpg if to_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (4, "ended well\n", FINISHING + "\n")
    assert state(worker) == "Z"


def test_after_a_good_end_the_double_of_a_signal_is_ignored_until_python_has_ended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervise, "_supervised", True)
    stop = Stop(5)
    stop.armed = True
    before = {number: signal.getsignal(number) for number in supervise.ORDERS}
    try:
        with graceful(stop):
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(lambda: stop.requested)
        assert {signal.getsignal(number) for number in supervise.ORDERS} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capfd.readouterr().err == FINISHING + "\n"


def test_two_in_one_moment_are_one_order(tmp_path: Path) -> None:
    """As timeout(1) sends them: to the process that it started, then to the whole group."""
    process = start(tmp_path, WORKS.replace("ARMED", "True"), start_new_session=True)
    number_in(tmp_path / "pid")
    process.send_signal(signal.SIGTERM)
    wait_until_heard(tmp_path)
    os.killpg(process.pid, signal.SIGTERM)
    wait_until_heard(tmp_path, 2)
    let_end(tmp_path)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (4, "ended well\n", FINISHING + "\n")


@pytest.mark.parametrize("to_group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_there_is_work_one_signal_ends_it_at_once(
    tmp_path: Path, number: signal.Signals, to_group: bool
) -> None:
    process = start(tmp_path, WORKS.replace("ARMED", "False"), start_new_session=True)
    worker = number_in(tmp_path / "pid")
    (os.killpg if to_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (4, "", f"\n{INTERRUPTED}\n")
    assert state(worker) == "Z"


def test_a_second_signal_ends_all_at_once_whatever_they_do(tmp_path: Path) -> None:
    process = start(tmp_path, DEAF, together_s=0.0)
    worker, below = number_in(tmp_path / "pid"), number_in(tmp_path / "below")
    process.send_signal(signal.SIGTERM)
    wait_until_heard(tmp_path)
    assert process.poll() is None and state(worker) != "Z"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 4 and err == f"\n{INTERRUPTED}\n"
    wait_for(lambda: {state(worker), state(below)} == {"Z"})


def test_the_worker_does_not_outlive_the_supervisor(tmp_path: Path) -> None:
    process = start(tmp_path, DEAF)
    worker, below = number_in(tmp_path / "pid"), number_in(tmp_path / "below")
    process.kill()
    process.wait()
    try:
        wait_for(lambda: state(worker) == "Z")
    finally:
        os.kill(below, signal.SIGKILL)  # this one is no process of ours: sleep(1) does not watch its parent
    process.communicate()


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    let_end(tmp_path)
    ignoring = ["bash", "-c", 'trap "" HUP; exec "$@"', "bash"]
    command = arguments(tmp_path, WORKS.replace("ARMED", "True"), PATIENCE_S)
    process = subprocess.Popen([*ignoring, *command], stdout=subprocess.PIPE, text=True, start_new_session=True)
    number_in(tmp_path / "pid")
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(0.5)  # in which it may be heard, if it can be
    assert process.poll() is None and not (tmp_path / "asked").exists()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (4, "ended well\n")


class Terminal:
    """A command that has a terminal of its own, as a shell's foreground job."""

    def __init__(self, folder: Path, body: str, together_s: float = PATIENCE_S) -> None:
        self.pid, self._master = pty.fork()
        if not self.pid:
            os.execv(sys.executable, arguments(folder, body, together_s))

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def end(self) -> tuple[int, str]:
        """The exit code, and all that was shown."""
        shown = b""
        try:
            while piece := os.read(self._master, 4096):
                shown += piece
        except OSError:  # Linux says so when the last process has closed the terminal
            pass
        os.close(self._master)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), shown.decode()


def test_ctrl_c_in_a_terminal_counts_once(tmp_path: Path) -> None:
    let_end(tmp_path)
    terminal = Terminal(tmp_path, WORKS.replace("ARMED", "True"))
    number_in(tmp_path / "pid")
    terminal.press(b"\x03")
    code, shown = terminal.end()
    assert code == 4
    assert shown.count(FINISHING) == 1 and "ended well" in shown and INTERRUPTED not in shown


def test_ctrl_c_twice_in_a_terminal_ends_at_once(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, DEAF, together_s=0.0)
    worker, below = number_in(tmp_path / "pid"), number_in(tmp_path / "below")
    os.kill(below, signal.SIGSTOP)  # or Ctrl-C ends this one by itself
    terminal.press(b"\x03")
    wait_until_heard(tmp_path)
    assert state(worker) != "Z" and state(terminal.pid) != "Z"
    terminal.press(b"\x03")
    code, shown = terminal.end()
    assert code == 4 and INTERRUPTED in shown
    wait_for(lambda: {state(worker), state(below)} == {"Z"})


def test_ctrl_z_stops_both_and_they_go_on(tmp_path: Path) -> None:
    let_end(tmp_path)
    terminal = Terminal(tmp_path, WORKS.replace("ARMED", "True"))
    worker = number_in(tmp_path / "pid")
    terminal.press(b"\x1a")
    # A session of one job has no shell that would be told, so the system passes the key over: stop them as a shell's
    # job control does, the whole group.
    os.killpg(terminal.pid, signal.SIGSTOP)
    wait_for(lambda: {state(worker), state(terminal.pid)} == {"T"})
    os.killpg(terminal.pid, signal.SIGCONT)
    wait_for(lambda: "T" not in {state(worker), state(terminal.pid)})
    terminal.press(b"\x03")
    code, shown = terminal.end()
    assert code == 4 and "ended well" in shown


def test_without_the_systems_help_a_pipe_tells_of_the_parents_death(tmp_path: Path) -> None:
    """As on macOS, which knows no signal for it."""
    script = """
import os, sys, time
sys.platform = "another"
from depthsieve.core.lifelines import die_with_parent
reading, writing = os.pipe()
child = os.fork()
if not child:
    os.close(writing)
    die_with_parent(os.getppid(), reading)
    print(os.getpid(), flush=True)
    time.sleep(600)
os.close(reading)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = int(parent.stdout.readline())
    time.sleep(0.3)  # in which it would end, if it did so by itself
    assert state(child) != "Z"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: state(child) == "Z")


def test_the_supervisor_stays_small(tmp_path: Path) -> None:
    """It must not be what the machine's memory is short of."""
    let_end(tmp_path)
    process = start(tmp_path, WORKS.replace("ARMED", "True"))
    number_in(tmp_path / "pid")
    loaded = Path(f"/proc/{process.pid}/maps").read_text()
    assert "libtorch" not in loaded and "numpy" not in loaded
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
