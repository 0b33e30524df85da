"""Images in a Parquet file with their bytes, as Hugging Face datasets have them: a column of bytes, or of a struct of
``bytes`` and ``path``. A row is an image.

Rows are read by the row group, and the last few groups are kept, up to :data:`KEPT_BYTES`.
"""

import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources.containers.protocol import Member, NoImages
from depthsieve.sources.protocol import UNKNOWN_SIZE, Passed

KEPT_BYTES = 1024**3
MAX_GROUP_BYTES = 2 * 1024**3
"""A row group with more bytes of images is refused: it would have to be held in memory for a single one of them."""
NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
"""What a column of images may be called, the likeliest first, where nothing says which one it is."""


class ParquetContainer:
    """A Parquet file. See :class:`~.protocol.Container`; a place is the number of a row."""

    def __init__(self, path: bytes) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, Any] = OrderedDict()
        try:
            self._file = pq.ParquetFile(pa.OSFile(os.fsdecode(path)), pre_buffer=False)
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise ImageRejected("damaged or no Parquet file") from error
        self._column, self._leaf = _image_column(schema)
        metadata = self._file.metadata
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)

    def members(self, passed: Passed) -> Iterator[Member]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`. A row's size is known once it is read."""
        for row in range(self._starts[-1]):
            yield Member(f"{row:08d}", UNKNOWN_SIZE)

    def open(self, place: str) -> tuple[BinaryIO, int]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        data = self.read(place)
        return io.BytesIO(data), len(data)

    def read(self, place: str) -> bytes:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        if not (place.isdecimal() and place == f"{int(place):08d}" and int(place) < self._starts[-1]):
            raise SourceError(f"the Parquet file has no row {place!r}, of {self._starts[-1]:,}")
        row = int(place)
        group = next(number for number, end in enumerate(self._starts[1:]) if row < end)
        value = self._group(group)[row - self._starts[group]]
        if value.is_valid and self._leaf is not None:
            value = value["bytes"]
        data: bytes | None = value.as_py()
        if data is None:
            raise ImageRejected("the row holds no image bytes, at most the path of a file elsewhere")
        return data

    def _group(self, number: int) -> Any:
        """The images of a row group. One thread reads at a time; the others most often want the same one."""
        with self._lock:
            if number not in self._groups:
                columns = [one for one in self._chunks(number) if one.path_in_schema.split(".")[0] == self._column]
                size = sum(one.total_uncompressed_size for one in columns)
                if size > MAX_GROUP_BYTES:
                    allowed = f"more than the {MAX_GROUP_BYTES:,} allowed: write the file with smaller row groups"
                    raise ImageRejected(f"its row group has {size:,} bytes of images, {allowed}")
                try:
                    table = self._file.read_row_group(number, columns=[self._leaf or self._column], use_threads=False)
                except (pa.ArrowException, OSError) as error:
                    raise ImageRejected("its row group is damaged and cannot be read") from error
                self._groups[number] = table.column(0)
                while len(self._groups) > 1 and sum(one.nbytes for one in self._groups.values()) > KEPT_BYTES:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(number)
            return self._groups[number]

    def _chunks(self, number: int) -> Iterator[Any]:
        group = self._file.metadata.row_group(number)
        return (group.column(index) for index in range(group.num_columns))


def _image_column(schema: pa.Schema) -> tuple[str, str | None]:
    """The column that holds images, and within a struct the path of its bytes.

    Raises :class:`NoImages` where there is none, :class:`ImageRejected` where it is not clear which one it is.
    """
    found = {field.name: _leaf(field) for field in schema if _leaf(field) is not None}
    told = [name for name in _told(schema) if name in found]
    named = [name for name in NAMES if name in found]
    chosen = told[:1] or named[:1] or list(found)
    if not chosen:
        raise NoImages
    if len(told) > 1 and "image" in told:
        chosen = ["image"]
    elif len(told) > 1 or len(chosen) > 1:
        listed = ", ".join(repr(name) for name in (told or chosen)[:5])
        raise ImageRejected(f"which column holds the images? Call it 'image' (there are: {listed})")
    return chosen[0], found[chosen[0]] or None


def _leaf(field: pa.Field) -> str | None:
    """The path of a struct's bytes, "" for a column of bytes, None for another column."""
    if pa.types.is_struct(field.type):
        at = field.type.get_field_index("bytes")
        return f"{field.name}.bytes" if at >= 0 and _is_bytes(field.type.field(at).type) else None
    return "" if _is_bytes(field.type) else None


def _is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes, however they are stored."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _told(schema: pa.Schema) -> list[str]:
    """The columns that Hugging Face's own note in the file calls images."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name, feature in features.items() if feature.get("_type") == "Image"]
    except (KeyError, ValueError, TypeError, AttributeError):
        return []
