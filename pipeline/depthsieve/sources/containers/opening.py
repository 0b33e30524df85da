"""Containers by their suffix, and the few that are open at once."""
# Names are bytes here, which pathlib cannot hold.
# ruff: noqa: PTH116

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.frames import VIDEO_SUFFIXES
from depthsieve.images.headers import stand_in
from depthsieve.sources.containers.protocol import (
    Container,
    Descriptor,
    damage_named,
    suffix_of,
)

OPEN_AT_ONCE = 16

Opener = Callable[[bytes], Container]


def _tar() -> Opener:
    from depthsieve.sources.containers.tar import TarContainer

    return TarContainer


def _zip() -> Opener:
    from depthsieve.sources.containers.zip import ZipContainer

    return ZipContainer


def _parquet() -> Opener:
    from depthsieve.sources.containers.parquet import ParquetContainer

    return ParquetContainer


def _arrow() -> Opener:
    from depthsieve.sources.containers.arrow import ArrowContainer

    return ArrowContainer


def _lmdb() -> Opener:
    from depthsieve.sources.containers.lmdb import LmdbContainer

    return LmdbContainer


def _hdf5() -> Opener:
    from depthsieve.sources.containers.hdf5 import Hdf5Container

    return Hdf5Container


def _video() -> Opener:
    from depthsieve.sources.containers.video import VideoContainer

    return VideoContainer


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of container. ``opener`` imports what opens it. ``named``: only where a user names the file, since in a
    folder of images such files mostly hold something else, as HDF5 does depth."""

    opener: Callable[[], Opener]
    named: bool = False


KINDS = {
    ".arrow": Kind(_arrow),
    ".h5": Kind(_hdf5, named=True),
    ".hdf5": Kind(_hdf5, named=True),
    ".mat": Kind(_hdf5, named=True),
    ".mdb": Kind(_lmdb),
    ".parquet": Kind(_parquet),
    ".tar": Kind(_tar),
    ".zip": Kind(_zip),
    **dict.fromkeys(VIDEO_SUFFIXES, Kind(_video)),
}
"""By the suffix of the file. A container hands out the bytes of image files; one that holds pixels wraps them as PPM,
as HDF5 and videos do."""


def open_container(path: bytes) -> Container:
    """The container at a resolved path, by its suffix. Raises :class:`NoImages`, :class:`ImageRejected`, OSError."""
    with damage_named():
        if (words := stand_in(Descriptor(path).at(0, 64))) is not None:
            raise ImageRejected(words)
        kind = KINDS.get(suffix_of(path))
        if kind is None:
            raise SourceError(f"{suffix_of(path) or 'a file without a suffix'} is not a known kind of container")
        return kind.opener()(path)


Stamp = tuple[int, int, int, int]


class OpenContainers:
    """Containers that were used last, open, each as it is on the disk now. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._open: OrderedDict[bytes, tuple[Stamp, Container]] = OrderedDict()
        self._opening: dict[bytes, threading.Lock] = {}

    def __reduce__(self) -> tuple[type["OpenContainers"], tuple[()]]:
        return OpenContainers, ()  # another process opens its own

    def get(self, path: bytes) -> Container:
        """The container at a resolved path. Raises as :func:`open_container`."""
        if self._process != os.getpid():  # a fork: its parent's locks may be held, and its libraries are not to be used
            self.__init__()  # type: ignore[misc]
        status = os.stat(path)
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            opening = self._opening.setdefault(path, threading.Lock())
        with opening:  # to read an index takes time, and one thread is enough
            with self._lock:
                held = self._open.get(path)
                if held is not None and held[0] == stamp:
                    self._open.move_to_end(path)
                    return held[1]
            container = open_container(path)
            with self._lock:
                self._open[path] = (stamp, container)
                self._open.move_to_end(path)
                while len(self._open) > OPEN_AT_ONCE:
                    self._opening.pop(self._open.popitem(last=False)[0], None)
        return container
