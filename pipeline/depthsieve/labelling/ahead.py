"""Images of a shard that are not read one by one: those in an object store are fetched side by side and ahead of the
lanes that decode them; frames of a video are read in order, however the lanes ask for them."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from depthsieve.core.frames import is_frame
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


class InOrder:
    """Reads the frames of videos in a shard in their order, whichever is asked for first: to go back in a video costs
    more than to keep some frames. Each is read once."""

    def __init__(self, source: Source, images: Sequence[ImageRecord]) -> None:
        self._source = source
        self._left = deque(image.id for image in images if is_frame(image.id))
        self._row_of = {image: row for row, image in enumerate(self._left)}
        self._next = 0
        self._read: dict[str, bytes | Exception] = {}
        self._lock = threading.Lock()

    def is_there(self) -> bool:
        """As the source says."""
        return self._source.is_there()

    def read(self, image_id: str) -> bytes:
        """An image's bytes, or what the source raises."""
        if image_id not in self._row_of:
            return self._source.read(image_id)
        with self._lock:
            while self._next <= self._row_of[image_id]:
                self._next += 1
                one = self._left.popleft()
                try:
                    self._read[one] = self._source.read(one)
                except Exception as error:  # it is raised where that frame is asked for
                    self._read[one] = error
            found = self._read.pop(image_id)
        if isinstance(found, Exception):
            raise found
        return found


@contextlib.contextmanager
def fetched_ahead(sources: Mapping[str, Source], images: Sequence[ImageRecord]) -> Iterator[Mapping[str, Readable]]:
    """The sources that ``images`` are read from, those in an object store with what comes next fetched ahead, and
    frames of videos read in order."""
    ready: dict[str, Readable] = dict(sources)
    with contextlib.ExitStack() as stack:
        for name, source in sources.items():
            mine = [image for image in images if image.id.partition("/")[0] == name]
            if not is_url(source.root):
                if any(is_frame(image.id) for image in mine):
                    ready[name] = InOrder(source, mine)
            elif mine:
                ready[name] = stack.enter_context(contextlib.closing(FetchedAhead(source, mine)))
        yield ready
