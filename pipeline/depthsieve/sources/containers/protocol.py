"""Files that hold many images: what each kind gives, and what all kinds share.

An image in a container has the id ``source/path/of/container::place``. A place is a member's name, encoded as in
:mod:`depthsieve.sources.ids`, or a number of eight digits or more, so that ids sort as the images lie in the file.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources.ids import encode_path
from depthsieve.sources.protocol import Passed

MAX_FILE_BYTES = 2 * 1024**3
"""A larger image file is rejected: it is read whole to be decoded."""

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
})
CONVERT_SUFFIXES = frozenset({
    ".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".heic", ".heif", ".hif", ".j2c", ".j2k", ".jp2", ".jpf",
    ".jpx", ".jxl", ".jxr", ".nef", ".orf", ".pef", ".psd", ".raf", ".raw", ".rw2", ".srw", ".svg", ".tga",
})
# fmt: on
PACKED_ENDINGS = tuple(
    f".{kind}".encode()
    for kind in ("7z", "rar", "tar.bz2", "tar.gz", "tar.lz4", "tar.xz", "tar.zst", "tbz2", "tgz", "txz")
)
"""Archives that cannot be read here and there without unpacking all that stands before."""


class NoImages(Exception):
    """A sound file of its kind that is not about images, such as a Parquet table of captions; it says what it is."""


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a container, or with a ``reason`` what looks like one and cannot be read. ``place`` is encoded."""

    place: str
    size: int
    reason: str | None = None


class Container(Protocol):
    """An open container. All methods may be called by several threads at once.

    What is wrong with the container as a whole is an :class:`ImageRejected`, or an ``OSError``, from any of them.
    """

    def members(self, passed: Passed) -> Iterator[Member]:
        """What is in it, in any order; a place may come twice. What cannot be an image is counted in ``passed``."""

    def open(self, place: str) -> tuple[BinaryIO, int]:
        """One image as a file at its start, to read its header from, and its size in bytes.

        Raises :class:`SourceError` where there is no such place, :class:`ImageRejected` where it cannot be read.
        """

    def read(self, place: str) -> bytes:
        """One image's bytes; errors as for :meth:`open`."""


class Descriptor:
    """A file that is closed when nobody holds it any more: a thread may still read what the cache has let go of."""

    def __init__(self, path: bytes) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.size = os.fstat(self.number).st_size

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def at(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes; fewer only at the end of the file. No position is shared: threads may do it."""
        parts = []
        while length > 0 and (part := os.pread(self.number, min(length, 1 << 30), offset)):
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)


class Readable:
    """What a file of ``size`` bytes needs beside ``read``: a position."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at


class Window(Readable):
    """A stretch of a file as a file of its own."""

    def __init__(self, descriptor: Descriptor, offset: int, size: int) -> None:
        super().__init__(size)
        self._descriptor = descriptor
        self._offset = offset

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        data = self._descriptor.at(self._offset + self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        return data


def suffix_of(path: bytes) -> str:
    """The suffix of a path in lower case, with its dot; "" where there is none."""
    name = path.rpartition(b"/")[2]
    stem, dot, suffix = name.rpartition(b".")
    return f".{suffix.lower().decode('utf-8', 'replace')}" if dot and stem else ""


def listed_member(name: bytes, size: int, reason: str | None, passed: Passed) -> Iterator[Member]:
    """A member of an archive as its :attr:`Member`, by the rules of the folder source; nothing for what is no image.

    ``reason`` is why it cannot be read, if it cannot.
    """
    suffix = suffix_of(name)
    if any(part.startswith(b".") and part != b".." for part in name.split(b"/")):
        passed.hidden += 1
    elif suffix not in IMAGE_SUFFIXES and suffix not in CONVERT_SUFFIXES:
        passed.other += 1
    else:
        if b".." in name.split(b"/"):
            reason = "its name leads out of the archive"
        elif suffix in CONVERT_SUFFIXES:
            reason = f"{suffix} files are not read: convert to PNG or JPEG"
        elif reason is None and size > MAX_FILE_BYTES:
            reason = f"{size:,} bytes, more than the {MAX_FILE_BYTES:,} allowed"
        yield Member(encode_path(name), size, reason)


def plain_name(name: bytes) -> bytes:
    """A member's name as its place has it: no ``/`` at its ends or twice, no ``.``; ``./a//b.jpg`` is ``a/b.jpg``."""
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


@contextlib.contextmanager
def damage_named() -> Iterator[None]:
    """What libraries make of a damaged container becomes an :class:`ImageRejected`; there is no end of what that is."""
    try:
        yield
    except (NoImages, ImageRejected, SourceError, OSError, MemoryError):
        raise
    except Exception as error:
        words = (str(error).strip().splitlines() or [""])[0][:200]
        raise ImageRejected(f"its container is damaged: {words or type(error).__name__}") from error
