"""Manifests: what a scan found, in two Parquet files, to be labelled as it stands there.

``M.parquet`` has a row an image, by id, and in its metadata the names and roots of the sources; ``M.rejected.parquet``
has what cannot be labelled.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthsieve.core.errors import SourceError
from depthsieve.core.frames import FrameChoice
from depthsieve.core.records import DatasetNote, RejectedImage
from depthsieve.core.spill import SpillDatabase, read_parquet, spill_database
from depthsieve.core.tables import CHANGED, IMAGES_SCHEMA, REJECTED_SCHEMA
from depthsieve.sources import Listed, Source, reopen_source
from depthsieve.sources.scan import CONTENT, Scan, Tally
from depthsieve.storage import expand

KEY = b"depthsieve_manifest"
FORMAT = 1
MANIFEST_SCHEMA = pa.schema([*IMAGES_SCHEMA, CONTENT, ("duplicate_of", pa.string())])


@dataclass(frozen=True)
class Manifest:
    """A manifest on the disk. ``sources`` maps names to roots, ``datasets`` those of them that are a dataset's to what
    is known about it; ``exclude`` are the patterns of what a scan left out of them, ``frames`` says which
    frames of their videos it took, where they have any."""

    path: Path
    sources: Mapping[str, str]
    datasets: Mapping[str, DatasetNote]
    exclude: tuple[str, ...] = ()
    frames: Mapping[str, FrameChoice] = dataclasses.field(default_factory=dict)

    def open_sources(self) -> tuple[Source, ...]:
        """Its sources, to read images from. What a manifest leaves out of them is none of its business."""
        opened = tuple(reopen_source(name, root) for name, root in self.sources.items())
        for source in opened:
            source.is_one_file = True
        return opened


def is_manifest(path: str | Path) -> bool:
    """Whether a file is a manifest, and not a Parquet file of images, say."""
    with contextlib.suppress(OSError, pa.ArrowException, ValueError):
        path = expand(path)
        return Path(path).is_file() and KEY in (pq.read_schema(path).metadata or {})
    return False


def open_manifest(path: str | Path) -> Manifest:
    """The manifest at ``path``. Raises :class:`SourceError` in one line if there is none, or one of a later format."""
    path = expand(path)
    try:
        schema = pq.read_schema(path)
        body = json.loads((schema.metadata or {})[KEY])
        found = body["format"], dict(body["sources"]), [schema.field(name).type for name in IMAGES_SCHEMA.names]
        datasets = {name: DatasetNote.from_json(note) for name, note in body.get("datasets", {}).items()}
        exclude = tuple(str(pattern) for pattern in body.get("exclude", ()))
        frames = {name: FrameChoice.parse(body["frames"]) for name in found[1] if "frames" in body}
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError) as error:
        raise SourceError(f"{path} is no manifest that `depthsieve scan` wrote, or it is damaged") from error
    if found[0] != FORMAT:
        raise SourceError(f"{path} is a manifest of format {found[0]}, and this version reads format {FORMAT}")
    for field, kind in zip(IMAGES_SCHEMA, found[2], strict=True):
        if field.type != kind:
            raise SourceError(
                f"{path}: column {field.name!r} is {kind} and must be {field.type}; cast the table to the schema that "
                "`depthsieve scan` wrote"
            )
    return Manifest(Path(os.path.realpath(path)), found[1], datasets, exclude, frames)


def rejected_path(manifest: Path) -> Path:
    """Where the rejects of a manifest lie."""
    return manifest.with_name(f"{manifest.stem}.rejected.parquet")


def scan_of_manifest(folder: Path, manifest: Manifest, known: Iterable[pa.Table]) -> Scan:
    """What a manifest lists and is not known, as :func:`depthsieve.sources.scan.scan_to` gives it.

    A file that is not as the manifest has it, or is gone, is rejected with that reason: its size and shape are needed
    to plan, and may be others by now.
    """
    tally = Tally()
    by_name = {source.name: source for source in manifest.open_sources()}
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        images = stack.enter_context(pq.ParquetWriter(folder / "images.parquet", IMAGES_SCHEMA.append(CHANGED)))
        rejected = stack.enter_context(pq.ParquetWriter(folder / "rejected.parquet", REJECTED_SCHEMA.append(CHANGED)))
        database = stack.enter_context(spill_database(folder / "sort"))
        pool = stack.enter_context(ThreadPoolExecutor(16))
        database.run("CREATE TABLE known (id VARCHAR, size BIGINT, mtime_ns BIGINT, generation INTEGER)")
        database.append("known", (table.select([*_STAMP, "generation"]) for table in known))
        database.run(
            "CREATE TABLE newest AS SELECT id, arg_max(size, generation) AS known_size, arg_max(mtime_ns, generation) "
            "AS known_mtime_ns FROM known GROUP BY id"
        )
        for table in _against_known(database, manifest, tally):
            listed = [Listed(*row) for row in zip(*(table[c].to_pylist() for c in _STAMP), strict=True)]
            reasons = list(pool.map(lambda one: _difference(one, by_name, manifest.path.name), listed))
            table = table.append_column("reason", pa.array(reasons, pa.string()))
            good, bad = (table.filter(which(table["reason"])) for which in (pc.is_null, pc.is_valid))
            images.write_table(good.select([*IMAGES_SCHEMA.names, CHANGED.name]).cast(IMAGES_SCHEMA.append(CHANGED)))
            # What the store knows already is not rejected for being another file than in the manifest.
            bad = bad.select(REJECTED_SCHEMA.names).append_column(CHANGED, pa.array([False] * len(bad), pa.bool_()))
            rejected.write_table(bad)
            tally.images += len(good)
            tally.rejected += len(bad)
    return Scan(folder, tally)


_STAMP = ("id", "size", "mtime_ns")


def _against_known(database: SpillDatabase, manifest: Manifest, tally: Tally) -> Iterator[pa.Table]:
    """The rows of a manifest that are new to a store, or stand there with another size or time."""
    database.create("rows", IMAGES_SCHEMA)
    database.append("rows", (table.select(IMAGES_SCHEMA.names) for table in read_parquet(manifest.path)))
    database.run("CREATE TABLE listed AS SELECT DISTINCT * FROM rows")
    twice = database.all("SELECT id FROM listed GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 1")["id"].to_pylist()
    if twice:
        raise SourceError(
            f"{manifest.path} lists {twice[0]} twice, with different sizes, times or shapes: keep one row of it, or "
            "scan again"
        )
    tally.repeated = int(
        database.all("SELECT (SELECT count(*) FROM rows) - (SELECT count(*) FROM listed) AS n")["n"][0].as_py()
    )
    joined = "listed LEFT JOIN newest ON listed.id = newest.id"
    same = "newest.id IS NOT NULL AND size = known_size AND mtime_ns = known_mtime_ns"
    tally.known = int(database.all(f"SELECT count(*) AS n FROM {joined} WHERE {same}")["n"][0].as_py())
    fields = ", ".join(f"listed.{name}" for name in IMAGES_SCHEMA.names)
    wanted = f"SELECT {fields}, newest.id IS NOT NULL AS changed FROM {joined} WHERE NOT ({same}) ORDER BY listed.id"
    for table in database.read(wanted):
        tally.changed += int(pc.sum(table["changed"]).as_py() or 0)
        yield table


def _difference(listed: Listed, sources: Mapping[str, Source], manifest: str) -> str | None:
    """Why an image is not the one that the manifest lists; None where it is."""
    source = sources.get(listed.id.partition("/")[0])
    if source is None:
        return f"{manifest} does not say where its source lies"
    now = source.now(listed)
    remedy = f"changed since {manifest} was made: scan again, then label with --retry-failed"
    if isinstance(now, RejectedImage):
        return f"{now.reason}; {remedy}"
    return None if (now.size, now.mtime_ns) == (listed.size, listed.mtime_ns) else remedy
