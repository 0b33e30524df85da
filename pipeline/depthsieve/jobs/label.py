"""A labelling run: scan, plan, label what is left, summary. Knows a runner only as a callable."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from depthsieve.core.errors import RunError, SourceError, StoreError, UsageError
from depthsieve.core.records import ImageFailure, LabelJob, LabelSpec, TeacherRequest
from depthsieve.core.stopping import Stop
from depthsieve.jobs.layers.images import Stored, store_images, without_images
from depthsieve.labelling.shard import label_spec, load_with_second
from depthsieve.planning.changes import check_gone, compare_contents, keep_times
from depthsieve.planning.checks import find_manifest
from depthsieve.planning.draft import Draft, PlannedNow
from depthsieve.planning.forecast import WorkAhead, forecast
from depthsieve.planning.options import LabelOptions, LabelSummary, PlanSummary
from depthsieve.planning.request import (
    IMAGE_BYTES_PER_PIXEL,
    Workforce,
    check_signals,
    check_source,
    check_space,
    choose_profile,
    chosen_encoding,
    chosen_quality,
    differences_from,
    draft_generation,
    find_store,
    has_moved,
    images_notes,
    pixel_bytes,
    signals_notes,
    teacher_request,
    write_generation,
)
from depthsieve.runners.dispatch import MakeRunner, Outcome, disk_errors_named, dispatch
from depthsieve.runners.local import local_runner
from depthsieve.sources import Source, open_source
from depthsieve.sources.manifest import Manifest, scan_of_manifest
from depthsieve.sources.scan import Scan, scan_to
from depthsieve.storage import Root, open_root
from depthsieve.storage.temporary import temporary_folder
from depthsieve.store import Store, open_store
from depthsieve.store.create import check_root, check_spec, open_or_create, prepare_root, write_index
from depthsieve.store.leases import PLAN, Leases
from depthsieve.store.pending import Pending
from depthsieve.store.standing import Again, known_files, standing
from depthsieve.teachers import Teacher


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
    run = _Run.begin(source, store, chosen)
    scan, planned = None, PlannedNow()
    with contextlib.ExitStack() as stack:
        if chosen.part is None:
            scan = run.scan(stack.enter_context(temporary_folder()), progress)
        else:
            opened = run.planned_store()
        prepare_root(run.root)
        stack.enter_context(disk_errors_named(run.root))
        leases = stack.enter_context(Leases(run.root))
        if scan is not None:
            lease = leases.take_or_raise(PLAN)
            stack.callback(leases.give_back, lease, settled=True)
            run.root.clear_scratch()
            opened, planned = run.add_new(scan, progress)
        leases.forget(opened.is_committed)
        todo = opened.pending(chosen.share)
        notes = tuple(run.notes(todo))
        check_space(run.root, todo.pixels, todo.images, pixel_bytes(chosen, run.spec.encoding))
        start = time.perf_counter()
        stop.armed = True
        try:
            outcome = dispatch(opened, todo, run.job(opened), leases, run.make_runner(), stop, progress)
            stored = run.store_images(opened, leases, stop, progress)
        finally:
            stop.armed = False
            run.root.clear_scratch()  # of workers that died
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
    run = _Run.begin(source, store, chosen)
    with temporary_folder() as folder:
        scan = run.scan(folder, progress)
        if not write:
            return run.estimate(scan, trial, progress)
        prepare_root(run.root)
        with disk_errors_named(run.root), Leases(run.root) as leases:
            lease = leases.take_or_raise(PLAN)
            try:
                run.root.clear_scratch()
                opened, planned = run.add_new(scan, progress)
                write_index(opened)
            finally:
                leases.give_back(lease, settled=True)
    summary = run.estimate_left(opened, trial, progress)
    return replace(summary, changed=planned.changed, removed=planned.removed)


@dataclass(frozen=True)
class _Run:
    """What a run stands on, once all that is cheap to check was checked."""

    options: LabelOptions
    sources: tuple[Source, ...]
    manifest: Manifest | None
    root: Root
    request: TeacherRequest
    teacher: Teacher
    spec: LabelSpec
    existing: Store | None
    workforce: Workforce
    image_quality: int | None

    @classmethod
    def begin(cls, source: str | Path, store: str | Path, options: LabelOptions) -> "_Run":
        manifest = find_manifest(source, options)
        sources = manifest.open_sources() if manifest else (open_source(source, options.name, options.root),)
        root = open_root(store)
        check_root(root)
        on_cluster = options.address is not None and options.runner != "local"
        cluster = None
        if on_cluster and options.address is not None:
            from depthsieve.runners.ray_session import cluster_offer  # heavy, and a laptop does without

            cluster = cluster_offer(options.address).nodes
        existing = find_store(root)
        request = teacher_request(options, existing, cluster)
        # On a cluster the workers have the device that is asked for, and this process need not have it.
        teacher = load_with_second(request.on("auto") if on_cluster else request)
        check_signals(teacher, options)
        spec = label_spec(teacher, options.signal_names, chosen_encoding(existing, options))
        if existing is not None:
            check_spec(existing, spec)
        for images in sources:
            check_source(images, root, existing, options.moved)
        workforce = Workforce.choose(teacher, options, cluster)
        quality = chosen_quality(existing, options)
        return cls(options, sources, manifest, root, request, teacher, spec, existing, workforce, quality)

    def scan(self, folder: Path, progress: bool) -> Scan:
        known: Iterator[Any] = iter(())
        options = self.options
        if self.existing is not None:
            known = known_files(self.existing, Again.of(self.existing, options.retry_failed))
        if self.manifest is not None:
            if options.prune or options.prune_most:
                raise UsageError("a manifest does not say what is gone; prune with the source itself")
            scan = scan_of_manifest(folder / "scan", self.manifest, known)
        else:
            scan = scan_to(folder / "scan", self.sources, known, progress, options.prune or options.prune_most)
        found = scan.tally
        if not (found.images or found.rejected or found.known):
            passed = f"{found.passed.other} other and {found.passed.hidden} hidden files"
            raise SourceError(
                f"no images in {self.manifest.path if self.manifest else self.sources[0].shown} ({passed})"
            )
        check_gone(self.sources[0], scan, options)
        if self.existing is not None:
            compare_contents(scan, self.existing, self.sources, options.check_content, progress)
        return scan

    def add_new(self, scan: Scan, progress: bool) -> tuple[Store, PlannedNow]:
        """The store, made if need be, with what is new planned; and what that is."""
        store = open_or_create(self.root, self.spec)
        for source in self.sources:
            check_source(source, self.root, store, self.options.moved)
        moved = has_moved(store, self.sources, scan)
        known, now = store.datasets(), self.manifest.datasets if self.manifest else {}
        learnt = {name: note for name, note in now.items() if known.get(name) != note}
        with self.root.scratch("plan") as folder, self._draft(store, scan, folder) as draft:
            if draft or moved or learnt:
                check_space(self.root, draft.pixels, draft.images, pixel_bytes(self.options, self.spec.encoding))
                profile = choose_profile(self.teacher, self.options, draft, self.workforce, progress)
                sources = {source.name: source.root for source in self.sources}
                write_generation(store, draft, sources, profile, self.request, self.options.shard_size, learnt)
            planned = draft.planned
        with self.root.scratch("times") as folder:
            keep_times(scan, store, folder)
        return store, planned

    def _draft(self, store: Store | None, scan: Scan, folder: Path) -> contextlib.AbstractContextManager[Draft]:
        return draft_generation(store, self.sources, scan, self.teacher, self.options, folder)

    def planned_store(self) -> Store:
        """The store whose plan is to be shared."""
        if self.existing is None or not self.existing.generations():
            raise StoreError(
                f"{self.root.location} has no plan to take a part of; write it first: depthsieve plan SOURCE STORE "
                "--write, with the same teacher and options"
            )
        return self.existing

    def job(self, store: Store) -> LabelJob:
        device = self.workforce.device or (self.teacher.device.type if self.workforce.on_ray else self.request.device)
        sources = tuple(store.sources().items())
        threads = self.workforce.threads
        return LabelJob(
            self.root.location,
            self.request.on(device),
            self.spec.fingerprint,
            self.spec.signals,
            sources,
            cores=threads,
            keep_signals=self.options.keep_signals,
            image_quality=self.image_quality,
        )

    def make_runner(self) -> MakeRunner:
        workforce = self.workforce
        if not workforce.on_ray:
            return partial(local_runner, self.teacher)
        from depthsieve.runners.ray import RayOptions, ray_runner  # heavy, and a laptop does without

        options = RayOptions(workforce.workers, workforce.threads, workforce.gpus, self.options.address)
        on_ray = ray_runner(options)
        return lambda on_images: on_ray  # actors tell of whole shards only

    def notes(self, todo: Pending) -> Iterator[str]:
        """How this machine and these options differ from what the pending generations were planned with."""
        store = open_store(self.root)
        for generation in store.generations():
            if len(todo.numbers.get(generation.number, ())):
                for difference in differences_from(generation.profile, self.teacher, self.options, self.workforce):
                    yield f"generation {generation.number} {difference}"
        yield from signals_notes(store, self.options.keep_signals, len(todo))
        yield from images_notes(store, self.options, len(todo))

    def store_images(self, store: Store, leases: Leases, stop: Stop, progress: bool) -> Stored:
        """Add the images of what was labelled without them, where that is asked for."""
        if self.image_quality is None or self.options.part is not None:
            return Stored()
        todo = without_images(store)
        check_space(self.root, todo.pixels, todo.images, IMAGE_BYTES_PER_PIXEL)
        return store_images(store, self.image_quality, leases, stop, progress, again=self.options.retry_failed)

    def estimate(self, scan: Scan, trial: bool, progress: bool) -> PlanSummary:
        """What is left and what is new, with nothing written."""
        left = Pending({}, {})
        if self.existing is not None:
            has_moved(self.existing, self.sources, scan)
            left = self.existing.pending()
        with self._draft(self.existing, scan, scan.folder / "draft") as draft:
            named = zip(draft.rejected["id"].to_pylist(), draft.rejected["reason"].to_pylist(), strict=True)
            summary = forecast(self._work(left, draft, trial, progress), tuple(ImageFailure(*one) for one in named))
            return replace(summary, changed=draft.changed, removed=len(draft.gone))

    def estimate_left(self, store: Store, trial: bool, progress: bool) -> PlanSummary:
        """What is left of a plan that is written."""
        rejected = sorted(standing(store).rejected.items())
        run = replace(self, existing=store)
        work = run._work(store.pending(), None, trial, progress)
        return replace(forecast(work, tuple(ImageFailure(*one) for one in rejected)), written=True)

    def _work(self, left: Pending, draft: Draft | None, trial: bool, progress: bool) -> WorkAhead:
        return WorkAhead(
            self.root,
            self.teacher,
            self.options,
            self.workforce,
            {source.name: source for source in self.sources},
            self.existing,
            left,
            draft,
            trial,
            progress,
            self.spec.encoding,
            self.image_quality,
        )


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
