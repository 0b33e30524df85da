"""From a source to a generation: which images are new, their label shapes, shards and numerics profile."""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.errors import ImageRejected, RunError, SourceError, StoreNotFound, UsageError
from depthsieve.numerics import find_batch_size, make_profile
from depthsieve.options import LabelOptions
from depthsieve.records import ImageRecord, LabelSpec, NumericsProfile, RejectedImage, Shape
from depthsieve.reliability import CALIBRATION
from depthsieve.sharding import make_shards
from depthsieve.sources import Scan, Source
from depthsieve.store import Store, open_store, schema
from depthsieve.store.create import add_generation, check_spec
from depthsieve.store.plan import PlannedShard
from depthsieve.teachers import Teacher

BYTES_PER_PIXEL = 2.2
"""What a label takes on disk, on the large side: float16 depth and uint8 reliability after compression."""


def label_spec(teacher: Teacher, options: LabelOptions) -> LabelSpec:
    """What decides the labels of a run."""
    return LabelSpec(
        weights_digest=teacher.weights_digest,
        quantity=teacher.quantity,
        unit=teacher.unit,
        dtype=teacher.dtype,
        preprocessing=teacher.preprocessing,
        signals=options.signal_names,
        calibration=CALIBRATION if options.signal_names else "none",
        encoding=schema.ENCODING,
    )


def find_store(path: Path, spec: LabelSpec) -> Store | None:
    """The store at ``path``, or None if there is none yet. Raises :class:`StoreMismatch` for one of another spec."""
    try:
        store = open_store(path)
    except StoreNotFound:
        return None
    check_spec(store, spec)
    return store


def check_source(source: Source, path: Path, store: Store | None, moved: bool) -> None:
    """Raise unless ``source`` may be labelled into the store at ``path``: apart from it, and under its own name."""
    root = Path(source.root)
    resolved = path.resolve()
    if resolved.is_relative_to(root) or root.is_relative_to(resolved):
        raise UsageError(f"the store {path} and the images {root} may not lie inside each other; name another store")
    known = store.sources().get(source.name) if store else None
    if known is not None and known != source.root and not moved:
        raise SourceError(
            f"the store knows source {source.name!r} as {known}, not {source.root}; give the new folder its own "
            "--name, or say --moved if the same images now lie there"
        )


def known_ids(index: pa.Table, retry_failed: bool) -> set[str]:
    """Ids that a scan need not look at again."""
    if retry_failed:
        standing = pc.is_in(index["status"], value_set=pa.array(["failed", "rejected"]))
        index = index.filter(pc.invert(standing))
    return set(index["id"].to_pylist())


def add_new_images(store: Store, source: Source, scan: Scan, teacher: Teacher, options: LabelOptions) -> int:
    """Plan what the scan found and the store does not know: a new generation, or none. Returns how many images.

    Images that stand failed are tried again as "replace" rows where ``options.retry_failed`` asks for it.
    """
    index = store.index()
    known = known_ids(index, options.retry_failed)
    if options.retry_failed:  # what an interrupted run planned to try again is not planned twice
        known |= {image.id for shard_id in store.pending() for image in store.planned_shard(shard_id).images}
    held = set(index.filter(pc.equal(index["status"], "failed"))["id"].to_pylist())
    shaped, rejected = _shapes([image for image in scan.images if image.id not in known], teacher)
    rejected += [image for image in scan.rejected if image.id not in known]
    moved = store.sources().get(source.name, source.root) != source.root
    if moved and not scan.known:
        raise SourceError(f"none of the images of source {source.name!r} lie in {source.root}; is it the right folder?")
    if not shaped and not rejected and not moved:
        return 0
    shards = make_shards(shaped, len(store.generations()), options.shard_size)
    _check_space(store.path, shaped)
    planned = [
        PlannedShard(shard, tuple("replace" if image.id in held else "add" for image in shard.images))
        for shard in shards
    ]
    profile = _choose_profile(teacher, options, [shape for _, shape in shaped])
    rejected.sort(key=lambda image: image.id)
    add_generation(store, planned, rejected, dict(store.sources()) | {source.name: source.root}, profile)
    return len(shaped)


def _shapes(
    images: Sequence[ImageRecord], teacher: Teacher
) -> tuple[list[tuple[ImageRecord, Shape]], list[RejectedImage]]:
    shaped, rejected = [], []
    for image in images:
        try:
            shaped.append((image, teacher.label_shape(image.height, image.width)))
        except ImageRejected as error:
            rejected.append(RejectedImage(image.id, image.size, image.mtime_ns, str(error)))
    return shaped, rejected


def _check_space(path: Path, shaped: Sequence[tuple[ImageRecord, Shape]]) -> None:
    needed = int(sum(height * width for _, (height, width) in shaped) * BYTES_PER_PIXEL)
    free = shutil.disk_usage(path).free
    if needed > free:
        raise RunError(
            f"{path}: {len(shaped)} labels take about {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; "
            "make room or name a store on another disk"
        )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _choose_profile(teacher: Teacher, options: LabelOptions, shapes: Sequence[Shape]) -> NumericsProfile:
    threads = options.threads or max(1, cores() // (options.workers or 1))
    batch_size = options.batch_size
    if batch_size is None:
        ((shape, count),) = Counter(sorted(shapes)).most_common(1) or [((0, 0), 0)]
        batch_size = find_batch_size(teacher, shape, count, threads)
    return make_profile(teacher, batch_size, threads)


def differing_options(profile: NumericsProfile, options: LabelOptions) -> list[str]:
    """Options that ask for something else than the profile a plan was made with; the plan's holds."""
    asked = {"batch_size": options.batch_size, "threads": options.threads}
    return [name for name, value in asked.items() if value is not None and value != getattr(profile, name)]
