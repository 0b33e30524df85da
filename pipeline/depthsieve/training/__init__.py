"""Serve a store's labels for training: :class:`PseudoLabelDataset` and the batches it makes."""

from depthsieve.training.augment import Augment
from depthsieve.training.batches import BatchLoader
from depthsieve.training.dataset import PseudoLabelDataset
from depthsieve.training.samples import Batch, Sample

__all__ = ["Augment", "Batch", "BatchLoader", "PseudoLabelDataset", "Sample"]
