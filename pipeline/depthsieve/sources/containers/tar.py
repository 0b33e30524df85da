"""Images in an uncompressed tar archive, read in place: one walk over the headers gives where each member lies.

Members are data, never files: nothing is unpacked, and a link or a device in an archive leads nowhere. Of archives that
were joined (``cat a.tar b.tar``) all are read: an end mark ends the file only if no header follows it.

Not :mod:`tarfile`, which reads an extended header as long as it says it is: half a kilobyte that claims a gigabyte, in
a sparse file, took a gigabyte of memory and half a minute.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources.containers.members import MemberIndex
from depthsieve.sources.containers.protocol import (
    MAX_FILE_BYTES,
    Descriptor,
    Member,
    Window,
    listed_member,
    plain_name,
)
from depthsieve.sources.ids import decode_path
from depthsieve.sources.protocol import Passed

BLOCK = 512
MAX_NAME_BYTES = 64 * 1024
"""How long an extended header may be: names are at most 4 KiB where they can be files."""
_AHEAD = 16 * BLOCK
_ZEROS_AT_ONCE = 1 << 20
_REGULAR, _LONG_NAME, _PAX, _SPARSE = b"\x000" + b"7", b"L", b"x", b"S"
_PASSED_OVER = b"5KgVNDX"
_BEFORE_A_MEMBER = b"LKxX"
"""Extended headers: more about the member whose own header comes next."""
_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a FIFO"}
_CONTINUED = b"M"
_PACKED = {b"\x1f\x8b": "gzip -d", b"BZh": "bzip2 -d", b"\xfd7zXZ": "xz -d", b"\x28\xb5\x2f\xfd": "zstd -d"}


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    offset: int
    size: int
    reason: str | None


class TarContainer:
    """A tar archive (v7, ustar, GNU or pax). See :class:`~depthsieve.sources.containers.protocol.Container`."""

    def __init__(self, path: bytes) -> None:
        self._file = Descriptor(path)
        self._index = MemberIndex(2)
        self._fault: ImageRejected | None = None
        start = self._file.at(0, BLOCK)
        for magic, command in _PACKED.items():
            if start.startswith(magic):
                raise ImageRejected(f"a compressed archive, which cannot be read in place: unpack it with `{command}`")
        try:
            for entry in self._walk():
                if entry.reason is None:
                    self._index.add(entry.name, entry.offset, entry.size)
        except ImageRejected as error:  # what stands before is sound
            self._fault = error
        self._index.seal()

    def members(self, passed: Passed) -> Iterator[Member]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        for entry in self._walk():
            if entry.reason is None and self._index.is_replaced(entry.name, entry.offset):
                passed.other += 1
            else:
                yield from listed_member(entry.name, entry.size, entry.reason, passed)

    def open(self, place: str) -> tuple[BinaryIO, int]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        offset, size = self._find(place)
        return cast(BinaryIO, Window(self._file, offset, size)), size

    def read(self, place: str) -> bytes:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        offset, size = self._find(place)
        data = self._file.at(offset, size)
        if len(data) != size:
            raise ImageRejected("the archive ends within it")
        return data

    def _find(self, place: str) -> tuple[int, int]:
        found = self._index.find(decode_path(place))
        if found is None:
            if self._fault is not None:
                raise self._fault
            raise SourceError(f"the archive has no member {place!r}")
        offset, size = found
        if size > MAX_FILE_BYTES:
            raise ImageRejected(f"{size:,} bytes, more than the {MAX_FILE_BYTES:,} allowed")
        return offset, size

    def _walk(self) -> Iterator[_Entry]:
        """All members that are files or would be; raises :class:`ImageRejected` where the archive is broken."""
        at, name, pax = 0, b"", dict[bytes, bytes]()
        ahead, ahead_at = b"", 0
        is_due = False
        while at < self._file.size:
            if not ahead_at <= at <= ahead_at + len(ahead) - BLOCK:
                ahead, ahead_at = self._file.at(at, _AHEAD), at
            head = ahead[at - ahead_at : at - ahead_at + BLOCK]
            if not head.strip(b"\0"):
                at = self._behind_zeros(at)
                if not _is_header(self._file.at(at, BLOCK)):
                    break
                name, pax = b"", {}
                continue
            if not _is_header(head):
                raise ImageRejected("no tar archive" if at == 0 else f"a broken tar archive, from byte {at:,} on")
            kind, size = head[156:157], _number(head[124:136])
            if size < 0:
                raise ImageRejected(f"a broken tar archive: a member without a size that can be, at byte {at:,}")
            is_due = kind in _BEFORE_A_MEMBER
            extended = kind in (_LONG_NAME, _PAX)
            if extended and size > MAX_NAME_BYTES:
                raise ImageRejected(f"a broken tar archive: a name of {size:,} bytes, at byte {at:,}")
            if kind == _LONG_NAME:
                name = self._file.at(at + BLOCK, size).split(b"\0")[0]
            elif kind == _PAX:
                pax |= _pax_records(self._file.at(at + BLOCK, size))
            elif kind not in _PASSED_OVER:
                size = 0 if kind in _KINDS else _decimal(pax.get(b"size")) or size
                yield self._entry(head, at, size, pax.get(b"path") or name, any(b"sparse" in key for key in pax))
            if not extended and kind not in b"Kg":
                name, pax = b"", {}
            if kind == _SPARSE:
                at = self._behind_map(head, at)
            at += BLOCK + (0 if kind == b"5" else -(-size // BLOCK) * BLOCK)
        if is_due:
            raise ImageRejected("a truncated tar archive: it ends before the member that its last header belongs to")
        if at > self._file.size and at - self._file.size >= BLOCK:
            raise ImageRejected(f"a truncated tar archive: it ends {at - self._file.size:,} bytes too early")

    def _entry(self, head: bytes, at: int, size: int, long_name: bytes, is_sparse: bool) -> _Entry:
        kind, reason = head[156:157], None
        if kind in _KINDS:
            reason = f"{_KINDS[kind]} in an archive, which is not followed"
        elif kind == _CONTINUED:
            reason = "the rest of a member that begins in another volume: join the volumes first"
        elif kind == _SPARSE or is_sparse:
            reason = "a sparse member of an archive, which is not read: pack it again without --sparse"
        elif kind not in _REGULAR:
            reason = "a member of an unknown kind"
        elif at + BLOCK + size > self._file.size:
            reason = "the archive ends within it"
        name = head[:100].split(b"\0")[0]
        if head[257:263] == b"ustar\0" and (prefix := head[345:500].split(b"\0")[0]):
            name = prefix + b"/" + name
        return _Entry(plain_name(long_name or name), at + BLOCK, size, reason)

    def _behind_zeros(self, at: int) -> int:
        """Where the first block that is not all zeros lies, from an end mark on; the file's size if there is none."""
        while at < self._file.size:
            try:
                at = os.lseek(self._file.number, at, os.SEEK_DATA) // BLOCK * BLOCK  # not through terabytes of a hole
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole up to the end; others are of file systems that do not know
                    break
            data = self._file.at(at, _ZEROS_AT_ONCE)
            if rest := data.lstrip(b"\0"):
                return at + (len(data) - len(rest)) // BLOCK * BLOCK
            at += len(data) or BLOCK
        return self._file.size

    def _behind_map(self, head: bytes, at: int) -> int:
        """Where the last block of an old GNU sparse member's header begins: more of its map may follow it."""
        more = head[482]
        while more and at < self._file.size:
            at += BLOCK
            more = (self._file.at(at, BLOCK) + b"\0" * BLOCK)[504]
        return at


def _is_header(head: bytes) -> bool:
    """Whether a block has the checksum of a header. A block of zeros has none."""
    if len(head) < BLOCK or not head[148:156].strip(b"\0"):
        return False
    declared = _number(head[148:156])
    total = sum(head) - sum(head[148:156]) + 8 * 32
    if declared == total:
        return True
    signed = total - 256 * sum(byte > 127 for byte in head[:148] + head[156:])  # as some old tars count
    return declared == signed


def _number(field: bytes) -> int:
    """Octal digits, or base 256 where the first bit is set; -1 for what is neither, below 0 or beyond all disks."""
    if field[0] & 0x80:
        number = int.from_bytes(field[1:], "big")
        return number if field[0] == 0x80 and number < 2**62 else -1
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if all(byte in b"01234567" for byte in digits) else -1


def _decimal(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() and len(value) < 19 else 0


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """``length key=value`` lines; what follows a broken one is left out."""
    records, at = {}, 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        end = at + int(length) if space and length.isdigit() else 0
        if end <= at or end > len(data):
            break
        key, _, value = data[at + len(length) + 1 : end - 1].partition(b"=")
        records[key] = value
        at = end
    return records
