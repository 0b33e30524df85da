"""Make and commit the shards that are left of a store without a teacher: fused and imported ones."""

import contextlib
import importlib.metadata
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from depthsieve.core.errors import DepthsieveError, RunError
from depthsieve.core.progress import progress_bar
from depthsieve.core.records import NumericsProfile, Shard, ShardResult, digest_of
from depthsieve.core.threads import torch_threads
from depthsieve.storage import Root
from depthsieve.store import Store
from depthsieve.store.create import write_index
from depthsieve.store.leases import Lease, Leases
from depthsieve.store.plan import decode_shard
from depthsieve.store.writer import CommitContext, ShardArrays, commit_shard, empty_arrays

Arrays = dict[str, np.ndarray[Any, Any]]


class ShardMaker(ABC):
    """Makes and commits the shards of a store, one call a shard; the images of a shard in so many ``threads``.

    ``on_image`` is called after each image, in one of them. Not for two threads at once.
    """

    title: ClassVar[str]
    """What the bar says."""

    def __init__(self, store: Store, threads: int, on_image: Callable[[], object] = lambda: None) -> None:
        self.store = store
        self._threads, self._on_image = threads, on_image

    @classmethod
    def profile(cls) -> NumericsProfile:
        """The profile of this process: images are made one by one, each by one thread."""
        versions = {name: importlib.metadata.version(name) for name in ("numcodecs", "numpy", "torch", "zarr")}
        return NumericsProfile(1, 1, "cpu", "any", "none", dict(sorted((versions | cls.versions()).items())))

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Of what else the labels depend on."""
        return {}

    @abstractmethod
    def begin(self, shard: Shard, rows: pa.Table, arrays: Arrays) -> Callable[[int], object]:
        """What makes the label of one row of a shard, in ``arrays``, or says there why it has none; called by several
        threads. ``rows`` are those of the plan."""

    def __call__(self, shard_id: str) -> ShardResult:
        """Make one shard and commit it. What it is made of and cannot be read comes back as ``error``.

        Raises :class:`OSError` where the store cannot be written.
        """
        try:
            shard, content, context = self.label_only(shard_id)
        except (DepthsieveError, OSError) as error:
            return ShardResult(shard_id, error=str(error))
        self.commit(shard, content, context)
        return ShardResult(shard_id, len(shard.images) - len(content.failures))

    def label_only(self, shard_id: str) -> tuple[Shard, ShardArrays, CommitContext]:
        """A shard, its labels, and what its commit record would say besides; nothing is committed."""
        rows = self.store.planned_rows(shard_id)
        shard = decode_shard(rows)
        arrays = empty_arrays(shard)
        make = self.begin(shard, rows, arrays)

        def make_row(row: int) -> None:
            with torch_threads(1):
                make(row)
            self._on_image()

        pool = ThreadPoolExecutor(self._threads, self.title)
        try:
            for _ in pool.map(make_row, range(len(shard.images))):
                pass
        finally:
            pool.shutdown(cancel_futures=True)  # where one raises, the others are not wanted
        spec, profile = self.store.spec, digest_of(self.profile().to_json())
        return shard, ShardArrays(arrays), CommitContext.of(spec, profile)

    def commit(self, shard: Shard, content: ShardArrays, context: CommitContext) -> None:
        """Commit what :meth:`label_only` made; in another thread than that. Raises :class:`OSError`."""
        commit_shard(self.store.root, shard, content, context)


@dataclass(frozen=True, slots=True)
class Committed:
    """How many ``images`` were labelled in ``seconds``, and why shards are still left."""

    images: int = 0
    seconds: float = 0.0
    errors: tuple[str, ...] = ()


def commit_pending(
    store: Store, make: Callable[[Callable[[], object]], ShardMaker], leases: Leases, progress: bool
) -> Committed:
    """Make every shard that is left, and write the index. ``make`` gets what the maker should call after each image."""
    leases.forget(store.is_committed)
    start = time.perf_counter()
    todo = store.pending()
    labelled, errors = 0, []
    with contextlib.ExitStack() as stack:
        stack.callback(_write_index, store)
        shown = progress and len(todo) > 0
        maker = make(lambda: bar.update())
        bar = stack.enter_context(progress_bar(maker.title, total=todo.images, shown=shown, leave=True))
        pool = stack.enter_context(ThreadPoolExecutor(1, "commit"))
        held = stack.enter_context(_Held(leases))
        committing: list[tuple[str, Future[None]]] = []
        for shard_id in todo:
            held.take(shard_id)  # so that `verify` knows what is under way
            try:
                shard, content, context = maker.label_only(shard_id)
            except (DepthsieveError, OSError) as error:  # of what it is made of: it costs no other shard its labels
                errors.append(f"shard {shard_id}: {error}")
                held.give_back(shard_id)
                continue
            for before, commit in committing:
                commit.result()
                held.give_back(before)
            committing = [(shard_id, pool.submit(maker.commit, shard, content, context))]
            labelled += len(shard.images) - len(content.failures)
        for _, commit in committing:
            commit.result()
    return Committed(labelled, time.perf_counter() - start, tuple(errors))


def _write_index(store: Store) -> None:
    with contextlib.suppress(OSError, RunError):  # it is derived
        write_index(store)


@contextlib.contextmanager
def leaving_no_folder(root: Root) -> Iterator[None]:
    """Where the work is refused, remove the empty folders that it made to find that out."""
    folders = [] if root.path is None else [root.path / "leases", root.path / "tmp", root.path, *root.path.parents]
    made = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except DepthsieveError:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        raise


class _Held(contextlib.AbstractContextManager["_Held"]):
    """Leases of the shards in hand; those that are left are given back at the end."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._taken: dict[str, Lease] = {}

    def take(self, shard_id: str) -> None:
        lease = self._leases.take(shard_id)
        if isinstance(lease, Lease):
            self._taken[shard_id] = lease

    def give_back(self, shard_id: str) -> None:
        if shard_id in self._taken:
            self._leases.give_back(self._taken.pop(shard_id), settled=True)

    def __exit__(self, *error: object) -> None:
        for shard_id in list(self._taken):
            with contextlib.suppress(OSError):
                self.give_back(shard_id)
