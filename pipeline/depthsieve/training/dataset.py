"""Labels and images of a store as samples for training.

    dataset = PseudoLabelDataset("labels", drop=0.10, crop=140)
    for batch in dataset.loader(global_batch=8):  # one pass is one epoch; the next pass is the next one
        batch["image"], batch["depth"], batch["mask"]

Axes: N images, H row, W column, 2 of them.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Collection, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import torch
from torch.utils.data import Dataset

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.core.settings import whole_number
from depthsieve.reliability.masking import drop_count
from depthsieve.store import Store, open_store
from depthsieve.store.cache import ShardCache
from depthsieve.training.augment import Augment
from depthsieve.training.batches import BatchLoader
from depthsieve.training.delivery import Delivery, Ranks
from depthsieve.training.images import Images, find_images
from depthsieve.training.sample_set import SampleSet
from depthsieve.training.samples import Sample
from depthsieve.training.selection import Selection, select
from depthsieve.training.thresholds import Scope, Thresholds


class PseudoLabelDataset(Dataset[Sample]):
    """Labelled images of a store, for training a student.

    ``dataset[i]`` is the sample of ``dataset.ids[i]``, a dict with the keys ``image``, ``depth``, ``reliability``,
    ``mask`` and ``id``; :class:`~depthsieve.training.samples.Sample` has their types and axes. ``dataset[2:5]`` is a
    list of samples. The order of training is the loader's: that of :meth:`loader`, which can be resumed and is the same
    for any number of ranks, or of torch's own ``DataLoader(dataset, batch_size=8, shuffle=True)``, which needs a
    ``crop``, so that samples are of one shape.

    Args:
        store: path of a label store, or an open one.
        images: where the images are. None: in the store, where it has all of them (``label --store-images``), else
            where the store recorded their sources. "stored" or "source": the one or the other. A path: there, where the
            store has one source, whose data moved. A mapping from names of sources to paths: those moved. False:
            labels only, samples have no ``image``.
        subset: ids to serve, or the path of a Parquet file with columns ``id`` and ``keep``; its metadata
            ``fingerprint`` and ``snapshot``, if there, must be the store's. None: all labelled images.
        drop: share of the valid pixels to mask, the least reliable first, in [0, 1); 0 masks invalid pixels only.
            Pixels of one code are masked together, so the share is at most ``drop``; see :meth:`masked_share`.
        scope: what that share is taken of: each ``image``, the global ``batch``, or the whole ``dataset``. Always
            from stored histograms of uncropped labels. With ``batch``, samples come from :meth:`loader` only.
        crop: (height, width) of a random window, or one side of a square, in pixels of the label; at most what every
            label has. None: as ``augment`` says, and without one whole labels, in batches of one label shape each.
        flip: whether every other sample is mirrored left to right, at random. None: as ``augment`` says.
        augment: how else samples vary: scale, colours, blur. None: in nothing.
        seed: any whole number; decides the order of :meth:`loader` and all that is random in ``augment``.
        reliability: name of a layer that ``depthsieve recalibrate`` made: reliability and masks come from it. None:
            from the labels, or as an open ``store`` has it.

    Raises:
        UsageError: ``drop``, ``scope``, ``seed``, ``images``, ``subset`` or what is in ``augment`` is invalid.
        LoaderError: no labelled image, a subset that does not fit the store, a crop larger than a label, or an image
            root that is not there. From samples: a source image that is gone, cannot be read, or has changed.
        StoreError: ``store`` is not there or cannot be read, it has no such layer, or the layer lacks images.
    """

    def __init__(
        self,
        store: str | Path | Store,
        *,
        images: Images = None,
        subset: Collection[str] | str | Path | None = None,
        drop: float = 0.10,
        scope: Scope = "image",
        crop: int | tuple[int, int] | None = None,
        flip: bool | None = None,
        augment: Augment | None = None,
        seed: int = 0,
        reliability: str | None = None,
    ) -> None:
        drop_count(drop, 0)  # raises where drop is out of range
        if scope not in ("image", "batch", "dataset"):
            raise UsageError(f"scope must be 'image', 'batch' or 'dataset', not {scope!r}")
        number = whole_number(seed)
        if number is None:
            raise UsageError(f"seed must be a whole number, not {seed!r}")
        if not isinstance(augment, Augment | None):
            raise UsageError(f"augment must be an Augment, for example Augment.strong(crop=140), not {augment!r}")
        augment = augment or Augment()
        if crop is not None:
            augment = dataclasses.replace(augment, crop=crop)
        if flip is not None:
            augment = dataclasses.replace(augment, flip=flip)
        store = store if isinstance(store, Store) else open_store(store)
        if reliability is not None:
            store = store.with_layer(reliability)
        selection = select(store, subset)
        if store.root.path is None and store.cache is None:
            cache = ShardCache.of_environment()
            if selection.label_bytes(store) <= cache.most:  # else most would go before it is used again
                store = store.with_cache(cache)
        store.check_covered(selection.images_of_shards())
        _check_crop_fits(selection, augment)
        places = find_images(store, selection, images)
        thresholds = Thresholds(store, selection, float(drop), scope)
        self._samples = SampleSet(store, selection, thresholds, places, augment, number)
        self._epoch_1 = torch.zeros(1, dtype=torch.int64)
        self._share_epoch()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Worker processes share the memory of the epoch; a copy from a file does so with workers of its own."""
        self.__dict__.update(state)
        self._share_epoch()

    def _share_epoch(self) -> None:
        self._epoch_1.share_memory_()  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        store, augment, images = self._samples.store, self.augment, self._samples.images
        layer = f", reliability={store.layer.name!r}" if store.layer is not None else ""
        crop = "whole labels" if augment.shape is None else f"crop={augment.shape[0]}x{augment.shape[1]}"
        places = ", ".join(images.roots.values()) or ("the store" if images.stored else "nowhere")
        return (
            f"PseudoLabelDataset({store.location}: {len(self)} images, {self.quantity}, drop={self.drop:g}, "
            f"scope={self.scope!r}{layer}, {crop}, seed={self.seed}, images from {places})"
        )

    @property
    def ids(self) -> list[str]:
        """Ids of the images served, sorted; a new list each time."""
        return self._samples.selection.ids

    @property
    def quantity(self) -> str:
        """What ``depth`` holds: ``disparity`` (up to scale and shift, larger is nearer) or ``depth`` in metres."""
        return self._samples.store.spec.quantity

    @property
    def drop(self) -> float:
        """The share of the valid pixels to mask, at most."""
        return self._samples.thresholds.drop

    @property
    def scope(self) -> Scope:
        """What :attr:`drop` is a share of."""
        return self._samples.thresholds.scope

    @property
    def seed(self) -> int:
        """What decides the order of :meth:`loader` and all that is random in a sample."""
        return self._samples.seed

    @property
    def augment(self) -> Augment:
        """How samples vary, with ``crop`` and ``flip`` as they were given."""
        return self._samples.augment

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
        """Whether samples have an ``image``."""
        return self._samples.has_images

    @property
    def image_roots(self) -> dict[str, str]:
        """Where each source's images are read from, by its name; empty where they are in the store, or not wanted."""
        return dict(self._samples.images.roots)

    @property
    def epoch(self) -> int:
        """The epoch whose windows, scales and colours ``dataset[i]`` shows; 0 at first. See :meth:`set_epoch`."""
        return int(self._epoch_1.item())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose windows, scales and colours ``dataset[i]`` shows; which image it is stays the same.

        For torch's own ``DataLoader``: call it before each pass. It reaches worker processes at once, persistent ones
        too. :meth:`loader` counts epochs by itself and does not need it.

        Raises :class:`UsageError` for what is not a whole number of at least 0.
        """
        number = whole_number(epoch)
        if number is None or not 0 <= number < 1 << 63:
            raise UsageError(f"an epoch must be a whole number of at least 0, not {epoch!r}")
        self._epoch_1[0] = number

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
        *,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        device: torch.device | str | int | None = None,
        pin_memory: bool | None = None,
        threads: int | None = None,
        prefetch: int | None = None,
        num_workers: int = 0,
        persistent_workers: bool = False,
        prefetch_factor: int | None = None,
        multiprocessing_context: str | BaseContext | None = None,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
    ) -> BatchLoader:
        """Batches for training, in an order that depends on the store's snapshot, subset, seed, epoch and
        ``global_batch`` alone, and can be resumed; see :class:`BatchLoader`.

        Args:
            global_batch: images that all ranks take together in a step; each takes ``global_batch / world_size``.
            rank, world_size: which one of how many processes that train together this is, 0 first. None: as
                ``torch.distributed`` has it where it is initialised, else the only one.
            drop_last: leave out batches of fewer than ``global_batch`` images.
            device: where batches are delivered. Images are transferred as uint8 and depth as float16, and made float32
                there; values are the same to the bit. None: on the CPU.
            pin_memory: make batches in memory that a GPU fetches from while the program runs. None: where ``device`` is
                a GPU.
            threads: threads of this process that make batches, 1 or more. None: as many as it may use cores.
            prefetch: batches that threads make ahead, 1 or more. None: 2.
            num_workers: worker processes of a torch ``DataLoader`` that make batches in place of threads; 0: threads.
            persistent_workers, prefetch_factor, multiprocessing_context, timeout, worker_init_fn: as in torch's
                ``DataLoader``, for worker processes only. Where labels or images are in an object store, workers are
                started with "spawn" unless ``multiprocessing_context`` says otherwise.

        Raises:
            UsageError: a global batch that the ranks cannot share, an option out of range, or one for threads with
                worker processes, or the reverse.
            LoaderError: ``drop_last`` leaves no batch.
        """
        delivery = Delivery(
            num_workers=num_workers,
            threads=threads,
            prefetch=prefetch,
            device=device,
            pin_memory=pin_memory,
            persistent_workers=persistent_workers,
            prefetch_factor=prefetch_factor,
            multiprocessing_context=multiprocessing_context,
            timeout=timeout,
            worker_init_fn=worker_init_fn,
        )
        return BatchLoader(self, self._samples, global_batch, Ranks.find(rank, world_size), drop_last, delivery)

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        """The samples in the order of ids."""
        return (self[position] for position in range(len(self)))

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> list[Sample]: ...
    def __getitem__(self, position: int | slice) -> Sample | list[Sample]:
        """The sample of ``ids[position]`` in the current :attr:`epoch`, or those of a slice."""
        if isinstance(position, slice):
            return [self[number] for number in range(*position.indices(len(self)))]
        if self.scope == "batch":
            raise LoaderError(
                "at scope 'batch' a mask depends on the whole batch: take batches from dataset.loader(global_batch=...)"
            )
        try:
            number = operator.index(position)
        except TypeError as error:
            raise UsageError(
                f"dataset[i] takes a whole number or a slice, not {position!r}; dataset.ids.index(ID) is the place "
                "of an image"
            ) from error
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        index_1 = np.array([number % len(self)], np.uint32)
        (key,) = self._samples.keys(self.epoch, index_1, index_1)
        return cast(Sample, self._samples[key])


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
