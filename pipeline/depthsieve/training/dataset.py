"""Labels and images of a store as samples for training. Axes: N images, H row, W column, C channel, B image of a batch.

loader = PseudoLabelDataset("labels", drop=0.10, crop=140, seed=0).loader(global_batch=8)
for batch in loader:  # one pass is one epoch; the next pass is the next one
    batch["image_BCHW"], batch["depth_BHW"], batch["mask_BHW"]
"""

import dataclasses
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.reliability.masking import drop_count
from depthsieve.sources import is_remote, reopen_source, root_of
from depthsieve.store import Store, open_store
from depthsieve.store.cache import ShardCache
from depthsieve.store.layer_kinds import IMAGES
from depthsieve.store.layers import find_layer
from depthsieve.store.stored_images import StoredImages
from depthsieve.training.arguments import whole_number
from depthsieve.training.augment import Augment
from depthsieve.training.batches import BatchLoader
from depthsieve.training.delivery import Delivery, Ranks
from depthsieve.training.epoch import shuffled
from depthsieve.training.expand import THRESHOLD
from depthsieve.training.prefetch import Prefetch, prefetching
from depthsieve.training.samples import Pixels, Reader, Sample, SampleKey, empty_maps, with_axes
from depthsieve.training.selection import Entry, Selection, select
from depthsieve.training.thresholds import Scope, Thresholds

ImageRoots = str | Path | Mapping[str, str | Path] | Literal[False] | None


class Short(TypedDict, total=False):
    """What :class:`PseudoLabelDataset` takes of :class:`Augment` by itself."""

    crop: int | tuple[int, int] | None
    flip: bool


class PseudoLabelDataset(Dataset[Sample]):
    """Labelled images of a store, for training a student. Train through :meth:`loader`.

    A sample is a dict of tensors: ``image_CHW`` float32, RGB, 0..1 (not there with ``images=False``); ``depth_HW``
    float32 in the store's ``quantity`` (disparity up to scale and shift, larger is nearer; or metres);
    ``reliability_HW`` uint8, 0 = never train on it, else larger is better; ``mask_HW`` bool, True = train; and ``id``,
    text. All are upright, at label shape, and cut by the same window.

    ``dataset[i]`` is the i-th sample in the shuffled order of the epoch that :meth:`set_epoch` set (0 at first), and
    iterating goes through that epoch; whole epochs, in any process, are a pure function of the store's snapshot, the
    subset, ``seed`` and epoch.

    Args:
        store: path of a label store, or an open one.
        images: where the images are. None: in the store, where it has all of them (``label --store-images``), else
            where the store recorded their sources. "stored" or "source": the one or the other. A path: there, where the
            store has one source whose data moved. A mapping from names of sources to paths: those moved. False: labels
            only.
        subset: ids to serve, or the path of a Parquet file with columns ``id`` and ``keep``; its metadata
            ``fingerprint`` and ``snapshot``, if there, must be the store's. None: all labelled images.
        drop: share of the valid pixels to mask, the least reliable first, in [0, 1); 0 masks invalid pixels only.
            Pixels of one code are masked together, so the share is at most ``drop``; :meth:`masked_share` tells it.
        scope: over what that share is taken: each ``image``, the global ``batch``, or the whole ``dataset``. Always
            from stored histograms of uncropped labels.
        seed: decides order and augmentation.
        augment: how samples vary: crop, scale, mirroring, colours. Without a crop whole labels are served, in batches
            of one label shape each.
        short: ``crop=`` and ``flip=``, short for those of ``augment``, which they change.
        reliability: name of a layer that ``depthsieve recalibrate`` made: reliability and masks come from it. None:
            from the labels, or as an open ``store`` has it.

    Raises:
        UsageError: ``drop``, ``scope``, ``seed``, ``images`` or what is in ``augment`` cannot be meant.
        LoaderError: no labelled image, a subset that does not fit the store, a crop larger than a label, or an image
            root that is not there. From samples: a source image that cannot be read or is not the one labelled.
        StoreError: ``store`` is not there or cannot be read, it has no such layer, or the layer lacks images.
    """

    def __init__(
        self,
        store: str | Path | Store,
        images: ImageRoots = None,
        subset: Collection[str] | str | Path | None = None,
        drop: float = 0.10,
        scope: Scope = "image",
        seed: int = 0,
        augment: Augment | None = None,
        reliability: str | None = None,
        **short: Unpack[Short],
    ) -> None:
        drop_count(drop, 0)  # raises where drop is out of range
        if scope not in ("image", "batch", "dataset"):
            raise UsageError(f"scope must be 'image', 'batch' or 'dataset', not {scope!r}")
        number = whole_number(seed)
        if number is None:
            raise UsageError(f"seed must be a whole number, not {seed!r}")
        if not isinstance(augment, Augment | None):
            raise UsageError(f"augment must be an Augment, for example Augment.strong(crop=140), not {augment!r}")
        self.drop, self.scope, self.seed = float(drop), scope, number
        self.augment = dataclasses.replace(augment or Augment(), **short)
        self.epoch = 0
        self._store = store if isinstance(store, Store) else open_store(store)
        if reliability is not None:
            self._store = self._store.with_layer(reliability)
        self.selection = select(self._store, subset)
        if self._store.root.path is None and self._store.cache is None:
            cache = ShardCache.of_environment()
            if self.selection.label_bytes(self._store) <= cache.most:  # else most would go before it is used again
                self._store = self._store.with_cache(cache)
        self._store.check_covered(self.selection.images_of_shards())
        self._check_crop_fits()
        self.images_stored = self._finds_stored(images)
        reads = images is not False and not self.images_stored
        roots = None if isinstance(images, str) and images == "source" else images
        self.image_roots = _image_roots(self._store, self.selection, roots) if reads else None
        self.thresholds = Thresholds(self._store, self.selection, self.drop, scope)
        self._reader: Reader | None = None
        self._order: tuple[int, NDArray[np.uint32]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: no open files."""
        return self.__dict__ | {"_reader": None}

    @property
    def ids(self) -> list[str]:
        """Ids of the images served, sorted."""
        return self.selection.ids

    @property
    def is_remote(self) -> bool:
        """Whether labels or images lie in an object store."""
        roots = [self._store.location, *(self.image_roots or {}).values()]
        return any(map(is_remote, roots))

    @property
    def quantity(self) -> str:
        """What ``depth_HW`` holds: ``disparity`` (up to scale and shift) or ``depth`` in metres."""
        return self._store.spec.quantity

    @property
    def crop(self) -> tuple[int, int] | None:
        """(height, width) of what is served; None serves whole labels."""
        return self.augment.shape

    @property
    def flip(self) -> bool:
        """Whether every other sample is mirrored."""
        return self.augment.flip

    @property
    def has_images(self) -> bool:
        """Whether samples have an image."""
        return self.images_stored or self.image_roots is not None

    def masked_share(self) -> float:
        """The fraction of valid pixels that is really masked, over all images and before crops: at most ``drop``.

        Raises :class:`UsageError` at scope ``batch``, where :meth:`BatchLoader.masked_share` knows it.
        """
        return self.thresholds.masked_share()

    def identity(self) -> dict[str, Any]:
        """What decides the samples, as plain values: a saved state fits only where all of them are the same."""
        return {
            "fingerprint": self._store.fingerprint,
            "snapshot": self.selection.snapshot,
            "subset": self.selection.digest,
            "reliability": self._store.layer and f"{self._store.layer.name} ({self._store.layer.spec.digest[:12]})",
            "seed": self.seed,
            "drop": self.drop,
            "scope": self.scope,
            "images": "stored" if self.images_stored else "source" if self.has_images else None,
        } | self.augment.identity()

    def loader(
        self,
        global_batch: int,
        num_workers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        device: Any = None,
        **options: Any,
    ) -> BatchLoader:
        """Batches for training, in an order that threads, workers and ranks do not change; see :class:`BatchLoader`."""
        ranks = Ranks.find(rank, world_size)
        return BatchLoader(self, global_batch, ranks, drop_last, Delivery.of(num_workers, device, options))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that ``dataset[i]`` and iteration show. Worker processes that live on (a ``DataLoader`` with
        ``persistent_workers``) do not hear of it; :meth:`loader` counts epochs by itself and needs none of this.

        Raises :class:`UsageError` for what is no whole number of at least 0.
        """
        number = whole_number(epoch)
        if number is None or number < 0:
            raise UsageError(f"an epoch must be a whole number of at least 0, not {epoch!r}")
        self.epoch = number

    def __len__(self) -> int:
        return len(self.selection)

    def __iter__(self) -> Iterator[Sample]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, key: "int | SampleKey") -> Sample:
        """The sample at a position of the current epoch's order, or the one of a key that a loader made."""
        if not isinstance(key, SampleKey):
            key = self._key(int(key))
        maps = self.empty_maps(key)
        entry = self.fill(key, {name: value.numpy() for name, value in maps.items()})[0]
        sample: Sample = with_axes(maps)
        if key.compact:
            sample[THRESHOLD] = torch.tensor(key.code, dtype=torch.uint8)
        return sample | {"id": entry.id}

    def empty_maps(self, key: SampleKey, count: int | None = None, pinned: bool = False) -> dict[str, torch.Tensor]:
        """Tensors for the sample of a key to be filled in, or for ``count`` of its shape."""
        shape = self.augment.shape or self.selection[key.index].label_shape
        return empty_maps(shape, self.has_images, key.compact, count, pinned)

    def fill(self, key: SampleKey, out: Mapping[str, NDArray[Any]]) -> tuple[Entry, Pixels]:
        """Read the sample of a key into arrays; see :meth:`Reader.fill`."""
        entry = self.selection[key.index]
        return entry, self.reader().fill(entry, key.code, out, self.seed, key.epoch, entry.id)

    def keys(
        self, epoch: int, indices: NDArray[np.uint32], global_indices: NDArray[np.uint32], compact: bool = False
    ) -> list[SampleKey]:
        """The keys of ``indices``, a rank's part of the global batch ``global_indices``."""
        if self.scope == "batch":
            codes = [self.thresholds.of_batch(global_indices)] * len(indices)
        else:
            codes = self.thresholds.of(indices).tolist()
        return [SampleKey(index, epoch, code, compact) for index, code in zip(indices.tolist(), codes, strict=True)]

    def prefetching(self, shares: Sequence[NDArray[np.integer[Any]]]) -> AbstractContextManager[Prefetch | None]:
        """Fetches the shards of a remote store for the images in ``shares``, in that order, while it is entered."""
        if self._store.cache is None:
            return nullcontext()
        shard_U = np.concatenate([np.zeros(0, np.int32), *(self.selection.shard_N[share] for share in shares)])
        return prefetching(self._store, self.selection.shards, shard_U)

    def _key(self, position: int) -> SampleKey:
        if self.scope == "batch":
            raise LoaderError("at scope 'batch' a sample needs its batch; take batches from loader(global_batch=...)")
        if not -len(self) <= position < len(self):
            raise IndexError(f"sample {position} of {len(self)}")
        if self._order is None or self._order[0] != self.epoch:
            self._order = (self.epoch, shuffled(len(self), "order", self.seed, self.epoch))
        index_1 = self._order[1][[position]]
        return SampleKey(int(index_1[0]), self.epoch, int(self.thresholds.of(index_1)[0]))

    def _finds_stored(self, images: Any) -> bool:
        """Whether images come from the store: all those in use must be there."""
        if images is None and find_layer(self._store.root, IMAGES, self._store.fingerprint) is None:
            return False
        if not (images is None or (isinstance(images, str) and images == "stored")):
            return False
        stored = StoredImages(self._store)
        missing = stored.missing(self.selection.images_of_shards())
        if missing and images is not None:
            raise LoaderError(
                f"{self._store.location} has no stored images of {len(missing)} shards in use (the first is "
                f"{missing[0]}); `depthsieve label --store-images` adds them, images='source' reads the sources"
            )
        lacking = self.selection.said_of(stored.lacking())
        if lacking:
            number, reason = lacking[0]
            lacks = (
                f"{self._store.location} has no stored image of {len(lacking)} of {len(self)} images (the first is "
                f"{self.selection[number].id}: {reason}); `depthsieve label --store-images --retry-failed` tries "
                "again, images='source' reads the sources, a subset may leave them out"
            )
            if images is not None:
                raise LoaderError(lacks)
            try:
                _image_roots(self._store, self.selection, None)
            except LoaderError as error:
                raise LoaderError(f"{lacks}; {error}") from error
        return not missing and not lacking

    def _check_crop_fits(self) -> None:
        shapes_N2 = self.selection.label_shapes()
        crop, most_scale = self.augment.shape, self.augment.scale[1]
        if crop is None or (shapes_N2 * most_scale >= crop).all():
            return
        small = np.flatnonzero((shapes_N2 * most_scale < crop).any(axis=1))
        smallest = int(small[shapes_N2[small].prod(axis=1).argmin()])
        entry = self.selection[smallest]
        most = (shapes_N2.min(axis=0) * most_scale).astype(int)
        scaled = f" at a scale of {most_scale:g}" if most_scale != 1 else ""
        advice = f"crop of at most {most[0]}x{most[1]}"
        if min(most) < 1:  # at that scale nothing is left of a label
            advice = f"scale of up to {math.ceil(1000 * (crop / shapes_N2.min(axis=0)).max()) / 1000:g}"
        raise LoaderError(
            f"crop {crop[0]}x{crop[1]} (height x width){scaled} does not fit into the labels of {len(small)} of "
            f"{len(self)} images (the smallest, {entry.id}, is {entry.label_shape[0]}x{entry.label_shape[1]}); use a "
            f"{advice}, or a subset without them"
        )

    def reader(self) -> Reader:
        """The reader of this process. A forked worker must not share its parent's open files: their position is one."""
        if self._reader is None or self._reader.process != os.getpid():
            roots = None if self.images_stored else self.image_roots or {}
            self._reader = Reader(self._store.reopened(), roots, self.augment)
        return self._reader


def _image_roots(store: Store, selection: Selection, images: Any) -> dict[str, str]:
    """Root of every source that the selected images come from, each seen to be there."""
    recorded, used = store.sources(), selection.source_names
    if images is None:
        moved: dict[str, Any] = {}
    elif isinstance(images, Mapping):
        moved = dict(images)
    elif isinstance(images, str | Path) and len(used) == 1:
        moved = {used[0]: images}
    else:
        raise UsageError(
            f"images must be None, False, a mapping from names of sources to paths, or (for one source) a path, not "
            f"{images!r}; these images come from {', '.join(used)}"
        )
    for name, path in moved.items():
        if not isinstance(path, str | os.PathLike):
            raise UsageError(
                f"images must give a path for the source {name!r}, not {path!r}; leave out what did not move"
            )
    unknown = sorted(set(moved) - set(recorded), key=repr)
    if unknown:
        raise UsageError(f"images names the source {unknown[0]!r}; this store has {', '.join(sorted(recorded))}")
    roots = {name: root_of(moved[name]) if name in moved else recorded[name] for name in used}
    for name, root in roots.items():
        if not (reopen_source(name, root).is_there() if is_remote(root) else Path(root).exists()):
            raise LoaderError(
                f"the images of the source {name!r} are not at {root}; if they moved, pass images={{{name!r}: PATH}}, "
                "for labels without images pass images=False"
            )
    return roots
