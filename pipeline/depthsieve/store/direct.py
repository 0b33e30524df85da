"""Read arrays of Zarr v3 straight from a disk: metadata and index once, then a `pread` and one decoding for a row.

Knows the layouts that depthsieve writes and their near kin, :func:`~depthsieve.store.layout.layout_of` says which;
zarr-python reads all others. Holds no open file and no lock, so that threads and forked processes may use one array
together: decoders release the GIL and fill the caller's buffer. Nothing is allocated by what a header claims.

Axes: N rows of an array, its first axis.
"""

import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd
from numpy.typing import NDArray

from depthsieve.store.layout import CRC_BYTES, Layout, layout_of

AVAILABLE = hasattr(os, "pread") and sys.byteorder == "little"

_CRC_RESIDUE = 0x48674BC7
"""The CRC-32C of anything that its own CRC-32C follows, in little-endian bytes."""

_NO_CHUNK = np.uint64(0xFFFFFFFFFFFFFFFF)


class DirectArray:
    """An array below ``folder``. Methods raise :class:`OSError` or :class:`ValueError` for a file that is not whole."""

    __slots__ = ("_bounds", "_file", "_index_N2", "layout")

    def __init__(self, folder: str, layout: Layout) -> None:
        self.layout = layout
        self._file = f"{folder}/{layout.file}"
        self._bounds = layout.packed_bounds
        self._index_N2 = self._read_index() if layout.by_row else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        return self.layout.dtype

    def read_into(self, row: int, out: NDArray[Any]) -> None:
        """Decode a row into ``out``: of the stored type and the row's shape, C-contiguous."""
        self._check_row(row)
        if self._index_N2 is None:
            out[...] = self.whole()[row]
            return
        with _opened(self._file) as handle:
            self._read_row(handle, row, _bytes_of(out))

    def whole(self) -> NDArray[Any]:
        """All rows."""
        with _opened(self._file) as handle:
            size = os.fstat(handle).st_size
            if self._index_N2 is None:
                data = self._checked(_pread(handle, self._bounded(size), 0))
                values = np.empty(self.shape, self.dtype)
                self._unpack(data, _bytes_of(values))
                return values
            values = np.empty(self.shape, self.dtype)
            for row in range(len(values)):
                self._read_row(handle, row, _bytes_of(values[row : row + 1]))
            return values

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` up to, but not including, ``stop``, of an array that is one chunk and not packed, or of any
        other by decoding it all. The chunk's checksum, which covers all rows, is not looked at: ``whole`` does."""
        if self.layout.packing or self.layout.by_row:
            return self.whole()[start:stop]
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"rows {start} to {stop} of {self.shape[0]}")
        each = self.layout.chunk_bytes // self.shape[0]
        with _opened(self._file) as handle:
            self._bounded(os.fstat(handle).st_size)
            data = _pread(handle, (stop - start) * each, start * each)
        return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])

    def _check_row(self, row: int) -> None:
        if not 0 <= row < self.shape[0]:
            raise IndexError(f"row {row} of {self.shape[0]}")

    def _read_index(self) -> NDArray[np.uint64]:
        layout = self.layout
        with _opened(self._file) as handle:
            room = os.fstat(handle).st_size - layout.index_bytes
            if room < 0:
                raise ValueError("it is cut short: it has no room for its index")
            data = _pread(handle, layout.index_bytes, 0 if layout.index_first else room)
        if google_crc32c.value(data) != _CRC_RESIDUE:
            raise ValueError("the checksum of its index does not fit")
        index_N2 = np.frombuffer(data[:-CRC_BYTES], np.uint64).reshape(-1, 2)
        first, end = (layout.index_bytes, layout.index_bytes + room) if layout.index_first else (0, room)
        start_N, length_N = index_N2.T
        there_N = ~((start_N == _NO_CHUNK) & (length_N == _NO_CHUNK))
        fits_N = (start_N >= np.uint64(first)) & (start_N <= np.uint64(end))
        fits_N &= length_N <= np.uint64(end) - np.minimum(start_N, np.uint64(end))
        if not (fits_N | ~there_N).all():
            raise ValueError("its index points out of the file")
        return index_N2

    def _read_row(self, handle: int, row: int, out: NDArray[np.uint8]) -> None:
        assert self._index_N2 is not None
        start, length = (int(value) for value in self._index_N2[row])
        if start == length == int(_NO_CHUNK):
            raise ValueError(f"row {row} has no data")
        self._unpack(self._checked(_pread(handle, self._bounded(length), start)), out)

    def _bounded(self, packed_bytes: int) -> int:
        """``packed_bytes``, if a chunk can have so many."""
        least, most = self._bounds
        if not least <= packed_bytes <= most:
            raise ValueError(f"a chunk of {packed_bytes} bytes cannot hold {self.layout.chunk_bytes}")
        return packed_bytes

    def _checked(self, data: bytes) -> memoryview:
        """A packed chunk without its checksum."""
        if not self.layout.checked:
            return memoryview(data)
        if google_crc32c.value(data) != _CRC_RESIDUE:
            raise ValueError("a checksum does not fit")
        return memoryview(data)[:-CRC_BYTES]

    def _unpack(self, packed: memoryview, out: NDArray[np.uint8]) -> None:
        packing = self.layout.packing
        if not packing:
            out[:] = np.frombuffer(packed, np.uint8)
        elif packing == "blosc":
            _unpack_blosc(packed, out)
        elif packing == "zstd":
            _unpack_zstd(packed, out)
        else:
            _unpack_gzip(packed, out)


def open_direct(folder: str, document: bytes) -> DirectArray | None:
    """The array in ``folder``, whose ``zarr.json`` is ``document``; None where its layout is not read here. Raises
    likewise."""
    layout = layout_of(document)
    return None if layout is None else DirectArray(folder, layout)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """A descriptor of a file, for a moment: none is kept, so that neither their limit nor a fork matters."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _pread(handle: int, length: int, offset: int) -> bytes:
    data = os.pread(handle, length, offset)
    while len(data) < length:
        more = os.pread(handle, length - len(data), offset + len(data))
        if not more:
            raise ValueError(f"it is cut short: {len(data)} of {length} bytes are there from byte {offset} on")
        data += more
    return data


def _bytes_of(out: NDArray[Any]) -> NDArray[np.uint8]:
    return out.reshape(-1).view(np.uint8)


def _unpack_blosc(packed: memoryview, out: NDArray[np.uint8]) -> None:
    """The library believes a header's sizes, so they are compared with what is there."""
    claimed = int.from_bytes(packed[4:8], "little"), int.from_bytes(packed[12:16], "little")
    if len(packed) < 16 or claimed != (len(out), len(packed)):
        raise ValueError(f"a chunk's header claims {claimed}, not {(len(out), len(packed))} bytes")
    blosc.decompress(packed, out)  # in this thread alone: zarr tells numcodecs so


def _unpack_zstd(packed: memoryview, out: NDArray[np.uint8]) -> None:
    """The library fills less than the buffer where the header claims less, and reports nothing."""
    claimed = _zstd_content(bytes(packed[:18]))
    if claimed not in (None, len(out)):
        raise ValueError(f"a chunk's header claims {claimed}, not {len(out)} bytes")
    zstd.decompress(packed, out)


def _zstd_content(header: bytes) -> int | None:
    """Decoded bytes of a frame as its header has it; None where it does not say. RFC 8878, 3.1.1.1."""
    if len(header) < 6 or header[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("a chunk does not begin as zstd")
    flag, single = header[4] >> 6, header[4] >> 5 & 1
    start = 5 + (not single) + (0, 1, 2, 4)[header[4] & 3]
    count = (single, 2, 4, 8)[flag]
    field = int.from_bytes(header[start : start + count], "little") + (256 if count == 2 else 0)
    return field if count else None


def _unpack_gzip(packed: memoryview, out: NDArray[np.uint8]) -> None:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        data = unpacking.decompress(packed, len(out) + 1)
    except zlib.error as error:
        raise ValueError(f"a chunk cannot be unpacked: {error}") from error
    if len(data) != len(out) or not unpacking.eof or unpacking.unused_data:
        raise ValueError(f"a chunk does not unpack to {len(out)} bytes")
    out[:] = np.frombuffer(data, np.uint8)
