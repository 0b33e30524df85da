"""A labelling run from top to bottom: checks, inventory, generation, runner, layers, summary."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from depthsieve.cameras.given import Found
from depthsieve.core.encodings import EncodingName
from depthsieve.core.errors import RunError
from depthsieve.core.processes import Process
from depthsieve.core.progress import say
from depthsieve.core.records import Alpha, Dtype, Oversize, Quantity
from depthsieve.core.stopping import Stop
from depthsieve.core.waiting import telling, waiting
from depthsieve.jobs.layers.cameras import Known, camera_note, keep_cameras
from depthsieve.jobs.layers.images import Stored, store_images, without_images
from depthsieve.jobs.layers.metric import Scaled, fit_stored
from depthsieve.labelling.remarks import add_remarks, remark_notes
from depthsieve.planning.cameras import find_cameras
from depthsieve.planning.checks import IMAGE_BYTES_PER_PIXEL, check_space, pixel_bytes
from depthsieve.planning.draft import PlannedNow
from depthsieve.planning.forecast import estimate, estimate_left
from depthsieve.planning.generation import add_new, written_plan
from depthsieve.planning.inventory import Gone, gone_from, scan_notes, take_inventory
from depthsieve.planning.options import LabelOptions
from depthsieve.planning.request import LabelRequest
from depthsieve.planning.summary import LabelSummary, PlanSummary
from depthsieve.runners.choose import Nodes, Workers, check_runner, find_nodes, make_runner
from depthsieve.runners.dispatch import MakeRunner, Outcome, disk_errors_named, dispatch
from depthsieve.runners.staffing import Need
from depthsieve.sources.scan import Scan
from depthsieve.storage.temporary import temporary_folder
from depthsieve.store import Store
from depthsieve.store.create import prepare_root, write_index
from depthsieve.store.leases import INDEX, PLAN, Leases, left_leases
from depthsieve.store.schema import is_shard
from depthsieve.store.standing import standing

INDEX_POLL_S = 0.1
"""Seconds between two looks at whether another process has written the index."""


def label(
    source: str | Path,
    store: str | Path,
    *,
    teacher: str | None = None,
    second_teacher: str | None = None,
    revision: str | None = None,
    size: int | None = None,
    dtype: Dtype = "auto",
    max_tokens: int | None = None,
    oversize: Oversize | None = None,
    quantity: Quantity | None = None,
    metric_from: str | None = None,
    signals: str | None = None,
    calibration: str | None = None,
    keep_signals: bool | None = None,
    encoding: EncodingName | None = None,
    alpha: Alpha | None = None,
    cameras: str | None = None,
    focal_length: float | None = None,
    fov: float | None = None,
    store_images: bool | None = None,
    image_quality: int | None = None,
    name: str = "default",
    root: str | None = None,
    exclude: Sequence[str] = (),
    every: int | None = None,
    fps: float | None = None,
    sequence: bool | None = None,
    moved: bool = False,
    retry_failed: bool = False,
    prune: bool = False,
    prune_most: bool = False,
    check_content: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    shard_size: int | None = None,
    runner: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    wait_workers: float = 600.0,
    part: str | None = None,
    progress: bool = True,
    stop: Stop | None = None,
) -> LabelSummary:
    """Label the images of a source into a store, and resume what an earlier run left.

    Images that the store does not know are added, and those whose file has changed are labelled again. What decides
    labels and is left at None is as the store was labelled before; see `depthsieve label --help` for the same options.

    Args:
        source: a folder, image, archive, list of files or URL, or a manifest that :func:`depthsieve.scan` wrote.
        store: the folder or URL of the labels, which is made if it is not there.
        teacher: a preset, hub id, local folder or ``package.module:factory`` (None: the store's, else
            ``depth-anything-v2-small``).
        second_teacher: another teacher to compare labels with; adds "teachers" to ``signals``.
        revision: commit, tag or branch of a hub checkpoint.
        size: short side that the teacher works at, in pixels (None: the teacher's own).
        dtype: what the teacher computes in; decides the labels. "auto": float16 on CUDA, else float32.
        max_tokens: most patches that an image may take (None: 16,384).
        oversize: "reject" (None) or "shrink" images above ``max_tokens``.
        quantity: "disparity" or "depth" (metres), for a checkpoint that does not say what it predicts.
        metric_from: a teacher that predicts metres; relative labels, those that are there too, get a scale and shift to
            its metres, as ``Label.metric`` and columns of the index (None: as the store does, for what is labelled now;
            a new one does not; "none" stops that).
        signals: comma-separated, what reliability is made of (None: "network" where the teacher is calibrated, else
            "flip"); "none" takes every pixel for reliable.
        calibration: file of an error network that ``depthsieve calibrate`` trained for the teacher: reliability comes
            from it, by photo and label, with no extra pass. The store keeps a copy (None: the store's; in a new one the
            network that ships with the teacher, if there is one).
        keep_signals: keep the signals beside the labels, for :func:`depthsieve.recalibrate` (None: as the store does;
            a new one does not).
        encoding: "fast" (None) or "small": fewer bytes, far longer to write.
        alpha: "respect" transparency, so that what is hidden has reliability 0, or "ignore" it and take the colours as
            they are (None: the store's, else "respect").
        cameras: a CSV file with the columns image, fx and perhaps fy, cx, cy, width, height, or the folder of a COLMAP
            model, for images here and in the store; they go before EXIF, and images that it does not name keep theirs.
            None: as the store knows them, and new images by EXIF (refused where cameras decide labels and earlier
            images were given theirs); "none": as EXIF does.
        focal_length: of all images that ``cameras`` does not name, in pixels of each.
        fov: instead, their angle of view along the longer side, in degrees.
        store_images: keep the images beside the labels, as JPEG at label shape, also of what is labelled already (None:
            as the store does, for what is labelled now; a new one does not).
        image_quality: JPEG quality of those images, 1 to 100 (None: 90).
        name: name of the source within the store, the first part of its ids.
        root: folder that ids are relative to, where ``source`` is a list (None: the list's folder).
        exclude: patterns of files to leave out, such as "depth/" or "*_mask.png", added to those that the store
            remembers; "none" forgets what stands before it (see :func:`depthsieve.scan`).
        every: of videos, take every N-th frame (None: as the store does; a new one takes all).
        fps: of videos, take this many frames a second, in place of ``every``.
        sequence: files of one folder are the frames of a clip, in the order of their names (None: as the store does; a
            new one does not).
        moved: the images of this source have moved to ``source``.
        retry_failed: try failed images again.
        prune: remove images from the store that are no longer in the source.
        prune_most: the same, even where they are more than half of what the store knows.
        check_content: read every labelled image to see whether it has changed, not only those whose size or time has.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        batch_size: images a forward pass (None: found by a short trial).
        threads: threads of one worker (None: all cores, shared by the workers).
        shard_size: most images in a shard, for images added now (None: 256, or what takes about a minute by a trial).
        runner: a name of :data:`depthsieve.runners.choose.RUNNERS`, or "auto".
        workers: worker processes (None: one a GPU; on a cluster as many as it has room for).
        address: a running cluster (None: this machine).
        wait_workers: seconds that a run on a cluster lasts while it has no worker, or no node for one.
        part: "i/n" labels the i-th of n parts of a plan that :func:`plan` wrote, beside other runs, and adds nothing.
        progress: show bars on stderr, or in the notebook.
        stop: once it is requested, shards that fit into its grace period are finished. Without one a
            :class:`KeyboardInterrupt` abandons the shards in flight.

    Returns:
        What the run did and how the store stands. Images that fail raise nothing: they are in ``failed``, with reasons.

    Raises:
        UsageError: an invalid option, or one that does not suit the teacher, the source or the store.
        SourceError: the source cannot be read, or holds no images.
        TeacherError: the teacher cannot be loaded.
        StoreError: the store is another than expected, or is in use. Nothing was written in these four cases.
        RunError: the run had to stop. What is committed stays, and the same call resumes. It is a
            :class:`~depthsieve.core.errors.RunInterrupted` where no worker came in ``wait_workers`` seconds.
    """
    chosen = LabelOptions.among(locals())
    stop = stop or Stop()
    scan, planned, gone, found_cameras = None, PlannedNow(), Gone(), Found()
    with contextlib.ExitStack() as stack:
        stack.enter_context(telling(progress))
        request = LabelRequest.checked(source, store, chosen, _find_nodes)
        check_runner(chosen.runner, request.workforce.apart)
        if chosen.part is None:
            scan = take_inventory(request, stack.enter_context(temporary_folder()), progress)
            gone = gone_from(request, scan)
            found_cameras = find_cameras(request, scan)
        else:
            opened = written_plan(request)
        prepare_root(request.root)
        stack.enter_context(disk_errors_named(request.root))
        leases = stack.enter_context(Leases(request.root))
        if scan is not None:
            lease = leases.take_or_raise(PLAN)
            stack.callback(leases.give_back, lease, settled=True)
            request.root.clear_scratch()
            opened, planned = add_new(request, scan, progress)
        leases.forget(opened.is_committed)
        todo = opened.pending(chosen.share)
        found = scan_notes(request, scan) if scan is not None else ()
        notes = (*request.recalled_notes, *found, *gone.notes, *planned.notes, *request.notes(opened, todo))
        check_space(request.root, todo.pixels, todo.images, pixel_bytes(request.options, request.spec.encoding))
        for line in (*found_cameras.notes, *planned.camera_notes):
            say(f"Note: {line}.", shown=progress)
        start = time.perf_counter()
        stop.armed = True
        try:
            outcome = dispatch(opened, todo, request.job(opened), leases, _runner(request), stop, progress)
            stored = _store_images(request, opened, leases, stop, progress)
            scaled = _fit_metres(request, opened, leases, stop, progress)
            known = _keep_cameras(request, found_cameras, opened, leases, stop, progress)
        finally:
            stop.armed = False
            request.root.clear_scratch()  # of workers that died
            if stop.seconds_left() > 0:
                with contextlib.suppress(OSError, RunError):  # it is derived, and a full disk has been told of already
                    _write_index(opened, leases)
        seconds = time.perf_counter() - start
    asked = request.given is not None or request.work.takes_cameras
    if asked or planned.images:
        notes += tuple(filter(None, (camera_note(opened, asked), *found_cameras.notes)))
    late = stored.stopped or scaled.stopped or known.stopped
    interrupted = stop.requested and (late or len(opened.pending(chosen.share)) > 0)
    summary = _summary(opened, scan, outcome, (planned, seconds, interrupted), notes)
    return replace(
        summary,
        errors=(*summary.errors, *stored.errors, *scaled.errors, *known.errors),
        notes=(*summary.notes, *remark_notes(add_remarks(scaled.remarks, known.remarks))),
        stored_now=stored.images,
        not_stored=stored.refused,
        scaled_now=scaled.images,
        not_scaled=scaled.refused,
        gone=gone.images,
    )


def plan(
    source: str | Path,
    store: str | Path,
    *,
    teacher: str | None = None,
    second_teacher: str | None = None,
    revision: str | None = None,
    size: int | None = None,
    dtype: Dtype = "auto",
    max_tokens: int | None = None,
    oversize: Oversize | None = None,
    quantity: Quantity | None = None,
    metric_from: str | None = None,
    signals: str | None = None,
    calibration: str | None = None,
    keep_signals: bool | None = None,
    encoding: EncodingName | None = None,
    alpha: Alpha | None = None,
    cameras: str | None = None,
    focal_length: float | None = None,
    fov: float | None = None,
    store_images: bool | None = None,
    image_quality: int | None = None,
    name: str = "default",
    root: str | None = None,
    exclude: Sequence[str] = (),
    every: int | None = None,
    fps: float | None = None,
    sequence: bool | None = None,
    moved: bool = False,
    retry_failed: bool = False,
    prune: bool = False,
    prune_most: bool = False,
    check_content: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    shard_size: int | None = None,
    runner: str = "auto",
    workers: int | None = None,
    address: str | None = None,
    wait_workers: float = 600.0,
    write: bool = False,
    trial: bool = True,
    progress: bool = True,
) -> PlanSummary:
    """What labelling would take: shards, images, bytes and hours that are left.

    Args:
        source, store, and all options that are not named here: as for :func:`label`, which raises the same errors.
        write: fix the plan in the store, for runs with ``part`` to share. Without it nothing is written there.
        trial: label some images and throw them away, for the hours and the range of bytes.
        progress: show bars on stderr, or in the notebook.
    """
    chosen = LabelOptions.among(locals())
    with telling(progress), temporary_folder() as folder:
        request = LabelRequest.checked(source, store, chosen, _find_nodes)
        scan = take_inventory(request, folder, progress)
        gone = gone_from(request, scan)
        notes = (*request.recalled_notes, *scan_notes(request, scan), *gone.notes)
        if not write:
            summary = estimate(request, scan, trial, progress)
            return replace(summary, gone=gone.images, notes=(*notes, *summary.notes))
        prepare_root(request.root)
        with disk_errors_named(request.root), Leases(request.root) as leases:
            lease = leases.take_or_raise(PLAN)
            try:
                request.root.clear_scratch()
                opened, planned = add_new(request, scan, progress)
                _write_index(opened, leases)
            finally:
                leases.give_back(lease, settled=True)
        summary = estimate_left(request, opened, trial, progress)
    notes += planned.notes
    return replace(summary, changed=planned.changed, removed=planned.removed, gone=gone.images, notes=notes)


def _write_index(store: Store, leases: Leases) -> None:
    """Bring the index up to date, one process at a time. While others have shards in flight it is left to the last of
    them: each comes here once it has given back its own."""
    if any(one.alive and is_shard(one.name) for one in left_leases(store.root)):
        return
    lease = leases.take(INDEX)
    if isinstance(lease, Process):
        with waiting(f"the index, which {lease} is writing", "goes on without it where that process has ended"):
            while isinstance(lease := leases.take(INDEX), Process):
                time.sleep(INDEX_POLL_S)
    try:
        write_index(store)
    finally:
        leases.give_back(lease, settled=True)


def _find_nodes(options: LabelOptions) -> Nodes | None:
    """The nodes of the cluster that is to label."""
    need = Need(options.threads or 1, float(options.device.startswith("cuda")))
    return find_nodes(options.runner, options.address, options.workers, need, options.wait_workers)


def _runner(request: LabelRequest) -> MakeRunner:
    options, crew = request.options, request.workforce
    workers = Workers(crew.workers, crew.threads, crew.gpus, options.address, options.wait_workers)
    return make_runner(options.runner, crew.apart, request.work, workers)


def _store_images(request: LabelRequest, store: Store, leases: Leases, stop: Stop, progress: bool) -> Stored:
    """Add the images of what was labelled without them, where that is asked for."""
    asked = "store_images" not in request.left_open and request.options.part is None
    if request.image_quality is None or not asked:
        return Stored()
    todo = without_images(store)
    check_space(request.root, todo.pixels, todo.images, IMAGE_BYTES_PER_PIXEL)
    return store_images(store, request.image_quality, leases, stop, progress, again=request.options.retry_failed)


def _fit_metres(request: LabelRequest, store: Store, leases: Leases, stop: Stop, progress: bool) -> Scaled:
    """Give what was labelled without it a scale to metres, where that is asked for."""
    asked = "metric_from" not in request.left_open and request.options.part is None
    metric = request.work.metric
    if request.metric is None or metric is None or not asked or stop.requested:
        return Scaled()
    return fit_stored(store, request.metric, metric, leases, stop, progress, again=request.options.retry_failed)


def _keep_cameras(
    request: LabelRequest, found: Found, store: Store, leases: Leases, stop: Stop, progress: bool
) -> Known:
    """Keep the cameras that are given now, where they decide no label: then they are planned with the images."""
    if request.given is None or request.work.takes_cameras or stop.requested:
        return Known()
    names = tuple(source.name for source in request.sources)
    return keep_cameras(store, request.given, found, names, leases, stop, progress)


def _summary(
    store: Store, scan: Scan | None, outcome: Outcome, now: tuple[PlannedNow, float, bool], notes: tuple[str, ...]
) -> LabelSummary:
    stands = standing(store)
    planned, seconds, interrupted = now
    return LabelSummary(
        store=store.location,
        labelled_now=outcome.labelled,
        planned_now=planned.images,
        seconds=seconds,
        labelled=stands.labelled,
        failed=stands.unlabelled,
        pending=stands.pending,
        skipped_hidden=scan.tally.passed.hidden if scan else 0,
        skipped_other=scan.tally.passed.other if scan else 0,
        errors=outcome.errors,
        discarded=outcome.discarded,
        notes=(*notes, *outcome.notes),
        interrupted=interrupted,
        changed=planned.changed,
        removed=planned.removed,
    )
