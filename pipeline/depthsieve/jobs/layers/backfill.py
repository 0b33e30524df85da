"""Fill a layer for the committed shards that lack it: the one loop that every kind of layer goes through.

A kind is a subclass of :class:`Backfill` that computes the arrays of one shard. The loop holds the layer's lease, shows
the bar, stops when it is asked to, names what went wrong with a shard without losing the others, and commits shard by
shard, so that the same call resumes after a crash.
"""

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from depthsieve.core.errors import IMAGE_FAULTS, ImageRejected, RunError, SourceError, StoreBusy, StoreDamaged
from depthsieve.core.processes import Process
from depthsieve.core.progress import progress_bar
from depthsieve.core.records import ImageFailure, ImageRecord, Shard
from depthsieve.core.stopping import Abandoned, Stop
from depthsieve.images.decode import DecodedImage, decode
from depthsieve.runners.dispatch import disk_errors_named
from depthsieve.sources import Source, reopen_source
from depthsieve.storage import Root
from depthsieve.store import Store, schema
from depthsieve.store.arrays import ShardReader, check_files
from depthsieve.store.layer_kinds import LayerSpec
from depthsieve.store.layers import LEASE, Layer, commit_to_layer, make_layer
from depthsieve.store.leases import Leases
from depthsieve.store.pending import Pending


@dataclass(frozen=True)
class CommittedShard:
    """A shard to be added to a layer: its plan, its labels, and the ``digest`` of their content."""

    shard: Shard
    labels: ShardReader
    digest: str

    @classmethod
    def of(cls, store: Store, shard_id: str) -> "CommittedShard":
        """Raises :class:`StoreDamaged` where files of its labels are missing. The store does not keep it open."""
        record = store.commit_record(shard_id)
        folder = schema.group_key(record["group"])
        check_files(store.root, folder, record["files"])
        return cls(store.planned_shard(shard_id), ShardReader(store.root, folder), record["content_sha256"])

    @property
    def id(self) -> str:
        """Its id."""
        return self.shard.id

    def labelled_rows(self) -> list[int]:
        """The rows whose image has a label."""
        rows: list[int] = np.flatnonzero(self.labels.column("status") == schema.STATUS_LABELLED).tolist()
        return rows


@dataclass(frozen=True)
class Computed:
    """What was computed for a shard: the layer's ``arrays`` by name, None where there is nothing to write; how many
    ``images`` count as added; and the rows that could not be done, each with its reason."""

    arrays: Mapping[str, np.ndarray[Any, Any]] | None
    images: int
    refused: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Filled:
    """What a backfill did. ``images`` and ``shards`` were added in ``seconds``, the layer has ``shards_in_all`` of the
    committed shards. ``refused`` are images that could not be done, ``errors`` say which shards could not, and why.
    ``stopped``: it was asked to stop before the end."""

    images: int
    shards: int
    shards_in_all: int
    seconds: float
    refused: tuple[ImageFailure, ...]
    errors: tuple[str, ...]
    stopped: bool


class Backfill(ABC):
    """How the layer of ``spec`` is computed for shards that are committed without it."""

    title: ClassVar[str]
    """What the bar says."""

    in_index: ClassVar[bool] = False
    """Whether the index has columns of this layer: then it is out of date once a shard is added."""

    def __init__(self, store: Store, spec: LayerSpec, *, stop: Stop | None = None, again: bool = False) -> None:
        """Once a ``stop`` is requested, no shard is begun any more. ``again``: shards that the layer has in part are
        done again."""
        self.store = store
        self.spec = spec
        self.stop = stop or Stop()
        self._again = again

    @abstractmethod
    def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
        """Compute one shard. What it raises as :class:`StoreDamaged` or :class:`OSError` is an error of this shard
        alone; :class:`RunError` ends the backfill, and :class:`Abandoned` does so in silence, once it was stopped."""

    def todo(self, layer: Layer) -> Iterator[str]:
        """The shards to do: the committed ones that the layer does not have, then those that it has in part."""
        yield from lacking_shards(self.store, layer)
        if self._again:
            yield from (one for one in sorted(layer.shards() & self.store.committed()) if self._is_partial(layer, one))

    def empty_rows(self, group: ShardReader) -> Iterable[int]:
        """The rows of which a shard of the layer has nothing, for layers that can be so."""
        return ()

    def _is_partial(self, layer: Layer, shard_id: str) -> bool:
        """Whether the layer has nothing of labelled rows of a shard."""
        try:
            shard = CommittedShard.of(self.store, shard_id)
            folder = layer.folder_of(shard_id, shard.digest)
            if folder is None:
                return True
            return not set(shard.labelled_rows()).isdisjoint(self.empty_rows(ShardReader(self.store.root, folder)))
        except StoreDamaged:
            return True  # what it is, is said when the shard's turn comes

    def commit(self, layer: Layer, shard: CommittedShard, computed: Computed) -> None:
        """Write what was computed; a shard that the layer has already is replaced. Raises :class:`OSError`."""
        if computed.arrays is not None:
            encoding = self.store.spec.encoding
            commit_to_layer(layer, shard.id, shard.digest, computed.arrays, encoding, again=True)

    def run(self, *, progress: bool = True, leases: Leases | None = None) -> Filled:
        """Fill the layer, which is created if need be.

        Args:
            progress: show a bar on stderr, or in the notebook.
            leases: those of the caller, where it holds some of this store already.

        Raises:
            StoreBusy: another process is adding to this layer.
            StoreMismatch: there is a layer of this name with another spec.
            RunError: the store cannot be written; what is committed is kept.
        """
        start = time.perf_counter()
        images = shards = 0
        stopped = False
        refused: list[ImageFailure] = []
        errors: list[str] = []
        with disk_errors_named(self.store.root), _lease(self.store.root, self.spec.name, leases):
            layer = make_layer(self.store.root, self.spec)
            counts = self.store.images_of(self.todo(layer))
            if counts and self.in_index:
                self.store.root.remove(schema.INDEX_RECORD)  # it says nothing of layers, and would count as up to date
            shown = progress and bool(counts)
            with progress_bar(self.title, total=sum(counts.values()), shown=shown, leave=True) as bar:
                for shard_id, count in counts.items():
                    if self.stop.requested:
                        stopped = True
                        break
                    try:
                        shard = CommittedShard.of(self.store, shard_id)
                        computed = self.compute(layer, shard)
                    except Abandoned:
                        stopped = True
                        break
                    except (StoreDamaged, OSError) as error:  # it costs no other shard its place in the layer
                        reason = str(error) if isinstance(error, StoreDamaged) else (error.strerror or str(error))
                        errors.append(f"shard {shard_id}: {reason}")
                    else:
                        self.commit(layer, shard, computed)
                        images += computed.images
                        shards += computed.arrays is not None
                        names = shard.shard.images
                        refused += [ImageFailure(names[row].id, why) for row, why in sorted(computed.refused.items())]
                    bar.update(count)
        return Filled(
            images=images,
            shards=shards,
            shards_in_all=len(layer.shards() & self.store.committed()),
            seconds=time.perf_counter() - start,
            refused=tuple(refused),
            errors=tuple(errors),
            stopped=stopped,
        )


class ImageBackfill(Backfill):
    """One that reads the images that were labelled, from their sources."""

    def __init__(self, store: Store, spec: LayerSpec, *, stop: Stop | None = None, again: bool = False) -> None:
        super().__init__(store, spec, stop=stop, again=again)
        self.sources = {name: reopen_source(name, root) for name, root in store.sources().items()}

    def decoded(self, image: ImageRecord, digest: str) -> DecodedImage | ImageRejected | SourceError:
        """An image, seen to be the one that was labelled by its ``digest``; or why there is none. By several threads.

        Raises as :func:`read_labelled`, and :class:`Abandoned` where there is no time left.
        """
        if self.stop.requested and not self.stop.seconds_left():
            raise Abandoned
        try:
            return decode(read_labelled(self.sources, image, digest), self.store.spec.alpha)
        except (SourceError, ImageRejected) as error:
            return error


def lacking_shards(store: Store, layer: Layer | None) -> Pending:
    """The committed shards that a layer does not have; all of them where there is no layer."""
    tables = {generation.number: store.shard_table(generation) for generation in store.generations()}
    return Pending.of(tables, {*store.pending(), *(layer.shards() if layer else ())})


def raise_if_gone(name: str, source: Source, error: OSError) -> None:
    """Raise :class:`RunError` where it is not one image that cannot be read, but its whole source that is not there."""
    if not source.is_there():
        raise RunError(f"the images of source {name!r} are not at {source.root}; is the disk there?") from error


def read_labelled(sources: Mapping[str, Source], image: ImageRecord, digest: str) -> bytes:
    """The file of an image, seen to be the one that was labelled by its ``digest``.

    Raises :class:`ImageRejected` and :class:`SourceError` for what is the image's own fault, :class:`RunError` where
    its whole source is not there, and :class:`OSError`, with its name, for what may be better at the next try.
    """
    name = image.id.partition("/")[0]
    try:
        data = sources[name].read(image.id)
    except OSError as error:
        raise_if_gone(name, sources[name], error)
        reason = f"cannot be read any more: {(error.strerror or str(error)).lower()}"
        if error.errno in IMAGE_FAULTS:
            raise ImageRejected(reason) from error
        raise OSError(error.errno, f"{image.id} {reason}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise ImageRejected("changed since it was labelled; `label --check-content` finds that, and labels it anew")
    return data


@contextmanager
def _lease(root: Root, name: str, leases: Leases | None) -> Iterator[None]:
    """Hold the lease of a layer, so that no repair removes what is in flight, and nobody does the work twice."""
    with Leases(root) if leases is None else nullcontext(leases) as held:
        taken = held.take(f"{LEASE}{name}")
        if isinstance(taken, Process):
            raise StoreBusy(f"layer {name!r} of {root.location} is being written by {taken}; wait until it has ended")
        try:
            root.clear_scratch()
            yield
        finally:
            held.give_back(taken, settled=True)
