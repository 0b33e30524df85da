"""A labelling run: scan, plan, skip what is done, retry, summary. Knows a runner only as a callable."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tqdm.auto import tqdm

from depthsieve.errors import DepthsieveError, RunError, SourceError, UsageError
from depthsieve.options import LabelOptions, LabelSummary
from depthsieve.planning import (
    add_new_images,
    check_source,
    cores,
    differing_options,
    find_store,
    known_ids,
    label_spec,
)
from depthsieve.records import ImageFailure, LabelJob, TeacherRequest
from depthsieve.runners import Runner
from depthsieve.runners.local import local_runner
from depthsieve.sources import Scan, Source, open_source
from depthsieve.store import Store, files
from depthsieve.store.create import clear_scratch, open_or_create, prepare_folder, write_index
from depthsieve.teachers import Teacher, load_teacher

ATTEMPTS = 3
"""How often a shard is tried in one run before the run gives up on it."""

PAUSE_S = 1.0
"""Seconds before the second attempt; doubled before the third."""


def label(source: str | Path, store: str | Path, *, progress: bool = True, **options: Any) -> LabelSummary:
    """Label the images of a folder, or one image file, into a store; go on with what an earlier run left.

    ``options`` are the fields of :class:`depthsieve.options.LabelOptions`. Only images that the store does not know
    are added; those that stand failed are tried again with ``retry_failed=True``. ``progress`` shows a bar on stderr,
    or in the notebook.

    Raises :class:`UsageError`, :class:`SourceError`, :class:`TeacherError`, :class:`StoreError` before anything is
    written, and :class:`RunError` when the run had to stop: what is committed stands, and the same call goes on.
    Images that fail raise nothing: they stand in the summary with their reasons.
    """
    try:
        chosen = LabelOptions(**options)
    except TypeError as error:
        raise UsageError(str(error).replace("LabelOptions.__init__()", "label()")) from None
    images = open_source(source, chosen.name)
    path = Path(store).absolute()
    teacher = _load(chosen)
    spec = label_spec(teacher, chosen)
    existing = find_store(path, spec)
    check_source(images, path, existing, chosen.moved)
    scan = _scan(images, existing, chosen, progress)
    prepare_folder(path)
    with _disk_errors_named(path), files.store_lock(path / "lock"):
        clear_scratch(path)
        opened = open_or_create(path, spec)
        check_source(images, path, opened, chosen.moved)
        planned = add_new_images(opened, images, scan, teacher, chosen)
        notes = _notes(opened, chosen)
        start = time.perf_counter()
        labelled, errors = _label_pending(opened, teacher, chosen, progress)
        seconds = time.perf_counter() - start
        if planned or labelled or not (path / "index.parquet").exists():
            write_index(opened)
    return _summary(opened, scan, (labelled, planned, seconds), errors, notes)


@contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except DepthsieveError:
        raise
    except OSError as error:
        raise RunError(
            f"{path}: {error.strerror or error}; what is committed stands, and the same command goes on"
        ) from error


def _load(options: LabelOptions) -> Teacher:
    return load_teacher(
        options.teacher,
        revision=options.revision,
        size=options.size,
        device=options.device,
        dtype=options.dtype,
        max_tokens=options.max_tokens,
        oversize=options.oversize,
    )


def _scan(source: Source, store: Store | None, options: LabelOptions, progress: bool) -> Scan:
    known = known_ids(store.index(), options.retry_failed) if store else set()
    with tqdm(desc="scan", unit=" files", disable=None if progress else True, leave=False) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        scan = source.scan(known=known, progress=advance)
    if not (scan.images or scan.rejected or scan.known):
        passed = f"{scan.skipped_other} other and {scan.skipped_hidden} hidden files"
        raise SourceError(f"no images in {source.root} ({passed})")
    return scan


def _notes(store: Store, options: LabelOptions) -> tuple[str, ...]:
    pending = {shard_id[:4] for shard_id in store.pending()}
    notes = []
    for generation in store.generations():
        if f"{generation.number:04d}" in pending:
            for name in differing_options(generation.profile, options):
                kept = getattr(generation.profile, name)
                option = name.replace("_", "-")
                notes.append(f"generation {generation.number} was planned with --{option} {kept} and goes on with it")
    return tuple(notes)


def _label_pending(
    store: Store, teacher: Teacher, options: LabelOptions, progress: bool
) -> tuple[int, tuple[str, ...]]:
    """Label every shard that is planned and not committed. Returns how many images, and why some are left."""
    todo = list(store.pending())
    if not todo:
        return 0, ()
    job = _job(store, teacher, options)
    counts = store.count_planned(todo)
    labelled = done = 0
    errors: list[str] = []
    interval = 0.1 if sys.stderr.isatty() else 30.0  # a log file needs few lines
    total = sum(counts.values())
    with tqdm(total=total, desc="label", unit=" images", disable=not progress, mininterval=interval) as bar:
        runner = _runner(teacher, options, bar.update)
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
            left, errors = [], []
            for result in runner(job, todo):
                if result.error is None:
                    labelled += result.labelled
                    done += counts[result.shard_id]
                elif result.fatal:
                    raise RunError(f"{result.error}; what is committed stands, and the same command goes on")
                else:
                    left.append(result.shard_id)
                    errors.append(f"shard {result.shard_id}: {result.error}")
                bar.update(done - bar.n)
            todo = left
            if not todo:
                break
    return labelled, tuple(errors)


def _job(store: Store, teacher: Teacher, options: LabelOptions) -> LabelJob:
    name = str(Path(options.teacher).absolute()) if Path(options.teacher).is_dir() else options.teacher
    request = TeacherRequest(
        name, options.revision, options.size, teacher.device.type, options.dtype, options.max_tokens, options.oversize
    )
    return LabelJob(store.path, request, store.fingerprint, store.spec.signals, tuple(store.sources().items()))


def _runner(teacher: Teacher, options: LabelOptions, on_images: Callable[[int], Any]) -> Runner:
    """The runner that the options ask for; auto is Ray for an address, more than one worker, or more than one GPU."""
    gpus = torch.cuda.device_count() if teacher.device.type == "cuda" else 0
    wants_ray = bool(options.address) or (options.workers or gpus) > 1
    if options.runner == "local" or (options.runner == "auto" and not wants_ray):
        return local_runner(teacher, on_images)
    from depthsieve.runners.ray import RayOptions, ray_runner  # heavy, and a laptop does without

    workers = options.workers or max(1, gpus)
    threads = options.threads or max(1, cores() // workers)
    return ray_runner(RayOptions(workers, threads, min(1.0, gpus / workers), options.address))


def _summary(
    store: Store, scan: Scan, now: tuple[int, int, float], errors: tuple[str, ...], notes: tuple[str, ...]
) -> LabelSummary:
    index: pa.Table = store.index()
    rows = zip(index["id"].to_pylist(), index["status"].to_pylist(), index["reason"].to_pylist(), strict=True)
    failed = tuple(ImageFailure(image, reason) for image, status, reason in rows if status in ("failed", "rejected"))
    statuses = index["status"].to_pylist()
    labelled_now, planned_now, seconds = now
    return LabelSummary(
        store=store.path,
        labelled_now=labelled_now,
        planned_now=planned_now,
        seconds=seconds,
        labelled=statuses.count("labelled"),
        failed=failed,
        pending=statuses.count("pending"),
        skipped_hidden=scan.skipped_hidden,
        skipped_other=scan.skipped_other,
        errors=errors,
        notes=notes,
    )
