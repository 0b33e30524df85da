"""A root that is a prefix of an object store: uploads and conditional puts in the place of renames and hard links."""

import contextlib
import errno
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from depthsieve.core.processes import Process, is_alive
from depthsieve.storage.local import STALE_S
from depthsieve.storage.objects import Objects, parse_url
from depthsieve.storage.protocol import Entry
from depthsieve.storage.temporary import clear_temporary, temporary_folder

UPLOADS = 32
"""Files of a folder that are uploaded at a time: all of a shard, since each costs a round trip."""
PROBES = "tmp"


class BucketRoot:
    """See :class:`~depthsieve.storage.protocol.Root`. Nothing is sent before the first use, and :class:`UsageError` is
    raised for an invalid URL."""

    def __init__(self, url: str) -> None:
        self._objects = Objects(parse_url(url))
        self.path: Path | None = None
        self.location = str(self._objects.address)

    def __repr__(self) -> str:
        return f"BucketRoot({self.location!r})"

    def read(self, key: str) -> bytes:
        return self._objects.read(key)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._objects.read_range(key, start, length)

    def entry(self, key: str) -> Entry | None:
        return self._objects.entry(key)

    def names(self, folder: str, after: str = "") -> list[str]:
        if after:
            inside = f"{folder}/" if folder else ""
            pages = self._objects.walk(folder, f"{inside}{after}")
            return sorted({entry.key.removeprefix(inside).partition("/")[0] for page in pages for entry in page})
        folders, objects = self._objects.children(folder)
        return sorted({key.rpartition("/")[2] for key in (*folders, *(entry.key for entry in objects))})

    def entries(self, folder: str) -> Iterator[Entry]:
        for page in self._objects.walk(folder):
            yield from page

    def write(self, key: str, data: bytes) -> None:
        self._objects.put(key, data)

    def create(self, key: str, data: bytes, lasting: bool = True) -> bool:
        return self._objects.put_new(key, data)

    @contextlib.contextmanager
    def scratch(self, stem: str) -> Iterator[Path]:
        with temporary_folder(f"{stem}-") as folder:
            yield folder / stem

    def publish(self, folder: Path, key: str, listed: Mapping[str, Mapping[str, Any]]) -> None:
        """An object is there whole or not at all, and only once its upload was answered; so nothing is looked up before
        or after. S3 servers check that the bytes arrived unchanged: the sha256 of a body is part of each request's
        signature. What a torn attempt left is overwritten with the same bytes."""

        def upload(name: str) -> None:
            self._objects.put_file(f"{key}/{name}", folder / name, int(listed[name]["bytes"]))

        with ThreadPoolExecutor(min(UPLOADS, max(1, len(listed)))) as uploads:
            largest_first = sorted(listed, key=lambda name: -int(listed[name]["bytes"]))
            for done in [uploads.submit(upload, name) for name in largest_first]:
                done.result()

    def remove(self, key: str) -> None:
        self._objects.delete([key])

    def remove_folder(self, folder: str) -> None:
        for page in self._objects.walk(folder):
            self._objects.delete([entry.key for entry in page])

    def prepare(self) -> None:
        """Also checks that the server refuses to create an object twice: all commits depend on that."""
        probe = f"{PROBES}/probe-{uuid.uuid4().hex[:12]}.{Process.current().token}"
        first = self.create(probe, b"first")
        second = self.create(probe, b"second")
        self.remove(probe)
        if not first or second:
            raise OSError(
                errno.ENOTSUP, "the server ignores conditional puts, which commits need; use another", self.location
            )

    def clear_scratch(self) -> None:
        clear_temporary()
        self._objects.delete([f"{PROBES}/{name}" for name in self.left_scratch()])

    def left_scratch(self) -> list[str]:
        """Only probes: attempts are on this machine's disk."""
        old = time.time() - STALE_S
        left = []
        for entry in self.entries(PROBES):
            alive = is_alive(entry.key.rpartition(".")[2])
            if alive is False or (alive is None and entry.modified < old):
                left.append(entry.key.removeprefix(f"{PROBES}/"))
        return left

    def zarr(self, key: str) -> Any:
        from depthsieve.storage.zarr_objects import open_zarr  # zarr takes a second

        return open_zarr(self._objects, key)

    def free_bytes(self) -> int | None:
        return None
