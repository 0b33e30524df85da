"""Make and commit the shards that are left of a store without a teacher: fused and imported ones."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from depthsieve.core.errors import DepthsieveError
from depthsieve.core.progress import progress_bar
from depthsieve.core.records import Shard
from depthsieve.storage import Root
from depthsieve.store import Store
from depthsieve.store.leases import Lease, Leases
from depthsieve.store.writer import CommitContext, ShardArrays


class Maker(Protocol):
    """What makes the labels of a shard."""

    def label_only(self, shard_id: str) -> tuple[Shard, ShardArrays, CommitContext]:
        """A shard, its labels, and what its commit record says besides; nothing is committed."""

    def commit(self, shard: Shard, content: ShardArrays, context: CommitContext) -> None:
        """Commit what :meth:`label_only` made; in another thread than that."""


def commit_pending(
    store: Store, make: Callable[[Callable[[], object]], Maker], leases: Leases, title: str, progress: bool
) -> tuple[int, tuple[str, ...]]:
    """Make every shard that is left. Returns how many images were labelled, and why shards are still left.

    ``make`` returns the maker, which calls what it is given after each image; ``title`` is that of the bar.
    """
    todo = store.pending()
    labelled, errors = 0, []
    with contextlib.ExitStack() as stack:
        shown = progress and len(todo) > 0
        bar = stack.enter_context(progress_bar(title, total=todo.images, shown=shown, leave=True))
        maker = make(lambda: bar.update())
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
    return labelled, tuple(errors)


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
