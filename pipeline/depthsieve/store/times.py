"""Times of files that were touched: known images whose time has changed, and whose content was compared and has not.

``times.parquet`` is derived and can be deleted at any time: then contents are compared again. Columns: ``id``, ``size``
and ``mtime_ns`` of the file, and the ``generation`` of the label whose content it has.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from depthsieve.core.parquet import open_parquet
from depthsieve.core.spill import BATCH_ROWS, SpillDatabase
from depthsieve.storage import Root
from depthsieve.storage.local import sync

NAME = "times.parquet"
SCHEMA = pa.schema([("id", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("generation", pa.int32())])


def read_times(root: Root) -> Iterator[pa.Table]:
    """What is known of touched files; nothing where there is no such file, or it cannot be read: it is derived."""
    try:
        with open_parquet(root.read(NAME) if root.path is None else root.path / NAME) as file:
            if file.schema_arrow.remove_metadata() == SCHEMA:
                for batch in file.iter_batches(BATCH_ROWS):
                    yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException):
        return


def add_times(root: Root, touched: Iterable[pa.Table], database: SpillDatabase, folder: Path) -> None:
    """Add to what is known of touched files; of an image that is in both, what is ``touched`` now counts.

    ``folder`` is one on a local disk. Raises :class:`OSError` where the store cannot be written.
    """
    database.create("times", SCHEMA.append(pa.field("now", pa.bool_())))
    for tables, now in ((read_times(root), False), (touched, True)):
        database.append("times", (table.append_column("now", pa.array([now] * len(table))) for table in tables))
    path = folder / NAME
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        newest = "SELECT DISTINCT ON (id) id, size, mtime_ns, generation FROM times ORDER BY id, now DESC"
        for table in database.read(newest):
            writer.write_table(table.cast(SCHEMA))
    if root.path is None:
        root.write(NAME, path.read_bytes())
    else:
        sync(path)
        path.replace(root.path / NAME)
