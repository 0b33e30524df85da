"""Tables that are larger than memory: a DuckDB database in a folder of its own, bounded in memory."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from depthsieve.core.errors import RunError
from depthsieve.core.parquet import open_parquet
from depthsieve.core.processes import cores

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "1500MB"
"""What DuckDB may keep in memory; the rest of what it holds lies in its folder."""

THREADS = 4
"""At most so many sort: each wants memory of its own."""

BATCH_ROWS = 1 << 17
"""Rows that are handed over at a time."""


_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint64(): "UBIGINT",
    pa.float64(): "DOUBLE",
    pa.float32(): "FLOAT",
    pa.list_(pa.string()): "VARCHAR[]",
    pa.list_(pa.int32()): "INTEGER[]",
}


def read_parquet(file: Path) -> Iterator[pa.Table]:
    """The rows of a Parquet file, some at a time."""
    with open_parquet(file) as opened:
        for batch in opened.iter_batches(BATCH_ROWS):
            yield pa.Table.from_batches([batch])


class SpillDatabase:
    """A database in ``folder``, which is made, and is the caller's to remove. Close it at the end.

    Every method raises :class:`RunError` where the folder's disk is full or cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        import duckdb  # heavy, and only planning and the index need it

        self._folder = folder
        with self._named():
            folder.mkdir(parents=True, exist_ok=True)
            self._connection: DuckDBPyConnection = duckdb.connect(
                folder / "spill.duckdb",
                config={
                    "memory_limit": MEMORY,
                    "threads": min(THREADS, cores()),
                    "temp_directory": str(folder / "spill"),
                    "preserve_insertion_order": False,  # every order that counts is asked for
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                },
            )
            with contextlib.suppress(duckdb.InvalidInputException):  # in a notebook without ipywidgets there is none
                self._connection.execute("SET enable_progress_bar = false")  # it would go to stdout, into --json

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except (duckdb.Error, OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            advice = "make room there, and run the same command again to resume"
            raise RunError(f"cannot sort images in {self._folder}: {reason}; {advice}") from error

    def run(self, sql: str) -> None:
        """Execute a statement."""
        with self._named():
            self._connection.execute(sql)

    def create(self, table: str, columns: pa.Schema, **defaults: str) -> None:
        """Create an empty table; ``defaults`` are SQL values of columns that rows may be inserted without."""
        given = {name: f" DEFAULT {value}" for name, value in defaults.items()}
        listed = ", ".join(f"{one.name} {_SQL_TYPES[one.type]}{given.get(one.name, '')}" for one in columns)
        self.run(f"CREATE TABLE {table} ({listed})")

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table; columns go by name."""
        if not len(rows):
            return
        with self._named():
            self._connection.register("appended", rows)
            self._connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM appended")
            self._connection.unregister("appended")

    def append(self, table: str, many: Iterable[pa.Table]) -> None:
        """Append many rows to a table. What ``many`` raises passes through.

        Each insertion is its own transaction: what one has not committed yet stays in memory.
        """
        for rows in many:
            self.insert(table, rows)

    def read(self, sql: str) -> Iterator[pa.Table]:
        """The rows of a query, some at a time, in its order. Text is ordered by its UTF-8 bytes: by code points."""
        with self._named():
            batches = iter(self._connection.sql(sql).to_arrow_reader(BATCH_ROWS))
        while True:
            with self._named():
                batch = next(batches, None)
            if batch is None:
                return
            yield pa.Table.from_batches([batch])

    def all(self, sql: str) -> pa.Table:
        """The rows of a query, at once."""
        with self._named():
            return self._connection.sql(sql).to_arrow_table()


@contextlib.contextmanager
def spill_database(folder: Path) -> Iterator[SpillDatabase]:
    """A database in ``folder`` that is closed at the end."""
    database = SpillDatabase(folder)
    try:
        yield database
    finally:
        database.close()
