"""A folder of images, or one image file, as a source. Input is hostile: names, links and what stands behind them.

* Only regular files are opened: a FIFO would block for ever, a device may do anything.
* A link to a file inside the root is that file under another id. A link to a folder inside is skipped: its images come
  under their own ids, and loops end there. A link that leads out of the root is rejected by name and never followed:
  a downloaded folder must not be able to pull in other files of the machine. Name the target as a source of its own.
* Tar and zip archives, Parquet and Arrow files and LMDB databases (`.mdb`) are looked into: what is in them is listed
  under their name. HDF5 files are where they are named themselves, since in a folder of images they mostly hold depth.
* Names that begin with a dot are hidden, and skipped like files that do not look like images; both are counted.
"""
# Names are bytes here, which pathlib cannot hold.
# ruff: noqa: PTH112, PTH114, PTH116, PTH118, PTH123

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.records import ImageRecord, RejectedImage
from depthsieve.images.decode import read_header
from depthsieve.images.headers import NOT_BUT_TEXT
from depthsieve.sources.containers.opening import KINDS, OpenContainers
from depthsieve.sources.containers.protocol import (
    CONVERT_SUFFIXES,
    IMAGE_SUFFIXES,
    MAX_FILE_BYTES,
    PACKED_ENDINGS,
    Container,
    Member,
    NoImages,
    damage_named,
    suffix_of,
)
from depthsieve.sources.ids import check_name, decode_path, encode_path, split_id
from depthsieve.sources.protocol import Listed, Passed, record_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CONTAINERS = frozenset(suffix for suffix, kind in KINDS.items() if not kind.named)
_OF_USE = IMAGE_SUFFIXES | CONVERT_SUFFIXES | _CONTAINERS
_PACKED = "such archives cannot be read in place: unpack it, or pack it as tar or zip"
_A_LIST = ": a list of images is a text file whose name ends in .txt, with a path or URL a line"
_LEADS_OUT = (
    "symbolic link that leads out of the source folder: name a folder that holds its target too, or a list of the "
    "files, with the --root that holds them"
)


class FolderSource:
    """Images of the folder ``root`` and all folders in it, or only the file ``only`` (a path relative to ``root``)."""

    at_once = 8
    """Threads: on a disk of this machine one would do, on a network's each file is a round trip or more."""

    def __init__(self, name: str, root: str, only: bytes | None = None) -> None:
        check_name(name)
        self.name = name
        self.root = root
        self._root = os.fsencode(root)
        self._only = only
        self._containers = OpenContainers()
        self.is_one_file = only is not None
        self.shown = root if only is None else os.path.join(root, encode_path(only))

    def __repr__(self) -> str:
        return f"FolderSource({self.name!r}, {self.root!r})"

    def listing(self, passed: Passed) -> Iterator[Listed | RejectedImage]:
        """See :class:`~depthsieve.sources.protocol.Source`. Raises :class:`SourceError` if the root is gone."""
        if self._only is not None:
            yield from self.named(self._only, passed)
        else:
            yield from self.below(b"", passed)

    def below(self, top: bytes, passed: Passed) -> Iterator[Listed | RejectedImage]:
        """What is in a folder below the root, and in all folders in it."""
        folders = [top]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(os.path.join(self._root, folder)) as entries:
                    listed = list(entries)
            except OSError as error:
                if not folder:
                    raise SourceError(f"{self.root!r} cannot be listed: {_words(error)}") from error
                yield self._reject(folder + b"/", _words(error))
                continue
            for entry in listed:
                path = os.path.join(folder, entry.name)
                if entry.name.startswith(b"."):
                    passed.hidden += 1
                elif _is_folder(entry):
                    folders.append(path)
                else:
                    yield from self._listed(path, entry, passed)

    def named(self, path: bytes, passed: Passed) -> Iterator[Listed | RejectedImage]:
        """A file below the root that a user has named: an image whatever its suffix, or what is in a container."""
        if suffix_of(path) in KINDS:
            yield from self._members(path, passed, named=True)
        elif _is_packed(path):
            yield self._reject(path, _PACKED)
        else:
            yield self._entry(path)

    def now(self, listed: Listed) -> Listed | RejectedImage:
        """See :class:`~depthsieve.sources.protocol.Source`. A container's time is that of all that is in it."""
        try:
            target, place = self._target(listed.id)
            status = os.stat(target)
            check_file(status, container=bool(place))
        except (ImageRejected, SourceError) as error:
            return RejectedImage(listed.id, listed.size, listed.mtime_ns, str(error))
        except OSError as error:
            return RejectedImage(listed.id, listed.size, listed.mtime_ns, _words(error))
        return Listed(listed.id, listed.size if place else status.st_size, status.st_mtime_ns)

    def look(self, listed: Listed) -> ImageRecord | RejectedImage:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        size, mtime_ns = max(listed.size, 0), listed.mtime_ns
        try:
            target, place = self._target(listed.id)
            if place:
                container, mtime_ns = self._container(target)
                with damage_named():
                    file, size = container.open(place)
                header = read_header(file)
            else:
                with _open(target) as file:
                    status = os.fstat(file.fileno())
                    size, mtime_ns = status.st_size, status.st_mtime_ns
                    check_file(status)
                    header = read_header(file)
        except (ImageRejected, SourceError) as error:
            named_as_source = self._only is not None and str(error).startswith(NOT_BUT_TEXT)
            return RejectedImage(listed.id, size, mtime_ns, f"{error}{_A_LIST}" if named_as_source else str(error))
        except OSError as error:
            return RejectedImage(listed.id, size, mtime_ns, _words(error))
        return record_of(listed.id, size, mtime_ns, header)

    def is_there(self) -> bool:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        try:
            with os.scandir(self._root) as entries:
                return any(True for _ in entries)
        except OSError:
            return False

    def read(self, image_id: str) -> bytes:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        target, place = self._target(image_id)
        if place:
            with damage_named():
                return self._container(target)[0].read(place)
        with _open(target) as file:
            check_file(os.fstat(file.fileno()))
            return file.read()

    def frame_times(self, image_id: str) -> "NDArray[np.float64]":
        """Of the video that an image is a frame of, the seconds from its first frame to each, by number. Raises as
        :meth:`read`."""
        from depthsieve.sources.containers.video import VideoContainer

        target, _ = self._target(image_id)
        with damage_named():
            container, _ = self._container(target)
            if not isinstance(container, VideoContainer):
                raise SourceError(f"{image_id!r} is no frame of a video")
            return container.times()

    def _target(self, image_id: str) -> tuple[bytes, str]:
        """The file that an id leads to, wherever that is within the root, and the place in a container or ""."""
        encoded, inside, place = split_id(image_id, self.name).partition("::")
        path = decode_path(encoded)
        if b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
            raise SourceError(f"{image_id!r} would leave the root of the source {self.name!r}")
        if inside and not place:
            raise SourceError(f"{image_id!r} names no image in its container")
        target = os.path.realpath(os.path.join(self._root, path))
        if not _inside(target, self._root):
            raise SourceError(f"{image_id!r} leads out of the root of the source {self.name!r}")
        return target, place

    def _container(self, target: bytes) -> tuple[Container, int]:
        """A container, open, and the time of its file."""
        status = os.stat(target)
        check_file(status, container=True)
        try:
            return self._containers.get(target), status.st_mtime_ns
        except NoImages as error:
            raise ImageRejected(str(error)) from error

    def _members(self, path: bytes, passed: Passed, named: bool = False) -> Iterator[Listed | RejectedImage]:
        """What is in a container; a broken one is rejected itself, behind those that were found before."""
        found = self._entry(path, container=True)
        if isinstance(found, RejectedImage):
            yield found
            return
        try:
            container, mtime_ns = self._container(os.path.realpath(os.path.join(self._root, path)))
            for member in _members_of(container, passed):
                image_id = f"{found.id}::{member.place}"
                if member.reason is None:
                    yield Listed(image_id, member.size, mtime_ns)
                else:
                    yield RejectedImage(image_id, max(member.size, 0), mtime_ns, member.reason)
        except ImageRejected as error:
            if named or not isinstance(error.__cause__, NoImages):
                yield RejectedImage(found.id, found.size, found.mtime_ns, str(error))
            else:
                passed.other += 1
        except OSError as error:
            yield RejectedImage(found.id, found.size, found.mtime_ns, _words(error))

    def _listed(self, path: bytes, entry: os.DirEntry[bytes], passed: Passed) -> Iterator[Listed | RejectedImage]:
        """A file in a folder, or what is in it; nothing for one that does not look like an image."""
        suffix = suffix_of(path)
        is_of_use = suffix in _OF_USE or _is_packed(path)
        if entry.is_symlink():
            target = os.path.realpath(os.path.join(self._root, path))
            to_folder = os.path.isdir(target)
            if (is_of_use or to_folder) and not _inside(target, self._root):
                yield self._reject(path + b"/" * to_folder, _LEADS_OUT)
                return
            is_of_use = is_of_use and not to_folder
        if not is_of_use:
            passed.other += 1
        elif suffix in _CONTAINERS:
            yield from self._members(path, passed)
        elif suffix in CONVERT_SUFFIXES:
            yield self._reject(path, f"{suffix} files are not read: convert to PNG or JPEG")
        elif _is_packed(path):
            yield self._reject(path, _PACKED)
        else:
            yield self._entry(path)

    def _entry(self, path: bytes, container: bool = False) -> Listed | RejectedImage:
        """An image, or a container, by its path: its size and time, or why it is no file that can be read."""
        full = os.path.join(self._root, path)
        size = mtime_ns = 0
        try:
            status = os.stat(full)
            size, mtime_ns = status.st_size, status.st_mtime_ns
            check_file(status, container)
        except ImageRejected as error:
            reason = str(error)
        except OSError as error:
            broken_link = isinstance(error, FileNotFoundError) and os.path.islink(full)
            reason = "symbolic link to a file that does not exist" if broken_link else _words(error)
        else:
            return Listed(self._id(path), size, mtime_ns)
        return RejectedImage(self._id(path), size, mtime_ns, reason)

    def _reject(self, path: bytes, reason: str) -> RejectedImage:
        """Rejects something that is not opened; its own size and time where it has them."""
        try:
            status = os.lstat(os.path.join(self._root, path.rstrip(b"/")))
            size, mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:
            size = mtime_ns = 0
        return RejectedImage(self._id(path), size, mtime_ns, reason)

    def _id(self, path: bytes) -> str:
        return f"{self.name}/{encode_path(path)}"


def open_folder(path: str | Path, name: str) -> FolderSource:
    """The source at ``path``; see :func:`depthsieve.sources.open_source`."""
    check_name(name)
    shown = str(path)
    try:
        resolved = os.path.realpath(path, strict=True)
        mode = os.stat(resolved).st_mode
    except (OSError, ValueError) as error:
        raise SourceError(f"source {shown!r}: {_words(error)}") from error
    if stat.S_ISDIR(mode):
        source = FolderSource(name, resolved)
        try:
            os.scandir(resolved).close()
        except OSError as error:
            raise SourceError(f"source {shown!r}: {_words(error)}") from error
        return source
    if not stat.S_ISREG(mode):
        raise SourceError(f"source {shown!r} is neither a folder nor a file but {_kind(mode)}")
    folder, file_name = os.path.split(resolved)
    return FolderSource(name, folder, os.fsencode(file_name))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # a file system that does not tell types, and an entry that is gone: reading it will say so
        return False


def _is_packed(path: bytes) -> bool:
    return suffix_of(path) not in IMAGE_SUFFIXES and path.lower().endswith(PACKED_ENDINGS)


def _members_of(container: Container, passed: Passed) -> Iterator[Member]:
    with damage_named():
        yield from container.members(passed)


def _open(target: bytes) -> BinaryIO:
    """Neither waits for a FIFO's writer, nor follows a link put there since."""
    return open(os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def check_file(status: os.stat_result, container: bool = False) -> None:
    """Raises :class:`ImageRejected` for what is no regular file, or no container and too large to be an image."""
    if not stat.S_ISREG(status.st_mode):
        raise ImageRejected(f"not a file but {_kind(status.st_mode)}")
    if status.st_size > MAX_FILE_BYTES and not container:
        raise ImageRejected(f"{status.st_size:,} bytes, more than the {MAX_FILE_BYTES:,} allowed")


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))
    return next((words for is_kind, words in kinds if is_kind(mode)), "a device")


def _inside(target: bytes, root: bytes) -> bool:
    return target == root or target.startswith(root.rstrip(b"/") + b"/")


def _words(error: Exception) -> str:
    """What the system says, without the path: reasons must not depend on the machine."""
    if isinstance(error, PermissionError):
        return "permission denied"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
