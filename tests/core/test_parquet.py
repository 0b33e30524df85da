"""Parquet is read without a Python object that Arrow's threads could release while the interpreter shuts down."""

import os
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import depthsieve
from depthsieve.core.parquet import native_file, open_parquet

TABLE = pa.table({"id": [str(number) for number in range(5000)], "row": range(5000)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def test_what_is_read_is_what_was_written(path: Path) -> None:
    assert open_parquet(path).read().equals(TABLE)
    assert open_parquet(path.read_bytes()).read().equals(TABLE)
    with native_file(path) as file:
        assert file.read_buffer(4).to_pybytes() == b"PAR1"
        file.seek(0)
        assert open_parquet(file, read_dictionary=["id"]).schema_arrow.field("id").type == pa.dictionary(
            pa.int32(), pa.string()
        )


def test_arrow_holds_no_bytes_of_python(path: Path) -> None:
    data = path.read_bytes()
    before = sys.getrefcount(data)
    file = open_parquet(data)
    table = file.read()
    assert sys.getrefcount(data) == before
    held = pa.BufferReader(data)
    assert sys.getrefcount(data) == before + 1  # this count does tell
    assert len(table) == 5000 and held.size() == len(data)


def test_a_path_that_is_not_utf_8_is_read_too(path: Path) -> None:
    odd = path.with_name(os.fsdecode(b"\xff.parquet"))
    path.rename(odd)
    assert open_parquet(odd).read().equals(TABLE)


def test_a_missing_file_is_an_oserror_and_another_file_an_arrow_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_parquet(tmp_path / "none")
    (tmp_path / "text").write_text("no Parquet")
    with pytest.raises(pa.ArrowException):
        open_parquet(tmp_path / "text")


def test_nothing_else_hands_arrow_an_open_file_or_bytes() -> None:
    package = Path(depthsieve.__file__).parent
    gives = re.compile(r"pa\.(BufferReader|PythonFile|py_buffer)\(|pq\.(ParquetFile|read_table)\((BytesIO|io\.|open\()")
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if gives.search(path.read_text())}
    assert found == {"core/parquet.py"}
