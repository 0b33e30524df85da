"""Whether the head of a Ray cluster answers. Ray itself ends the whole process, without a word, once its head has been
silent for a minute; until then its calls hang. This knows no Ray: every gRPC server greets whoever greets it."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

from depthsieve.core.errors import RunInterrupted
from depthsieve.core.records import RESUME
from depthsieve.core.waiting import WAITS, Wait
from depthsieve.runners.staffing import LASTS

GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins, with settings of its own, of which there are none (RFC 9113, section 3.4)."""

SETTINGS_FRAME = b"\x04"

LOOK_S = 2.0
"""Seconds between two looks at a head, and how long one may take to answer."""

PATIENCE_S = 45.0
"""Seconds that a head may be silent: less than the 60 after which Ray ends the process."""


def can_be_greeted() -> bool:
    """Whether a head takes greetings in clear."""
    return os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true")


def is_greeted(address: str, timeout_s: float) -> bool:
    """Whether what listens at HOST:PORT speaks as Ray does. Raises :class:`OSError` where it does not answer."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s) as probe:
        probe.sendall(GREETING)
        return probe.recv(9)[3:4] == SETTINGS_FRAME


class Head:
    """The head of the cluster at an address, while :meth:`watched`; one without an address always answers."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._heard: float | None = None  # when it answered last
        self._wait: Wait | None = None
        self._ended = threading.Event()

    @property
    def silent(self) -> bool:
        """Whether it did not answer when it was last asked: Ray's calls would hang."""
        return self._wait is not None

    def check(self, now: float) -> None:
        """Raise :class:`RunInterrupted` once it has been silent for :data:`PATIENCE_S`."""
        wait = self._wait
        if wait is not None and now - wait.since > PATIENCE_S:
            raise RunInterrupted(f"{wait.what} has not answered for {PATIENCE_S:.0f} s; {RESUME}")

    def note(self, answered: bool, now: float) -> None:
        """It was asked, and did or did not answer."""
        if answered:
            self._heard = now
            if self._wait is not None:
                WAITS.end(self._wait)
            self._wait = None
        elif self._wait is None:
            since = now if self._heard is None else self._heard
            ends = f"{LASTS} unless it answers"
            self._wait = WAITS.begin(Wait(f"the head of the Ray cluster at {self._address}", since, ends, PATIENCE_S))

    @contextlib.contextmanager
    def watched(self) -> Iterator["Head"]:
        """Ask it now and then, in a thread."""
        if self._address is None or not can_be_greeted():
            yield self
            return
        asking = threading.Thread(target=self._ask, args=(self._address,), name="depthsieve-head", daemon=True)
        asking.start()
        try:
            yield self
        finally:
            self._ended.set()
            asking.join()
            self.note(True, time.monotonic())

    def _ask(self, address: str) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                answered = is_greeted(address, LOOK_S)
            except OSError:
                answered = False
            self.note(answered, time.monotonic())
