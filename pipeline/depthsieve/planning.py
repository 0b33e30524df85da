"""From a source to a generation: which images are new, their label shapes, shards and numerics profile."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from depthsieve.errors import ImageRejected, RunError, SourceError, StoreNotFound, UsageError
from depthsieve.numerics import find_batch_size, make_profile
from depthsieve.options import LabelOptions
from depthsieve.records import ImageRecord, LabelSpec, NumericsProfile, RejectedImage, Shape, TeacherRequest
from depthsieve.sharding import make_shards
from depthsieve.sources import Scan, Source
from depthsieve.storage import Root, is_url
from depthsieve.store import Store, open_store
from depthsieve.store.create import add_generation, check_spec
from depthsieve.store.index import SCHEMA
from depthsieve.store.plan import PlannedShard, rejected_table, removed_table
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


def find_store(root: Root, spec: LabelSpec) -> Store | None:
    """The store at ``root``, or None if there is none yet. Raises :class:`StoreMismatch` for one of another spec."""
    try:
        store = open_store(root)
    except StoreNotFound:
        return None
    check_spec(store, spec)
    return store


def check_source(source: Source, root: Root, store: Store | None, moved: bool) -> None:
    """Raise unless ``source`` may be labelled into the store at ``root``: apart from it, and under its own name."""
    here, images = _parts(root.location if root.path is None else root.path.resolve()), _parts(source.root)
    inside = here[: len(images)] == images and not source.is_one_file
    if inside or images[: len(here)] == here:
        raise UsageError(
            f"the store {root.location} and the images {source.root} may not lie inside each other; name another store"
        )
    known = store.sources().get(source.name) if store is not None else None
    if known is not None and known != source.root and not moved:
        raise SourceError(
            f"the store knows source {source.name!r} as {known}, not {source.root}; give the new folder its own "
            "--name, or say --moved if the same images now lie there"
        )


def _parts(location: str | Path) -> tuple[str, ...]:
    return (
        tuple(location.rstrip("/").split("/"))
        if isinstance(location, str) and is_url(location)
        else Path(location).parts
    )


def known_ids(index: pa.Table, retry_failed: bool) -> set[str]:
    """Ids that a scan need not look at again."""
    if retry_failed:
        standing = pc.is_in(index["status"], value_set=pa.array(["failed", "rejected"]))
        index = index.filter(pc.invert(standing))
    return set(index["id"].to_pylist())


@dataclass(frozen=True)
class Draft:
    """What a new generation would hold. ``retried`` are ids among ``shaped`` that stand failed; ``moved`` says that the
    source lies under a new root."""

    shaped: list[tuple[ImageRecord, Shape]]
    rejected: list[RejectedImage]
    gone: list[str]
    retried: frozenset[str]
    moved: bool

    def __bool__(self) -> bool:
        return bool(self.shaped or self.rejected or self.gone or self.moved)

    @property
    def pixels(self) -> int:
        """Pixels of label in it."""
        return sum(height * width for _, (height, width) in self.shaped)


def draft_generation(store: Store | None, source: Source, scan: Scan, teacher: Teacher, options: LabelOptions) -> Draft:
    """What the scan found and the store, if there is one yet, does not know.

    Where ``options.retry_failed`` asks for it, images that stand failed are tried again as "replace" rows, and those
    whose file is gone leave the store.
    """
    index = store.index() if store is not None else SCHEMA.empty_table()
    known = known_ids(index, options.retry_failed)
    if store is not None:  # what an interrupted run planned is not planned twice, though it may still stand failed
        known |= {image.id for shard_id in store.pending() for image in store.planned_shard(shard_id).images}
    states = dict(zip(index["id"].to_pylist(), index["status"].to_pylist(), strict=True))
    shaped, rejected = _shapes([image for image in scan.images if image.id not in known], teacher)
    rejected += [image for image in scan.rejected if image.id not in known]
    rejected.sort(key=lambda image: image.id)
    gone = _gone(states, source, scan, known) if options.retry_failed else []
    retried = frozenset(image.id for image, _ in shaped if states.get(image.id) == "failed")
    moved = store is not None and store.sources().get(source.name, source.root) != source.root
    if moved and not scan.known:
        raise SourceError(f"none of the images of source {source.name!r} lie in {source.root}; is it the right folder?")
    return Draft(shaped, rejected, gone, retried, moved)


def write_generation(
    store: Store, source: Source, draft: Draft, profile: NumericsProfile, request: TeacherRequest, shard_size: int
) -> None:
    """Fix a draft in the store, as its newest generation."""
    shards = make_shards(draft.shaped, len(store.generations()), shard_size)
    planned = (
        PlannedShard(one, tuple("replace" if image.id in draft.retried else "add" for image in one.images))
        for one in shards
    )
    add_generation(
        store,
        (one.table() for one in planned),
        rejected_table(draft.rejected),
        removed_table(draft.gone),
        dict(store.sources()) | {source.name: source.root},
        profile,
        request,
    )


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


def check_space(root: Root, pixels: int, images: int) -> None:
    """Raise :class:`RunError` where labels of so many pixels will not fit."""
    needed, free = int(pixels * BYTES_PER_PIXEL), root.free_bytes()
    if free is not None and needed > free:
        raise RunError(
            f"{root.location}: {images} labels take about {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; "
            "make room or name a store on another disk"
        )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_profile(
    teacher: Teacher,
    options: LabelOptions,
    shaped: Sequence[tuple[ImageRecord, Shape]],
    threads: int,
    progress: bool,
) -> NumericsProfile:
    """The profile of a new generation: as the options say, else found by a trial."""
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
