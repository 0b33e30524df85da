"""Images in an LMDB database, as LSUN comes: every value is taken for the bytes of an image.

LMDB's own library maps the file into memory, where a file that is damaged or cut short ends the process. This reader of
its format (version 1, 64-bit, little-endian; https://www.openldap.org/devel/gitweb.cgi?p=openldap.git, mdb.c) reads
pages at a place, checks them, and needs no lock: it sees the newest state that was committed.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources.containers.protocol import MAX_FILE_BYTES, Descriptor, Member, NoImages
from depthsieve.sources.ids import decode_path, encode_path
from depthsieve.sources.protocol import Passed

MAGIC = 0xBEEFC0DE
_HEADER = struct.Struct("<QHHHH")  # page number, padding, flags, ends of the free space: lower, upper
_META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
_TREE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth; pages: branch, leaf, overflow; entries, root
_NODE = struct.Struct("<HHHH")  # size or page below, in three parts; size of the key
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_BIG, _SUBTREE, _DUPLICATES = 1, 2, 4
_OTHER_ORDER = 0x02 | 0x04 | 0x08  # reversed keys, several values a key, keys that are integers
_NO_ROOT = (1 << 64) - 1
_SMALL_NODES = 0x20 | 0x40  # pages of several values a key
_DEEPEST = 32
_TOO_FAR = 1 << 47  # a page that no file reaches
_PAGE_SIZES = tuple(1 << power for power in range(9, 17))


@dataclass(frozen=True, slots=True)
class _Node:
    """Of a branch, ``page`` is what lies below; of a leaf, ``size`` bytes lie at ``offset`` of the file."""

    key: bytes
    page: int = 0
    offset: int = 0
    size: int = 0
    reason: str | None = None


class LmdbContainer:
    """The file ``data.mdb``. See :class:`~.protocol.Container`; a place is a key, encoded."""

    def __init__(self, path: bytes) -> None:
        self._file = Descriptor(path)
        metas = [meta for meta in (self._meta(0, None), *(self._meta(size, size) for size in _PAGE_SIZES)) if meta]
        if not metas:
            raise NoImages("no LMDB database")
        self._page_size = metas[0][1]
        _, _, self._root, flags = max(meta for meta in metas if meta[1] == self._page_size)
        if flags & _OTHER_ORDER:
            raise ImageRejected("an LMDB database with another order of keys, or several values for one")

    def members(self, passed: Passed) -> Iterator[Member]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        for node in self._leaves():
            reason = node.reason
            if reason is None and node.size > MAX_FILE_BYTES:
                reason = f"{node.size:,} bytes, more than the {MAX_FILE_BYTES:,} allowed"
            yield Member(encode_path(node.key), node.size, reason)

    def open(self, place: str) -> tuple[BinaryIO, int]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        data = self.read(place)
        return io.BytesIO(data), len(data)

    def read(self, place: str) -> bytes:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        node = self._find(decode_path(place))
        if node is None:
            raise SourceError(f"the database has no key {place!r}")
        if node.reason is not None or node.size > MAX_FILE_BYTES:
            raise ImageRejected(node.reason or f"{node.size:,} bytes, more than the {MAX_FILE_BYTES:,} allowed")
        data = self._file.at(node.offset, node.size)
        if len(data) != node.size:
            raise ImageRejected("the database ends within it")
        return data

    def _meta(self, offset: int, page_size: int | None) -> tuple[int, int, int, int] | None:
        """Transaction, page size, root and flags of a meta page at an offset, None where there is none."""
        data = self._file.at(offset, _HEADER.size + _META.size + 2 * _TREE.size + 16)
        if len(data) < _HEADER.size + _META.size + 2 * _TREE.size + 16:
            return None
        magic, version, _, _ = _META.unpack_from(data, _HEADER.size)
        if not _HEADER.unpack_from(data)[2] & _META_PAGE or magic != MAGIC or version != 1:
            return None
        trees = _HEADER.size + _META.size
        size = _TREE.unpack_from(data, trees)[0]
        _, flags, _, _, _, _, _, root = _TREE.unpack_from(data, trees + _TREE.size)
        (transaction,) = struct.unpack_from("<Q", data, trees + 2 * _TREE.size + 8)
        if size not in _PAGE_SIZES or page_size not in (None, size):
            return None
        return transaction, size, root, flags

    def _leaves(self) -> Iterator[_Node]:
        """All leaves, in the order of keys. A page that comes again, as in no sound tree, ends it."""
        waiting = [] if self._root == _NO_ROOT else [(self._root, 1)]
        seen: set[int] = set()
        while waiting:
            number, depth = waiting.pop()
            if number in seen:
                raise ImageRejected("the database is damaged: its pages go in a circle")
            seen.add(number)
            page = self._page(number, depth)
            nodes = (page.node(index) for index in range(len(page.places)))
            if page.is_leaf:
                yield from nodes
            else:
                waiting += reversed([(node.page, depth + 1) for node in nodes])

    def _find(self, key: bytes) -> _Node | None:
        number = self._root
        for depth in range(1, _DEEPEST + 1):
            if number == _NO_ROOT:
                return None
            page = self._page(number, depth)
            # The first key of a branch is empty, and stands for all that is smaller than the second one.
            low, high = (0, len(page.places)) if page.is_leaf else (1, len(page.places))
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if page.node(middle).key > key else (middle + 1, high)
            if page.is_leaf:
                found = page.node(low - 1) if low else None
                return found if found is not None and found.key == key else None
            number = page.node(low - 1).page
        return None

    def _page(self, number: int, depth: int) -> "_Page":
        data = self._file.at(number * self._page_size, self._page_size) if number < _TOO_FAR else b""
        if len(data) < self._page_size:
            raise ImageRejected(f"the database ends before its page {number}")
        own, _, flags, lower, upper = _HEADER.unpack_from(data)
        kind = flags & (_BRANCH | _LEAF | _OVERFLOW | _META_PAGE)
        sound = own == number and kind in (_BRANCH, _LEAF) and flags & _SMALL_NODES == 0 and depth <= _DEEPEST
        if not (sound and _HEADER.size + 2 <= lower <= upper <= self._page_size):
            raise ImageRejected(f"the database is damaged at its page {number}")
        places = struct.unpack_from(f"<{(lower - _HEADER.size) // 2}H", data, _HEADER.size)
        return _Page(number, data, places, kind == _LEAF)


@dataclass(frozen=True, slots=True)
class _Page:
    """A branch or a leaf of the tree, and where its nodes begin."""

    number: int
    data: bytes
    places: tuple[int, ...]
    is_leaf: bool

    def node(self, index: int) -> _Node:
        """One of its nodes. Raises :class:`ImageRejected` where that leads out of the page."""
        place, size_of_page = self.places[index], len(self.data)
        start = place + _NODE.size
        low, high, flags, key_size = (
            _NODE.unpack_from(self.data, place) if start <= size_of_page else (0, 0, 0, 1 << 17)
        )
        start += key_size
        key, size = self.data[place + _NODE.size : start], low | high << 16
        if start <= size_of_page:
            if not self.is_leaf:
                return _Node(key, page=size | flags << 32)
            if flags & (_SUBTREE | _DUPLICATES):
                return _Node(key, reason="a database within the database, which is not read")
            if not flags & _BIG and start + size <= size_of_page:
                return _Node(key, offset=self.number * size_of_page + start, size=size)
            if flags & _BIG and start + 8 <= size_of_page:
                (page,) = struct.unpack_from("<Q", self.data, start)
                if page < _TOO_FAR:
                    return _Node(key, offset=page * size_of_page + _HEADER.size, size=size)
        raise ImageRejected(f"the database is damaged at its page {self.number}")
