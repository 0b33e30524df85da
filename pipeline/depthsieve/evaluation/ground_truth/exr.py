"""A channel of an OpenEXR image in the bytes of a file: one part of scan lines, without compression or with ZIP.

Read here (https://openexr.com/en/latest/OpenEXRFileLayout.html), so that no package is needed, and since input is
hostile: what a file declares is checked before anything is allocated. Axes: H row, W column.
"""

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import GroundTruthError
from depthsieve.evaluation.ground_truth.readers import one_map
from depthsieve.images.headers import MAX_PIXELS

_MAGIC, _LONG_NAMES = 20000630, 0x400
_TYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
_COMPRESSIONS = ("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB", "HTJ2K")
_LINES = {"none": 1, "ZIPS": 1, "ZIP": 16}
"""Lines of a block, of the compressions that are read."""

_DEPTH = ("Z", "Y")
"""What channels of depth are called where nobody says."""


@dataclass(frozen=True)
class _Head:
    """What a file declares: ``top`` is the number of its first line, ``at`` where its table of blocks begins."""

    size: tuple[int, int]
    top: int
    compression: str
    channels: dict[str, np.dtype[Any]]
    at: int


def read_exr(data: bytes, scale: float | None, dataset: str | None) -> NDArray[Any]:
    """The channel ``dataset``; without one that called Z, else Y, or the only one. Raises :class:`GroundTruthError`."""
    try:
        head = _head(data)
        name = _chosen(list(head.channels), dataset)
        size = one_map(head.size, head.channels[name], scale)
        if head.compression not in _LINES:
            raise GroundTruthError(
                f"an OpenEXR file compressed with {head.compression}; those without compression or with ZIP are read: "
                "write it so, or convert it to .npy"
            )
        return _values(data, head, name).reshape(size)
    except GroundTruthError:
        raise
    except (struct.error, IndexError, OverflowError, ValueError, zlib.error) as error:
        raise GroundTruthError("truncated or damaged OpenEXR file") from error


def _chosen(names: list[str], dataset: str | None) -> str:
    """The channel to read; IndexError where there is none."""
    if dataset is not None:
        if dataset not in names:
            raise GroundTruthError(f"it has no channel {dataset!r}")
        return dataset
    found = [name for name in _DEPTH if name in names] or names
    if found[0] in _DEPTH or len(found) == 1:
        return found[0]
    listed = ", ".join(repr(name) for name in names[:8]) or "none"
    raise GroundTruthError(f"which channel holds the depth? Name it with --dataset (there are: {listed})")


def _head(data: bytes) -> _Head:
    magic, version = struct.unpack_from("<iI", data)
    if magic != _MAGIC:
        raise GroundTruthError("it is not an OpenEXR file")
    if version & 0xFF != 2 or version & ~(0xFF | _LONG_NAMES):
        raise GroundTruthError("an OpenEXR file in tiles, of several parts or deep; one part of scan lines is read")
    attributes: dict[str, bytes] = {}
    at = 8
    while data[at]:
        name, at = _text(data, at)
        _, at = _text(data, at)
        (count,) = struct.unpack_from("<i", data, at)
        if not 0 <= count <= len(data) - at - 4:
            raise ValueError(count)
        attributes[name] = data[at + 4 : at + 4 + count]
        at += 4 + count
    if not {"channels", "compression", "dataWindow"} <= attributes.keys():
        raise ValueError(list(attributes))
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
    number = attributes["compression"][0]
    compression = _COMPRESSIONS[number] if number < len(_COMPRESSIONS) else f"number {number}"
    return _Head((bottom - top + 1, right - left + 1), top, compression, _channels(attributes["channels"]), at + 1)


def _channels(listed: bytes) -> dict[str, np.dtype[Any]]:
    """The type of each channel, in the order of the file."""
    found: dict[str, np.dtype[Any]] = {}
    at = 0
    while listed[at]:
        name, at = _text(listed, at)
        kind, columns, rows = struct.unpack_from("<i4xii", listed, at)
        if kind not in _TYPES or (columns, rows) != (1, 1):
            raise GroundTruthError(f"its channel {name!r} is subsampled, or of a type that there is not")
        found[name] = _TYPES[kind]
        at += 16
    return found


def _text(data: bytes, at: int) -> tuple[str, int]:
    """A text that ends with 0, and what is behind it."""
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _values(data: bytes, head: _Head, name: str) -> NDArray[Any]:
    height, width = head.size
    lines = _LINES[head.compression]
    line = np.dtype({"names": list(head.channels), "formats": [(one, (width,)) for one in head.channels.values()]})
    if height * line.itemsize > 16 * MAX_PIXELS:
        raise GroundTruthError("its channels have more bytes than a depth map may have")
    values_HW = np.empty((height, width), head.channels[name])
    offsets = struct.unpack_from(f"<{math.ceil(height / lines)}Q", data, head.at)
    if len(set(offsets)) < len(offsets):
        raise ValueError(offsets[0])
    for offset in offsets:
        first, count = struct.unpack_from("<ii", data, offset)
        row = first - head.top
        rows = min(lines, height - row)
        packed = memoryview(data)[offset + 8 : offset + 8 + count]
        if row < 0 or row % lines or rows < 1 or count != len(packed):
            raise ValueError(first)
        raw = packed if count == rows * line.itemsize else _unpacked(packed, rows * line.itemsize)
        values_HW[row : row + rows] = np.frombuffer(raw, line, rows)[name]
    return values_HW


def _unpacked(packed: memoryview, size: int) -> bytes:
    """A block by the rules of ZIP: bytes at even places first, each as the difference to the one before."""
    data = zlib.decompressobj().decompress(packed, size)
    if len(data) != size:
        raise ValueError(len(data))
    steps = np.frombuffer(data, np.uint8).copy()
    steps[1:] -= np.uint8(128)
    halves = np.cumsum(steps, dtype=np.uint8)
    raw = np.empty(size, np.uint8)
    raw[::2], raw[1::2] = halves[: (size + 1) // 2], halves[(size + 1) // 2 :]
    return raw.tobytes()
