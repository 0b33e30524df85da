"""Hand the pending shards of a store to a runner: leases, attempts, and the outcome."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from depthsieve.core.ahead import map_ahead
from depthsieve.core.errors import DepthsieveError, RunError
from depthsieve.core.processes import Process
from depthsieve.core.progress import Bar, progress_bar
from depthsieve.core.records import RESUME, LabelJob, ShardTask
from depthsieve.core.stopping import Stop
from depthsieve.labelling.remarks import Remarks, add_remarks, remark_notes
from depthsieve.runners import OnImages, Runner
from depthsieve.storage import Root
from depthsieve.store import Store
from depthsieve.store.leases import Lease, Leases
from depthsieve.store.pending import Pending

ATTEMPTS = 3
"""How often a shard is attempted in one run before the run gives it up."""

POISON_DEATHS = 2
"""Holders of a shard's lease that died, after which it is labelled in isolated processes."""

PAUSE_S = 1.0
"""Seconds before the second attempt; doubled before the third."""

MakeRunner = Callable[[OnImages], Runner]
"""Makes the runner, given the progress callback."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did: images labelled, why shards are left, and notes for the user.

    ``discarded`` counts images whose labels were computed, of shards that were abandoned when a stop was requested: the
    next run computes them again.
    """

    labelled: int = 0
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    discarded: int = 0


AHEAD = 4
"""Shards of a store in a bucket whose leases are taken before a runner asks for them: each takes round trips."""


class _Hand:
    """The leases of shards in flight: taken when a runner asks for one, given back when it returns a result. Those of a
    store in a bucket are taken a few ahead, and given back beside other work.

    A context manager: at its end all are given back, and what could not be given back is raised.
    """

    def __init__(self, store: Store, leases: Leases) -> None:
        self._store, self._leases = store, leases
        self._taken: dict[str, Lease] = {}
        self.busy: dict[Process, list[str]] = {}
        self._ahead = ThreadPoolExecutor(AHEAD, "leases") if store.root.path is None else None
        self._given_back: deque[Future[None]] = deque()

    def __enter__(self) -> "_Hand":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._ahead is not None:
            self._ahead.shutdown(cancel_futures=kind is not None)
        for shard_id in list(self._taken):
            with contextlib.suppress(OSError):
                self._give_back(shard_id, settled=False)
        if kind is None:
            self._raise_errors(wait=True)

    def tasks(self, shard_ids: Iterable[str]) -> Iterator[ShardTask]:
        """The shards that no other process holds, and that are not committed by now."""
        self._raise_errors(wait=True)  # those that are tried again would seem to be in hand
        for shard_id, lease in self._leased(shard_ids):
            if isinstance(lease, Process):
                self.busy.setdefault(lease, []).append(shard_id)
            elif lease is not None:
                yield ShardTask(shard_id, isolate=lease.deaths >= POISON_DEATHS)

    def _leased(self, shard_ids: Iterable[str]) -> Iterator[tuple[str, Lease | Process | None]]:
        if self._ahead is None:
            yield from map(self._take, shard_ids)
        else:
            yield from map_ahead(self._ahead, self._take, shard_ids, AHEAD)

    def _take(self, shard_id: str) -> tuple[str, Lease | Process | None]:
        """A shard's lease, or who holds it; None for one that another process committed since the list was made."""
        lease = self._leases.take(shard_id)
        if isinstance(lease, Process):
            return shard_id, lease
        self._taken[shard_id] = lease
        if self._store.is_committed(shard_id):
            self._give_back(shard_id, settled=True)
            return shard_id, None
        return shard_id, lease

    def give_back(self, shard_id: str, settled: bool) -> None:
        """Release a shard's lease. What the server says to that may be raised by a later call, or at the end."""
        if self._ahead is None:
            self._give_back(shard_id, settled)
            return
        self._given_back.append(self._ahead.submit(self._give_back, shard_id, settled))
        self._raise_errors(wait=False)

    def freed(self, stop: Stop) -> list[str]:
        """The shards of holders that turn out to be gone."""
        gone = [holder for holder in self.busy if not stop.requested and self._leases.outlived(holder, stop)]
        return [shard_id for holder in gone for shard_id in self.busy.pop(holder)]

    def _give_back(self, shard_id: str, settled: bool) -> None:
        self._leases.give_back(self._taken.pop(shard_id), settled)

    def _raise_errors(self, wait: bool) -> None:
        while self._given_back and (wait or self._given_back[0].done()):
            self._given_back.popleft().result()


@dataclass
class _Progress:
    """The bar: the images of finished shards, and those done so far of shards in flight. Several threads call it."""

    bar: Bar
    done: int = 0
    in_hand: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def on_images(self, shard_id: str, images: int) -> None:
        with self.lock:
            self.in_hand[shard_id] = images
            self._show()

    def finish(self, shard_id: str, images: int) -> None:
        """A shard is no longer in flight; so many images of it count."""
        with self.lock:
            self.done += images
            self.in_hand.pop(shard_id, None)
            self._show()

    @property
    def in_flight(self) -> int:
        """Images done so far of shards in flight."""
        return sum(self.in_hand.values())

    def _show(self) -> None:
        self.bar.update(self.done + self.in_flight - self.bar.n)


@contextlib.contextmanager
def disk_errors_named(root: Root) -> Iterator[None]:
    """Raise what the disk of a store raises as a :class:`RunError` that names it."""
    try:
        yield
    except DepthsieveError:
        raise
    except OSError as error:
        raise RunError(f"{root.location}: {error.strerror or error}; {RESUME}") from error


def dispatch(
    store: Store, todo: Pending, job: LabelJob, leases: Leases, make_runner: MakeRunner, stop: Stop, progress: bool
) -> Outcome:
    """Have every shard of ``todo`` labelled that no other process holds, with up to :data:`ATTEMPTS` attempts each.

    Those of a holder on another machine come last, once it turns out to be gone: that is waited for.

    Raises :class:`RunError` when the run had to stop; what is committed is kept.
    """
    if not len(todo):
        return Outcome()
    labelled = 0
    notes: list[str] = []
    errors: list[str] = []
    given_up: list[str] = []
    remarks: Remarks = ()
    bar = progress_bar("label", total=todo.images, shown=progress, leave=True)
    left: Iterable[str] = todo
    with bar, _Hand(store, leases) as hand:
        shown = _Progress(bar)
        runner = make_runner(shown.on_images)
        attempt = 0
        while True:
            attempt += 1
            tried, left, errors = left, [], []
            results = runner(replace(job, last_attempt=attempt == ATTEMPTS), hand.tasks(tried), stop)
            with contextlib.closing(results):
                for result in results:
                    notes += result.notes
                    hand.give_back(result.shard_id, settled=result.error is None)
                    shown.finish(result.shard_id, 0 if result.error else todo.images_of(result.shard_id))
                    if result.error is None:
                        labelled += result.labelled
                        remarks = add_remarks(remarks, result.remarks)
                    elif result.fatal:
                        raise RunError(f"{result.error}; {RESUME}")
                    else:
                        left.append(result.shard_id)
                        errors.append(f"shard {result.shard_id}: {result.error}")
            if left and attempt < ATTEMPTS:
                if stop.wait(PAUSE_S * 2 ** (attempt - 1)):
                    break
                continue
            given_up, errors, attempt, left = [*given_up, *errors], [], 0, hand.freed(stop)
            if not left:
                break
    errors = [*given_up, *errors]
    errors += [f"{holder} is labelling {len(shards)} of the shards" for holder, shards in hand.busy.items()]
    return Outcome(labelled, tuple(errors), (*notes, *remark_notes(remarks)), shown.in_flight)
