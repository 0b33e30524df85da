"""The pipeline of a worker: lanes that take batches, of one shard or of two, from files through the teacher.

On a CPU each lane decodes its own batches and has its own threads for the teacher: with one thread per lane no core
waits for another, and while one lane decodes the others compute. On a GPU images are decoded by other threads ahead of
the lanes, and with two lanes one batch is copied and packed while the GPU computes the other.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

Prepared = TypeVar("Prepared")
Done = TypeVar("Done")

GPU_LANES = 2

DECODED_PIXELS = 100_000_000
"""Pixels that may be decoded and resized at a time, at about 20 bytes each; a larger image goes alone."""


class Turn:
    """Whose batches enter the lanes: a thread holds the turn, and passes it on once the lanes have room for others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn, unless this thread holds it already. It is passed on at the end at the latest."""
        if self._holder != threading.get_ident():
            self._lock.acquire()
            self._holder = threading.get_ident()
        try:
            yield
        finally:
            self.pass_on()

    def pass_on(self) -> None:
        """Let another thread have the turn, if this one holds it."""
        if self._holder == threading.get_ident():
            self._holder = None
            self._lock.release()


class Lanes:
    """``count`` lanes, shared by all shards in flight; where there are ``decoders``, so many threads prepare ahead.

    A thread that holds the ``turn`` passes it on when the last batches of its run are in flight.
    """

    def __init__(self, count: int, decoders: int = 0) -> None:
        self.count = count
        self.turn = Turn()
        self._lanes = ThreadPoolExecutor(count, "lane")
        self._decoders = ThreadPoolExecutor(decoders, "decoder") if decoders else None
        self._room = _Room(DECODED_PIXELS)

    def run(
        self,
        spans: Sequence[range],
        pixels: Sequence[int],
        prepare: Callable[[int], Prepared],
        work: Callable[[range, list[Prepared]], Done],
    ) -> Generator[tuple[range, Done], None, None]:
        """What ``work`` returns for each span, in order, once its rows are prepared; ``pixels`` are those of each row.

        At most two batches per lane are in flight, and none when the generator has ended or is closed. The
        turn is passed on when one batch per lane is left: from then on the lanes have room for another shard. Raises
        what ``prepare`` and ``work`` raise.
        """

        def prepare_row(row: int) -> Prepared:
            with self._room.taken(pixels[row]):
                return prepare(row)

        def take(span: range, ahead: list[Future[Prepared]] | None) -> Done:
            rows = map(prepare_row, span) if ahead is None else (future.result() for future in ahead)
            return work(span, list(rows))

        under_way: deque[tuple[range, Future[Done], list[Future[Prepared]] | None]] = deque()
        try:
            for span in spans:
                if len(under_way) == 2 * self.count:
                    yield under_way[0][0], under_way[0][1].result()
                    under_way.popleft()
                ahead = [self._decoders.submit(prepare_row, row) for row in span] if self._decoders else None
                under_way.append((span, self._lanes.submit(take, span, ahead), ahead))
            while under_way:
                if len(under_way) == min(self.count, len(spans)):
                    self.turn.pass_on()
                yield under_way[0][0], under_way[0][1].result()
                under_way.popleft()
        finally:
            futures = [future for _, batch, ahead in under_way for future in (batch, *(ahead or ()))]
            for future in futures:
                future.cancel()  # batches first: none that still runs finds an image of it cancelled
            wait(futures)


class _Room:
    """Lets threads hold ``size`` of something between them; one that wants more than all of it waits to be alone."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        wanted = min(wanted, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= wanted)
            self._left -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._left += wanted
                self._changed.notify_all()
