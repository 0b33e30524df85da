"""Being asked to stop: finish what fits into a grace period, abandon the rest uncommitted."""

import math
import time

POLL_S = 0.1


class Abandoned(Exception):  # no DepthsieveError: no user sees it
    """The shard in flight was given up, uncommitted, because a stop was requested. A runner yields nothing for it."""


class Stop:
    """Asks the workers of a run to end. A signal handler requests it; everyone else polls it.

    ``grace_s`` is how many seconds work in flight may continue once a stop is requested. Safe to use from a signal
    handler and from several threads. ``armed`` is set once there is work that may be finished; before, there is nothing
    to wait for and an interruption ends the run at once. A stop of its ``parent`` also stops it.
    """

    def __init__(self, grace_s: float = 20.0, parent: "Stop | None" = None) -> None:
        self.grace_s = grace_s
        self._parent = parent
        self.armed = False
        self._requested = False  # no Event: a handler that sets one can wait for a lock that its own thread holds
        self._deadline = math.inf

    def request(self) -> None:
        """Request the stop. The grace period begins with the first request."""
        if not self._requested:
            self._deadline = time.monotonic() + self.grace_s
            self._requested = True

    @property
    def requested(self) -> bool:
        """Whether no new work may start."""
        return self._requested or (self._parent is not None and self._parent.requested)

    def seconds_left(self) -> float:
        """Seconds in which work in flight may still finish: infinite before a request, never below 0."""
        own = max(0.0, self._deadline - time.monotonic())
        return own if self._parent is None else min(own, self._parent.seconds_left())

    def wait(self, seconds: float) -> bool:
        """Sleep, at most until shortly after the request; returns whether it came."""
        end = time.monotonic() + seconds
        while not self.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))
        return self.requested
