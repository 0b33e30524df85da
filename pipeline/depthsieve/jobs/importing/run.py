"""Import depth maps that were made elsewhere: what may be imported, the plan, the shards that are left, the summary."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from depthsieve.core.errors import SourceError, StoreMismatch, StoreNotFound, UsageError
from depthsieve.core.processes import cores
from depthsieve.core.records import ImageFailure, LabelSpec, Quantity
from depthsieve.core.settings import whole_number
from depthsieve.evaluation.ground_truth.readers import USUAL_SCALES
from depthsieve.evaluation.notes import HYPERSIM
from depthsieve.jobs.committing import Committed, commit_pending, leaving_no_folder
from depthsieve.jobs.importing.draft import ImportDraft, draft_import
from depthsieve.jobs.importing.maps import FILES, Opened, open_maps
from depthsieve.jobs.importing.settings import KIND, Means, PlaceSettings, ValueSettings, imported_spec, other_settings
from depthsieve.jobs.importing.shards import ShardImporter
from depthsieve.planning.checks import check_source, check_space, find_store
from depthsieve.reliability.network import ErrorNetwork, confidence_notes
from depthsieve.runners.dispatch import disk_errors_named
from depthsieve.sources import Source, open_source
from depthsieve.sources.scan import scan_to
from depthsieve.storage import Root, expand, open_root
from depthsieve.storage.temporary import temporary_folder
from depthsieve.store import Store, open_store
from depthsieve.store.create import add_generation, check_root, check_spec, open_or_create, prepare_root
from depthsieve.store.leases import PLAN, Leases
from depthsieve.store.networks import keep_network, network_of
from depthsieve.store.plan import rejected_table, removed_table
from depthsieve.store.schema import encoding_of
from depthsieve.store.standing import standing

NAMED = 20
"""How many of the images and maps are named that are left out."""


@dataclass(frozen=True)
class ImportSummary:
    """What :func:`import_labels` did, and the state of the store after it.

    ``imported_now`` and ``seconds`` are this call's, ``planned_now`` the images it added to the plan, or would add in a
    dry run; ``labelled``, ``failed`` (each with its reason) and ``pending`` are the whole store's, in a dry run as it
    would be planned. ``without_map`` counts images without a map and ``without_image`` maps without an image, the first
    of each by name. ``bytes`` is what the labels planned now take at most. ``notes`` are lines that a person should
    see; ``errors`` say why shards are still pending.
    """

    store: str
    imported_now: int
    planned_now: int
    seconds: float
    labelled: int
    failed: tuple[ImageFailure, ...]
    pending: int
    without_map: int
    first_without_map: tuple[str, ...]
    without_image: int
    first_without_image: tuple[str, ...]
    bytes: int
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def import_labels(
    maps: str | Path,
    store: str | Path,
    images: str | Path,
    *,
    quantity: Quantity | None = None,
    scale: float | None = None,
    invalid: Sequence[float] = (),
    max_value: float | None = None,
    distance_to_depth: float | None = None,
    pattern: str | None = None,
    replace: Sequence[tuple[str, str]] = (),
    strip: int = 0,
    dataset: str | None = None,
    confidence: str | None = None,
    confidence_means: Means | None = None,
    confidence_range: tuple[float, float] | None = None,
    confidence_dataset: str | None = None,
    calibration: str | Path | None = None,
    stretched: bool = False,
    made_by: str | None = None,
    name: str = "default",
    root: str | None = None,
    exclude: Sequence[str] = (),
    moved: bool = False,
    shard_size: int = 256,
    threads: int | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> ImportSummary:
    """Make a store of depth maps that were made elsewhere, so that all else here serves them.

    A label has the shape of its map. Maps that are new or have changed since an earlier call are added; the same call
    resumes after a crash, and does nothing where nothing is new. The files stay where they are; nothing is written
    beside them.

    Args:
        maps: a folder with a .npy, .npz, .pfm, .exr, .h5, .hdf5 or 16-bit .png file an image, or what ``depthsieve
            export`` wrote for png, npy, npz, hdf5 or exr, which says itself what it holds.
        store: path or URL of the store; created if it is not there.
        images: the photos: a folder, archive, list or URL, as for :func:`depthsieve.label`.
        quantity: what the maps hold: "depth" (metres, larger is farther) or "disparity" (inverse depth up to scale and
            shift, larger is nearer). None: as an export says.
        scale: how many units of the files are one metre, such as 1000 for millimetres. None: 1 for floats; whole
            numbers of depth need it, those of disparity are divided by 65,535.
        invalid: values, as the files have them, that mark pixels without depth. NaN, infinity and depth of 0 or less
            do so anyway; a disparity of 0 does not. Without any, so does the largest value of a whole-number type in
            maps of depth, such as 65535 in 16 bits, with a note; (0,) says that it is depth.
        max_value: the largest depth in metres, or disparity, that is valid.
        distance_to_depth: the files hold distance to the camera's centre; convert it to depth for this focal length, in
            pixels of the maps, and a camera with square pixels that looks at the middle. Hypersim's is 886.81 at 1024 x
            768.
        pattern: where in the folder an image's map is, as for :func:`depthsieve.evaluate_labels`. None:
            ``{dir}/{stem}`` with one of the suffixes.
        replace: pairs of texts; before ``pattern``, the first is replaced by the second in the image's path.
        strip: before ``replace``, leave out so many folders at the start of the image's path.
        dataset: the array in HDF5 and .npz files. None: the only one.
        confidence: where an image's confidence map is, as ``pattern``.
        confidence_means: what it holds: "higher-is-better", "lower-is-better", "error" (the expected relative error,
            0 or more) or "code" (reliability codes of depthsieve). Only the last two are on a scale that compares with
            other stores.
        confidence_range: the least and the largest confidence there can be. None: 0 to 1, or to the largest whole
            number of the files' type.
        confidence_dataset: the array of confidence in HDF5 and .npz files.
        calibration: file of an error network that ``depthsieve calibrate`` trained: reliability comes from it, by photo
            and map, and not from a confidence. The store keeps a copy. None: the store's, if it has one.
        stretched: maps cover their photos whole although their aspects differ. Otherwise such images are rejected.
        made_by: in a few words, what made the maps; maps of other words never mix with these.
        name: name of the source of the images within the store, the first part of their ids.
        root: folder that ids are relative to, where ``images`` is a list.
        exclude: patterns of files to leave out of ``images``, such as "*_depth.png".
        moved: the images of this source have moved to ``images``.
        shard_size: most images in a shard, for images added now.
        threads: images at a time. None: the cores of this process.
        dry_run: write nothing; say what would be imported and what is wrong with the rest.
        progress: show bars on stderr, or in the notebook.

    Raises:
        UsageError: an invalid option, or one that is needed and missing.
        SourceError: no images, no maps, or none that belong together; an image with two maps or two with one.
        StoreError: a store that holds other labels, or is in use.
        RunError: the store cannot be written; what is committed is kept.
    """
    for option, value in (("shard_size", shard_size), ("threads", threads)):
        if value is not None and (whole_number(value) is None or value < 1):
            raise UsageError(f"{option} must be a whole number of at least 1, not {value!r}")
    values = ValueSettings(
        scale=scale,
        invalid=tuple(invalid),
        max_value=max_value,
        distance_to_depth=distance_to_depth,
        dataset=dataset,
        confidence_means=confidence_means,
        confidence_range=confidence_range,
        confidence_dataset=confidence_dataset,
        made_by=made_by or "",
    )
    places = PlaceSettings(
        pattern=pattern, confidence=confidence, replace=tuple(replace), strip=strip, stretched=stretched
    )
    opened = open_maps(maps, quantity, places, values)
    target = open_root(store)
    check_root(target)
    existing = find_store(target)
    network = _find_network(calibration, existing, opened)
    known = existing is not None and bool(existing.generations())
    version = existing.spec.spec_version if existing is not None and known else opened.code_version
    spec = imported_spec(opened.quantity, opened.values, opened.format, network, version)
    if existing is not None:
        _check_settings(existing, spec)
    source = open_source(images, name, root)
    check_source(source, target, existing, moved)
    run = _Import(
        opened, places, source, tuple(exclude), spec, network, target, existing, shard_size, threads or cores()
    )
    return run.rehearse(progress) if dry_run else run.run(progress)


def _find_network(calibration: str | Path | None, store: Store | None, opened: Opened) -> ErrorNetwork | None:
    """The error network that is named, else the store's own."""
    if calibration is None:
        known = store is not None and store.spec.kind == KIND and bool(store.generations())
        return network_of(store.root, store.spec) if store is not None and known else None
    if opened.values.confidence_means is not None:
        raise UsageError("reliability comes from a confidence or from --calibration, not from both; leave one out")
    network = ErrorNetwork.load(expand(calibration))
    if network.quantity != opened.quantity:
        raise UsageError(
            f"calibration {calibration} was trained on labels of {network.quantity}, and these maps hold "
            f"{opened.quantity}"
        )
    return network.without_confidence()


def _check_settings(store: Store, spec: LabelSpec) -> None:
    """:func:`check_spec`, in the words of an import."""
    try:
        check_spec(store, spec)
    except StoreMismatch as error:
        changed = other_settings(store.spec, spec) if store.spec.kind == spec.kind else ""
        if not changed:
            raise
        raise StoreMismatch(
            f"{store.location} was imported with other settings ({changed}), and maps of two never mix in one store; "
            "say what it was imported with, or name a new store"
        ) from error


@dataclass(frozen=True)
class _Import:
    opened: Opened
    places: PlaceSettings
    source: Source
    exclude: tuple[str, ...]
    spec: LabelSpec
    network: ErrorNetwork | None
    root: Root
    existing: Store | None
    shard_size: int
    threads: int

    def rehearse(self, progress: bool) -> ImportSummary:
        draft = self._draft(self.existing, progress)
        return self._summary(self.existing, draft)

    def run(self, progress: bool) -> ImportSummary:
        draft = self._draft(self.existing, progress)
        with contextlib.ExitStack() as stack:
            stack.enter_context(disk_errors_named(self.root))
            stack.enter_context(leaving_no_folder(self.root))
            check_space(self.root, draft.pixels, len(draft.rows), self._pixel_bytes)
            prepare_root(self.root)
            leases = stack.enter_context(Leases(self.root))
            lease = leases.take_or_raise(PLAN)
            stack.callback(leases.give_back, lease, settled=True)
            self.root.clear_scratch()
            if _changed(self.root, self.existing):  # by another process, while maps were read
                draft = self._draft(open_store(self.root), progress)
            store = self._plan(draft)
            make = partial(ShardImporter, store, self.opened.maps, self.threads)
            done = commit_pending(store, make, leases, progress)
        return self._summary(store, draft, done)

    @property
    def _pixel_bytes(self) -> float:
        return encoding_of(self.spec.encoding).pixel_bytes

    def _draft(self, store: Store | None, progress: bool) -> ImportDraft:
        with temporary_folder() as folder:
            scan = scan_to(folder / "scan", [self.source], progress=progress, exclude=self.exclude)
            draft = draft_import(scan, self.source, self.opened, self.places, store, self.threads, progress)
        if draft.rejected and not draft.rows and all(NEEDS_SCALE in one.reason for one in draft.rejected):
            raise UsageError(f"maps of whole numbers need --scale, how many are a metre: {USUAL_SCALES}")
        if store is None and not draft.rows:
            first = draft.rejected[0]
            raise SourceError(
                f"none of {len(draft.rejected):,} maps in {self.opened.maps.location} can be imported; the first is "
                f"that of {first.id}: {first.reason}; nothing was written"
            )
        return draft

    def _plan(self, draft: ImportDraft) -> Store:
        """The store, made if need be, with what is new planned."""
        store = open_or_create(self.root, self.spec)
        if self.network is not None:
            keep_network(self.root, self.network)
        generations = store.generations()
        made_by = (self.opened.maps.location,)
        sources = dict(store.sources()) | {self.source.name: self.source.root}
        moved = not generations or generations[-1].parents != made_by or store.sources() != sources
        if draft.rows or draft.rejected or moved:
            tables = draft.tables(len(generations), self.shard_size)
            out = (rejected_table(sorted(draft.rejected, key=lambda one: one.id)), removed_table([]))
            add_generation(store, tables, *out, sources, ShardImporter.profile(), made_by)
        return store

    def _summary(self, store: Store | None, draft: ImportDraft, done: Committed | None = None) -> ImportSummary:
        labelled, failed, pending = 0, draft.failures, len(draft.rows)
        if store is not None:
            stands = standing(store)
            labelled = stands.labelled
            failed, pending = stands.unlabelled, stands.pending
            if done is None:
                now = {one.id: one for one in (*failed, *draft.failures)}
                planned = {row["id"] for row in draft.rows}
                failed = tuple(one for name, one in sorted(now.items()) if name not in planned)
                pending += len(draft.rows)
        done = done or Committed()
        return ImportSummary(
            store=self.root.location,
            imported_now=done.images,
            planned_now=len(draft.rows),
            seconds=done.seconds,
            labelled=labelled,
            failed=failed,
            pending=pending,
            without_map=len(draft.without_map),
            first_without_map=tuple(draft.without_map[:NAMED]),
            without_image=len(draft.unused),
            first_without_image=tuple(draft.unused[:NAMED]),
            bytes=int(draft.pixels * self._pixel_bytes),
            notes=tuple(self._notes(draft)),
            errors=done.errors,
        )

    def _notes(self, draft: ImportDraft) -> list[str]:
        notes = []
        if draft.zeros and self.opened.quantity == "disparity" and self.opened.format == FILES:
            notes.append(
                f"{draft.zeros:,} of {len(draft.rows):,} maps hold 0, which counts as valid disparity, very far; "
                "--invalid 0 says that it marks pixels without depth"
            )
        told = self.opened.quantity != "depth" or self.opened.values.distance_to_depth is not None
        if not told and any(HYPERSIM in row["map"] for row in draft.rows):
            notes.append(
                "files called depth_meters are Hypersim's, which hold distance to the camera's centre and not depth: "
                "--distance-to-depth 886.81 converts them (at 1024 x 768)"
            )
        if draft.largest:
            found = (
                f"{draft.largest:,} pixels hold the largest value of their file's type (65,535 in 16 bits), in "
                f"{draft.largest_in:,} of {len(draft.rows):,} maps, and were taken for "
            )
            notes.append(
                found + "valid, as --invalid names others"
                if self.opened.values.invalid
                else found + "invalid; if they are depth, say with --invalid what is invalid, such as --invalid 0"
            )
        notes += confidence_notes(self.network, "an import")
        means = self.opened.values.confidence_means
        if not draft.rows or self.network is not None:
            return notes
        if means is None:
            notes.append(
                "no confidence: every valid pixel has the same reliability, so a mask drops none of them; --confidence "
                "or --calibration gives it some"
            )
        elif means not in ("error", "code"):
            notes.append(
                "reliability from this confidence is not calibrated: it orders pixels, but its codes are no expected "
                "errors and do not compare with other stores"
            )
        return notes


NEEDS_SCALE = "it holds whole numbers: say how many are a metre"


def _changed(root: Root, before: Store | None) -> bool:
    """Whether the store has another plan than it had."""
    try:
        now = len(open_store(root).generations())
    except StoreNotFound:
        return False
    return now != (len(before.generations()) if before is not None else 0)
