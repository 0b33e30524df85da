"""A list of files as a source: a text file of paths or URLs, one a line, or with NULs between as `find -print0` has.

Names are bytes, as the file has them. Windows editors begin a text with a mark (BOM): UTF-8 and UTF-16 are read by it.

The list is read once, so it may be standard input. Paths that are not absolute are relative to the root that is asked
for, else to the list's folder; on standard input to the current folder, as other programs write them. Ids are relative
to the root that is asked for, else to the list's folder (or the current one) where all files lie in it, else to the
deepest folder that holds all of them.
"""
# Names are bytes here, which pathlib cannot hold.
# ruff: noqa: PTH112, PTH118, PTH120

import codecs
import functools
import itertools
import os
import re
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

from depthsieve.core.errors import SourceError, UsageError
from depthsieve.core.records import RejectedImage
from depthsieve.sources.bucket import BucketSource
from depthsieve.sources.folder import FolderSource
from depthsieve.sources.ids import check_name, encode_path
from depthsieve.sources.protocol import Listed, Passed, Source
from depthsieve.storage import expand, is_url

LIST_SUFFIXES = (".txt", ".list", ".lst")
STDIN = "-"
MAX_LINE = 64 * 1024
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LOOKS_LIKE_UTF16 = re.compile(rb"(?:[^\0]\0){4}|(?:\0[^\0]){4}")
OUTSIDE = "lies outside of the root of this list; name a --root that holds all of it"


class ListSource(FolderSource):
    """The files of a list that lie below ``root``, in no other way than if each was named as a source itself."""

    def __init__(self, name: str, root: str, shown: str, spool: BinaryIO) -> None:
        super().__init__(name, root)
        self.is_one_file = True  # it is not all of its root
        self.shown = shown
        self._spool = spool
        weakref.finalize(self, spool.close)

    def listing(self, passed: Passed) -> Iterator[Listed | RejectedImage]:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        for path in _spooled(self._spool):
            below = os.path.relpath(path, self._root)
            if below.startswith(b"../") or below in (b"..", b"."):
                yield RejectedImage(f"{self.name}/{encode_path(path.lstrip(b'/') or b'.')}", 0, 0, OUTSIDE)
            elif os.path.isdir(path):
                yield from self.below(below, passed)
            else:
                yield from self.named(below, passed)


class BucketListSource(BucketSource):
    """The objects of a list that lie below ``root``, a URL."""

    def __init__(self, name: str, root: str, shown: str, spool: BinaryIO) -> None:
        super().__init__(name, root)
        self.is_one_file = True
        self.shown = shown
        self._spool = spool
        weakref.finalize(self, spool.close)

    def listing(self, passed: Passed) -> Iterator[Listed | RejectedImage]:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        above = f"{self.root}/"
        with ThreadPoolExecutor(self.at_once) as pool:
            for some in _in_tens(path.decode("utf-8", "replace") for path in _spooled(self._spool)):
                inside = [url.removeprefix(above) for url in some if url.startswith(above)]
                for url in some:
                    if not url.startswith(above):
                        yield RejectedImage(f"{self.name}/{encode_path(url)}", 0, 0, OUTSIDE)
                yield from pool.map(self.named, inside)


def open_list(path: str, name: str, root: str | None) -> Source:
    """The source that a list names; ``path`` may be "-", which is standard input.

    Raises :class:`SourceError` where the list cannot be read or is empty, :class:`UsageError` for paths among URLs.
    """
    shown = f"the list in {'standard input' if path == STDIN else repr(path)}"
    if path == STDIN:
        base = b"."
    else:
        base = os.fsencode(os.path.dirname(path) or "." if root is None or is_url(root) else root)
    return _open(_lines(path), shown, os.path.realpath(base), name, root)


def open_files(paths: Sequence[str | Path], name: str, root: str | None) -> Source:
    """The source of several files, folders or URLs that a user has named one by one. Ids are relative to the root, else
    to the deepest folder that holds all of them. Errors as of :func:`open_list`."""
    named = [expand(path) for path in paths]
    for path in named:
        if not is_url(path) and not os.path.lexists(path):
            raise SourceError(f"source {path!r}: no such file or directory")
    base = os.path.realpath(b".")
    return _open(map(os.fsencode, named), f"{len(named):,} sources", base, name, root, within=False)


def _open(lines: Iterable[bytes], shown: str, base: bytes, name: str, root: str | None, within: bool = True) -> Source:
    """The source of some paths, relative to ``base``; ``within``: ids are too, where all files lie in it."""
    check_name(name)
    spool = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 (the source closes it)
    common: bytes | None = None
    urls = count = 0
    try:
        for line in lines:
            count += 1
            if is_url(line.decode("utf-8", "replace")):
                urls += 1
                place, above = line, line.rpartition(b"/")[0]
            else:
                place = _resolved(line, base)
                above = os.path.dirname(place)
            common = above if common is None else _shared(common, above)
            spool.write(place + b"\0")
        if not count or common is None:
            raise SourceError(f"{shown} names no files")
        if urls not in (0, count):
            raise UsageError(f"{shown} has paths and URLs; make two lists of it, each with its own --name")
        if urls:
            if root is None and len(common.split(b"/")) < 4 and b"//" not in common:
                raise UsageError(f"the URLs of {shown} have no place in common; make a list of each bucket")
            return BucketListSource(name, root or common.decode("utf-8", "replace"), shown, spool)
        if root is not None:
            chosen = os.path.realpath(os.fsencode(root), strict=True)
        else:
            chosen = base if within and _shared(common, base) == base else common
        return ListSource(name, os.fsdecode(chosen), shown, spool)
    except OSError as error:
        spool.close()
        raise SourceError(f"{error.filename or shown}: {error.strerror or error}") from error
    except BaseException:
        spool.close()
        raise


def _lines(path: str) -> Iterator[bytes]:
    """The entries of a list; blank ones are left out."""
    with open(sys.stdin.fileno() if path == STDIN else path, "rb", closefd=path != STDIN) as file:
        if path == STDIN and file.seekable():
            file.seek(0)  # a process before this one may have read it
        read = _decoded(file, path)
        waiting = read()
        end = b"\0" if b"\0" in waiting else b"\n"
        while waiting:
            *whole, rest = waiting.split(end)
            yield from (line for line in map(_trimmed(end), whole) if line)
            if len(rest) > MAX_LINE:
                raise SourceError(f"{path!r} is no list of files: a line is longer than {MAX_LINE:,} bytes")
            more = read()
            if not more and rest and (line := _trimmed(end)(rest)):
                yield line
            waiting = rest + more if more else b""


def _decoded(file: BinaryIO, path: str) -> Callable[[], bytes]:
    """What gives the next piece of a list, without a byte order mark, and as UTF-8 where that says UTF-16."""
    start = file.read(1 << 16).removeprefix(codecs.BOM_UTF8)
    decoder = codecs.getincrementaldecoder("utf-16")() if start.startswith(_UTF16) else None
    if decoder is None and _LOOKS_LIKE_UTF16.match(start):
        raise SourceError(f"{path!r} looks like UTF-16 without a byte order mark: save it as UTF-8")
    pieces = itertools.chain([start], iter(lambda: file.read(1 << 16), b""))

    def read() -> bytes:
        for piece in pieces:
            if decoder is None:
                return piece
            try:
                text = decoder.decode(piece)
            except UnicodeDecodeError as error:
                raise SourceError(f"{path!r} begins as UTF-16 and is not: save it as UTF-8") from error
            if text:
                return text.encode("utf-8", "surrogatepass")
        return b""

    return read


def _trimmed(end: bytes) -> "functools.partial[bytes]":
    return functools.partial(_trim, end=end)


def _trim(line: bytes, end: bytes) -> bytes:
    if end == b"\0":
        return line
    line = line.removesuffix(b"\r")
    return line if line.strip() else b""


def _resolved(line: bytes, base: bytes) -> bytes:
    """A path of a list, absolute, links among its folders followed; the file itself may be one."""
    folder, name = os.path.split(os.path.join(base, line.rstrip(b"/")))
    return os.path.join(_real(folder), name)


@functools.lru_cache(1 << 14)
def _real(folder: bytes) -> bytes:
    return os.path.realpath(folder)


def _shared(one: bytes, other: bytes) -> bytes:
    """What two folders have in common."""
    if one == other:
        return one
    parts = zip(one.split(b"/"), other.split(b"/"), strict=False)
    same: list[bytes] = []
    for left, right in parts:
        if left != right:
            break
        same.append(left)
    return b"/".join(same) or b"/"


def _spooled(spool: BinaryIO) -> Iterator[bytes]:
    at, rest = 0, b""
    while True:
        spool.seek(at)
        data = spool.read(1 << 20)
        if not data:
            return
        at += len(data)
        *whole, rest = (rest + data).split(b"\0")
        yield from whole


def _in_tens(urls: Iterator[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for url in urls:
        some.append(url)
        if len(some) == 160:
            yield some
            some = []
    yield some
