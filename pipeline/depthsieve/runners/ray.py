"""The Ray runner: actors with a window of a few shards each, and a driver that keeps track of every shard itself.

Ray's own restarts and retries are off: with them a run hangs when a node goes and is not replaced.
"""

import contextlib
import math
import pickle
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from depthsieve.core.errors import RunError
from depthsieve.core.records import LabelJob, ShardResult, ShardTask
from depthsieve.core.stopping import Stop
from depthsieve.core.version import __version__
from depthsieve.runners import OnImages, Runner
from depthsieve.runners.head import Head
from depthsieve.runners.ledger import Death, Ledger
from depthsieve.runners.ray_session import connected, current_offer, is_placed, one_line, unreached
from depthsieve.runners.ray_worker import RayWorker, Readiness, death_of, holds_something, is_cut_off, misfit
from depthsieve.runners.slots import Slot
from depthsieve.runners.staffing import ClusterOffer, Need
from depthsieve.runners.vigil import Vigil
from depthsieve.storage import is_url

WINDOW = 2
"""Shards at an actor: the one that is with its teacher, and one that is being committed or waits for its turn."""

WINDOW_FAR = 6
"""The same for a store in a bucket: two, and those that are labelled and being uploaded."""

POLL_S = 0.25
"""Seconds within which a stop is noticed."""

DRAIN_S = 2.0
"""Seconds to wait for results that a dead actor had sent before its end."""

DOUBT_S = 15.0
"""Seconds that Ray has to find out what became of an unavailable actor, before that counts as lost."""

COUNT_S = 10.0
"""Seconds between two checks of how many workers a cluster has room for."""

PROGRESS_S = 1.0
"""Seconds between two polls of a worker's progress."""

MOST_POLLS = 50
"""Such polls a second, however many workers there are."""

LONGEST_PAUSE_S = 60.0
"""Longest wait, in seconds, before an actor is replaced whose predecessors all died without a result."""


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How many actors, and what they may use.

    ``address`` None starts a private Ray on this machine; ``workers`` None, with an address, is as many as the cluster
    has room for, also later, when it has grown. With an address each worker takes a whole GPU if ``gpus`` is not 0. A
    run ends that has no worker for ``wait_s`` seconds, and one in which no worker makes progress for ``watchdog_s``.
    """

    workers: int | None
    cpus_per_worker: int
    gpus: int = 0
    address: str | None = None
    watchdog_s: float = 1800.0
    wait_s: float = 600.0

    @property
    def need(self) -> Need:
        """What each worker takes of a node."""
        return Need(self.cpus_per_worker, self.gpus_per_worker)

    @property
    def gpus_per_worker(self) -> float:
        """A whole GPU, or an equal part of one so that all workers find room: 1/2, 1/3, never 2/3."""
        if not self.gpus or self.address or not self.workers:
            return float(bool(self.gpus))
        return 1 / math.ceil(self.workers / self.gpus)


def ray_runner(options: RayOptions, on_images: OnImages, worker: type[RayWorker] = RayWorker) -> Runner:
    """A runner on actors of a Ray cluster, started for the run and stopped after it unless an address is given."""

    def run(job: LabelJob, tasks: Iterator[ShardTask], stop: Stop) -> Generator[ShardResult, None, None]:
        with connected(options.address, (options.workers or 1) * options.cpus_per_worker, options.gpus) as head:
            driver = _Driver(options, job, worker, Ledger(tasks), stop, on_images, head)
            try:
                yield from driver.results()
            except RayError as error:
                raise RunError(f"Ray has failed: {one_line(error)}") from error
            finally:
                driver.close()

    return run


def _control(method: Any, *arguments: Any) -> Any:
    """Call a method that is answered while the actor is labelling."""
    return method.options(concurrency_group="control").remote(*arguments)


class _Driver:
    """The driver of one run. It holds a few tasks per worker, and nothing that grows with the number of shards."""

    def __init__(
        self,
        options: RayOptions,
        job: LabelJob,
        worker: type[RayWorker],
        ledger: Ledger,
        stop: Stop,
        on_images: OnImages,
        head: Head,
    ) -> None:
        self._head, self._offered = head, ClusterOffer(())
        self._options, self._ledger, self._stop, self._on_images = options, ledger, stop, on_images
        roots = (root for _, root in job.sources if "://" not in root)
        self._job = (__version__, pickle.dumps(job), tuple(root for root in roots if holds_something(root)))
        self._window = WINDOW_FAR if is_url(job.store) else WINDOW
        self._actor_class = ray.remote(
            num_cpus=options.cpus_per_worker,
            num_gpus=options.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=self._window,
            concurrency_groups={"control": 1},
        )(worker)
        self._slots: list[Slot] = []
        self._calls: dict[Any, tuple[Slot, str]] = {}
        self._asked = self._counted = now = time.monotonic()
        self._vigil = Vigil(options.need, options.wait_s, options.watchdog_s, self._offer, now)
        self._stopping = False

    def results(self) -> Iterator[ShardResult]:
        """A result for each task, until there are no more or the stop's grace is over.

        Raises :class:`RunError` when a worker cannot do the job, they die one after another, or none gives a sign of
        life, and :class:`RunInterrupted` when there is none for too long.
        """
        while self._goes_on():
            self._head.check(time.monotonic())
            if not self._stopping and not self._head.silent:
                self._staff()
                self._hand_out()
            for call in self._answered():
                yield from self._take(call)
            self._watch()

    def close(self) -> None:
        """End the actors."""
        self._vigil.close()
        for slot in self._slots:
            self._vacate(slot)

    def _goes_on(self) -> bool:
        under_way = any(slot.window for slot in self._slots)
        if not self._stop.requested:
            return under_way or self._ledger.waiting
        if not self._stopping:
            self._stopping = True
            for slot in self._slots:
                if slot.window:
                    _control(slot.actor.stop, self._stop.seconds_left())
                else:
                    self._vacate(slot)
        return under_way and self._stop.seconds_left() > 0

    # who works

    def _staff(self) -> None:
        """Fill vacant slots as far as there is work, and make sure that poison gets one."""
        while len(self._slots) < self._wanted():
            self._slots.append(Slot())
        self._refill()
        queue, poison = self._ledger.queue, self._ledger.poison
        isolating = [slot for slot in self._slots if slot.actor is not None and slot.isolates]
        labelling = [slot for slot in self._slots if slot.actor is not None and not slot.isolates]
        isolators_wanted = min(len(poison), 1 if queue else len(self._slots)) - len(isolating)
        if isolators_wanted > 0 and len(isolating) + len(labelling) == len(self._slots):
            makes_room = next((slot for slot in labelling if slot.free), None)
        else:
            makes_room = next((slot for slot in isolating if slot.free and queue and not poison), None)
        if makes_room is not None:
            self._vacate(makes_room)
        idle = sum(not slot.window for slot in labelling if slot.actor is not None)
        for slot in self._slots:
            if slot.actor is not None or slot.not_before > time.monotonic():
                continue
            if isolators_wanted > 0:
                self._open(slot, isolates=True)
                isolators_wanted -= 1
            elif len(queue) > idle:
                self._open(slot, isolates=False)
                idle += 1

    def _wanted(self) -> int:
        """How many slots there should be. Where the cluster decides, that is checked every few seconds."""
        if self._options.workers is not None:
            return self._options.workers
        if self._slots and time.monotonic() - self._counted < COUNT_S:
            return len(self._slots)
        self._counted = time.monotonic()
        return current_offer().workers(self._options.cpus_per_worker, bool(self._options.gpus))

    def _refill(self) -> None:
        if not self._stop.requested:
            self._ledger.refill(len(self._slots))

    def _open(self, slot: Slot, isolates: bool) -> None:
        slot.actor, slot.isolates = self._actor_class.remote(), isolates
        slot.where, slot.images, slot.sending, slot.waits = "", {}, frozenset(), ()
        self._calls[slot.actor.prepare.remote(*self._job, isolates)] = (slot, "prepare")
        self._ask(slot)  # answered as soon as its process is there

    def _ask(self, slot: Slot) -> None:
        slot.asked = True
        self._calls[_control(slot.actor.report)] = (slot, "report")

    def _vacate(self, slot: Slot) -> None:
        actor, slot.actor, slot.ready, slot.doubt = slot.actor, None, False, None
        slot.window.clear()
        self._calls = {call: at for call, at in self._calls.items() if at[0] is not slot}
        if actor is not None:
            with contextlib.suppress(RayError):  # "Actor creation cancelled", of one that was not registered yet
                ray.kill(actor)

    def _hand_out(self) -> None:
        """Keep workers busy: first those that are idle; then a second shard for each, while there are plenty."""
        queue, poison = self._ledger.queue, self._ledger.poison
        makes_room = poison and not any(slot.isolates and slot.actor is not None for slot in self._slots)
        for size in range(WINDOW):
            for slot in self._slots:
                full = len(slot.window) >= self._window or slot.to_label != size
                if not slot.ready or slot.doubt is not None or full:
                    continue
                if slot.isolates:
                    if poison and not size:
                        self._send(slot, poison.popleft())
                elif makes_room:
                    makes_room = False  # it runs dry, and then gives its slot to an isolating actor
                elif len(queue) >= (len(self._slots) if size else 1):
                    self._send(slot, queue.popleft())
                    self._refill()

    def _send(self, slot: Slot, task: ShardTask) -> None:
        call = slot.actor.label.remote(task.shard_id)
        slot.window.append((call, task))
        self._calls[call] = (slot, "label")

    # what comes back

    def _answered(self) -> list[Any]:
        timeout = min(POLL_S, self._stop.seconds_left())
        if not self._calls:
            self._stop.wait(timeout)
            return []
        done, _ = ray.wait([*self._calls], num_returns=1, timeout=timeout)
        return list(done)

    def _take(self, call: Any) -> Iterator[ShardResult]:
        slot, kind = self._calls.pop(call)
        try:
            answer = ray.get(call)
        except RayTaskError as error:
            if kind != "label":
                yield from self._bury(slot, misfit(error), unfit=True)
                return
            yield self._ledger.finish(ShardResult(slot.take(call).shard_id, error=one_line(error)))
        except RayError as error:
            yield from self._failed(slot, kind, error)
        else:
            yield from self._heard_of(slot, kind, call, answer)

    def _heard_of(self, slot: Slot, kind: str, call: Any, answer: Any) -> Iterator[ShardResult]:
        if isinstance(answer, Readiness):
            slot.where, slot.ready = answer.where, answer.problem is None
            self._vigil.started()
            if answer.problem is not None:
                death = Death(f"the Ray worker on {answer.where}: {answer.problem}", blames=False)
                yield from self._bury(slot, death, unfit=True)
        elif kind == "label":
            self._vigil.heard(time.monotonic())
            slot.deaths = 0
            slot.take(call)
            if answer is not None:  # else the stop came before it started
                yield self._ledger.finish(answer)
        elif kind == "doubt" and slot.doubt is not None:
            yield from self._bury(slot, death_of(slot.doubt))  # it lives, but its calls are lost
        else:
            slot.asked, slot.where, slot.waits = False, answer.where, answer.waits
            slot.sending = answer.sending
            if answer.images != slot.images:
                slot.images = answer.images
                self._vigil.heard(time.monotonic())
            for _, task in slot.window:  # a shard whose result is in counts by that
                if task.shard_id in answer.images:
                    self._on_images(task.shard_id, answer.images[task.shard_id])

    def _failed(self, slot: Slot, kind: str, error: RayError) -> Iterator[ShardResult]:
        """A call came back without an answer: its actor is gone, or unavailable, and Ray may know more soon."""
        now = time.monotonic()
        unclear = isinstance(error, ActorUnavailableError)
        if kind == "report" and unclear:
            slot.asked = False  # its calls for shards, which are lost too, decide
        elif slot.doubt is None and unclear:
            slot.doubt, slot.doubted, slot.ask_at = error, now, now
        elif kind == "doubt" and unclear and now - slot.doubted < DOUBT_S:
            slot.ask_at = now + POLL_S
        elif slot.doubt is None or kind == "doubt":
            if is_cut_off(error) and not self._ledger.proven:
                raise RunError(unreached())
            unfit = getattr(error, "actor_init_failed", False)
            yield from self._bury(slot, misfit(error) if unfit else death_of(error), unfit)

    def _bury(self, slot: Slot, death: Death, unfit: bool = False) -> Iterator[ShardResult]:
        """Requeue what a dead actor leaves, and keep its slot vacant for a while that grows with each death.

        A result that was lost with it makes a wrong suspect, which costs another attempt: it takes two deaths to
        convict. ``unfit``: it cannot do the job. Before there is any result the whole run is unfit, and ends.
        """
        if unfit and not self._ledger.proven:
            raise RunError(death.reason)
        answered, left = self._drained(slot)
        left.sort(key=lambda task: task.shard_id in slot.sending)  # none that was labelled has killed it
        self._vacate(slot)
        self._vigil.lost(death.reason)
        slot.deaths += 1
        slot.not_before = time.monotonic() + min(LONGEST_PAUSE_S, 2.0 ** (slot.deaths - 1) - 1)
        yield from map(self._ledger.finish, answered)
        given_up = self._ledger.bury(death, left, len(self._slots))
        if given_up is not None:
            yield given_up

    def _drained(self, slot: Slot) -> tuple[list[ShardResult], list[ShardTask]]:
        """The results that an actor had sent before it died, and its other tasks in order."""
        calls = [call for call, _ in slot.window]
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=DRAIN_S)
        answered, left = [], []
        for call, task in slot.window:
            try:
                result = ray.get(call, timeout=0)
            except RayError:
                result = None
            if result is None:
                left.append(task)
            else:
                answered.append(result)
        return answered, left

    # who makes no progress

    def _offer(self) -> ClusterOffer:
        """What the cluster has, as of when its head last answered; not what is free where an actor has its place."""
        if not self._head.silent:
            self._offered = current_offer()
            if any(is_placed(slot.actor) for slot in self._slots if slot.actor is not None and not slot.ready):
                self._offered = replace(self._offered, free=None)
        return self._offered

    def _watch(self) -> None:
        """Poll for progress. Raises :class:`RunError` when there has been no worker, or no progress, for too long."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.doubt is not None and slot.ask_at <= now:
                slot.ask_at = math.inf
                self._calls[_control(slot.actor.report)] = (slot, "doubt")
        working = self._vigil.look(self._slots, self._stopping, now)
        if now - self._asked >= max(PROGRESS_S, len(working) / MOST_POLLS):
            self._asked = now
            for slot in working:
                if not slot.asked and slot.doubt is None:
                    self._ask(slot)
