"""Processes that do not outlive the one that started them, and how a process died, in words."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent is gone (prctl(2))."""

LONGEST_END_S = 30.0

CRASHES = tuple(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE", "SIGKILL")
    if hasattr(signal, name)
)
"""What ends a process for what it did itself; SIGKILL is how the kernel ends one where memory is short."""


def python_calling(function: str, *arguments: Any) -> list[str]:
    """The command of a Python that calls a function of a module, named with it.

    Not ``-m``: it imports what this process would, and nothing from the folder that it happens to run in.
    """
    module, _, name = function.rpartition(".")
    path = [place or str(Path.cwd()) for place in sys.path]
    values = ", ".join(map(repr, arguments))
    return [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; from {module} import {name}; {name}({values})"]


def die_with_parent(parent: int, lifeline: int) -> None:
    """End this process, whatever it is doing, when process ``parent`` is gone. Call it first of all.

    ``lifeline`` is the reading end of a pipe that the parent alone holds open and writes nothing to; it is for systems
    that do not signal a parent's death to its children.
    """
    told = sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0
    if os.getppid() != parent:
        os._exit(1)  # it died before the call
    if told:
        return

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


@contextlib.contextmanager
def ending_users_of(folder: str) -> Iterator[None]:
    """Make sure that no process with an open file below ``folder`` outlives this one; for processes of a library.

    A process of its own waits for the end of this one, even by SIGKILL, and then kills all of them. Where the system
    does not list open files nothing is done.
    """
    if not Path("/proc/self/fd").exists():
        yield
        return
    nothing, command = subprocess.DEVNULL, python_calling("depthsieve.core.lifelines._end_users", folder)
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing, start_new_session=True)
    assert watcher.stdin
    try:
        yield
    finally:
        watcher.stdin.close()
        watcher.wait()


def _end_users(folder: str) -> None:
    spared = {os.getpid(), os.getppid()}
    os.read(0, 1)  # returns when the other end is closed, by whatever
    deadline = time.monotonic() + LONGEST_END_S
    while time.monotonic() < deadline and (users := set(_users_of(folder)) - spared):
        for pid in users:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _users_of(folder: str) -> list[int]:
    """Processes that have a file open below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            links = [os.readlink(each) for each in (path / "fd").iterdir()]  # noqa: PTH115 - a deleted file's is no path
            if any(link.startswith(f"{folder}/") for link in links):
                found.append(int(path.name))
    return found


def how_it_died(returncode: int) -> str:
    """A return code of :mod:`subprocess` in words: "signal 11, SIGSEGV" or "exit code 1"."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"signal {-returncode}, {signal.Signals(-returncode).name}"
    except ValueError:
        return f"signal {-returncode}"


def kill_tree(pid: int) -> None:
    """SIGKILL to a child process and, where the system lists them, to all that descend from it."""
    below = _descendants(pid)
    for each in (pid, *below):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(each, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]
