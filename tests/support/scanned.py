"""A scan of a source as a test reads it: records by id, and counts."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from depthsieve.core.records import ImageRecord, RejectedImage
from depthsieve.core.tables import IMAGES_SCHEMA, REJECTED_SCHEMA
from depthsieve.sources import Source
from depthsieve.sources.scan import scan_to


@dataclass(frozen=True)
class Scanned:
    """What a scan found. ``changed`` are the ids of those that were known with another size or time."""

    images: tuple[ImageRecord, ...]
    rejected: tuple[RejectedImage, ...]
    skipped_hidden: int = 0
    skipped_other: int = 0
    known: int = 0
    changed: tuple[str, ...] = ()


def scanned(source: Source, known: Collection[ImageRecord | RejectedImage] = ()) -> Scanned:
    """Scan ``source``, of which ``known`` is known."""
    columns = {name: [getattr(one, name) for one in known] for name in ("id", "size", "mtime_ns")}
    table = pa.table(columns, schema=pa.schema([REJECTED_SCHEMA.field(name) for name in columns]))
    with TemporaryDirectory() as folder:
        scan = scan_to(Path(folder) / "scan", [source], [table])
        images = [row for some in scan.images() for row in some.to_pylist()]
        rejected = [row for some in scan.rejected() for row in some.to_pylist()]
    changed = tuple(sorted(row["id"] for row in (*images, *rejected) if row["changed"]))
    tally = scan.tally
    assert (tally.images, tally.rejected, tally.changed) == (len(images), len(rejected), len(changed))
    return Scanned(
        tuple(ImageRecord(**{name: row[name] for name in IMAGES_SCHEMA.names}) for row in images),
        tuple(RejectedImage(**{name: row[name] for name in REJECTED_SCHEMA.names}) for row in rejected),
        tally.passed.hidden,
        tally.passed.other,
        tally.known,
        changed,
    )
