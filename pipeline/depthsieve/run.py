"""A labelling run: scan, plan, skip what is done, retry, summary. Knows a runner only as a callable."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm.auto import tqdm

from depthsieve.errors import DepthsieveError, RunError, SourceError, UsageError
from depthsieve.labelling import label_spec, load_requested
from depthsieve.options import LabelOptions, LabelSummary
from depthsieve.planning import (
    Workforce,
    add_new_images,
    check_source,
    differences_from,
    find_store,
    known_ids,
)
from depthsieve.records import ImageFailure, LabelJob, ShardTask, TeacherRequest
from depthsieve.runners import Runner
from depthsieve.runners.local import local_runner
from depthsieve.sources import Scan, Source, open_source
from depthsieve.stopping import Stop
from depthsieve.store import Store, files
from depthsieve.store.create import check_folder, clear_scratch, open_or_create, prepare_folder, write_index
from depthsieve.store.schema import shard_number
from depthsieve.teachers import EMBEDDED, Teacher, find_preset

ATTEMPTS = 3
"""How often a shard is tried in one run before the run gives up on it."""

BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
"""tqdm's own, but images a second also where one takes longer than that."""

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
    check_folder(path)
    request = _request(chosen)
    teacher = load_requested(request)
    spec = label_spec(teacher, chosen.signal_names)
    existing = find_store(path, spec)
    check_source(images, path, existing, chosen.moved)
    scan = _scan(images, existing, chosen, progress)
    workforce = Workforce.choose(teacher, chosen)
    prepare_folder(path)
    with _disk_errors_named(path), files.store_lock(path / "lock"):
        clear_scratch(path)
        opened = open_or_create(path, spec)
        check_source(images, path, opened, chosen.moved)
        planned = add_new_images(opened, images, scan, teacher, chosen, workforce, progress)
        notes = _notes(opened, teacher, chosen)
        start = time.perf_counter()
        request = replace(request, device=teacher.device.type) if workforce.on_ray else request
        job = LabelJob(path, request, spec.fingerprint, spec.signals, tuple(opened.sources().items()))
        try:
            labelled, errors = _label_pending(opened, job, _runner_of(workforce, teacher, chosen), progress)
        finally:
            write_index(opened)
        seconds = time.perf_counter() - start
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


def _request(options: LabelOptions) -> TeacherRequest:
    name = options.teacher
    if name != EMBEDDED.name and find_preset(name) is None and Path(name).is_dir():
        name = str(Path(name).absolute())  # a worker has another working folder
    return TeacherRequest(
        name, options.revision, options.size, options.device, options.dtype, options.max_tokens, options.oversize
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


def _notes(store: Store, teacher: Teacher, options: LabelOptions) -> tuple[str, ...]:
    pending = {shard_number(shard_id)[0] for shard_id in store.pending()}
    return tuple(
        f"generation {generation.number} {difference}"
        for generation in store.generations()
        if generation.number in pending
        for difference in differences_from(generation.profile, teacher, options)
    )


def _label_pending(
    store: Store, job: LabelJob, runner_of: Callable[[Callable[[int], Any]], Runner], progress: bool
) -> tuple[int, tuple[str, ...]]:
    """Label every shard that is planned and not committed. Returns how many images, and why some are left."""
    todo = list(store.pending())
    if not todo:
        return 0, ()
    counts = store.count_planned(todo)
    labelled = done = 0
    errors: list[str] = []
    in_log = not sys.stderr.isatty() and not any("notebook" in base.__module__ for base in tqdm.__mro__)
    total, interval = sum(counts.values()), 30.0 if in_log else 0.1  # a log file needs few lines
    bar = tqdm(total=total, desc="label", unit=" images", bar_format=BAR, mininterval=interval, disable=not progress)
    with bar:
        runner = runner_of(bar.update)
        for attempt in range(1, ATTEMPTS + 1):
            left, errors = [], []
            for result in runner(replace(job, last_attempt=attempt == ATTEMPTS), map(ShardTask, todo), Stop()):
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
            if not todo or attempt == ATTEMPTS:
                break
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
    return labelled, tuple(errors)


def _runner_of(
    workforce: Workforce, teacher: Teacher, options: LabelOptions
) -> Callable[[Callable[[int], Any]], Runner]:
    """The runner, once it is told whom to tell about finished images."""
    if not workforce.on_ray:
        return partial(local_runner, teacher)
    from depthsieve.runners.ray import RayOptions, ray_runner  # heavy, and a laptop does without

    on_ray = ray_runner(RayOptions(workforce.workers, workforce.threads, workforce.gpus, options.address))
    return lambda on_images: on_ray  # actors tell of whole shards only


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
