"""Progress for whoever waits: a bar on a terminal or in a notebook, now and then a line in a log, nothing when told so.

What a run does in detail is logged by the logger ``depthsieve``, at level ``info``; the command shows it with
``--verbose``.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol, TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")

LOG_EVERY_S = 30.0
"""Seconds between two lines where stderr is a file or a pipe."""

BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
"""tqdm's own, but items a second also where one takes longer than that."""

logger = logging.getLogger("depthsieve")


class Bar(Protocol):
    """What is told of progress. ``n`` counts what is done."""

    n: float

    def update(self, n: float = 1) -> bool | None:
        """So many more are done."""


def progress_bar(
    what: str, *, total: float | None = None, unit: str = "images", shown: bool = True, leave: bool = False
) -> Any:
    """A bar called ``what``, as a context manager that yields a :class:`Bar`; nothing unless ``shown``.

    Where stderr is neither a terminal nor a notebook, it is a line at most every :data:`LOG_EVERY_S` seconds, so that a
    log stays short. On a terminal the bar goes when it ends unless ``leave``.
    """
    if not shown or sys.stderr is None:
        return tqdm(disable=True)
    if not _is_watched():
        return _LogLines(what, total, unit)
    layout = BAR if total is not None else None
    return tqdm(desc=what, total=total, unit=f" {unit}", leave=leave, bar_format=layout)


def with_progress(
    items: Iterable[Item], what: str, *, total: float | None = None, unit: str = "images", shown: bool = True
) -> Iterator[Item]:
    """The items, with a bar of how many have been taken; ``total`` None is the length of ``items``, if it has one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(what, total=total, unit=unit, shown=shown) as bar:
        for item in items:
            yield item
            bar.update()


def say(line: str, *, shown: bool = True) -> None:
    """Tell at once what takes long before a bar can show it; nothing unless ``shown``, and nothing in a log."""
    if shown and sys.stderr is not None and _is_watched():
        print(line, file=sys.stderr, flush=True)


def print_line(line: str) -> None:
    """A line on stderr, above the bars where there are any."""
    if sys.stderr is None:
        return
    if _is_watched():
        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


class StatusLine:
    """A line on a terminal, below the bars, that says what goes on; nothing elsewhere."""

    def __init__(self) -> None:
        self._line: Any = None

    @property
    def shown(self) -> bool:
        """Whether it says anything."""
        return self._line is not None

    def show(self, text: str) -> None:
        """Say that from now on, cut at the terminal's width; with "" the line goes."""
        if text and is_terminal():
            if self._line is None:
                self._line = tqdm(bar_format="{desc}", leave=False)
            self._line.set_description_str(text)
        elif self._line is not None:
            self._line.close()
            self._line = None


def is_terminal() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def _is_watched() -> bool:
    """Whether stderr is a terminal or a notebook."""
    return is_terminal() or any("notebook" in base.__module__ for base in tqdm.__mro__)


class _LogLines:
    """A bar's stand-in for logs: ``label: 120 of 340 images, 2.1 images/s, 1:44 left``."""

    def __init__(self, what: str, total: float | None, unit: str) -> None:
        self.what, self.total, self.unit, self.n = what, total, unit, 0.0
        self.started = self.told = time.monotonic()

    def __enter__(self) -> "_LogLines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, n: float = 1) -> None:
        """So many more are done."""
        self.n += n
        now = time.monotonic()
        if now - self.told >= LOG_EVERY_S:
            self.told = now
            print(self.line(now - self.started), file=sys.stderr, flush=True)

    def set_postfix(self, **more: object) -> None:
        """A log does without."""

    def line(self, seconds: float) -> str:
        """How far it is after so many seconds."""
        rate = self.n / seconds if seconds else 0.0
        of = f" of {self.total:,.0f}" if self.total is not None else ""
        left = ""
        if self.total is not None and rate:
            left = f", {tqdm.format_interval(max(0.0, self.total - self.n) / rate)} left"
        return f"{self.what}: {self.n:,.0f}{of} {self.unit}, {rate:,.3g} {self.unit}/s{left}"
