"""Serve a store's labels for training: :class:`PseudoLabelDataset` and the batches it makes."""

from depthsieve.training.augment import Augment
from depthsieve.training.batches import BatchLoader, collate
from depthsieve.training.dataset import PseudoLabelDataset
from depthsieve.training.samples import SampleKey

__all__ = ["Augment", "BatchLoader", "PseudoLabelDataset", "SampleKey", "collate"]
