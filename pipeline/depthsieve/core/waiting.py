"""What a process waits for, said within seconds: what, since when, and how the wait would end.

Whoever waits says so with :func:`waiting`, or by :meth:`Waits.begin` and :meth:`Waits.end` of :data:`WAITS`; a wait
that is over soon costs next to nothing and is not mentioned. A thread of its own tells of the others: on a terminal a
line when it begins and one below the bars that counts, in a log a line now and then, and where no progress is shown
one warning of the logger ``depthsieve``.
"""

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from depthsieve.core.progress import LOG_EVERY_S, StatusLine, is_terminal, print_line

TELL_S = 4.0
"""Seconds after which a wait is told of."""

WARN_S = 30.0
"""The same where no progress is shown."""

ASK_S = 2.0
"""Seconds after which a wait is asked for its reason, so that it is known when the wait is told of."""

ASK_AGAIN_S = 10.0

LONG_S = 10.0
"""Seconds after which the end of a wait is told of, too."""

LOOK_S = 0.5

logger = logging.getLogger("depthsieve")


@dataclass(slots=True, eq=False)
class Wait:
    """A wait for ``what``, since a time of the monotonic clock. Waits for the same are told of as one.

    ``why`` is what is known of its cause, and may change; ``ask`` returns it, within two seconds, where nobody else
    sets it. ``ends`` is how it would end, with "{left}" for the time left until ``limit_s``. It is told of once it is
    ``tell_s`` seconds old.
    """

    what: str
    since: float
    ends: str = ""
    limit_s: float | None = None
    why: str = ""
    ask: Callable[[], str] | None = None
    tell_s: float = TELL_S

    def left(self, now: float) -> float | None:
        """Seconds until its limit; None without one."""
        return None if self.limit_s is None else max(0.0, self.since + self.limit_s - now)

    def line(self, now: float, *, why: bool = True) -> str:
        """The wait in a line: ``waiting for a worker for 4 s: none has started; the run ends in 596 s``."""
        cause = f": {self.why}" if why and self.why else ""
        left = self.left(now)
        ends = self.ends.replace("{left}", f"{math.ceil(left or 0.0)} s")
        return f"waiting for {self.what} for {now - self.since:.0f} s{cause}" + (f"; {ends}" if ends else "")


@dataclass(frozen=True, slots=True)
class Waited:
    """A wait of another process, in which it is ``age_s`` seconds old and ``left_s`` from its limit."""

    what: str
    why: str
    ends: str
    age_s: float
    left_s: float | None


@dataclass(slots=True)
class _Told:
    since: float
    why: str
    at: float


class Teller:
    """Decides when a wait is told of, and in which lines. It knows no clock.

    ``shown``: progress is shown. ``repeats``: a wait that lasts is told of again every :data:`LOG_EVERY_S`, for logs.
    """

    def __init__(self, shown: bool, repeats: bool) -> None:
        self._shown, self._repeats = shown, repeats
        self._told: dict[str, _Told] = {}

    def look(self, waits: Iterable[Wait], now: float) -> list[str]:
        """The lines to print now, given the waits that last."""
        oldest = oldest_by_what(waits)
        lines = []
        for what, told in list(self._told.items()):
            if what in oldest:
                continue
            if self._shown and told.since > -math.inf and now - told.since >= LONG_S:
                lines.append(f"waited {now - told.since:.0f} s for {what}")
            told.since = -math.inf
            if now - told.at >= LOG_EVERY_S:  # before, another of these is the same trouble, which is known
                del self._told[what]
        lines += [wait.line(now) for wait in oldest.values() if self._is_due(wait, now)]
        return lines

    def _is_due(self, wait: Wait, now: float) -> bool:
        if now - wait.since < (wait.tell_s if self._shown else max(wait.tell_s, WARN_S)):
            return False
        told = self._told.get(wait.what)
        again = told is not None and self._repeats and self._shown and now - told.at >= LOG_EVERY_S
        news = told is not None and self._shown and wait.why not in ("", told.why) and now - told.at >= TELL_S
        if told is not None and not again and not news:
            told.since = wait.since
            return False
        self._told[wait.what] = _Told(wait.since, wait.why, now)
        return True


def oldest_by_what(waits: Iterable[Wait]) -> dict[str, Wait]:
    """The oldest wait for each thing, the oldest of all first."""
    found: dict[str, Wait] = {}
    for wait in sorted(waits, key=lambda one: one.since):
        found.setdefault(wait.what, wait)
    return found


class Waits:
    """The waits of this process, and the thread that tells of them. Safe to use from several threads."""

    def __init__(self) -> None:
        self._waits: set[Wait] = set()
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._pid = 0  # of the process in which the thread runs: a forked one has none
        self._line, self._drawing = StatusLine(), threading.Lock()
        self.shown = False

    def begin(self, wait: Wait) -> Wait:
        """From now on it is waited for that."""
        with self._lock:
            self._waits.add(wait)
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._tell, name="depthsieve-waiting", daemon=True).start()
        if not self._some.is_set():
            self._some.set()
        return wait

    def end(self, wait: Wait) -> None:
        """That wait is over; nothing where it was over before."""
        with self._lock:
            self._waits.discard(wait)
        if self._line.shown and not self.now():
            self._draw()  # before the bar above it goes, or an error is printed

    def now(self) -> list[Wait]:
        """The waits that last, the oldest for each thing."""
        with self._lock:
            waits = [*self._waits]
        return [*oldest_by_what(waits).values()]

    def report(self) -> tuple[Waited, ...]:
        """The waits that should be told of by another process."""
        now = time.monotonic()
        due = [wait for wait in self.now() if now - wait.since >= wait.tell_s]
        return tuple(Waited(one.what, one.why, one.ends, now - one.since, one.left(now)) for one in due)

    def _tell(self) -> None:
        asked = dict[str, float]()
        teller, shown = None, self.shown
        while self._some.wait():
            time.sleep(LOOK_S)
            self._some.clear()
            if waits := self.now():
                self._some.set()
            if teller is None or shown is not self.shown:
                shown = self.shown
                teller = Teller(shown, not is_terminal())
            for wait in waits:
                _ask(wait, asked)
            with contextlib.suppress(Exception):  # whoever read stderr has gone
                for each in teller.look(waits, time.monotonic()):
                    print_line(each) if shown else logger.warning("%s", each)
                self._draw()

    def _draw(self) -> None:
        """Bring the line on the terminal up to date."""
        with self._drawing:
            now = time.monotonic()
            due = [wait.line(now, why=False) for wait in self.now() if self.shown and now - wait.since >= wait.tell_s]
            self._line.show(due[0] if due else "")


def _ask(wait: Wait, asked: dict[str, float]) -> None:
    """Find out why it waits, now and then."""
    now = time.monotonic()
    if wait.ask is None or now - wait.since < ASK_S or now - asked.get(wait.what, -math.inf) < ASK_AGAIN_S:
        return
    asked[wait.what] = now
    with contextlib.suppress(Exception):  # it cannot say
        wait.why = wait.ask() or wait.why


WAITS = Waits()


@contextlib.contextmanager
def waiting(
    what: str,
    ends: str = "",
    *,
    limit_s: float | None = None,
    ask: Callable[[], str] | None = None,
    tell_s: float = TELL_S,
) -> Iterator[Wait]:
    """Within it, this process waits for ``what``; see :class:`Wait`."""
    wait = WAITS.begin(Wait(what, time.monotonic(), ends, limit_s, ask=ask, tell_s=tell_s))
    try:
        yield wait
    finally:
        WAITS.end(wait)


@contextlib.contextmanager
def telling(shown: bool) -> Iterator[None]:
    """Within it, waits are told of as progress is, if it is ``shown``; else by a warning, after a while."""
    before, WAITS.shown = WAITS.shown, shown
    try:
        yield
    finally:
        WAITS.shown = before
