"""A labelling run from top to bottom: checks, inventory, generation, runner, layers, summary."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from depthsieve.core.errors import RunError, UsageError
from depthsieve.core.stopping import Stop
from depthsieve.jobs.layers.images import Stored, store_images, without_images
from depthsieve.planning.checks import IMAGE_BYTES_PER_PIXEL, check_space, pixel_bytes
from depthsieve.planning.draft import PlannedNow
from depthsieve.planning.forecast import estimate, estimate_left
from depthsieve.planning.generation import add_new, written_plan
from depthsieve.planning.inventory import take_inventory
from depthsieve.planning.options import LabelOptions
from depthsieve.planning.request import LabelRequest
from depthsieve.planning.summary import LabelSummary, PlanSummary
from depthsieve.runners.choose import Workers, find_nodes, make_runner
from depthsieve.runners.dispatch import MakeRunner, Outcome, disk_errors_named, dispatch
from depthsieve.sources.scan import Scan
from depthsieve.storage.temporary import temporary_folder
from depthsieve.store import Store
from depthsieve.store.create import prepare_root, write_index
from depthsieve.store.leases import PLAN, Leases
from depthsieve.store.standing import standing


def label(
    source: str | Path, store: str | Path, *, progress: bool = True, stop: Stop | None = None, **options: Any
) -> LabelSummary:
    """Label the images of a source, or of a manifest, into a store; go on with what an earlier run left.

    ``options`` are the fields of :class:`depthsieve.planning.options.LabelOptions`. Images that the store does not
    know are added, those whose file has changed are labelled again, and what is gone stays unless ``prune`` is said;
    those that stand failed are tried again with ``retry_failed=True``. With ``part`` nothing is added: the run takes
    its share of a plan that :func:`plan` wrote, beside other runs on the same store. ``progress`` shows a bar on
    stderr, or in the notebook. Once ``stop`` is requested, the shards that fit into its grace period are finished;
    without one, a :class:`KeyboardInterrupt` abandons the shard under way.

    Raises :class:`UsageError`, :class:`SourceError`, :class:`TeacherError`, :class:`StoreError` before anything is
    written, and :class:`RunError` when the run had to stop: what is committed stands, and the same call goes on.
    Images that fail raise nothing: they stand in the summary with their reasons.
    """
    chosen = _options(options, "label")
    stop = stop or Stop()
    request = LabelRequest.checked(source, store, chosen, find_nodes)
    scan, planned = None, PlannedNow()
    with contextlib.ExitStack() as stack:
        if chosen.part is None:
            scan = take_inventory(request, stack.enter_context(temporary_folder()), progress)
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
        notes = tuple(request.notes(opened, todo))
        check_space(request.root, todo.pixels, todo.images, pixel_bytes(chosen, request.spec.encoding))
        start = time.perf_counter()
        stop.armed = True
        try:
            outcome = dispatch(opened, todo, request.job(opened), leases, _runner(request), stop, progress)
            stored = _store_images(request, opened, leases, stop, progress)
        finally:
            stop.armed = False
            request.root.clear_scratch()  # of workers that died
            if chosen.part is None and not stop.requested:
                with contextlib.suppress(OSError, RunError):  # it is derived, and a full disk has been told of already
                    write_index(opened)
        seconds = time.perf_counter() - start
    interrupted = stop.requested and (stored.stopped or len(opened.pending(chosen.share)) > 0)
    summary = _summary(opened, scan, outcome, (planned, seconds, interrupted), notes)
    errors = (*summary.errors, *stored.errors)
    return replace(summary, errors=errors, stored_now=stored.images, not_stored=stored.refused)


def plan(
    source: str | Path,
    store: str | Path,
    *,
    write: bool = False,
    trial: bool = True,
    progress: bool = True,
    **options: Any,
) -> PlanSummary:
    """What labelling would take: shards, images, bytes and hours that are left.

    Hours, and the range of bytes, come of a ``trial``: some images are labelled and thrown away. With ``write`` the
    plan is fixed in the store, for runs with ``part`` to share; without, nothing is written there. ``options`` and
    errors as for :func:`label`.
    """
    chosen = _options(options, "plan")
    request = LabelRequest.checked(source, store, chosen, find_nodes)
    with temporary_folder() as folder:
        scan = take_inventory(request, folder, progress)
        if not write:
            return estimate(request, scan, trial, progress)
        prepare_root(request.root)
        with disk_errors_named(request.root), Leases(request.root) as leases:
            lease = leases.take_or_raise(PLAN)
            try:
                request.root.clear_scratch()
                opened, planned = add_new(request, scan, progress)
                write_index(opened)
            finally:
                leases.give_back(lease, settled=True)
    summary = estimate_left(request, opened, trial, progress)
    return replace(summary, changed=planned.changed, removed=planned.removed)


def _runner(request: LabelRequest) -> MakeRunner:
    options, crew = request.options, request.workforce
    workers = Workers(crew.workers, crew.threads, crew.gpus, options.address)
    return make_runner(options.runner, crew.apart, request.work, workers)


def _store_images(request: LabelRequest, store: Store, leases: Leases, stop: Stop, progress: bool) -> Stored:
    """Add the images of what was labelled without them, where that is asked for."""
    if request.image_quality is None or request.options.part is not None:
        return Stored()
    todo = without_images(store)
    check_space(request.root, todo.pixels, todo.images, IMAGE_BYTES_PER_PIXEL)
    return store_images(store, request.image_quality, leases, stop, progress, again=request.options.retry_failed)


def _options(options: dict[str, Any], what: str) -> LabelOptions:
    try:
        return LabelOptions(**options)
    except TypeError as error:
        raise UsageError(str(error).replace("LabelOptions.__init__()", f"{what}()")) from None


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
        notes=(*notes, *outcome.notes),
        interrupted=interrupted,
        changed=planned.changed,
        removed=planned.removed,
    )
