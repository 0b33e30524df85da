"""Fetch the shards of a remote store in the order in which training will use them.

Axes: U uses of shards, one an image, in the order of an epoch.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import DepthsieveError
from depthsieve.store import Store

FETCHERS = 2
MOST_AHEAD = 8192
"""Uses to look ahead."""
TELL_S = 1.0
"""Seconds between two messages to other processes about what is needed here."""
_ARRAYS = ("depth", "reliability")


class Foresight:
    """When each shard is used next in the order of an epoch; ``now`` counts the uses that have begun."""

    def __init__(self, shard_U: NDArray[np.integer[Any]]) -> None:
        self.shard_U = shard_U
        self.now = 0
        self._use_U = np.argsort(shard_U, kind="stable")
        self._starts = np.searchsorted(shard_U[self._use_U], np.arange(int(shard_U.max(initial=-1)) + 2))

    def next_use(self, shard: int) -> int | None:
        """Uses from now until a shard's next one; None where there is none."""
        uses = self._use_U[self._starts[shard] : self._starts[shard + 1]]
        place = int(np.searchsorted(uses, self.now))
        return int(uses[place]) - self.now if place < len(uses) else None


class Prefetch:
    """Brings the shards that ``shard_U`` (numbers in ``shards``) names into the store's cache, ahead of their use.

    What cannot be fetched is skipped: the reader that needs it raises the error.
    """

    def __init__(self, store: Store, shards: list[str], shard_U: NDArray[np.integer[Any]]) -> None:
        assert store.cache is not None
        self._store, self._cache, self._shards = store, store.cache, shards
        self._foresight = Foresight(shard_U)
        self._shard_of: dict[str, int] = {}  # by entry of the cache
        self._seen: dict[int, int] = {}  # at which use a shard was fetched or seen to be there
        self._cursor = 0
        self._lock = threading.Lock()  # of this process alone: no other uses this object
        self._told = 0.0
        self._closed = False
        self._cache.next_use = self._next_use
        self._pool = ThreadPoolExecutor(FETCHERS, "depthsieve-prefetch")
        self._running = 0
        self._start()

    def advance(self, uses: int) -> None:
        """Set how many uses of the epoch have begun."""
        self._foresight.now = uses
        self._start()

    def close(self) -> None:
        """Fetch no more, and wait for fetches in flight."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)
        self._cache.tell(())

    def _next_use(self, entry: str) -> int | None:
        shard = self._shard_of.get(entry)
        return None if shard is None else self._foresight.next_use(shard)

    def _start(self) -> None:
        with self._lock, contextlib.suppress(RuntimeError):  # the interpreter is ending
            while self._running < FETCHERS and not self._closed:
                self._pool.submit(self._work)
                self._running += 1

    def _work(self) -> None:
        try:
            while not self._closed:
                use = self._take()
                if use is None:
                    return
                if not self._bring(use):
                    with self._lock:
                        self._cursor = min(self._cursor, use)
                    return
        finally:
            with self._lock:
                self._running -= 1

    def _take(self) -> int | None:
        """The next use whose shard was not checked recently."""
        with self._lock:
            self._cursor = max(self._cursor, self._foresight.now)
            end = min(len(self._foresight.shard_U), self._foresight.now + MOST_AHEAD)
            while self._cursor < end:
                use, shard = self._cursor, int(self._foresight.shard_U[self._cursor])
                self._cursor += 1
                if use - self._seen.get(shard, -MOST_AHEAD) >= MOST_AHEAD // 8:
                    self._seen[shard] = use
                    return use
            return None

    def _bring(self, use: int) -> bool:
        """Fetch what a use needs; False where it must wait, because what is needed sooner fills the cache."""
        shard = int(self._foresight.shard_U[use])
        try:
            reader = self._store.reader(self._shards[shard])
            for name in _ARRAYS:
                array = reader.remote_array(name)
                self._shard_of[array.entry] = shard
                if self._cache.get(array, max(use - self._foresight.now, 1)) is None:
                    with self._lock:
                        self._seen.pop(shard, None)
                    return False
        except (DepthsieveError, OSError):
            return True
        self._tell()
        return True

    def _tell(self) -> None:
        with self._lock:
            if time.monotonic() - self._told < TELL_S:
                return
            self._told = time.monotonic()
            entries = list(self._shard_of.items())
        upcoming = ((entry, self._foresight.next_use(shard)) for entry, shard in entries)
        self._cache.tell([(entry, uses) for entry, uses in upcoming if uses is not None])


@contextlib.contextmanager
def prefetching(store: Store, shards: list[str], shard_U: NDArray[np.integer[Any]]) -> Iterator[Prefetch]:
    """A :class:`Prefetch` for as long as this is entered."""
    prefetch = Prefetch(store, shards, shard_U)
    try:
        yield prefetch
    finally:
        prefetch.close()
