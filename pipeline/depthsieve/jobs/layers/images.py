"""Add images to a store that was labelled without: read from their sources, as a layer, and no teacher looks at them.

A shard at a time, its images side by side. What is committed stands, and the same call goes on.
"""

import hashlib
import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.errors import ImageRejected, RunError, SourceError, StoreDamaged
from depthsieve.core.processes import Process, cores
from depthsieve.core.progress import progress_bar
from depthsieve.core.records import GO_ON, ImageFailure, ImageRecord, Shard
from depthsieve.core.stopping import Abandoned, Stop
from depthsieve.images.decode import decode
from depthsieve.labelling.image import IMAGE_FAULTS
from depthsieve.sources import Source, reopen_source
from depthsieve.store import Store, schema
from depthsieve.store.arrays import ShardReader, check_files
from depthsieve.store.lacking import read_lacking, shards_noted, write_lacking
from depthsieve.store.layer_kinds import IMAGES
from depthsieve.store.layers import LEASE, Layer, commit_to_layer, find_layer, make_layer
from depthsieve.store.leases import Leases
from depthsieve.store.pending import Pending
from depthsieve.store.stored_images import (
    StoredImages,
    empty_rows,
    encode_image,
    images_spec,
    pack_images,
    quality_of,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """What :func:`store_images` did: images added, those that could not be (their rows stay empty), why shards are
    still without, and whether it was stopped before the end."""

    images: int = 0
    refused: tuple[ImageFailure, ...] = ()
    errors: tuple[str, ...] = ()
    stopped: bool = False


def without_images(store: Store) -> Pending:
    """The committed shards that the layer of images does not have."""
    layer = find_layer(store.root, IMAGES, store.fingerprint)
    tables = {generation.number: store.shard_table(generation) for generation in store.generations()}
    return Pending.of(tables, set(store.pending()) | (layer.shards() if layer else set()))


def store_images(
    store: Store, quality: int, leases: Leases, stop: Stop, progress: bool = True, again: bool = False
) -> Stored:
    """Store the images of every committed shard that has none, as JPEG of ``quality`` at label shape.

    An image that is not the one labelled, or cannot be read, is refused by name, now and by every later call, and
    leaves its row empty. With ``again`` such rows are tried once more; an image that is stored stays. Raises
    :class:`RunError` where a source is not there at all, or another process is at it.
    """
    todo = dict.fromkeys(without_images(store), False)
    layer = find_layer(store.root, IMAGES, store.fingerprint)
    if todo or layer is None:
        layer = make_layer(store.root, images_spec(store.fingerprint, quality))
    if again:
        has = sorted(layer.shards() & store.committed())
        todo |= {shard_id: True for shard_id in has if _lacks(store, layer, shard_id)}
    lacking = read_lacking(layer)
    others = [_named(store, shard_id, rows) for shard_id, rows in lacking.items() if shard_id not in todo]
    known = _standing(store, list(itertools.chain.from_iterable(others)))
    if not todo:
        return Stored(refused=known)
    taken = leases.take(f"{LEASE}{IMAGES}")
    if isinstance(taken, Process):
        raise RunError(f"images of {store.location} are being stored by {taken}; wait until it has ended")
    try:
        done = _Storing(store, layer, stop).run(todo, progress)
    finally:
        leases.give_back(taken, settled=True)
    return replace(done, refused=(*known, *done.refused))


def _named(store: Store, shard_id: str, reasons: Mapping[int, str]) -> list[tuple[str, ImageFailure]]:
    """Rows of a shard with their reasons, as images."""
    images = store.planned_shard(shard_id).images
    return [(shard_id, ImageFailure(images[row].id, reason)) for row, reason in sorted(reasons.items())]


def _standing(store: Store, refused: list[tuple[str, ImageFailure]]) -> tuple[ImageFailure, ...]:
    """Those whose label in that shard stands: of an image that was labelled anew, nobody wants the old one."""
    if not refused:
        return ()
    index = store.index()
    stands = index.filter(pc.is_in(index["id"], value_set=pa.array([one.id for _, one in refused], pa.string())))
    shards = dict(zip(stands["id"].to_pylist(), stands["shard"].to_pylist(), strict=True))
    return tuple(one for shard_id, one in refused if shards.get(one.id) == shard_id)


def _lacks(store: Store, layer: Layer, shard_id: str) -> bool:
    """Whether images of labelled rows are missing in a shard of the layer."""
    record = store.commit_record(shard_id)
    folder = layer.folder_of(shard_id, record["content_sha256"])
    if folder is None:
        return True
    empty = empty_rows(ShardReader(store.root, folder).column("offset"))
    return bool((_labels(store, record).column("status")[empty] == schema.STATUS_LABELLED).any())


def _labels(store: Store, record: Mapping[str, Any]) -> ShardReader:
    """The arrays of a shard's labels, which a store would keep open."""
    folder = schema.group_key(record["group"])
    check_files(store.root, folder, record["files"])
    return ShardReader(store.root, folder)


class _Storing:
    def __init__(self, store: Store, layer: Layer, stop: Stop) -> None:
        self._store, self._layer, self._stop = store, layer, stop
        self._quality = quality_of(layer.spec)
        self._images = StoredImages(store)
        self._noted = shards_noted(layer)
        self._sources: dict[str, Source] = {}
        for name, root in store.sources().items():
            self._sources[name] = reopen_source(name, root)

    def run(self, todo: Mapping[str, bool], progress: bool) -> Stored:
        """The shards to be stored, each with whether the layer has it and lacks some of its images."""
        images, stopped = 0, False
        refused: list[tuple[str, ImageFailure]] = []
        errors: list[str] = []
        counts = self._store.images_of(todo)
        with (
            progress_bar("store images", total=sum(counts.values()), shown=progress, leave=True) as bar,
            ThreadPoolExecutor(cores(), "store-images") as pool,
        ):
            for shard_id, has in todo.items():
                if self._stop.requested:
                    stopped = True
                    break
                try:
                    done = self._shard(shard_id, has, pool)
                except Abandoned:
                    stopped = True
                    break
                except (StoreDamaged, OSError) as error:  # it costs no other shard its images
                    reason = str(error) if isinstance(error, StoreDamaged) else (error.strerror or str(error))
                    errors.append(f"shard {shard_id}: {reason}")
                else:
                    images += done.images
                    refused += [(shard_id, one) for one in done.refused]
                bar.update(counts[shard_id])
        return Stored(images, _standing(self._store, refused), tuple(errors), stopped)

    def _shard(self, shard_id: str, has: bool, pool: ThreadPoolExecutor) -> Stored:
        """Store what a shard lacks; what the layer ``has`` of it already stays as it is."""
        shard, record = self._store.planned_shard(shard_id), self._store.commit_record(shard_id)
        labels = _labels(self._store, record)
        status_N, digest_N = labels.column("status"), labels.column("content_sha256")
        jpegs = self._stored(shard_id, record["content_sha256"]) if has else None
        jpegs = jpegs or [b""] * len(shard.images)
        rows = [row for row, jpeg in enumerate(jpegs) if not jpeg and status_N[row] == schema.STATUS_LABELLED]
        found = dict(zip(rows, pool.map(lambda row: self._image(shard, row, digest_N), rows), strict=True))
        refused = {row: one for row, one in found.items() if isinstance(one, ImageFailure)}
        gained = {row: one for row, one in found.items() if isinstance(one, bytes)}
        for row, jpeg in gained.items():
            jpegs[row] = jpeg
        try:
            if refused:
                write_lacking(self._layer, shard_id, {row: one.reason for row, one in refused.items()})
            if gained or not has:
                commit_to_layer(self._layer, shard_id, record["content_sha256"], pack_images(jpegs), again=has)
            if shard_id in self._noted and not refused:
                write_lacking(self._layer, shard_id, {})
        except OSError as error:
            reason = f"cannot write to {self._store.location}: {error.strerror or error}"
            raise RunError(f"{reason}; {GO_ON}") from error
        return Stored(len(gained), tuple(refused.values()))

    def _stored(self, shard_id: str, labels: str) -> list[bytes] | None:
        """The JPEGs that the layer has of a shard; None where it has none for these labels. Raises
        :class:`StoreDamaged`."""
        if self._layer.group_of(shard_id, labels) is None:
            return None
        return [self._images.jpeg(shard_id, row) for row in range(len(self._store.planned_shard(shard_id).images))]

    def _image(self, shard: Shard, row: int, digest_N: NDArray[Any]) -> bytes | ImageFailure:
        image = shard.images[row]
        if self._stop.requested and not self._stop.seconds_left():
            raise Abandoned
        try:
            data = self._read(image)
            if hashlib.sha256(data).hexdigest() != digest_N[row]:
                reason = "changed since it was labelled; `label --check-content` finds that, and labels it anew"
                return ImageFailure(image.id, reason)
            return encode_image(decode(data).rgb_HW3, shard.shape, self._quality)
        except (SourceError, ImageRejected) as error:
            return ImageFailure(image.id, str(error))

    def _read(self, image: ImageRecord) -> bytes:
        name = image.id.partition("/")[0]
        source = self._sources[name]
        try:
            return source.read(image.id)
        except OSError as error:
            reason = f"cannot be read any more: {(error.strerror or str(error)).lower()}"
            if not source.is_there():
                raise RunError(f"the images of source {name!r} are not at {source.root}; is the disk there?") from error
            if error.errno in IMAGE_FAULTS:
                raise ImageRejected(reason) from error
            raise OSError(error.errno, f"{image.id} {reason}") from error
