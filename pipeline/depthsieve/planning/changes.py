"""Which images have changed on the disk indeed: files whose size is as it was are compared by their content."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.progress import progress_bar
from depthsieve.core.records import ImageRecord, RejectedImage
from depthsieve.core.spill import SpillDatabase, read_parquet, spill_database
from depthsieve.core.tables import CHANGED, IMAGES_SCHEMA, OTHER_CONTENT, PLAN_SCHEMA, REJECTED_SCHEMA, REMOVED_SCHEMA
from depthsieve.sources import Listed, Source
from depthsieve.sources.scan import Scan
from depthsieve.store import Store
from depthsieve.store.index import stream_index
from depthsieve.store.times import SCHEMA as TIMES_SCHEMA
from depthsieve.store.times import add_times

AT_A_TIME = 1 << 12
"""Files whose contents are compared before what came of it is written."""

_TOUCHED = "touched.parquet"
_CHANGED = ["id", "size", "mtime_ns"]
_LABELLED = pa.schema([*TIMES_SCHEMA, *map(PLAN_SCHEMA.field, ("shard", "row"))])
_FOUND = {
    "images": pa.schema([*IMAGES_SCHEMA, CHANGED, OTHER_CONTENT]),
    "rejected": pa.schema([*REJECTED_SCHEMA, CHANGED, OTHER_CONTENT]),
}
_JOINED = """
CREATE TABLE compared AS
SELECT labelled.id, shard, row, generation, labelled.size, coalesce(changed.mtime_ns, labelled.mtime_ns) AS mtime_ns,
    changed.id IS NOT NULL AS listed
FROM labelled LEFT JOIN changed USING (id)
WHERE changed.size = labelled.size"""
_NOT_LISTED = "(changed.id IS NULL AND labelled.id NOT IN (SELECT id FROM others))"
_COMPARED = "SELECT * FROM compared ORDER BY shard, row"


@dataclass(frozen=True, slots=True)
class _Compared:
    """One file beside its label: the ``content`` that was labelled, and what the scan says of it (``listed``)."""

    id: str
    size: int
    mtime_ns: int
    generation: int
    content: str
    listed: bool


def compare_contents(scan: Scan, store: Store, sources: Sequence[Source], everything: bool, progress: bool) -> None:
    """Take out of a scan's images those that count as changed for another time alone, and whose content is the one
    that was labelled; they count as known.

    With ``everything`` all labelled images of the sources are compared, and those of another content join the scan's
    images, as changed, or its rejects. What cannot be read is left as the scan found it. Memory does not grow with the
    number of images.
    """
    if not (scan.tally.changed or everything):
        return
    folder = scan.folder / "contents"
    by_name = {source.name: source for source in sources}
    with contextlib.ExitStack() as stack:
        # Two, since rows of one are read while rows are added to the other.
        joined, found = (stack.enter_context(spill_database(folder / name)) for name in ("joined", "found"))
        total = _join(joined, scan, store, list(by_name), everything)
        for name, whole in _FOUND.items():
            found.create(name, whole)
        found.create("same", REMOVED_SCHEMA)
        found.append("images", scan.images())
        found.append("rejected", scan.rejected())
        pool = stack.enter_context(ThreadPoolExecutor(max(source.at_once for source in sources)))
        touched = stack.enter_context(pq.ParquetWriter(scan.folder / _TOUCHED, TIMES_SCHEMA))
        bar = stack.enter_context(progress_bar("compare", unit="files", total=total, shown=progress))
        for some in _some(_beside_labels(store, joined.read(_COMPARED))):
            is_same = list(pool.map(lambda one: _same(by_name, one), some))
            same = [one for one, equal in zip(some, is_same, strict=True) if equal and one.listed]
            found.insert("same", _table(same, TIMES_SCHEMA).select(["id"]))
            touched.write_table(_table(same, TIMES_SCHEMA))
            differ = [one for one, equal in zip(some, is_same, strict=True) if equal is False and not one.listed]
            looked = list(pool.map(lambda one: _look(by_name, one), differ))
            for name, kind in (("images", ImageRecord), ("rejected", RejectedImage)):
                rows = [
                    dataclasses.asdict(one) | {CHANGED.name: True, OTHER_CONTENT.name: True}
                    for one in looked
                    if isinstance(one, kind)
                ]
                if rows:
                    found.insert(name, pa.Table.from_pylist(rows))
            scan.tally.known += len(same) - len(differ)
            scan.tally.changed += len(differ) - len(same)
            bar.update(len(some))
        _write_anew(scan, found)


def _join(joined: SpillDatabase, scan: Scan, store: Store, names: Sequence[str], everything: bool) -> int:
    """Make the table of files to compare; returns how many there are."""
    joined.create("labelled", _LABELLED)
    joined.create("others", REMOVED_SCHEMA)
    joined.create("changed", pa.schema(list(map(PLAN_SCHEMA.field, _CHANGED))))
    with spill_database(scan.folder / "contents" / "index") as sorting:
        joined.append("labelled", _labelled(stream_index(store, sorting, features=False), names))
    for table in scan.images():
        joined.insert("changed", table.filter(table[CHANGED.name]).select(_CHANGED))
    for table in itertools.chain(scan.rejected(), scan.gone(), _pending(store)):
        joined.insert("others", table.select(["id"]))
    joined.run(_JOINED + (f" OR {_NOT_LISTED}" if everything else ""))
    return int(joined.all("SELECT count(*) AS files FROM compared")["files"][0].as_py())


def keep_times(scan: Scan, store: Store, folder: Path) -> None:
    """Let the store know the times of files that were touched, so that the next scan need not compare them."""
    path = scan.folder / _TOUCHED
    if path.exists() and pq.read_metadata(path).num_rows:
        with spill_database(folder) as database:
            add_times(store.root, read_parquet(path), database, folder)


def _labelled(index: Iterable[pa.Table], names: Sequence[str]) -> Iterator[pa.Table]:
    for table in index:
        mine = [pc.starts_with(table["id"], f"{name}/") for name in names]
        labelled = pc.equal(table["status"], "labelled")
        yield table.filter(pc.and_(labelled, functools.reduce(pc.or_, mine))).select(_LABELLED.names)


def _pending(store: Store) -> Iterator[pa.Table]:
    """Ids of images that will be labelled anyway."""
    left = pa.array(store.pending(), pa.string())
    for generation in store.generations() if len(left) else ():
        for table in store.read_plan(generation, ["id", "shard"]):
            yield table.filter(pc.is_in(table["shard"], value_set=left))


def _beside_labels(store: Store, tables: Iterable[pa.Table]) -> Iterator[_Compared]:
    """The files with the digest of the content that was labelled; each shard's digests are read once."""
    shard, contents = "", None
    for table in tables:
        for row in table.to_pylist():
            if row["shard"] != shard or contents is None:
                shard, contents = row["shard"], store.reader(row["shard"]).column("content_sha256")
            content = str(contents[row["row"]])
            yield _Compared(row["id"], row["size"], row["mtime_ns"], row["generation"], content, row["listed"])


def _some(files: Iterator[_Compared]) -> Iterator[list[_Compared]]:
    return iter(lambda: list(itertools.islice(files, AT_A_TIME)), [])


def _same(sources: Mapping[str, Source], one: _Compared) -> bool | None:
    """Whether the file has the content that was labelled; None where it cannot be read."""
    try:
        return hashlib.sha256(sources[one.id.partition("/")[0]].read(one.id)).hexdigest() == one.content
    except (OSError, SourceError, ImageRejected):
        return None


def _look(sources: Mapping[str, Source], one: _Compared) -> ImageRecord | RejectedImage:
    return sources[one.id.partition("/")[0]].look(Listed(one.id, one.size, one.mtime_ns))


def _write_anew(scan: Scan, found: SpillDatabase) -> None:
    """Write the scan's tables anew, and count."""
    for name, whole in _FOUND.items():
        columns, count = ", ".join(whole.names), 0
        with pq.ParquetWriter(scan.folder / "anew.parquet", whole) as writer:
            for table in found.read(f"SELECT {columns} FROM {name} WHERE id NOT IN (SELECT id FROM same) ORDER BY id"):
                writer.write_table(table.cast(whole))
                count += len(table)
        (scan.folder / "anew.parquet").replace(scan.folder / f"{name}.parquet")
        setattr(scan.tally, name, count)


def _table(files: list[_Compared], schema: pa.Schema) -> pa.Table:
    return pa.table({name: [getattr(one, name) for one in files] for name in schema.names}, schema=schema)
