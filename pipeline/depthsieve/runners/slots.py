"""The places of workers in a Ray run, as the driver sees them."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from depthsieve.core.records import ShardTask
from depthsieve.core.waiting import Waited


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one worker; the actors in it come and go."""

    actor: Any = None
    isolates: bool = False
    ready: bool = False
    where: str = ""  # once its process has answered
    window: deque[tuple[Any, ShardTask]] = field(default_factory=deque)
    doubt: Exception | None = None  # it was unavailable, and is polled until Ray knows whether it lives
    doubted: float = 0.0  # since when
    ask_at: float = math.inf
    deaths: int = 0  # since its last result
    not_before: float = 0.0
    sending: frozenset[str] = frozenset()  # shards that are labelled and on their way to the store, likewise
    images: dict[str, int] = field(default_factory=dict)  # done so far of each shard in flight, at its last answer
    waits: tuple[Waited, ...] = ()  # what it waited for then
    asked: bool = False  # a question about that is out

    @property
    def to_label(self) -> int:
        """Shards at it that are with its teacher or wait for that; the others are on their way to the store."""
        return sum(task.shard_id not in self.sending for _, task in self.window)

    @property
    def free(self) -> bool:
        """Whether a shard would start at once."""
        return self.ready and not self.window and self.doubt is None

    @property
    def loads(self) -> bool:
        """Whether its process is there, and gets ready."""
        return bool(self.where) and not self.ready and self.actor is not None

    def take(self, call: Any) -> ShardTask:
        """The task of a call, which leaves the window."""
        task = next(task for sent, task in self.window if sent == call)
        self.window = deque(entry for entry in self.window if entry[0] != call)
        return task
