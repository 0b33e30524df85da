"""Serve a store's labels for training: :class:`PseudoLabelDataset` and the batches it makes."""

from depthsieve.loader.augment import Augment
from depthsieve.loader.batches import BatchLoader, collate
from depthsieve.loader.dataset import PseudoLabelDataset
from depthsieve.loader.samples import SampleKey

__all__ = ["Augment", "BatchLoader", "PseudoLabelDataset", "SampleKey", "collate"]
