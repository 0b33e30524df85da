"""From a source to a generation: which images are new, their label shapes, shards and numerics profile."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from depthsieve.errors import ImageRejected, RunError, SourceError, StoreNotFound, UsageError
from depthsieve.numerics import find_batch_size, make_profile
from depthsieve.options import LabelOptions
from depthsieve.records import ImageRecord, LabelSpec, NumericsProfile, RejectedImage, Shape
from depthsieve.sharding import make_shards
from depthsieve.sources import Scan, Source
from depthsieve.store import Store, open_store
from depthsieve.store.create import add_generation, check_spec
from depthsieve.store.plan import PlannedShard
from depthsieve.teachers import Teacher

BYTES_PER_PIXEL = 2.2
"""What a label takes on disk, on the large side: float16 depth and uint8 reliability after compression."""


@dataclass(frozen=True, slots=True)
class Workforce:
    """Who labels: ``workers`` of ``threads`` each, on Ray or (one) in this process, sharing ``gpus``."""

    on_ray: bool
    workers: int
    threads: int
    gpus: int

    @classmethod
    def choose(cls, teacher: Teacher, options: LabelOptions) -> "Workforce":
        """What the options ask for; auto is Ray for an address, more than one worker, or more than one GPU.

        ``--device cuda:1`` names one GPU, and so one worker.
        """
        gpus = 0
        if teacher.device.type == "cuda":
            gpus = 1 if ":" in options.device else torch.cuda.device_count()
        workers = options.workers or max(1, gpus)
        on_ray = options.runner == "ray" or (options.runner == "auto" and (bool(options.address) or workers > 1))
        if not on_ray:
            workers = 1
        return cls(on_ray, workers, options.threads or max(1, cores() // workers), gpus)


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
    inside = resolved.is_relative_to(root) and not source.is_one_file
    if inside or root.is_relative_to(resolved):
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


def add_new_images(
    store: Store,
    source: Source,
    scan: Scan,
    teacher: Teacher,
    options: LabelOptions,
    workforce: Workforce,
    progress: bool,
) -> int:
    """Plan what the scan found and the store does not know: a new generation, or none. Returns how many images.

    Where ``options.retry_failed`` asks for it, images that stand failed are tried again as "replace" rows, and those
    whose file is gone leave the store.
    """
    index = store.index()
    known = known_ids(index, options.retry_failed)
    # What an interrupted run planned is not planned twice, though it may still stand failed.
    known |= {image.id for shard_id in store.pending() for image in store.planned_shard(shard_id).images}
    states = dict(zip(index["id"].to_pylist(), index["status"].to_pylist(), strict=True))
    shaped, rejected = _shapes([image for image in scan.images if image.id not in known], teacher)
    rejected += [image for image in scan.rejected if image.id not in known]
    gone = _gone(states, source, scan, known) if options.retry_failed else []
    moved = store.sources().get(source.name, source.root) != source.root
    if moved and not scan.known:
        raise SourceError(f"none of the images of source {source.name!r} lie in {source.root}; is it the right folder?")
    if not (shaped or rejected or gone or moved):
        return 0
    shards = make_shards(shaped, len(store.generations()), options.shard_size)
    _check_space(store.path, shaped)
    planned = [
        PlannedShard(shard, tuple("replace" if states.get(image.id) == "failed" else "add" for image in shard.images))
        for shard in shards
    ]
    profile = _choose_profile(teacher, options, shaped, workforce.threads, progress)
    rejected.sort(key=lambda image: image.id)
    add_generation(store, planned, rejected, dict(store.sources()) | {source.name: source.root}, profile, gone)
    return len(shaped)


def _gone(states: Mapping[str, str], source: Source, scan: Scan, known: set[str]) -> list[str]:
    """Ids of the source that stand failed, and whose file the scan did not find."""
    found = {image.id for image in scan.images} | {image.id for image in scan.rejected} | known
    if source.is_one_file:
        return []
    standing = (image_id for image_id, state in states.items() if state in ("failed", "rejected"))
    return sorted(image_id for image_id in standing if image_id.startswith(f"{source.name}/") and image_id not in found)


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


def _choose_profile(
    teacher: Teacher,
    options: LabelOptions,
    shaped: Sequence[tuple[ImageRecord, Shape]],
    threads: int,
    progress: bool,
) -> NumericsProfile:
    batch_size = options.batch_size
    if batch_size is None:
        largest = max((shape for _, shape in shaped), key=lambda shape: shape[0] * shape[1], default=(0, 0))
        batch_size = find_batch_size(teacher, largest, len(shaped), threads, progress)
    return make_profile(teacher, batch_size, threads)


def differences_from(profile: NumericsProfile, teacher: Teacher, options: LabelOptions) -> list[str]:
    """What is asked for, or is true of this machine, and is not as in the profile that a plan was made with."""
    notes = []
    for name in ("batch_size", "threads"):
        asked, planned = getattr(options, name), getattr(profile, name)
        if asked is not None and asked != planned:
            notes.append(f"was planned with --{name.replace('_', '-')} {planned} and goes on with it")
    now = make_profile(teacher, profile.batch_size, profile.threads)
    here = {"device": f"{now.device_kind} ({now.device_model})", **now.versions}
    there = {"device": f"{profile.device_kind} ({profile.device_model})", **profile.versions}
    notes += [
        f"was planned with {name} {there.get(name)}, this is {here.get(name)}: labels may differ in their last bits"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]
    return notes
