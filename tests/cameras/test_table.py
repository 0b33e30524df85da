"""A CSV file of cameras, as people write it; what will not do is named with its line."""

from pathlib import Path

import pytest

from depthsieve.cameras.table import TableRow, read_table
from depthsieve.core.errors import SourceError

GOOD = TableRow(2, "a.jpg", 1000.0, None, None, None, None)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("image,fx\na.jpg,1000\n", GOOD),
        ("\ufeffimage;fx\r\na.jpg;1e3\r\n", GOOD),
        ("FX\timage\n1000\ta.jpg", GOOD),
        ("image,fx,fy,cx,cy,width,height\na.jpg,1000,,,,,\n\n", GOOD),
        (
            'image,fx,fy,cx,cy,width,height\n"a, b/\u00e9.jpg", 1000 ,1001,-0.5,250.5,800,600',
            TableRow(2, "a, b/\u00e9.jpg", 1000.0, 1001.0, -0.5, 250.5, (600, 800)),
        ),
    ],
)
def test_a_row_says_what_it_says(tmp_path: Path, text: str, row: TableRow) -> None:
    (tmp_path / "c.csv").write_bytes(text.encode())
    assert read_table(tmp_path / "c.csv").rows == (row,)


def test_columns_that_are_not_used_are_told(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("image,k1,fx,make\na.jpg,0.1,10,ACME\na.jpg,0.2,10,ACME\n")
    table = read_table(tmp_path / "c.csv")
    assert table.unused == ("k1", "make")
    assert [row.line for row in table.rows] == [2], "the same camera twice is one"


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("a.jpg,0", "line 2: fx is 0, not a number of pixels over 0"),
        ("a.jpg,nan", "line 2: fx is nan, not a number of pixels over 0"),
        ("a.jpg,1000 px", "line 2: fx is '1000 px', not a number"),
        ("a.jpg,", "line 2: has no fx"),
        (",10", "line 2: has no image"),
        ("a.jpg,10\nb.jpg,10,20", "line 3: has 3 cells, and the first line names 2 columns"),
        ("a.jpg,10\na.jpg,11", "line 3: another camera for 'a.jpg' than line 2 has"),
        ("a.jpg,-1\nb.jpg,-1", r"line 2: fx is -1, not a number of pixels over 0 \(and 1 more bad rows\)"),
        ('"a\nb.jpg",x', "line 3: fx is 'x', not a number"),
        ('a.jpg,10\n"b.jpg', "line 3: unexpected end of data"),
        ("", "has no row below its first line"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, rows: str, fault: str) -> None:
    (tmp_path / "c.csv").write_text(f"image,fx\n{rows}\n" if rows else "image,fx\n")
    with pytest.raises(SourceError, match=rf"^{tmp_path}/c\.csv(,)? {fault}$"):
        read_table(tmp_path / "c.csv")


@pytest.mark.parametrize(
    ("columns", "cells", "fault"),
    [
        ("cx", "1", "has one of cx and cy, and needs both or none"),
        ("width", "1", "has one of width and height, and needs both or none"),
        ("width,height", "800.5,600", "its size 800.5 x 600 is not whole"),
    ],
)
def test_halves_of_a_pair_are_refused(tmp_path: Path, columns: str, cells: str, fault: str) -> None:
    (tmp_path / "c.csv").write_text(f"image,fx,{columns}\na.jpg,10,{cells}\n")
    with pytest.raises(SourceError, match=f"line 2: {fault}"):
        read_table(tmp_path / "c.csv")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "line 1: has no column 'image'"),
        (b"name,focal\na,1\n", "line 1: has no column 'image'; the first line names the columns: image,fx"),
        (b"image,fx,FX\na,1,1\n", "line 1: has two columns 'fx'"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, data: bytes, fault: str) -> None:
    (tmp_path / "c.csv").write_bytes(data)
    with pytest.raises(SourceError, match=fault):
        read_table(tmp_path / "c.csv")
    with pytest.raises(SourceError, match=r"cannot read .*: no such file"):
        read_table(tmp_path / "none.csv")
