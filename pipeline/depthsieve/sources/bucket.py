"""Images below a prefix of an object store, or one image object, as a source. Input is hostile here too.

The rules for suffixes, sizes and hidden names are the folder source's. Headers are read by ranged calls, many at a
time, since each costs a round trip. Keys that cannot be an image's path do no harm: an empty part, ``.``, ``..`` or a
control character makes the library refuse the whole page of a listing, so then each folder is listed by itself, and the
one that has such a key is rejected by name.
"""

import errno
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.records import ImageRecord, RejectedImage
from depthsieve.images.decode import MAX_HEADER_BYTES, read_header
from depthsieve.sources.containers.protocol import CONVERT_SUFFIXES, IMAGE_SUFFIXES, MAX_FILE_BYTES
from depthsieve.sources.ids import check_name, decode_path, encode_path, split_id
from depthsieve.sources.protocol import Listed, Passed, record_of
from depthsieve.storage import Entry, open_objects
from depthsieve.storage.object_errors import IN_KEY, is_transient

if TYPE_CHECKING:
    from depthsieve.storage.objects import Objects

IN_FOLDER = "holds a key with an empty part, '.', '..' or a control character, and cannot be listed: rename that"
IN_ROOT = (
    "a key directly in it has an empty part, '.', '..' or a control character, and so the keys beside it cannot be "
    "listed: rename that key, or name a list of URLs as the source"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
FIRST_BYTES = 64 * 1024
"""What is fetched of an image at first; enough for nearly all headers. Each further fetch is twice as large."""


class BucketSource:
    """Images of the objects below ``root``, a URL, or only the object ``only`` (a key below it)."""

    at_once = 16

    def __init__(self, name: str, root: str, only: str | None = None) -> None:
        check_name(name)
        self.name = name
        self._objects = open_objects(root)
        self.root = str(self._objects.address)
        self._only = only
        self.is_one_file = only is not None
        self.shown = self.root if only is None else f"{self.root}/{only}"

    def __repr__(self) -> str:
        return f"BucketSource({self.name!r}, {self.root!r})"

    def listing(self, passed: Passed) -> Iterator[Listed | RejectedImage]:
        """See :class:`~depthsieve.sources.protocol.Source`. Raises :class:`SourceError` if the listing breaks off."""
        before = (passed.hidden, passed.other)
        try:
            try:
                yield from self._list(self._flat(), passed)
            except OSError as error:
                if error.errno != IN_KEY:
                    raise
                passed.hidden, passed.other = before
                yield from self._list(self._by_folder(), passed)
        except OSError as error:
            if error.errno == IN_KEY:
                raise SourceError(f"{self.root}: {IN_ROOT}") from error
            raise SourceError(f"{error.filename or self.root}: {error.strerror or error}") from error

    def named(self, key: str) -> Listed | RejectedImage:
        """An object below the root that a user has named, whatever its suffix. Raises :class:`SourceError`."""
        found = self.now(Listed(self._id(key), 0, 0))
        return self._checked(found) if isinstance(found, Listed) else found

    def now(self, listed: Listed) -> Listed | RejectedImage:
        """See :class:`~depthsieve.sources.protocol.Source`. Each image is a call."""
        try:
            entry = self._objects.entry(self._key(listed.id))
        except SourceError as error:
            return RejectedImage(listed.id, listed.size, listed.mtime_ns, str(error))
        except OSError as error:
            raise SourceError(f"{error.filename or self.root}: {error.strerror or error}") from error
        if entry is None:
            return RejectedImage(listed.id, listed.size, listed.mtime_ns, "no such object")
        return Listed(listed.id, entry.size, _nanoseconds(entry))

    def look(self, listed: Listed) -> ImageRecord | RejectedImage:
        """See :class:`~depthsieve.sources.protocol.Source`. Raises :class:`SourceError` where the server fails."""
        try:
            file = _RangedFile(self._objects, self._key(listed.id), listed.size)
            header = read_header(cast(BinaryIO, file))
        except (ImageRejected, SourceError) as error:
            return RejectedImage(listed.id, listed.size, listed.mtime_ns, str(error))
        except OSError as error:
            if is_transient(error):
                raise SourceError(f"{error.filename or self.root}: {error.strerror or error}") from error
            words = {errno.EACCES: "permission denied", errno.ENOENT: "no such object"}
            reason = words.get(error.errno or 0, "the server does not hand it out")
            return RejectedImage(listed.id, listed.size, listed.mtime_ns, reason)
        return record_of(listed.id, listed.size, listed.mtime_ns, header)

    def read(self, image_id: str) -> bytes:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        key = self._key(image_id)
        try:
            return self._objects.read(key, MAX_FILE_BYTES)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise ImageRejected(f"{error.strerror}, more than the {MAX_FILE_BYTES:,} allowed") from error
            raise

    def is_there(self) -> bool:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        try:
            return next(self._objects.walk(""), None) is not None
        except OSError as error:
            return error.errno == IN_KEY

    def _key(self, image_id: str) -> str:
        """The key of an image. Raises :class:`SourceError` for an id that is not this source's, or leaves its root."""
        path = decode_path(split_id(image_id, self.name))
        try:
            key = path.decode()
        except UnicodeDecodeError as error:
            raise SourceError(f"{image_id!r} is no key of an object: it is not UTF-8") from error
        if any(part in ("", ".", "..") for part in key.split("/")):
            raise SourceError(f"{image_id!r} would leave the root of the source {self.name!r}")
        if _CONTROL.search(key):
            raise SourceError(f"{image_id!r}: the object store's library takes no keys with control characters")
        return key

    def _list(self, pages: Iterator[list[Entry] | str], passed: Passed) -> Iterator[Listed | RejectedImage]:
        hidden: set[str] = set()
        for page in pages:
            if isinstance(page, str):
                yield RejectedImage(self._id(f"{page}/"), 0, 0, IN_FOLDER)
                continue
            for entry in page:
                parts = entry.key.split("/")
                at = next((at for at, part in enumerate(parts) if part.startswith(".")), None)
                if at is None or self._only is not None:
                    found = self._listed(entry)
                    passed.other += found is None
                    if found is not None:
                        yield found
                elif (name := "/".join(parts[: at + 1])) not in hidden:
                    hidden.add(name)
                    passed.hidden += 1

    def _listed(self, entry: Entry) -> Listed | RejectedImage | None:
        """An object of a listing; None for one that does not look like an image."""
        image_id, modified = self._id(entry.key), _nanoseconds(entry)
        suffix = PurePosixPath(entry.key).suffix.lower()
        if self._only is None and suffix in CONVERT_SUFFIXES:
            reason = f"{suffix} files are not read: convert to PNG or JPEG"
        elif self._only is None and suffix not in IMAGE_SUFFIXES:
            return None
        else:
            return self._checked(Listed(image_id, entry.size, modified))
        return RejectedImage(image_id, entry.size, modified, reason)

    def _checked(self, listed: Listed) -> Listed | RejectedImage:
        if listed.size <= MAX_FILE_BYTES:
            return listed
        reason = f"{listed.size:,} bytes, more than the {MAX_FILE_BYTES:,} allowed"
        return RejectedImage(listed.id, listed.size, listed.mtime_ns, reason)

    def _id(self, key: str) -> str:
        return f"{self.name}/{encode_path(key)}"

    def _flat(self) -> Iterator[list[Entry] | str]:
        """All objects, page by page."""
        if self._only is None:
            yield from self._objects.walk("")
        elif (entry := self._objects.entry(self._only)) is not None:
            yield [entry]

    def _by_folder(self) -> Iterator[list[Entry] | str]:
        """The objects of each folder; and the key of each folder that cannot be listed."""
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                below, entries = self._objects.children(folder)
            except OSError as error:
                if error.errno != IN_KEY or not folder:
                    raise
                yield folder
                continue
            folders += below
            yield entries


class _RangedFile:
    """An object as a file to read a header from; what was fetched is kept."""

    def __init__(self, objects: "Objects", key: str, size: int) -> None:
        self._objects = objects
        self._key = key
        self._size = size
        self._at = 0
        self._step = FIRST_BYTES
        self._fetched: list[tuple[int, bytes]] = []

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        parts = []
        while self._at < end:
            start, data = self._window()
            part = data[self._at - start : end - start]
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def _window(self) -> tuple[int, bytes]:
        """Bytes that hold the position, fetched if need be."""
        for start, data in self._fetched:
            if start <= self._at < start + len(data):
                return start, data
        if sum(len(data) for _, data in self._fetched) > 4 * MAX_HEADER_BYTES:
            raise ImageRejected("what it says of itself is scattered over too much of the file")
        length = min(self._step, self._size - self._at)
        data = self._objects.read_range(self._key, self._at, length)
        if len(data) != length:
            raise ImageRejected("changed while its header was read")
        self._step = min(2 * self._step, MAX_HEADER_BYTES)
        self._fetched.append((self._at, data))
        return self._fetched[-1]


def open_bucket(url: str, name: str) -> BucketSource:
    """The source at ``url``; see :func:`depthsieve.sources.open_source`."""
    check_name(name)
    source = BucketSource(name, url)
    above, _, last = source.root.rpartition("/")
    try:
        may_be_one = not above.endswith("/") and not url.endswith("/")  # "s3://bucket" is all of a bucket
        if may_be_one and open_objects(above).entry(last) is not None:
            return BucketSource(name, above, last)
        found = next(open_objects(source.root).walk(""), None)
    except OSError as error:
        if error.errno != IN_KEY:
            raise SourceError(f"source {source.root}: {error.strerror or error}") from error
    else:
        if found is None:
            raise SourceError(f"source {source.root}: there is no object of that name or below it")
    return source


def _nanoseconds(entry: Entry) -> int:
    return round(entry.modified * 1000) * 1_000_000  # listings tell milliseconds at most
