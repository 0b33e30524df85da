"""Ctrl-C and other signals while images are labelled: the first asks for a clean end, the second ends at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from depthsieve.core.stopping import Stop
from depthsieve_cli import supervise


@contextlib.contextmanager
def graceful(stop: Stop) -> Iterator[None]:
    """Let the first signal request the stop, once it is armed; before that, and on a second one, KeyboardInterrupt.

    Under a supervisor one signal may arrive twice, from the terminal and passed on, so the supervisor alone counts
    them, and kills this process on the second.
    """
    heard = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        again, heard = heard, True  # first of all: a double may come while this one is handled
        if again and supervise.supervised():
            return
        if again or not stop.armed:
            supervise.leave()
        stop.request()
        line = f"Interrupted: finishing the shards that fit into {stop.grace_s:g} s; interrupt again to exit at once.\n"
        _say(line)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in supervise.ORDERS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as after nohup, or in a script's background
            signal.signal(number, handle)
    try:
        yield
    finally:
        if heard and supervise.supervised():
            supervise.ignore_orders()
        else:
            for number, handler in before.items():
                signal.signal(number, handler)


def _say(line: str) -> None:
    """Write to stderr without its buffer, which the interrupted code may be in the middle of."""
    start = "\n" if sys.stderr.isatty() else ""  # the bar's line
    with contextlib.suppress(OSError):
        os.write(2, (start + line).encode())
