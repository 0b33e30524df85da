"""Images in a Parquet file; see :mod:`.rows`. A group is a row group of the file."""

import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthsieve.core.errors import ImageRejected
from depthsieve.sources.containers.rows import RowContainer, check_group


class ParquetContainer(RowContainer):
    """A Parquet file."""

    def __init__(self, path: bytes) -> None:
        try:
            file = pa.OSFile(os.fsdecode(path))
            self._file = pq.ParquetFile(file, pre_buffer=False)
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise ImageRejected("damaged or no Parquet file") from error
        metadata = self._file.metadata
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        super().__init__(schema, rows, file.size())

    def _load(self, group: int) -> Any:
        leaves = list(self._leaves(group))
        check_group(sum(leaf.total_uncompressed_size for leaf in leaves), "row group")
        return self._read(group, [leaf.path_in_schema for leaf in leaves if self._ends(leaf, "bytes")])

    def _counts(self, group: int) -> list[int]:
        """The paths beside the bytes tell as well how long the lists are, and are small."""
        paths = [leaf.path_in_schema for leaf in self._leaves(group) if self._ends(leaf, "path")]
        if not (self._column.in_struct and paths):
            return super()._counts(group)
        lengths: list[int] = pc.fill_null(pc.list_value_length(self._read(group, paths)), 0).to_pylist()
        return lengths

    def _read(self, group: int, leaves: list[str]) -> Any:
        try:
            return self._file.read_row_group(group, columns=leaves, use_threads=False).column(0)
        except (pa.ArrowException, OSError) as error:
            raise ImageRejected("its row group is damaged and cannot be read") from error

    def _leaves(self, number: int) -> Iterator[Any]:
        """What the file keeps of the column of images."""
        group = self._file.metadata.row_group(number)
        columns = (group.column(index) for index in range(group.num_columns))
        return (one for one in columns if one.path_in_schema.split(".")[0] == self._column.name)

    def _ends(self, leaf: Any, name: str) -> bool:
        return not self._column.in_struct or str(leaf.path_in_schema).endswith(f".{name}")
