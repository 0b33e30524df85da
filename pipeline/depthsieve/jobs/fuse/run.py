"""Fuse stores: what may be fused, the plan, the shards that are left, the summary."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from depthsieve.core.errors import StoreError, StoreNotFound, UsageError
from depthsieve.core.processes import cores
from depthsieve.core.records import DatasetNote, ImageFailure
from depthsieve.core.settings import whole_number
from depthsieve.jobs.committing import commit_pending, leaving_no_folder
from depthsieve.jobs.fuse.draft import FusionDraft, LeftOut, draft_fusion
from depthsieve.jobs.fuse.shards import ShardFuser, fused_spec
from depthsieve.planning.checks import check_space
from depthsieve.reliability.fusion import shipped_calibration
from depthsieve.reliability.merging import check_quantities
from depthsieve.runners.dispatch import disk_errors_named
from depthsieve.storage import Root, open_root
from depthsieve.store import Store, open_store
from depthsieve.store.create import add_generation, check_root, check_spec, open_or_create, prepare_root
from depthsieve.store.leases import PLAN, Leases
from depthsieve.store.plan import rejected_table, removed_table
from depthsieve.store.schema import encoding_of
from depthsieve.store.standing import standing


@dataclass(frozen=True)
class FuseSummary:
    """What :func:`fuse` did, and the state of the fused store after it.

    ``fused_now`` and ``seconds`` are this call's, ``planned_now`` the images it added to the plan; ``labelled``,
    ``failed`` (each with its reason) and ``pending`` are the whole store's. ``left_out`` has for each parent the images
    that it has labelled and another one has not. ``calibration`` is the name of what their disagreement was judged by;
    ``errors`` say why shards are still pending.
    """

    store: str
    fused_now: int
    planned_now: int
    seconds: float
    labelled: int
    failed: tuple[ImageFailure, ...]
    pending: int
    left_out: tuple[LeftOut, ...]
    calibration: str
    errors: tuple[str, ...] = ()


def fuse(
    stores: Sequence[str | Path],
    out: str | Path,
    *,
    shard_size: int = 256,
    threads: int | None = None,
    progress: bool = True,
) -> FuseSummary:
    """Merge the labels of several stores into one store: see :func:`depthsieve.reliability.merge_labels`.

    The order of ``stores`` counts: labels of the others are brought to the shape, quantity and scale of the first, so
    name the best teacher first. Images that all of them have labelled are fused; the summary counts those that have a
    label in some stores only. It resumes what an earlier call left, and adds images that the stores have labelled or
    relabelled since. It needs neither images nor teachers.

    Args:
        stores: paths or URLs of two stores or more, of different label specs.
        out: path or URL of the store of the fused labels; created if it is not there.
        shard_size: most images in a shard, for images added now.
        threads: images fused at a time. None: the cores of this process.
        progress: show a bar on stderr, or in the notebook.

    Raises:
        UsageError: fewer than two stores, the same labels twice, disparity beside a first store in metres, or an
            ``out`` that is one of them.
        StoreError: a store that is not there or damaged, no image in all of them, or an ``out`` with other labels.
        StoreBusy: another process is fusing into ``out``.
        RunError: the fused store cannot be written; what is committed is kept.
    """
    for name, value in (("shard_size", shard_size), ("threads", threads)):
        if value is not None and (whole_number(value) is None or value < 1):
            raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
    run = _Fusion.begin(stores, out, shard_size, threads or cores())
    with disk_errors_named(run.root):
        return run.run(progress)


@dataclass
class _Fusion:
    parents: tuple[Store, ...]
    root: Root
    shard_size: int
    threads: int

    @classmethod
    def begin(cls, stores: Sequence[str | Path], out: str | Path, shard_size: int, threads: int) -> "_Fusion":
        """Check all that is cheap to check; nothing is written."""
        if isinstance(stores, str | Path):
            raise UsageError(f"name two stores or more to fuse, not {str(stores)!r} alone")
        parents = tuple(open_store(one) for one in stores)
        check_quantities([parent.spec.quantity for parent in parents])
        root = open_root(out)
        for number, parent in enumerate(parents):
            if root.location == parent.location:
                raise UsageError(f"{root.location} is one of the stores to fuse; name another one for the fused labels")
            for other in parents[:number]:
                if parent.fingerprint == other.fingerprint:
                    raise UsageError(
                        f"{other.location} and {parent.location} hold labels of one label spec, so they cannot judge "
                        "each other; name stores of different teachers or settings"
                    )
        spec = fused_spec(parents)
        shipped_calibration().weights_of(spec.quantity, spec.signals)
        check_root(root)
        with contextlib.suppress(StoreNotFound):
            check_spec(open_store(root), spec)
        return cls(parents, root, shard_size, threads)

    def run(self, progress: bool) -> FuseSummary:
        with contextlib.ExitStack() as stack:
            stack.enter_context(leaving_no_folder(self.root))
            prepare_root(self.root)
            leases = stack.enter_context(Leases(self.root))
            lease = leases.take_or_raise(PLAN)
            try:
                self.root.clear_scratch()
                store, draft = self._plan()
                done = commit_pending(store, partial(ShardFuser, store, self.parents, self.threads), leases, progress)
            finally:
                leases.give_back(lease, settled=True)
        stands = standing(store)
        return FuseSummary(
            store.location,
            done.images,
            draft.images,
            done.seconds,
            stands.labelled,
            stands.unlabelled,
            stands.pending,
            draft.left_out,
            store.spec.calibration,
            done.errors,
        )

    def _plan(self) -> tuple[Store, FusionDraft]:
        """The store, made if need be, with what is new planned."""
        existing = None
        with contextlib.suppress(StoreNotFound):
            existing = open_store(self.root)
        with self.root.scratch("plan") as folder, draft_fusion(self.parents, existing, folder) as draft:
            if not draft.common:
                named = " and ".join(f"{one.store} ({_example(one)})" for one in draft.left_out)
                raise StoreError(
                    f"no image has a label in all of {named}; fuse stores that label the same images under the same "
                    "--name"
                )
            store = open_or_create(self.root, fused_spec(self.parents))
            generations = store.generations()
            locations = tuple(parent.location for parent in self.parents)
            if draft.images or generations[-1].parents != locations:
                check_space(self.root, draft.pixels, draft.images, encoding_of(store.spec.encoding).pixel_bytes)
                tables = draft.tables(len(generations), self.shard_size)
                nothing = (rejected_table([]), removed_table([]))
                sources = self.parents[0].sources()
                terms: dict[str, DatasetNote] = {}
                for parent in reversed(self.parents):  # what the first says of a source counts
                    terms |= {name: note for name, note in parent.datasets().items() if name in draft.sources}
                add_generation(store, tables, *nothing, sources, ShardFuser.profile(), locations, terms)
            return store, draft


def _example(left_out: LeftOut) -> str:
    return f"such as {left_out.first[0]}" if left_out.first else "none"
