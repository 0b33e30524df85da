"""A folder of images, or one image file, as a source. Input is hostile: names, links and what stands behind them.

* Only regular files are opened: a FIFO would block for ever, a device may do anything.
* A link to a file inside the root is that file under another id. A link to a folder inside is skipped: its images come
  under their own ids, and loops end there. A link that leads out of the root is rejected by name and never followed:
  a downloaded folder must not be able to pull in other files of the machine. Name the target as a source of its own.
* Names that begin with a dot are hidden, and skipped like files that do not look like images; both are counted.
"""
# Names are bytes here, which pathlib cannot hold.
# ruff: noqa: PTH112, PTH114, PTH116, PTH118, PTH122, PTH123

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from depthsieve.errors import ImageRejected, SourceError
from depthsieve.images import read_header
from depthsieve.records import ImageRecord, RejectedImage
from depthsieve.sources.ids import check_name, decode_path, encode_path, split_id
from depthsieve.sources.protocol import Listed, Passed

MAX_FILE_BYTES = 2 * 1024**3
"""A larger file is rejected: it is read whole to be decoded."""

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
        self.is_one_file = only is not None

    def __repr__(self) -> str:
        return f"FolderSource({self.name!r}, {self.root!r})"

    def listing(self, passed: Passed) -> Iterator[Listed | RejectedImage]:
        """See :class:`~depthsieve.sources.protocol.Source`. Raises :class:`SourceError` if the root is gone."""
        if self._only is not None:
            yield self._entry(self._only)
            return
        folders = [b""]
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
                elif (found := self._listed(path, entry)) is not None:
                    yield found
                else:
                    passed.other += 1

    def look(self, listed: Listed) -> ImageRecord | RejectedImage:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        size, mtime_ns = listed.size, listed.mtime_ns
        try:
            with self._open(listed.id) as file:
                status = os.fstat(file.fileno())
                size, mtime_ns = status.st_size, status.st_mtime_ns
                _check_file(status)
                header = read_header(file)
        except (ImageRejected, SourceError) as error:
            return RejectedImage(listed.id, size, mtime_ns, str(error))
        except OSError as error:
            return RejectedImage(listed.id, size, mtime_ns, _words(error))
        return ImageRecord(listed.id, size, mtime_ns, header.width, header.height, header.orientation)

    def is_there(self) -> bool:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        try:
            with os.scandir(self._root) as entries:
                return any(True for _ in entries)
        except OSError:
            return False

    def read(self, image_id: str) -> bytes:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        with self._open(image_id) as file:
            _check_file(os.fstat(file.fileno()))
            return file.read()

    def _open(self, image_id: str) -> BinaryIO:
        """The file of an image, wherever its path leads within the root."""
        path = decode_path(split_id(image_id, self.name))
        if b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
            raise SourceError(f"{image_id!r} would leave the root of the source {self.name!r}")
        target = os.path.realpath(os.path.join(self._root, path))
        if not _inside(target, self._root):
            raise SourceError(f"{image_id!r} leads out of the root of the source {self.name!r}")
        # Neither waits for a FIFO's writer, nor follows a link put there since.
        return open(os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")

    def _listed(self, path: bytes, entry: os.DirEntry[bytes]) -> Listed | RejectedImage | None:
        """A file in a folder; None for one that does not look like an image."""
        suffix = os.path.splitext(path)[1].lower().decode("utf-8", "replace")
        looks_like_image = suffix in IMAGE_SUFFIXES or suffix in CONVERT_SUFFIXES
        if entry.is_symlink():
            target = os.path.realpath(os.path.join(self._root, path))
            to_folder = os.path.isdir(target)
            if (looks_like_image or to_folder) and not _inside(target, self._root):
                return self._reject(path + b"/" * to_folder, "symbolic link that leads out of the source folder")
            looks_like_image = looks_like_image and not to_folder
        if not looks_like_image:
            return None
        if suffix in CONVERT_SUFFIXES:
            return self._reject(path, f"{suffix} files are not read: convert to PNG or JPEG")
        return self._entry(path)

    def _entry(self, path: bytes) -> Listed | RejectedImage:
        """An image by its path: its size and time, or why it is no file that can be read."""
        full = os.path.join(self._root, path)
        size = mtime_ns = 0
        try:
            status = os.stat(full)
            size, mtime_ns = status.st_size, status.st_mtime_ns
            _check_file(status)
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


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageRejected(f"not a file but {_kind(status.st_mode)}")
    if status.st_size > MAX_FILE_BYTES:
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
