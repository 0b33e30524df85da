"""A CSV file of intrinsics: one row an image, the columns by their names in the first line."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from depthsieve.core.errors import SourceError
from depthsieve.core.records import Shape

NEEDED, OPTIONAL = ("image", "fx"), ("fy", "cx", "cy", "width", "height")
DELIMITERS = ",;\t"


@dataclass(frozen=True)
class TableRow:
    """One row: the ``line`` of the file that it ends in, the ``name`` of the image, ``fx``, and what else it says, None
    where it does not. ``shape`` is the (height, width) of the image that the numbers are for."""

    line: int
    name: str
    fx: float
    fy: float | None
    cx: float | None
    cy: float | None
    shape: Shape | None


@dataclass(frozen=True)
class Table:
    """The rows of a file, and the names of columns that are not used."""

    rows: tuple[TableRow, ...]
    unused: tuple[str, ...]


def read_table(path: Path) -> Table:
    """Read a file of cameras.

    Raises :class:`SourceError` with the file and the line of the first row that will not do, and how many there are.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start:,})") from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
    except csv.Error as error:
        raise SourceError(f"{path}, line 1: {error}") from error
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        wanted = f"{','.join(NEEDED)}[,{','.join(OPTIONAL)}]"
        raise SourceError(f"{path}, line 1: has no column {missing[0]!r}; the first line names the columns: {wanted}")
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise SourceError(f"{path}, line 1: has two columns {twice!r}")
    rows, bad = [], []
    by_name: dict[str, TableRow] = {}
    for line, found in _rows(reader, columns):
        if isinstance(found, str):
            bad.append(f"line {line}: {found}")
            continue
        before = by_name.setdefault(found.name, found)
        if before is not found:
            if _values(before) != _values(found):
                bad.append(f"line {line}: another camera for {found.name!r} than line {before.line} has")
            continue
        rows.append(found)
    if bad:
        more = f" (and {len(bad) - 1:,} more bad rows)" if len(bad) > 1 else ""
        raise SourceError(f"{path}, {bad[0]}{more}")
    if not rows:
        raise SourceError(f"{path} has no row below its first line")
    return Table(tuple(rows), tuple(name for name in columns if name not in (*NEEDED, *OPTIONAL)))


def _values(row: TableRow) -> tuple[object, ...]:
    return row.fx, row.fy, row.cx, row.cy, row.shape


def _rows(reader: "Iterator[list[str]]", columns: list[str]) -> Iterator[tuple[int, TableRow | str]]:
    """Each row with the line that it ends in, or what is wrong with it."""
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield reader.line_num, str(error)  # type: ignore[attr-defined]
            return
        if cells is None:
            return
        line: int = reader.line_num  # type: ignore[attr-defined]
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            yield line, f"has {len(cells)} cells, and the first line names {len(columns)} columns"
            continue
        yield line, _row(line, dict(zip(columns, (cell.strip() for cell in cells), strict=True)))


def _row(line: int, cells: dict[str, str]) -> TableRow | str:
    if not cells["image"]:
        return "has no image"
    values: dict[str, float] = {}
    for name in ("fx", *OPTIONAL):
        text = cells.get(name, "")
        if not text and name != "fx":
            continue
        try:
            values[name] = float(text)
        except ValueError:
            return f"{name} is {text!r}, not a number" if text else f"has no {name}"
        over_zero = name in ("fx", "fy", "width", "height")
        if not math.isfinite(values[name]) or (over_zero and values[name] <= 0):
            return f"{name} is {text}, not a number of pixels" + (" over 0" if over_zero else "")
    if ("cx" in values) != ("cy" in values):
        return "has one of cx and cy, and needs both or none"
    if ("width" in values) != ("height" in values):
        return "has one of width and height, and needs both or none"
    shape = (int(values["height"]), int(values["width"])) if "width" in values else None
    if shape and shape != (values["height"], values["width"]):
        return f"its size {values['width']:g} x {values['height']:g} is not whole"
    return TableRow(line, cells["image"], values["fx"], values.get("fy"), values.get("cx"), values.get("cy"), shape)
