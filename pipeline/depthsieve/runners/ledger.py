"""Which shards wait, and what the deaths of workers say about them. Pure: it knows neither Ray nor a clock."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from depthsieve.core.errors import RunError
from depthsieve.core.records import ShardResult, ShardTask

POISON_DEATHS = 2
"""Workers that a shard may kill before it is labelled in isolated processes."""

MOST_DEATHS = 4
"""Workers that a shard may kill in all before this run gives it up."""

MOST_LOSSES = 20
"""Workers that may be lost while they work on one shard, through no fault of its own, before this run gives it up."""

MOST_NOTES = 1000


@dataclass(frozen=True, slots=True)
class Death:
    """Why a worker is gone. ``blames``: the shard that it was working on may have killed it; else that is innocent."""

    reason: str
    blames: bool


class Ledger:
    """The shards of a run that no worker has. It pulls as many from the iterator as it is asked to hold, no more.

    ``queue`` holds those for any worker, ``poison`` those that must be labelled in isolation.
    """

    def __init__(self, tasks: Iterator[ShardTask]) -> None:
        self.queue: deque[ShardTask] = deque()
        self.poison: deque[ShardTask] = deque()
        self.proven = False
        self._tasks = tasks
        self._more = True
        self._blamed: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._in_a_row: Counter[bool] = Counter()
        self._notes: list[str] = []
        self._noted: set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether anything is left to hand out."""
        return bool(self.queue or self.poison or self._more)

    def refill(self, count: int) -> None:
        """Pull tasks until ``count`` wait, or there are no more."""
        while self._more and len(self.queue) + len(self.poison) < count:
            task = next(self._tasks, None)
            if task is None:
                self._more = False
            else:
                (self.poison if task.isolate else self.queue).append(task)

    def finish(self, result: ShardResult) -> ShardResult:
        """Take note of a result: workers live. Returns it with the notes that have come up since the last one."""
        self._blamed.pop(result.shard_id, None)
        self._lost.pop(result.shard_id, None)
        self._in_a_row.clear()
        self.proven = True
        return self._with_notes(result)

    def _with_notes(self, result: ShardResult) -> ShardResult:
        notes, self._notes = self._notes, []
        return replace(result, notes=(*result.notes, *notes))

    def bury(self, death: Death, left: list[ShardTask], workers: int) -> ShardResult | None:
        """Requeue what a dead worker still had to do: only the first, which it was working on, is a suspect.

        Returns a result with an error for a shard that this run gives up. Raises :class:`RunError` when workers die one
        after another.
        """
        self._in_a_row[death.blames] += 1
        # With so many workers, as many shards can be poison at once, and each ends two workers and an isolating one.
        most = (POISON_DEATHS + 1) * workers + 4
        if self._in_a_row[True] > most or self._in_a_row[False] > 10 * most:
            count = self._in_a_row.total()
            raise RunError(f"{count} Ray workers died one after another without a result; the last: {death.reason}")
        if not left:
            self._note(f"a Ray worker is gone and will be replaced: {death.reason}")
            return None
        self.queue.extendleft(reversed(left[1:]))
        return self._again(left[0], death)

    def _again(self, task: ShardTask, death: Death) -> ShardResult | None:
        shard_id = task.shard_id
        counter, most = (self._blamed, MOST_DEATHS) if death.blames else (self._lost, MOST_LOSSES)
        counter[shard_id] += 1
        if counter[shard_id] >= most:
            del counter[shard_id]
            error = f"{most} Ray workers died while working on it, the last: {death.reason}"
            return self._with_notes(ShardResult(shard_id, error=error))
        isolate = task.isolate or self._blamed[shard_id] >= POISON_DEATHS
        (self.poison if isolate else self.queue).append(replace(task, isolate=isolate))
        how = "is now labelled in isolation" if isolate else "is retried"
        self._note(f"a Ray worker died while working on shard {shard_id}, which {how}: {death.reason}")
        return None

    def _note(self, text: str) -> None:
        """Something that a user should see with the next result; the same text only once."""
        if text not in self._noted and len(self._noted) < MOST_NOTES:
            self._noted.add(text)
            self._notes.append(text)
