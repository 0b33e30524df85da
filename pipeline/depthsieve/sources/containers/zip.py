"""Images in a zip archive, read in place: stored or deflated, zip64 too. Input is hostile.

The central directory is read with code of our own: one object a member, as the standard library keeps, would take a
gigabyte for an archive with millions of empty members. What the directory declares is held against what is there.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources.containers.members import MemberIndex
from depthsieve.sources.containers.protocol import (
    MAX_FILE_BYTES,
    Descriptor,
    Member,
    Readable,
    Window,
    listed_member,
    plain_name,
)
from depthsieve.sources.ids import decode_path
from depthsieve.sources.protocol import Passed

MAX_DEFLATED_BYTES = 256 * 1024**2
"""The largest image that is unpacked from a deflated member: it takes as much memory, in several threads at once."""
_STORED, _DEFLATED = 0, 8
_END, _END64, _LOCATOR64, _ENTRY, _LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_ENTRY_BYTES, _LOCAL_BYTES = 46, 30
_AHEAD = 1 << 20


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    offset: int
    packed: int
    size: int
    method: int
    crc: int
    reason: str | None


class ZipContainer:
    """A zip archive. See :class:`~depthsieve.sources.containers.protocol.Container`."""

    def __init__(self, path: bytes) -> None:
        self._file = Descriptor(path)
        self._count, self._from, self._to, self._before = self._directory()
        self._index = MemberIndex(5)
        for entry in self._walk():
            if entry.reason is None:
                self._index.add(entry.name, entry.offset, entry.packed, entry.size, entry.method, entry.crc)
        self._index.seal()
        self._overlaps = self._overlapping()

    def members(self, passed: Passed) -> Iterator[Member]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        for entry in self._walk():
            if entry.name and entry.reason is None and self._index.is_replaced(entry.name, entry.offset):
                passed.other += 1
            elif entry.name:
                yield from listed_member(entry.name, entry.size, entry.reason, passed)
        if self._before and self._file.at(0, 4) == _LOCAL:
            raise ImageRejected(
                "another zip archive stands before the last one, whose members alone are read: take the two apart"
            )

    def open(self, place: str) -> tuple[BinaryIO, int]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        start, packed, size, method, _ = self._find(place)
        window = Window(self._file, start, packed)
        return cast(BinaryIO, window if method == _STORED else _Inflated(window, size)), size

    def read(self, place: str) -> bytes:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        start, packed, size, method, crc = self._find(place)
        data = self._file.at(start, packed)
        if len(data) == packed and method == _DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            except zlib.error as error:
                raise ImageRejected("damaged in its archive: what is packed cannot be unpacked") from error
        if len(data) != size or zlib.crc32(data) != crc:
            raise ImageRejected("damaged in its archive: it is not what the archive's directory declares")
        return data

    def _find(self, place: str) -> tuple[int, int, int, int, int]:
        """Where a member's data begins, its bytes there and unpacked, its method and its checksum."""
        found = self._index.find(decode_path(place))
        if found is None:
            raise SourceError(f"the archive has no member {place!r}, or none that can be read")
        offset, packed, size, method, crc = found
        if offset in self._overlaps:
            raise ImageRejected("it overlaps another member of its archive")
        if size > (MAX_DEFLATED_BYTES if method == _DEFLATED else MAX_FILE_BYTES):
            allowed = MAX_DEFLATED_BYTES if method == _DEFLATED else MAX_FILE_BYTES
            raise ImageRejected(f"{size:,} bytes, more than the {allowed:,} allowed")
        local = self._file.at(offset, _LOCAL_BYTES)
        if len(local) < _LOCAL_BYTES or local[:4] != _LOCAL:
            raise ImageRejected("damaged in its archive: the directory points to no member")
        start = offset + _LOCAL_BYTES + sum(struct.unpack_from("<HH", local, 26))
        if start + packed > self._file.size:
            raise ImageRejected("the archive ends within it")
        return start, packed, size, method, crc

    def _overlapping(self) -> frozenset[int]:
        """Where members begin that overlap another one before them: a small file may unpack to any size by that."""
        offset_N, packed_N = self._index.column(0), self._index.column(1)
        end_N = offset_N + packed_N + _LOCAL_BYTES
        order_N = np.argsort(offset_N, kind="stable")
        order_N = order_N[end_N[order_N] <= self._file.size]  # those that lie about that are refused anyway
        offset_N, end_N = offset_N[order_N], np.maximum.accumulate(end_N[order_N])
        return frozenset(offset_N[1:][end_N[:-1] > offset_N[1:]].tolist())

    def _directory(self) -> tuple[int, int, int, int]:
        """How many entries the central directory has, where it begins and ends, and what stands before the archive."""
        tail_from = max(0, self._file.size - 65557)
        tail = self._file.at(tail_from, 65557)
        at = tail.rfind(_END)
        if at < 0 or len(tail) < at + 22:
            raise ImageRejected("no zip archive, or a truncated one: its directory is missing")
        disk, count, size, offset = struct.unpack_from("<4xHxx2xHII", tail, at)
        end = tail_from + at
        if 0xFFFFFFFF in (size, offset) or count == 0xFFFF:
            locator = self._file.at(end - 20, 20)
            place = struct.unpack_from("<Q", locator, 8)[0] if locator[:4] == _LOCATOR64 else self._file.size
            head = self._file.at(place, 56) if place < self._file.size else b""
            if head[:4] == _END64 and len(head) == 56:
                count, size, offset, end = *struct.unpack_from("<QQQ", head, 32), place
        if disk:
            raise ImageRejected("a part of a zip archive in several files: join them first")
        if offset + size > end or count * _ENTRY_BYTES > size:
            raise ImageRejected("a broken zip archive: its directory is not where it says")
        return count, end - size, end, end - size - offset

    def _walk(self) -> Iterator[_Entry]:
        """All entries of the central directory; the name is empty for folders."""
        shift = 0
        data, at = b"", self._from
        for _ in range(self._count):
            if len(data) - shift < min(_ENTRY_BYTES + 3 * 65535, self._to - at):
                data, shift = self._file.at(at, min(_AHEAD, self._to - at)), 0
            if data[shift : shift + 4] != _ENTRY or len(data) - shift < _ENTRY_BYTES:
                raise ImageRejected("a broken zip archive: its directory ends early")
            flags, method, crc, packed, size, name_n, extra_n, note_n = struct.unpack_from(
                "<HH4xIIIHHH", data, shift + 8
            )
            attributes, offset = struct.unpack_from("<II", data, shift + 38)
            name_at = shift + _ENTRY_BYTES
            name = data[name_at : name_at + name_n]
            extra = data[name_at + name_n : name_at + name_n + extra_n]
            size, packed, offset = _wide(size, packed, offset, extra)
            length = _ENTRY_BYTES + name_n + extra_n + note_n
            shift, at = shift + length, at + length
            plain = b"" if name.endswith(b"/") else plain_name(name)
            reason = _refusal(flags, method, packed, size, attributes >> 16)
            yield _Entry(plain, offset + self._before, packed, size, method, crc, reason)


class _Inflated(Readable):
    """A deflated member as a file; as much is unpacked as is asked for."""

    def __init__(self, packed: Window, size: int) -> None:
        super().__init__(size)
        self._packed = packed
        self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        self._data = io.BytesIO()

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        try:
            while (have := self._data.seek(0, 2)) < end and not self._unpacker.eof:
                waiting = self._unpacker.unconsumed_tail or self._packed.read(1 << 16)
                if not waiting:
                    break
                self._data.write(self._unpacker.decompress(waiting, end - have))
        except zlib.error as error:
            raise ImageRejected("damaged in its archive: what is packed cannot be unpacked") from error
        self._data.seek(self._at)
        data = self._data.read(max(0, end - self._at))
        self._at += len(data)
        return data


def _wide(size: int, packed: int, offset: int, extra: bytes) -> tuple[int, int, int]:
    """The three, with those that do not fit 32 bits from the zip64 field."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        if tag == 1:
            wide = [value for (value,) in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8])]
            values = [wide.pop(0) if value == 0xFFFFFFFF and wide else value for value in (size, packed, offset)]
            return min(values[0], 2**62), min(values[1], 2**62), min(values[2], 2**62)
        at += 4 + length
    return size, packed, offset


def _refusal(flags: int, method: int, packed: int, size: int, mode: int) -> str | None:
    if flags & 1:
        return "encrypted in its archive: unpack it first"
    if mode >> 12 in (0o2, 0o6, 0o1, 0o12, 0o14):
        return "a link or a device in an archive, which is not followed"
    if method not in (_STORED, _DEFLATED):
        return f"packed by method {method}, which is not read: unpack the archive, or pack it again with plain zip"
    if method == _STORED and packed != size:
        return "damaged in its archive: two sizes are declared"
    return None
