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
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from depthsieve.errors import ImageRejected, SourceError
from depthsieve.images import read_header
from depthsieve.records import ImageRecord, RejectedImage
from depthsieve.sources.ids import check_name, decode_path, encode_path, split_id
from depthsieve.sources.protocol import Scan

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
_PROGRESS_EVERY = 64


class FolderSource:
    """Images of the folder ``root`` and all folders in it, or only the file ``only`` (a path relative to ``root``)."""

    def __init__(self, name: str, root: str, only: bytes | None = None) -> None:
        check_name(name)
        self.name = name
        self.root = root
        self._root = os.fsencode(root)
        self._only = only
        self.is_one_file = only is not None

    def __repr__(self) -> str:
        return f"FolderSource({self.name!r}, {self.root!r})"

    def scan(self, progress: Callable[[int], None] | None = None, known: Collection[str] = ()) -> Scan:
        """See :class:`~depthsieve.sources.protocol.Source`. Raises :class:`SourceError` if the root is gone."""
        walk = _Walk(self.name, self._root, frozenset(known))
        waiting = 0
        for _ in walk.files() if self._only is None else walk.single(self._only):
            waiting += 1
            if progress is not None and waiting == _PROGRESS_EVERY:
                progress(waiting)
                waiting = 0
        if progress is not None and waiting:
            progress(waiting)
        return walk.result()

    def is_there(self) -> bool:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        try:
            with os.scandir(self._root) as entries:
                return any(True for _ in entries)
        except OSError:
            return False

    def read(self, image_id: str) -> bytes:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        path = decode_path(split_id(image_id, self.name))
        if b"\0" in path or any(part in (b"", b".", b"..") for part in path.split(b"/")):
            raise SourceError(f"{image_id!r} would leave the root of the source {self.name!r}")
        target = os.path.realpath(os.path.join(self._root, path))
        if not _inside(target, self._root):
            raise SourceError(f"{image_id!r} leads out of the root of the source {self.name!r}")
        # Neither waits for a FIFO's writer, nor follows a link put there since.
        descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            _check_file(os.fstat(descriptor))
            return file.read()


class _Walk:
    """One scan under way."""

    def __init__(self, name: str, root: bytes, known: frozenset[str]) -> None:
        self._name = name
        self._root = root
        self._known_ids = known
        self._images: list[ImageRecord] = []
        self._rejected: list[RejectedImage] = []
        self._hidden = self._other = self._known = 0

    def result(self) -> Scan:
        return Scan(
            tuple(sorted(self._images, key=lambda image: image.id.encode())),
            tuple(sorted(self._rejected, key=lambda image: image.id.encode())),
            self._hidden,
            self._other,
            self._known,
        )

    def files(self) -> Iterator[None]:
        """Looks at everything below the root; yields once for each file."""
        folders = [b""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(os.path.join(self._root, folder)) as entries:
                    listed = list(entries)
            except OSError as error:
                if not folder:
                    raise SourceError(f"{os.fsdecode(self._root)!r} cannot be listed: {_words(error)}") from error
                self._reject(folder + b"/", _words(error))
                continue
            for entry in listed:
                path = os.path.join(folder, entry.name)
                if entry.name.startswith(b"."):
                    self._hidden += 1
                elif _is_folder(entry):
                    folders.append(path)
                else:
                    self._look_at(path)
                    yield

    def single(self, path: bytes) -> Iterator[None]:
        """Looks at one file that the user named, whatever its suffix."""
        self._read(path)
        yield

    def _look_at(self, path: bytes) -> None:
        suffix = os.path.splitext(path)[1].lower().decode("utf-8", "replace")
        looks_like_image = suffix in IMAGE_SUFFIXES or suffix in CONVERT_SUFFIXES
        full = os.path.join(self._root, path)
        if os.path.islink(full):
            target = os.path.realpath(full)
            to_folder = os.path.isdir(target)
            if (looks_like_image or to_folder) and not _inside(target, self._root):
                self._reject(path + b"/" * to_folder, "symbolic link that leads out of the source folder")
                return
            looks_like_image = looks_like_image and not to_folder
        if not looks_like_image:
            self._other += 1
        elif suffix in CONVERT_SUFFIXES:
            self._reject(path, f"{suffix} files are not read: convert to PNG or JPEG")
        else:
            self._read(path)

    def _read(self, path: bytes) -> None:
        image_id = f"{self._name}/{encode_path(path)}"
        if image_id in self._known_ids:
            self._known += 1
            return
        full = os.path.join(self._root, path)
        size = mtime_ns = 0
        try:
            status = os.stat(full)
            size, mtime_ns = status.st_size, status.st_mtime_ns
            _check_file(status)
            descriptor = os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                _check_file(os.fstat(descriptor))
                header = read_header(file)
        except ImageRejected as error:
            self._rejected.append(RejectedImage(image_id, size, mtime_ns, str(error)))
        except OSError as error:
            broken_link = isinstance(error, FileNotFoundError) and os.path.islink(full)
            reason = "symbolic link to a file that does not exist" if broken_link else _words(error)
            self._rejected.append(RejectedImage(image_id, size, mtime_ns, reason))
        else:
            self._images.append(ImageRecord(image_id, size, mtime_ns, header.width, header.height, header.orientation))

    def _reject(self, path: bytes, reason: str) -> None:
        """Rejects something that is not opened; its own size and time where it has them."""
        try:
            status = os.lstat(os.path.join(self._root, path.rstrip(b"/")))
            size, mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:
            size = mtime_ns = 0
        self._rejected.append(RejectedImage(f"{self._name}/{encode_path(path)}", size, mtime_ns, reason))


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
