"""Add images to a store that was labelled without: read from their sources, as a layer, without the teacher.

A shard at a time, its images side by side. What is committed is kept, and the same call resumes.
"""

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.processes import cores
from depthsieve.core.records import ImageFailure, ImageRecord, Shape
from depthsieve.core.stopping import Stop
from depthsieve.images.decode import DecodedImage
from depthsieve.jobs.layers.backfill import CommittedShard, Computed, ImageBackfill, lacking_shards
from depthsieve.store import Store
from depthsieve.store.arrays import ShardReader
from depthsieve.store.lacking import read_lacking, shards_noted, write_lacking
from depthsieve.store.layer_kinds import IMAGES
from depthsieve.store.layers import Layer, find_layer
from depthsieve.store.leases import Leases
from depthsieve.store.pending import Pending
from depthsieve.store.stored_images import StoredImages, empty_rows, encode_image, images_spec, pack_images


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
    return lacking_shards(store, find_layer(store.root, IMAGES, store.fingerprint))


def store_images(
    store: Store, quality: int, leases: Leases, stop: Stop, progress: bool = True, again: bool = False
) -> Stored:
    """Store the images of every committed shard that has none, as JPEG of ``quality`` at label shape.

    An image that is not the one labelled, or cannot be read, is refused by name, now and by every later call, and
    leaves its row empty. With ``again`` such rows are retried; an image that is stored stays. Raises :class:`RunError`
    where a source is not there at all, and :class:`StoreBusy` where another process is storing images.
    """
    filled = _Images(store, quality, stop, again).run(progress=progress, leases=leases)
    layer = find_layer(store.root, IMAGES, store.fingerprint)
    refused = _standing(store, layer) if layer else ()
    return Stored(filled.images, refused, filled.errors, filled.stopped)


def _standing(store: Store, layer: Layer) -> tuple[ImageFailure, ...]:
    """The images that the layer lacks and whose label counts: of a file that was labelled again since, nobody wants the
    old image."""
    lacking = {
        (store.planned_shard(shard_id).images[row].id, shard_id): reason
        for shard_id, rows in read_lacking(layer).items()
        for row, reason in sorted(rows.items())
    }
    if not lacking:
        return ()
    index = store.index(features=False)
    stands = index.filter(pc.is_in(index["id"], value_set=pa.array([image for image, _ in lacking], pa.string())))
    counts = set(zip(stands["id"].to_pylist(), stands["shard"].to_pylist(), strict=True))
    return tuple(ImageFailure(one[0], reason) for one, reason in lacking.items() if one in counts)


class _Images(ImageBackfill):
    title = "store images"

    def __init__(self, store: Store, quality: int, stop: Stop, again: bool) -> None:
        super().__init__(store, images_spec(store.fingerprint, quality), stop=stop, again=again)
        self._quality = quality
        self._noted: set[str] = set()

    @functools.cached_property
    def _stored(self) -> StoredImages:
        return StoredImages(self.store)

    def todo(self, layer: Layer) -> Iterator[str]:
        """As any; what is noted of shards is read first."""
        self._noted = shards_noted(layer)
        return super().todo(layer)

    def empty_rows(self, group: ShardReader) -> Iterable[int]:
        """Those without an image."""
        rows: list[int] = empty_rows(group.column("offset")).tolist()
        return rows

    def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
        """The images that the layer lacks, beside those that it has; nothing to write where none could be read."""
        has = layer.group_of(shard.id, shard.digest) is not None
        rows, images = shard.labelled_rows(), shard.shard.images
        jpegs = [self._stored.jpeg(shard.id, row) if has else b"" for row in range(len(images))]
        digest_N = shard.labels.column("content_sha256")
        lacking = [row for row in rows if not jpegs[row]]
        refused: dict[int, str] = {}
        with ThreadPoolExecutor(cores(), "store-images") as pool:
            read = pool.map(lambda row: self._image(images[row], shard.shard.shape, str(digest_N[row])), lacking)
            for row, found in zip(lacking, read, strict=True):
                if isinstance(found, bytes):
                    jpegs[row] = found
                else:
                    refused[row] = str(found)
        added = len(lacking) - len(refused)
        return Computed(pack_images(jpegs) if added or not has else None, added, refused)

    def commit(self, layer: Layer, shard: CommittedShard, computed: Computed) -> None:
        """Note what the shard lacks before the layer has it, and that it lacks nothing only after."""
        if computed.refused:
            write_lacking(layer, shard.id, computed.refused)
        super().commit(layer, shard, computed)
        if not computed.refused and shard.id in self._noted:
            write_lacking(layer, shard.id, {})

    def _image(self, image: ImageRecord, shape: Shape, digest: str) -> bytes | ImageRejected | SourceError:
        found = self.decoded(image, digest)
        return encode_image(found.rgb_HW3, shape, self._quality) if isinstance(found, DecodedImage) else found
