"""Images in an Arrow file (stream or file format), as Hugging Face's ``save_to_disk`` writes; see :mod:`.rows`.

A group is a record batch. Where each lies is read from the heads of the messages, whose bodies are skipped
(https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format); nothing is mapped into memory, where
a file that is cut short ends the process.
"""

import struct
from typing import Any

import pyarrow as pa

from depthsieve.core.errors import ImageRejected
from depthsieve.core.parquet import native_file
from depthsieve.sources.containers.protocol import Descriptor
from depthsieve.sources.containers.rows import RowContainer, check_group

MAX_HEAD_BYTES = 16 * 1024**2
_FILE_MAGIC = b"ARROW1\0\0"
_MARK = 0xFFFFFFFF
_DICTIONARY, _BATCH = 2, 3  # kinds of messages, beside the schema


class ArrowContainer(RowContainer):
    """An Arrow file."""

    def __init__(self, path: bytes) -> None:
        self._file = Descriptor(path)
        self._places: list[tuple[int, int]] = []
        rows = []
        at = len(_FILE_MAGIC) if self._file.at(0, len(_FILE_MAGIC)) == _FILE_MAGIC else 0
        first, first_length = at, 0
        while (head := _head(self._file, at)) is not None:
            kind, count, length = head
            if kind == _DICTIONARY:
                raise ImageRejected("an Arrow file with dictionaries, which is not read: write it as Parquet")
            if kind == _BATCH:
                self._places.append((at, length))
                rows.append(count)
            at += length
            first_length = first_length or length
        try:
            message = pa.ipc.read_message(native_file(self._file.at(first, first_length)))
            self._schema = pa.ipc.read_schema(message)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise ImageRejected("damaged or no Arrow file") from error
        super().__init__(self._schema, rows, self._file.size)

    def _load(self, group: int) -> Any:
        at, length = self._places[group]
        check_group(length, "record batch")
        try:
            message = pa.ipc.read_message(native_file(self._file.at(at, length)))
            batch = pa.ipc.read_record_batch(message, self._schema)
            column = batch.column(batch.schema.get_field_index(self._column.name))
            column.validate(full=True)  # offsets that lead out of the file are read as they are otherwise
        except (pa.ArrowException, OSError, EOFError) as error:
            raise ImageRejected("its record batch is damaged and cannot be read") from error
        return column


def _head(file: Descriptor, at: int) -> tuple[int, int, int] | None:
    """Of the message at an offset its kind, rows (of a batch) and bytes in all; None behind the last one."""
    prefix = file.at(at, 8)
    mark, size = struct.unpack("<II", prefix) if len(prefix) == 8 else (0, 0)
    if mark != _MARK or not 0 < size <= MAX_HEAD_BYTES:
        if at == 0 or (prefix and size):
            raise ImageRejected("damaged or no Arrow file")
        return None
    flat = file.at(at + 8, size)
    message = struct.unpack_from("<I", flat)[0]
    kind = struct.unpack_from("<B", flat, _field(flat, message, 1))[0]
    body = struct.unpack_from("<q", flat, place)[0] if (place := _field(flat, message, 3)) else 0
    rows = 0
    if kind == _BATCH:
        header = _field(flat, message, 2)
        header += struct.unpack_from("<I", flat, header)[0]
        rows = struct.unpack_from("<q", flat, place)[0] if (place := _field(flat, header, 0)) else 0
    if body < 0 or at + 8 + size + body > file.size:
        raise ImageRejected("the Arrow file ends early, or is damaged")
    return kind, rows, 8 + size + body


def _field(flat: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies; 0 where it is left out (https://flatbuffers.dev/internals/)."""
    names = table - struct.unpack_from("<i", flat, table)[0]
    end = struct.unpack_from("<H", flat, names)[0]
    offset = struct.unpack_from("<H", flat, names + 4 + 2 * number)[0] if 4 + 2 * number < end else 0
    return table + offset if offset else 0
