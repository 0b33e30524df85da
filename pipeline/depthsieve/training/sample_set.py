"""The samples that a dataset and its loaders share, in no order: which there are, and how each is made.

Axes: N images, U uses of images in the order of an epoch.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from depthsieve.sources import is_remote
from depthsieve.store import Store
from depthsieve.training.augment import Augment
from depthsieve.training.epoch import smallest_type
from depthsieve.training.images import ImagePlaces
from depthsieve.training.prefetch import Prefetch, prefetching
from depthsieve.training.reader import Reader
from depthsieve.training.samples import THRESHOLD, Pixels, SampleKey, empty_maps
from depthsieve.training.selection import Entry, Selection
from depthsieve.training.thresholds import Thresholds


class SampleSet(Dataset[dict[str, Any]]):
    """Makes the sample of any :class:`SampleKey`. Threads may share it; it can be pickled, and used after a fork."""

    def __init__(
        self,
        store: Store,
        selection: Selection,
        thresholds: Thresholds,
        images: ImagePlaces,
        augment: Augment,
        seed: int,
    ) -> None:
        self.store, self.selection, self.thresholds = store, selection, thresholds
        self.images, self.augment, self.seed = images, augment, seed
        self._reader: Reader | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets: no open files."""
        return self.__dict__ | {"_reader": None}

    def __len__(self) -> int:
        return len(self.selection)

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        """A :class:`Sample`, or a compact one, as the key says."""
        maps = self.empty_maps(key)
        entry = self.fill(key, {name: value.numpy() for name, value in maps.items()})[0]
        if key.compact:
            maps[THRESHOLD] = torch.tensor(key.code, dtype=torch.uint8)
        return {**maps, "id": entry.id}

    @property
    def has_images(self) -> bool:
        """Whether samples have an image."""
        return self.images.kind is not None

    @property
    def is_remote(self) -> bool:
        """Whether labels or images are in an object store."""
        return any(map(is_remote, [self.store.location, *self.images.roots.values()]))

    def buckets(self) -> NDArray[Any]:
        """[N] each image's bucket: its label shape; one for all where crops make them alike."""
        if self.augment.shape is not None:
            return np.zeros(len(self), np.uint8)
        shapes_N2 = self.selection.label_shapes()
        sides_N = shapes_N2[:, 0] << 32 | shapes_N2[:, 1]  # one number sorts much faster than a row of two
        return smallest_type(np.unique(sides_N, return_inverse=True)[1].reshape(-1))

    def identity(self) -> dict[str, Any]:
        """What decides the samples, as plain values: a saved state fits only where all of them are the same."""
        layer = self.store.layer
        return {
            "fingerprint": self.store.fingerprint,
            "snapshot": self.selection.snapshot,
            "subset": self.selection.digest,
            "reliability": layer and f"{layer.name} ({layer.spec.digest[:12]})",
            "seed": self.seed,
            "drop": self.thresholds.drop,
            "scope": self.thresholds.scope,
            "images": self.images.kind,
        } | self.augment.identity()

    def keys(
        self, epoch: int, indices: NDArray[np.uint32], global_indices: NDArray[np.uint32], compact: bool = False
    ) -> list[SampleKey]:
        """The keys of ``indices``, a rank's part of the global batch ``global_indices``."""
        if self.thresholds.scope == "batch":
            codes = [self.thresholds.of_batch(global_indices)] * len(indices)
        else:
            codes = self.thresholds.of(indices).tolist()
        return [SampleKey(index, epoch, code, compact) for index, code in zip(indices.tolist(), codes, strict=True)]

    def empty_maps(self, key: SampleKey, count: int | None = None, pinned: bool = False) -> dict[str, torch.Tensor]:
        """Uninitialised tensors for the sample of a key, or for a batch of ``count`` samples of its shape."""
        shape = self.augment.shape or self.selection[key.index].label_shape
        return empty_maps(shape, self.has_images, key.compact, count, pinned)

    def fill(self, key: SampleKey, out: Mapping[str, NDArray[Any]]) -> tuple[Entry, Pixels]:
        """Read the sample of a key into arrays; see :meth:`Reader.fill`."""
        entry = self.selection[key.index]
        return entry, self.reader().fill(entry, key.code, out, self.seed, key.epoch, entry.id)

    def reader(self) -> Reader:
        """The reader of this process. A forked worker must not share its parent's open files: their position is one."""
        if self._reader is None or self._reader.process != os.getpid():
            self._reader = Reader(self.store.reopened(), self.images, self.augment)
        return self._reader

    def prefetching(self, shares: Sequence[NDArray[np.integer[Any]]]) -> AbstractContextManager[Prefetch | None]:
        """While entered: fetches the shards of a remote store for the images in ``shares``, in that order."""
        if self.store.cache is None:
            return nullcontext()
        shard_U = np.concatenate([np.zeros(0, np.int32), *(self.selection.shard_N[share] for share in shares)])
        return prefetching(self.store, self.selection.shards, shard_U)
