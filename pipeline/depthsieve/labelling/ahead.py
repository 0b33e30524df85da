"""Images of a shard that come from an object store, fetched side by side and ahead of the lanes that decode them."""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from depthsieve.core.records import ImageRecord
from depthsieve.labelling.image import Readable
from depthsieve.sources import Source
from depthsieve.storage import is_url

FETCHES = 32
"""Images that a worker fetches side by side: each takes a round trip, and a few more until a connection is fast."""

AHEAD_BYTES = 256 * 1024 * 1024
"""Bytes of the images of a shard that are fetched and not decoded yet; a larger image goes alone."""


class FetchedAhead:
    """Reads images of a source, each once and in any order; those that come next are fetched meanwhile.

    To be closed: then none of its fetches is under way any more.
    """

    def __init__(self, source: Source, images: Sequence[ImageRecord]) -> None:
        self._source, self._images = source, images
        self._row_of = {image.id: row for row, image in enumerate(images)}
        self._fetched: dict[int, Future[bytes]] = {}
        self._next = self._bytes = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(FETCHES, "fetch")

    def is_there(self) -> bool:
        """As the source says."""
        return self._source.is_there()

    def read(self, image_id: str) -> bytes:
        """An image's bytes, or what the source raises."""
        row = self._row_of[image_id]
        with self._lock:
            self._fetch(row)
            future = self._fetched[row]
        try:
            return future.result()
        finally:
            with self._lock:
                del self._fetched[row]
                self._bytes -= self._images[row].size
                self._fetch(-1)

    def _fetch(self, row: int) -> None:
        """Begin to fetch all up to ``row``, and after it what there is room for."""
        while self._next < len(self._images):
            image = self._images[self._next]
            full = self._bytes + image.size > AHEAD_BYTES or len(self._fetched) >= 2 * FETCHES
            if self._next > row and full and self._fetched:
                return
            self._fetched[self._next] = self._pool.submit(self._source.read, image.id)
            self._bytes += image.size
            self._next += 1

    def close(self) -> None:
        """Fetch no more."""
        with self._lock:
            self._next = len(self._images)
        self._pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def fetched_ahead(sources: Mapping[str, Source], images: Sequence[ImageRecord]) -> Iterator[Mapping[str, Readable]]:
    """The sources that ``images`` are read from, those in an object store with what comes next fetched ahead."""
    ready: dict[str, Readable] = dict(sources)
    with contextlib.ExitStack() as stack:
        for name, source in sources.items():
            mine = [image for image in images if image.id.partition("/")[0] == name] if is_url(source.root) else []
            if mine:
                ready[name] = stack.enter_context(contextlib.closing(FetchedAhead(source, mine)))
        yield ready
