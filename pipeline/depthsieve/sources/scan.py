"""From sources to tables of what is in them: list all, tell what is known, open only what is new or has changed.

The list is sorted, and compared with what is known, on the disk, so memory does not grow with the number of images.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.frames import ALL_FRAMES, FrameChoice
from depthsieve.core.patterns import is_excluded
from depthsieve.core.progress import Bar, progress_bar
from depthsieve.core.records import ImageRecord, RejectedImage
from depthsieve.core.spill import BATCH_ROWS, SpillDatabase, read_parquet, spill_database
from depthsieve.core.tables import CHANGED, IMAGES_SCHEMA, REJECTED_SCHEMA
from depthsieve.sources import UNKNOWN_SIZE, Listed, Passed, Source
from depthsieve.sources.protocol import DeepGreyImage
from depthsieve.sources.suspects import Suspects

CONTENT = pa.field("content_sha256", pa.string())
"""Lower-case hex sha256 of an image's bytes; null where nobody asked for it."""

KNOWN_SCHEMA = pa.schema([*IMAGES_SCHEMA, REJECTED_SCHEMA.field("reason"), CONTENT, ("generation", pa.int32())])
"""What is known before a scan. A column that is left out is null; of an id's rows the newest generation counts."""

GONE = "gone.parquet"

LOOKED_AT = 1 << 13
"""Images that are opened before what was found of them is handed on."""

A_TASK = 32
"""Images that a thread opens one after the other."""

_JOINED = """
SELECT listed.id, listed.size, listed.mtime_ns, listed.reason, known.id IS NOT NULL AS is_known,
    known.size AS known_size, known.mtime_ns AS known_mtime_ns, width, height, orientation,
    known.reason AS known_reason, content_sha256
FROM listed LEFT JOIN known ON listed.id = known.id
ORDER BY listed.id, listed.reason NULLS FIRST, known.generation DESC
"""


@dataclass
class Tally:
    """What a scan has found so far. ``known`` counts images whose size and time are the known ones, ``changed`` those
    known with others, which are looked at again and are among ``images`` or ``rejected``. ``gone`` are known images of
    these sources that are not there, where that was asked for. ``repeated`` counts rows that name an image
    again in a manifest. ``suspects`` are images that look like something else than photos."""

    images: int = 0
    rejected: int = 0
    known: int = 0
    changed: int = 0
    gone: int = 0
    repeated: int = 0
    passed: Passed = field(default_factory=Passed)
    suspects: Suspects = field(default_factory=Suspects)

    def notes(self) -> tuple[str, ...]:
        """What a person should be told of what the sources hold, a line each, with the remedy."""
        lines = (*self.passed.videos.notes(self.passed.frames), *self.suspects.notes(self.images))
        if self.repeated:
            lines = (*lines, f"{self.repeated:,} rows of the manifest repeat another one; each image counts once")
        return lines


@dataclass(frozen=True)
class ScanSettings:
    """How to scan. With ``keep``, what is known and as it was is passed on, and not only counted; ``hashes`` asks for
    the sha256 of each image's bytes; ``counts`` says of an id whether it counts: what does not is passed over. So is
    what fits a pattern of ``exclude`` (:func:`~depthsieve.core.patterns.is_excluded`)."""

    keep: bool = False
    hashes: bool = False
    counts: Callable[[str], bool] | None = None
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScanBatch:
    """Some of what a scan found: ``images`` of :data:`IMAGES_SCHEMA`, ``rejected`` of :data:`REJECTED_SCHEMA`, each
    with the column :data:`CHANGED`, by id. Images have the column :data:`CONTENT` where hashes are asked for.
    ``deep_grey`` are ids of images that were opened and have 16 bits in one channel."""

    images: pa.Table
    rejected: pa.Table
    deep_grey: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scan:
    """A finished scan. Its tables lie in a ``folder`` that whoever asked for the scan removes."""

    folder: Path
    tally: Tally

    def images(self) -> Iterator[pa.Table]:
        """What can be labelled, and is new or has changed: see :class:`ScanBatch`."""
        return read_parquet(self.folder / "images.parquet")

    def rejected(self) -> Iterator[pa.Table]:
        """What cannot be labelled, and is new or has changed: see :class:`ScanBatch`."""
        return read_parquet(self.folder / "rejected.parquet")

    def gone(self) -> Iterator[pa.Table]:
        """Ids, in a column ``id``, of what is known and not there; none where that was not asked for."""
        return read_parquet(self.folder / GONE) if self.tally.gone else iter(())


def scan_to(
    folder: Path,
    sources: Sequence[Source],
    known: Iterable[pa.Table] = (),
    progress: bool = False,
    find_gone: bool = False,
    exclude: tuple[str, ...] = (),
    frames: FrameChoice = ALL_FRAMES,
) -> Scan:
    """Scan sources, with the tables in ``folder``, which is made. What is known, and as it was, is only counted.

    With ``find_gone`` known images that are missing are reported too; of videos the ``frames`` are taken. ``known`` are
    tables with columns of :data:`KNOWN_SCHEMA`. Raises :class:`SourceError` where a source is gone, and
    :class:`RunError` where the folder's disk has no room.
    """
    tally = Tally(passed=Passed(frames=frames))
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        images = stack.enter_context(pq.ParquetWriter(folder / "images.parquet", IMAGES_SCHEMA.append(CHANGED)))
        rejected = stack.enter_context(pq.ParquetWriter(folder / "rejected.parquet", REJECTED_SCHEMA.append(CHANGED)))
        gone = folder / GONE if find_gone else None
        settings = ScanSettings(exclude=exclude)
        batches = scan_batches(sources, known, folder / "sort", tally, settings=settings, progress=progress, gone=gone)
        for batch in batches:
            images.write_table(batch.images.drop_columns([CONTENT.name]))
            rejected.write_table(batch.rejected)
    return Scan(folder, tally)


def scan_batches(
    sources: Sequence[Source],
    known: Iterable[pa.Table],
    folder: Path,
    tally: Tally,
    *,
    settings: ScanSettings = ScanSettings(),
    progress: bool = False,
    gone: Path | None = None,
) -> Iterator[ScanBatch]:
    """What some sources hold, by id, some of it at a time; ``tally`` is added to as it goes on.

    ``folder`` is made and used until the end; it is the caller's to remove. The ids of what is known and not there are
    written to ``gone``.
    """
    by_name = {source.name: source for source in sources}
    with spill_database(folder) as database, ThreadPoolExecutor(max(one.at_once for one in sources)) as pool:
        database.create("listed", REJECTED_SCHEMA)
        database.create("known", KNOWN_SCHEMA)
        with progress_bar("list", unit="files", shown=progress) as bar:
            database.append("listed", _listed(sources, tally.passed, settings, bar))
        database.append("known", known)
        if gone is not None:
            tally.gone = _write_gone(database, [source.name for source in sources if not source.is_one_file], gone)
        listed = int(database.all("SELECT count(*) AS rows FROM listed")["rows"][0].as_py())
        with progress_bar("scan", total=listed, shown=progress) as bar:
            for rows in _first_of_each(database):
                for some in _small(_counted(rows, tally, settings, bar)):
                    batch = _look(some, by_name, pool, settings.hashes)
                    if settings.counts is None:  # a recipe knows which files are photos
                        tally.suspects.add_all(batch.images["id"].to_pylist(), batch.deep_grey)
                    tally.images += len(batch.images)
                    tally.rejected += len(batch.rejected)
                    yield batch
                    bar.update(len(some))


def _listed(sources: Sequence[Source], passed: Passed, settings: ScanSettings, bar: Bar) -> Iterator[pa.Table]:
    rows: list[Listed | RejectedImage] = []
    for source in sources:
        for found in source.listing(passed):
            if settings.counts is not None and not settings.counts(found.id):
                passed.other += 1
                continue
            if settings.exclude and is_excluded(found.id.partition("/")[2], settings.exclude):
                passed.excluded += 1
                continue
            rows.append(found)
            if len(rows) == BATCH_ROWS:
                yield _table(rows, REJECTED_SCHEMA)
                rows.clear()
            if len(rows) % 1024 == 0:
                bar.update(1024)
    yield _table(rows, REJECTED_SCHEMA)


def _write_gone(database: SpillDatabase, names: Sequence[str], path: Path) -> int:
    """Write the ids that are known of these sources and are not listed; returns how many."""
    count = 0
    query = "SELECT DISTINCT id FROM known WHERE id NOT IN (SELECT id FROM listed) ORDER BY id"
    with pq.ParquetWriter(path, pa.schema([("id", pa.string())])) as writer:
        for rows in database.read(query):
            mine = pc.is_in(
                pc.list_element(pc.split_pattern(rows["id"], "/", max_splits=1), 0), pa.array(names, pa.string())
            )
            writer.write_table(rows.filter(mine).cast(pa.schema([("id", pa.string())])))
            count += int(pc.sum(mine).as_py() or 0)
    return count


def _first_of_each(database: SpillDatabase) -> Iterator[pa.Table]:
    """What is listed, with what is known of it; of several rows of one id the first."""
    last: str | None = None
    for rows in database.read(_JOINED):
        id_N = rows["id"].combine_chunks()
        is_new_N = np.ones(len(rows), np.bool_)
        is_new_N[0] = id_N[0].as_py() != last
        is_new_N[1:] = pc.not_equal(id_N[1:], id_N[:-1]).to_numpy(zero_copy_only=False)
        last = id_N[-1].as_py()
        yield rows if is_new_N.all() else rows.filter(pa.array(is_new_N))


def _counted(rows: pa.Table, tally: Tally, settings: ScanSettings, bar: Bar) -> pa.Table:
    """The rows that are passed on, with a column ``same``: known, and as it was."""
    is_known_N = _array(rows["is_known"])
    same_N = is_known_N & _as_it_was(rows)
    if settings.hashes:
        same_N &= _array(pc.or_(pc.is_valid(rows["content_sha256"]), pc.is_valid(rows["known_reason"])))
    tally.known += int(same_N.sum())
    tally.changed += int((is_known_N & ~_as_it_was(rows)).sum())
    rows = rows.append_column("same", pa.array(same_N))
    if settings.keep or not same_N.any():
        return rows
    bar.update(int(same_N.sum()))
    return rows.filter(pa.array(~same_N))


def _as_it_was(rows: pa.Table) -> NDArray[np.bool_]:
    """Whether the size and time of each row are the known ones."""
    size_N, known_size_N = _array(rows["size"]), _array(pc.fill_null(rows["known_size"], UNKNOWN_SIZE))
    same_size_N: NDArray[np.bool_] = (size_N == known_size_N) | (size_N == UNKNOWN_SIZE)
    same_time_N: NDArray[np.bool_] = _array(rows["mtime_ns"]) == _array(pc.fill_null(rows["known_mtime_ns"], 0))
    return same_size_N & same_time_N


def _small(rows: pa.Table) -> Iterator[pa.Table]:
    return (rows[start : start + LOOKED_AT] for start in range(0, len(rows), LOOKED_AT))


def _look(rows: pa.Table, sources: dict[str, Source], pool: ThreadPoolExecutor, hashes: bool) -> ScanBatch:
    """Opens those of some rows that are not known as they are, and were not refused by the listing already."""
    same_N, refused_N = _array(rows["same"]), _array(pc.is_valid(rows["reason"]))
    changed_N = _array(rows["is_known"]) & ~_as_it_was(rows)
    opened_N, now_N = ~same_N & ~refused_N, ~same_N & refused_N
    look_at = partial(_look_at, sources=sources, hashes=hashes)
    found = [one for some in pool.map(look_at, _tasks(rows.filter(pa.array(opened_N)))) for one in some]
    is_image_O = np.array([isinstance(one, ImageRecord) for one, _ in found], np.bool_)
    looked_at_O = changed_N[opened_N]
    images = _table([one for one, _ in found if isinstance(one, ImageRecord)], IMAGES_SCHEMA)
    images = _marked(images, looked_at_O[is_image_O])
    content = pa.array([digest for one, digest in found if isinstance(one, ImageRecord)], CONTENT.type)
    images = images.append_column(CONTENT, content)
    rejects = _table([one for one, _ in found if isinstance(one, RejectedImage)], REJECTED_SCHEMA)
    rejected = _marked(rejects, looked_at_O[~is_image_O])
    refused = _marked(rows.filter(pa.array(now_N)).select(REJECTED_SCHEMA.names), changed_N[now_N])
    kept = rows.filter(pa.array(same_N)).drop_columns(["reason", "size"])
    kept = kept.rename_columns({"known_reason": "reason", "known_size": "size"})
    kept = kept.append_column(CHANGED, pa.nulls(len(kept), pa.bool_()))
    kept_images = kept.filter(pc.is_null(kept["reason"])).select(images.column_names)
    kept_rejected = kept.filter(pc.is_valid(kept["reason"])).select(rejected.column_names)
    deep_grey = frozenset(one.id for one, _ in found if isinstance(one, DeepGreyImage))
    return ScanBatch(_by_id(images, kept_images), _by_id(rejected, refused, kept_rejected), deep_grey)


def _tasks(rows: pa.Table) -> Iterator[list[Listed]]:
    columns = zip(*(rows[name].to_pylist() for name in ("id", "size", "mtime_ns")), strict=True)
    listed = [Listed(*row) for row in columns]
    return (listed[start : start + A_TASK] for start in range(0, len(listed), A_TASK))


def _look_at(
    some: list[Listed], sources: dict[str, Source], hashes: bool
) -> list[tuple[ImageRecord | RejectedImage, str | None]]:
    found: list[tuple[ImageRecord | RejectedImage, str | None]] = []
    for listed in some:
        source = sources[listed.id.partition("/")[0]]
        one, digest = source.look(listed), None
        if hashes and isinstance(one, ImageRecord):
            try:
                digest = hashlib.sha256(source.read(one.id)).hexdigest()
            except (ImageRejected, SourceError, OSError) as error:
                reason = str(getattr(error, "strerror", None) or error)
                one = RejectedImage(one.id, one.size, one.mtime_ns, f"cannot be read: {reason}")
        found.append((one, digest))
    return found


def _table(records: Sequence[Any], schema: pa.Schema) -> pa.Table:
    return pa.table({name: [getattr(one, name, None) for one in records] for name in schema.names}, schema=schema)


def _marked(table: pa.Table, changed_N: NDArray[np.bool_]) -> pa.Table:
    return table.append_column(CHANGED, pa.array(changed_N, pa.bool_()))


def _by_id(*tables: pa.Table) -> pa.Table:
    joined = pa.concat_tables([table.cast(tables[0].schema) for table in tables])
    return joined if sum(len(table) > 0 for table in tables) < 2 else joined.sort_by("id")


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy()
    return array
