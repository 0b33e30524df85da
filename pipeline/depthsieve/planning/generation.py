"""To a committed generation: what the inventory found and the store does not know becomes its newest plan."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from depthsieve.core.errors import StoreError
from depthsieve.core.progress import logger
from depthsieve.core.records import DatasetNote, NumericsProfile, TeacherRequest
from depthsieve.labelling.predicting import label_shape
from depthsieve.planning.cameras import again, planned_cameras
from depthsieve.planning.changes import keep_times
from depthsieve.planning.checks import check_source, check_space, has_moved, pixel_bytes
from depthsieve.planning.draft import Draft, PlannedNow, draft_batches
from depthsieve.planning.request import LabelRequest
from depthsieve.planning.workforce import MOST_A_SHARD, choose_profile, choose_shard_size
from depthsieve.sources.scan import Scan
from depthsieve.store import Store
from depthsieve.store.create import add_generation, open_or_create
from depthsieve.store.networks import keep_network
from depthsieve.store.standing import Again


def add_new(request: LabelRequest, scan: Scan, progress: bool) -> tuple[Store, PlannedNow]:
    """The store, made if need be, with what is new in the scan planned; and how much that is.

    Only the holder of the store's plan lease calls this. Nothing is added where nothing is new.
    """
    store = open_or_create(request.root, request.spec)
    if request.work.network is not None:
        keep_network(request.root, request.work.network)
    for source in request.sources:
        check_source(source, request.root, store, request.options.moved)
    moved = has_moved(store, request.sources, scan)
    known, now = store.datasets(), request.manifest.datasets if request.manifest else {}
    learnt = {name: note for name, note in now.items() if known.get(name) != note}
    found = None
    with request.root.scratch("plan") as folder, draft_generation(request, store, scan, folder) as draft:
        before = store.excluded()
        excluded = {name: one for name, one in request.excluded.items() if one != before.get(name, ())}
        taken = _newly_taken(request, scan, store)
        sequences = _newly_sequences(request, store)
        if draft or moved or learnt or excluded or taken or sequences:
            check_space(request.root, draft.pixels, draft.images, pixel_bytes(request.options, request.spec.encoding))
            profile = choose_profile(request.teacher, request.options, draft, request.workforce, progress)
            logger.info("plan: %d images, batches of %d, %d threads", draft.images, profile.batch_size, profile.threads)
            crew = (request.teacher, request.options, draft, request.workforce)
            shard_size, by_trial = choose_shard_size(*crew, profile)
            if by_trial and draft.shards(shard_size) != draft.shards(MOST_A_SHARD):
                found = shard_size  # it is recorded only where it makes a difference
            sources = {source.name: source.root for source in request.sources}
            said = (learnt, excluded, taken, sequences)
            write_generation(store, draft, sources, profile, request.asked, shard_size, *said, found_size=found)
        planned = replace(draft.planned, shard_size=found)
    with request.root.scratch("times") as folder:
        keep_times(scan, store, folder)
    return store, planned


def _newly_taken(request: LabelRequest, scan: Scan, store: Store) -> dict[str, str]:
    """By the names of sources that have videos, which of their frames are taken, where that is new."""
    if request.manifest is None and not scan.tally.passed.videos.count:
        return {}
    before = store.frames()
    return {name: str(choice) for name, choice in request.frames.items() if before.get(name) != str(choice)}


def _newly_sequences(request: LabelRequest, store: Store) -> dict[str, bool]:
    """By the names of sources, whether their folders are clips, where that is new."""
    said = request.options.sequence
    if said is None:
        return {}
    before = store.sequences()
    return {source.name: said for source in request.sources if (source.name in before) != said}


def written_plan(request: LabelRequest) -> Store:
    """The store whose plan is shared. Raises :class:`StoreError` where none is written."""
    if request.existing is None or not request.existing.generations():
        raise StoreError(
            f"{request.root.location} has no plan to take a part of; write it first: depthsieve plan SOURCE STORE "
            "--write, with the same teacher and options"
        )
    return request.existing


@contextlib.contextmanager
def draft_generation(request: LabelRequest, store: Store | None, scan: Scan, folder: Path) -> Iterator[Draft]:
    """What the scan found and the store, if there is one yet, does not know. ``folder`` is made and used until the end.

    With the option ``retry_failed`` images that failed are tried again as "replace" rows, and those whose file is gone
    leave the store. With ``prune`` all that are gone leave it. Raises as
    :meth:`~depthsieve.planning.cameras.PlannedCameras.unnamed`.
    """
    whole = {source.name for source in request.sources if not source.is_one_file}

    def leaves(image: str) -> bool:
        return image.partition("/")[0] in whole

    cameras = planned_cameras(request, store, scan)
    anew = again(request, store, cameras) if store is not None else Again()
    found = (scan.images(), scan.rejected())
    gone = scan.gone() if request.options.prunes else ()
    shape_of = functools.partial(label_shape, request.teacher)
    with draft_batches(*found, shape_of, folder, store, anew, leaves, gone, cameras.of) as draft:
        yield replace(draft, unnamed=cameras.unnamed(draft.without_camera()))


def write_generation(
    store: Store,
    draft: Draft,
    sources: Mapping[str, str],
    profile: NumericsProfile,
    asked: TeacherRequest,
    shard_size: int,
    datasets: Mapping[str, DatasetNote] | None = None,
    excluded: Mapping[str, tuple[str, ...]] | None = None,
    frames: Mapping[str, str] | None = None,
    sequences: Mapping[str, bool] | None = None,
    *,
    found_size: int | None = None,
) -> None:
    """Commit a draft to the store, as its newest generation. ``sources`` are the names and roots that it adds,
    ``datasets`` what it adds to what is known of them, ``excluded`` the patterns of what is left out of them now,
    ``frames`` which frames of their videos are taken, ``sequences`` whether their folders are
    clips. ``found_size`` is the size of shards where a trial chose it."""
    add_generation(
        store,
        draft.tables(len(store.generations()), shard_size),
        draft.rejected,
        draft.gone,
        dict(store.sources()) | dict(sources),
        profile,
        asked,
        datasets,
        excluded,
        frames,
        sequences,
        shard_size=found_size,
    )
