"""Labels and images of a store as samples for training. Axes: N images, H row, W column, C channel, B image of a batch.

loader = PseudoLabelDataset("labels", drop=0.10, crop=140, seed=0).loader(global_batch=8)
for batch in loader:  # one pass is one epoch; the next pass is the next one
    batch["image_BCHW"], batch["depth_BHW"], batch["mask_BHW"]
"""

import dataclasses
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.reliability.masking import drop_count
from depthsieve.store import Store, open_store
from depthsieve.store.cache import ShardCache
from depthsieve.training.arguments import whole_number
from depthsieve.training.augment import Augment
from depthsieve.training.batches import BatchLoader
from depthsieve.training.delivery import Delivery, Ranks
from depthsieve.training.epoch import shuffled
from depthsieve.training.images import Images, find_images
from depthsieve.training.sample_set import SampleSet
from depthsieve.training.samples import Sample, SampleKey
from depthsieve.training.selection import Selection, select
from depthsieve.training.thresholds import Scope, Thresholds


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
        images: Images = None,
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
        store = store if isinstance(store, Store) else open_store(store)
        if reliability is not None:
            store = store.with_layer(reliability)
        selection = select(store, subset)
        if store.root.path is None and store.cache is None:
            cache = ShardCache.of_environment()
            if selection.label_bytes(store) <= cache.most:  # else most would go before it is used again
                store = store.with_cache(cache)
        store.check_covered(selection.images_of_shards())
        _check_crop_fits(selection, self.augment)
        places = find_images(store, selection, images)
        thresholds = Thresholds(store, selection, self.drop, scope)
        self._samples = SampleSet(store, selection, thresholds, places, self.augment, self.seed)
        self._order: tuple[int, NDArray[np.uint32]] | None = None

    @property
    def ids(self) -> list[str]:
        """Ids of the images served, sorted."""
        return self._samples.selection.ids

    @property
    def quantity(self) -> str:
        """What ``depth_HW`` holds: ``disparity`` (up to scale and shift) or ``depth`` in metres."""
        return self._samples.store.spec.quantity

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
        return self._samples.has_images

    @property
    def image_roots(self) -> dict[str, str]:
        """Where each source's images are read from, by its name; empty where they are in the store, or not wanted."""
        return dict(self._samples.images.roots)

    def masked_share(self) -> float:
        """The fraction of valid pixels that is really masked, over all images and before crops: at most ``drop``.

        Raises :class:`UsageError` at scope ``batch``, where :meth:`BatchLoader.masked_share` knows it.
        """
        return self._samples.thresholds.masked_share()

    def identity(self) -> dict[str, Any]:
        """What decides the samples, as plain values: a saved state fits only where all of them are the same."""
        return self._samples.identity()

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
        return BatchLoader(
            self, self._samples, global_batch, ranks, drop_last, Delivery.of(num_workers, device, options)
        )

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
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, key: "int | SampleKey") -> Sample:
        """The sample at a position of the current epoch's order, or the one of a key that a loader made."""
        if not isinstance(key, SampleKey):
            key = self._key(int(key))
        return self._samples[key]

    def _key(self, position: int) -> SampleKey:
        if self.scope == "batch":
            raise LoaderError("at scope 'batch' a sample needs its batch; take batches from loader(global_batch=...)")
        if not -len(self) <= position < len(self):
            raise IndexError(f"sample {position} of {len(self)}")
        if self._order is None or self._order[0] != self.epoch:
            self._order = (self.epoch, shuffled(len(self), "order", self.seed, self.epoch))
        index_1 = self._order[1][[position]]
        return SampleKey(int(index_1[0]), self.epoch, int(self._samples.thresholds.of(index_1)[0]))


def _check_crop_fits(selection: Selection, augment: Augment) -> None:
    shapes_N2 = selection.label_shapes()
    crop, most_scale = augment.shape, augment.scale[1]
    if crop is None or (shapes_N2 * most_scale >= crop).all():
        return
    small = np.flatnonzero((shapes_N2 * most_scale < crop).any(axis=1))
    smallest = int(small[shapes_N2[small].prod(axis=1).argmin()])
    entry = selection[smallest]
    most = (shapes_N2.min(axis=0) * most_scale).astype(int)
    scaled = f" at a scale of {most_scale:g}" if most_scale != 1 else ""
    advice = f"crop of at most {most[0]}x{most[1]}"
    if min(most) < 1:  # at that scale nothing is left of a label
        advice = f"scale of up to {math.ceil(1000 * (crop / shapes_N2.min(axis=0)).max()) / 1000:g}"
    raise LoaderError(
        f"crop {crop[0]}x{crop[1]} (height x width){scaled} does not fit into the labels of {len(small)} of "
        f"{len(selection)} images (the smallest, {entry.id}, is {entry.label_shape[0]}x{entry.label_shape[1]}); use a "
        f"{advice}, or a subset without them"
    )
