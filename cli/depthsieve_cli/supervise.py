"""A small process that waits for the labelling process: it restarts it after a crash, and kills it on a second signal.

Both are in one process group, so that a terminal stops, continues and interrupts them as one command. The supervisor
passes on every signal that it gets, also those that the terminal sent to both: for the labelling process a first signal
and its double are the same. Only the supervisor counts signals; during a long computation of torch only it can react.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from depthsieve.core.lifelines import CRASHES, die_with_parent, how_it_died, kill_tree

ORDERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a process to end."""

DEATHS = 5
"""Deaths in a row, with nothing committed in between, before the supervisor gives up."""

TOGETHER_S = 0.25
"""Signals that come closer together than this count once: timeout(1) and closing terminals send theirs twice."""

_supervised = False


def supervised() -> bool:
    """Whether this is the labelling process, and a supervisor waits for it."""
    return _supervised


def supervise(store: str) -> None:
    """Continue in a child process. The caller's own stays, and exits with the child's exit code when that is done.

    To be called first of all: a process that has threads, as torch makes them, is not forked and continues alone, as
    one does where there is no ``fork``. A child that crashes is replaced, until :data:`DEATHS` in a row have committed
    nothing to the store. In the supervisor :class:`KeyboardInterrupt` is raised when a second signal came, after the
    child and all that descends from it are killed.
    """
    if not hasattr(os, "fork") or "torch" in sys.modules or threading.active_count() > 1:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    keeper = _Keeper()
    deaths, before = 0, _commits(store)
    while (code := keeper.run()) is not None:
        if code >= 0:
            sys.exit(code)
        if keeper.orders or -code in ORDERS:
            raise KeyboardInterrupt
        how = f"the labelling process died ({how_it_died(code)})"
        now = _commits(store)
        deaths, before = (0 if now > before else deaths + 1), now
        if -code not in CRASHES:
            _give_up(how)
        if deaths == DEATHS:
            _give_up(f"{how}, {DEATHS} times in a row without finishing a shard")
        click.echo(f"\nWarning: {how}; restarting it", err=True)


def _give_up(what: str) -> NoReturn:
    click.echo(f"\nError: {what}; what is committed is kept; run the same command again to resume", err=True)
    sys.exit(1)


def _commits(store: str) -> int:
    """How many commit records lie in a store on this machine; 0 where there is none, and for object stores."""
    with contextlib.suppress(OSError, RuntimeError):  # the latter where there is no home for ~
        return sum(1 for _ in Path(store, "commits").expanduser().iterdir())
    return 0


class _Keeper:
    """Runs one child after another, and passes signals on. ``orders`` counts the signals that it got."""

    def __init__(self) -> None:
        self.orders = 0
        self._last = -TOGETHER_S
        self._child = 0
        self._heard = [number for number in ORDERS if signal.getsignal(number) is not signal.SIG_IGN]

    def run(self) -> int | None:
        """Fork. In the child None; in the parent, once that has ended, its exit code or minus its signal."""
        global _supervised
        parent = os.getpid()
        reading, writing = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, self._heard)
        try:
            if self.orders:
                raise KeyboardInterrupt
            self._child = os.fork()
            _supervised = self._child == 0
            for number in self._heard:
                signal.signal(number, self._pass_on if self._child else _leave_once)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._heard)
        if not self._child:
            os.close(writing)
            die_with_parent(parent, reading)
            return None
        os.close(reading)
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        os.close(writing)
        return os.waitstatus_to_exitcode(status)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        before, self._last = self._last, time.monotonic()
        if self._last - before < TOGETHER_S:
            return
        self.orders += 1
        if not self._child:
            return  # between two children: checked before the next is forked
        if self.orders == 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, number)
        else:
            kill_tree(self._child)


def _leave_once(number: int, frame: FrameType | None) -> NoReturn:
    leave()


def leave() -> NoReturn:
    """Raise :class:`KeyboardInterrupt`."""
    if _supervised:
        ignore_orders()
    raise KeyboardInterrupt


def ignore_orders() -> None:
    """Ignore signals from here on: in a supervised process one may come twice, also while Python ends and its handlers
    are gone, and on a second one the supervisor kills it anyway."""
    for number in ORDERS:
        signal.signal(number, signal.SIG_IGN)
