"""Processes that do not outlive the one that started them, and how a process died, in words."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent is gone (prctl(2))."""

FAULTS = tuple(
    getattr(signal, name) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE") if hasattr(signal, name)
)
"""What a process gets for what it did itself."""


def die_with_parent(parent: int, lifeline: int) -> None:
    """End this process, whatever it is doing, when process ``parent`` is gone. To be called first of all.

    ``lifeline`` is the reading end of a pipe that the parent alone holds open and writes nothing to; it is for systems
    that do not tell a child of its parent's death.
    """
    told = sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0
    if os.getppid() != parent:
        os._exit(1)  # it went before we asked
    if told:
        return

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


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
