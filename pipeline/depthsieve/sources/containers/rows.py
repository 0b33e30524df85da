"""Images in the rows of a table, as Hugging Face datasets have them: in a column of bytes, or of a struct of ``bytes``
and ``path``, or of lists of either.

A table is read in groups of rows, and the last few groups are kept, up to :data:`KEPT_BYTES`. A place is the number of
a row; where a row has a list of images, the number of the image in it follows: ``00000012::0003``.
"""

import io
import itertools
import json
import threading
from abc import abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources.containers.protocol import Member, NoImages
from depthsieve.sources.protocol import UNKNOWN_SIZE, Passed

KEPT_BYTES = 1024**3
MAX_GROUP_BYTES = 2 * 1024**3
"""A group of rows with more bytes of images is refused: all of it would be held in memory for a single one of them."""
NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "images")
"""What a column of images may be called, the likeliest first, where nothing says which one it is."""

_MANIFEST = {"id", "size", "mtime_ns", "width", "height", "orientation"}
_SUBSET = {"id", "keep", "reason"}


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column of images: whether each row has a list of them, and whether an image is a struct with its bytes."""

    name: str
    is_list: bool
    in_struct: bool


class RowContainer:
    """A table with images. See :class:`~.protocol.Container`."""

    def __init__(self, schema: pa.Schema, rows_of_groups: Sequence[int], file_bytes: int) -> None:
        self._column = image_column(schema)
        self._starts = [0, *itertools.accumulate(rows_of_groups)]
        if min(rows_of_groups, default=0) < 0 or self._starts[-1] > file_bytes:
            raise ImageRejected(f"damaged: it declares {self._starts[-1]:,} rows and has {file_bytes:,} bytes")
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, Any] = OrderedDict()

    @abstractmethod
    def _load(self, group: int) -> Any:
        """The image column of a group, as an Arrow array. Raises :class:`ImageRejected` for one that is too large."""

    def _counts(self, group: int) -> list[int]:
        """How many images each row of a group has in its list."""
        lengths: list[int] = pc.fill_null(pc.list_value_length(self._group(group)), 0).to_pylist()
        return lengths

    def members(self, passed: Passed) -> Iterator[Member]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`. An image's size is known once it is read."""
        if not self._column.is_list:
            yield from (Member(f"{row:08d}", UNKNOWN_SIZE) for row in range(self._starts[-1]))
            return
        for group, start in enumerate(self._starts[:-1]):
            for row, count in enumerate(self._counts(group), start):
                passed.other += count == 0
                yield from (Member(f"{row:08d}::{number:04d}", UNKNOWN_SIZE) for number in range(count))

    def open(self, place: str) -> tuple[BinaryIO, int]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        data = self.read(place)
        return io.BytesIO(data), len(data)

    def read(self, place: str) -> bytes:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        row, number = self._numbers(place)
        group = bisect_right(self._starts, row) - 1
        value = self._group(group)[row - self._starts[group]]
        if number is not None:
            if not value.is_valid or number >= len(value):
                raise SourceError(f"row {row} of the table has no image {number}")
            value = value[number]
        if value.is_valid and self._column.in_struct:
            value = value["bytes"]
        data: bytes | None = value.as_py()
        if data is None:
            raise ImageRejected("the row holds no image bytes, at most the path of a file elsewhere")
        return data

    def _numbers(self, place: str) -> tuple[int, int | None]:
        """The row that a place names, and the image in its list."""
        row, inside, number = place.partition("::")
        is_right = bool(inside) == self._column.is_list and _is_number(row, 8) and (not inside or _is_number(number, 4))
        if not is_right or int(row) >= self._starts[-1]:
            raise SourceError(f"the table has no image {place!r}, of {self._starts[-1]:,} rows")
        return int(row), int(number) if inside else None

    def _group(self, number: int) -> Any:
        """The images of a group. One thread reads at a time; the others most often want the same one."""
        with self._lock:
            if number not in self._groups:
                self._groups[number] = self._load(number)
                while len(self._groups) > 1 and sum(one.nbytes for one in self._groups.values()) > KEPT_BYTES:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(number)
            return self._groups[number]


def check_group(size: int, what: str) -> None:
    """Raises :class:`ImageRejected` for a group of so many bytes, if that is too many."""
    if size > MAX_GROUP_BYTES:
        allowed = f"more than the {MAX_GROUP_BYTES:,} allowed: write the file with smaller ones"
        raise ImageRejected(f"its {what} has {size:,} bytes of images, {allowed}")


def image_column(schema: pa.Schema) -> ImageColumn:
    """The column that holds images.

    Raises :class:`NoImages` where there is none, :class:`ImageRejected` where it is not clear which one it is.
    """
    found = {field.name: column for field in schema if (column := _of_images(field)) is not None}
    told = [name for name in _told(schema) if name in found]
    named = [name for name in NAMES if name in found]
    chosen = told[:1] or named[:1] or [name for name, column in found.items() if not column.is_list]
    if not chosen:
        raise NoImages(_what_it_is(schema))
    if len(told) > 1 and "image" in told:
        chosen = ["image"]
    elif len(told) > 1 or len(chosen) > 1:
        listed = ", ".join(repr(name) for name in (told or chosen)[:5])
        raise ImageRejected(f"which column holds the images? Call it 'image' (there are: {listed})")
    return found[chosen[0]]


def _what_it_is(schema: pa.Schema) -> str:
    """What a table without images is, as far as its columns tell."""
    names = set(schema.names)
    if names >= _MANIFEST:
        return (
            "a manifest of `depthsieve scan` that has lost its metadata, which say where its sources lie: write it "
            "again with the metadata of its schema kept (pyarrow does)"
        )
    if names >= _SUBSET:
        return "a subset that `depthsieve curate` wrote, not images: name the source, or the store"
    listed = ", ".join(map(repr, schema.names[:6])) + (", ..." if len(schema.names) > 6 else "")
    return f"a table without a column of image bytes (it has {listed})"


def _of_images(field: pa.Field) -> ImageColumn | None:
    """A column that may be one of images."""
    kind, is_list = field.type, False
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, is_list = kind.value_type, True
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return ImageColumn(field.name, is_list, True) if at >= 0 and _is_bytes(kind.field(at).type) else None
    return ImageColumn(field.name, is_list, False) if _is_bytes(kind) else None


def _is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes, however they are stored."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _told(schema: pa.Schema) -> list[str]:
    """The columns that Hugging Face's own note in the file calls images, or lists of images."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name, feature in features.items() if _is_image(feature)]
    except (KeyError, ValueError, TypeError, AttributeError):
        return []


def _is_image(feature: Any) -> bool:
    if isinstance(feature, list):
        return len(feature) == 1 and _is_image(feature[0])
    return feature.get("_type") == "Image" or ("feature" in feature and _is_image(feature["feature"]))


def _is_number(text: str, digits: int) -> bool:
    return text.isdecimal() and text == f"{int(text):0{digits}d}"
