"""Open Parquet so that a script may end at any moment.

Arrow decodes columns in threads of its own, and such a thread lets go of its input a moment after the caller has the
table. Where that input is a Python object (an open file, ``bytes``), letting go needs the interpreter's lock; a thread
that asks for it while the interpreter shuts down ends the process with "terminate called without an active exception",
exit code 134. So Arrow is only ever given files and memory of its own.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def native_file(place: Path | bytes) -> pa.NativeFile:
    """A file, or a copy of ``bytes``, that Arrow's threads read and release without Python.

    Raises :class:`OSError` where the file cannot be opened.
    """
    if isinstance(place, Path):
        try:
            return pa.OSFile(str(place))
        except UnicodeEncodeError:  # a folder whose name is not UTF-8
            place = place.read_bytes()
    copied = pa.allocate_buffer(len(place))
    with pa.FixedSizeBufferWriter(copied) as writer:
        writer.write(place)
    return pa.BufferReader(copied)


def open_parquet(place: Path | bytes | pa.NativeFile, **options: Any) -> pq.ParquetFile:
    """The Parquet file there; a native file is the caller's to close. ``options`` are those of ``ParquetFile``.

    Raises :class:`OSError` where it cannot be read, and :class:`pyarrow.ArrowException` for what is no Parquet file.
    """
    return pq.ParquetFile(place if isinstance(place, pa.NativeFile) else native_file(place), **options)
