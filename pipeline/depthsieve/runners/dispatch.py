"""Hand the pending shards of a store to a runner: leases, attempts, and the outcome."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

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


@dataclass
class _Hand:
    """The leases of shards in flight: taken when a runner asks for one, given back when it returns a result."""

    store: Store
    leases: Leases
    taken: dict[str, Lease] = field(default_factory=dict)
    busy: dict[Process, list[str]] = field(default_factory=dict)

    def tasks(self, shard_ids: Iterable[str]) -> Iterator[ShardTask]:
        for shard_id in shard_ids:
            lease = self.leases.take(shard_id)
            if isinstance(lease, Process):
                self.busy.setdefault(lease, []).append(shard_id)
                continue
            self.taken[shard_id] = lease
            if self.store.is_committed(shard_id):  # by another process, since the list was made
                self.give_back(shard_id, settled=True)
                continue
            yield ShardTask(shard_id, isolate=lease.deaths >= POISON_DEATHS)

    def give_back(self, shard_id: str, settled: bool) -> None:
        self.leases.give_back(self.taken.pop(shard_id), settled)

    def freed(self, stop: Stop) -> list[str]:
        """The shards of holders that turn out to be gone."""
        gone = [holder for holder in self.busy if not stop.requested and self.leases.outlived(holder, stop)]
        return [shard_id for holder in gone for shard_id in self.busy.pop(holder)]

    def give_all_back(self) -> None:
        for shard_id in list(self.taken):
            with contextlib.suppress(OSError):
                self.give_back(shard_id, settled=False)


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
    hand = _Hand(store, leases)
    bar = progress_bar("label", total=todo.images, shown=progress, leave=True)
    left: Iterable[str] = todo
    with bar, contextlib.ExitStack() as stack:
        stack.callback(hand.give_all_back)
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
