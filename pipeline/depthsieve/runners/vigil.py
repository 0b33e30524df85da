"""What the driver of a Ray run waits for, in words, and when a wait is too long. It knows neither Ray nor a clock."""

import math
from collections.abc import Callable, Iterable, Sequence

from depthsieve.core.errors import RunError, RunInterrupted
from depthsieve.core.records import RESUME
from depthsieve.core.waiting import TELL_S, WAITS, Wait, Waited
from depthsieve.runners.slots import Slot
from depthsieve.runners.staffing import LASTS, ClusterOffer, Need, why_no_worker

REASON_S = 2.0
"""Seconds between two looks at why there is no worker."""

QUIET_S = 60.0
"""Seconds without any progress of workers after which that is told of."""

ISOLATION_PATIENCE = 8
"""How many times longer than others a shard in isolation may show no progress: it is labelled piece by piece."""

IF_SO = "the run ends in {left} if that goes on"

OF_WORKERS = "of workers: "


class Vigil:
    """Watches over a run. A run ends that has no worker for ``wait_s`` seconds, and one in which no worker makes
    progress for ``watchdog_s``. ``offer`` asks the cluster what it has now."""

    def __init__(
        self, need: Need, wait_s: float, watchdog_s: float, offer: Callable[[], ClusterOffer], now: float
    ) -> None:
        self._need, self._wait_s, self._watchdog_s, self._offer = need, wait_s, watchdog_s, offer
        self._staffed = self._ready = self._heard = now
        self._looked, self._death = -math.inf, ""
        self._waits: dict[str, Wait] = {}

    def heard(self, now: float) -> None:
        """A worker has made progress."""
        self._heard = now

    def started(self) -> None:
        """A worker is ready."""
        self._death = ""

    def lost(self, reason: str) -> None:
        """A worker is gone."""
        self._death = reason

    def look(self, slots: Sequence[Slot], stopping: bool, now: float) -> list[Slot]:
        """The slots that work or get ready. Says what is waited for, but not while the run is ``stopping``.

        Raises :class:`RunInterrupted` when there has been no worker for too long, :class:`RunError` when there has been
        no progress.
        """
        working = [slot for slot in slots if slot.window or slot.loads]
        if not working:
            self._heard = now
        if working or stopping:
            self._staffed = now
        if stopping or any(slot.ready and slot.doubt is None for slot in slots):
            self._ready = now
        patience = self._watchdog_s * (ISOLATION_PATIENCE if any(slot.isolates for slot in working) else 1)
        self._look_for_workers(slots, patience, now)
        self._look_for_progress(working, patience, now)
        self._pass_on(slots, now)
        return working

    def close(self) -> None:
        """Nothing is waited for any longer."""
        for name in list(self._waits):
            self._end(name)

    def _look_for_workers(self, slots: Sequence[Slot], patience: float, now: float) -> None:
        if self._ready == now:
            self._end("worker")
            return
        loading = [slot.where for slot in slots if slot.loads]
        wait = self._begin("worker", "a Ray worker", self._ready)
        if loading:
            wait.ends, wait.limit_s = IF_SO, self._heard + patience - self._ready
        else:
            wait.ends, wait.limit_s = f"{LASTS} unless one starts", self._staffed + self._wait_s - self._ready
        over = now - self._staffed > self._wait_s
        if over or now - self._looked >= REASON_S:
            self._looked = now
            doubted = [slot.where for slot in slots if slot.doubt is not None]
            wait.why = why_no_worker(self._offer(), self._need, loading, doubted, self._death)
        if over:
            raise RunInterrupted(f"no Ray worker for {self._wait_s:.0f} s: {wait.why}; {RESUME}")

    def _look_for_progress(self, working: Sequence[Slot], patience: float, now: float) -> None:
        if now - self._heard > patience:
            raise RunError(
                f"no Ray worker has made progress for {patience:.0f} s; look at {', '.join(_tasks(working[:20]))}"
            )
        if not any(slot.window for slot in working) or now - self._heard < QUIET_S / 2:
            self._end("progress")
            return
        wait = self._begin("progress", "any Ray worker to make progress", self._heard, QUIET_S)
        more = f" and {len(working) - 1} more" if len(working) > 1 else ""
        wait.why, wait.ends, wait.limit_s = f"look at {_tasks(working)[0]}{more}", IF_SO, patience

    def _pass_on(self, slots: Iterable[Slot], now: float) -> None:
        """Tell of what workers wait for, once for all that wait for the same."""
        waiting: dict[str, list[Waited]] = {}
        for slot in slots:
            for waited in slot.waits if slot.actor is not None else ():
                waiting.setdefault(OF_WORKERS + waited.what, []).append(waited)
        for name in list(self._waits):
            if name.startswith(OF_WORKERS) and name not in waiting:
                self._end(name)
        for name, each in waiting.items():
            first, known = max(each, key=lambda one: one.age_s), self._waits.get(name)
            wait = self._begin(name, f"{first.what} on a worker", known.since if known else now - first.age_s)
            wait.why, wait.ends = first.why, first.ends
            wait.limit_s = None if first.left_s is None else now + first.left_s - wait.since

    def _begin(self, name: str, what: str, since: float, tell_s: float = TELL_S) -> Wait:
        """The wait of that name, which has lasted since then."""
        wait = self._waits.get(name)
        if wait is None or wait.since != since:
            self._end(name)
            wait = self._waits[name] = WAITS.begin(Wait(what, since, tell_s=tell_s))
        return wait

    def _end(self, name: str) -> None:
        if name in self._waits:
            WAITS.end(self._waits.pop(name))


def _tasks(slots: Iterable[Slot]) -> list[str]:
    """What each is at."""
    return [f"shard {slot.window[0][1].shard_id} on {slot.where}" if slot.window else slot.where for slot in slots]
