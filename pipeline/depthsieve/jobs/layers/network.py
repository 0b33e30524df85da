"""Reliability by an error network, of labels that are there: from the stored labels and their photos, as a layer.

Axes: N images of a shard, H and W the label shape, K the 256 reliability codes; 3 red, green, blue.
"""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.processes import cores
from depthsieve.core.threads import torch_threads
from depthsieve.images.decode import decode
from depthsieve.jobs.layers.backfill import Backfill, CommittedShard, Computed, read_labelled
from depthsieve.reliability.code import encode_error, histogram
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.sources import reopen_source
from depthsieve.store import Store, schema
from depthsieve.store.arrays import ShardReader
from depthsieve.store.lacking import read_lacking, shards_noted, write_lacking
from depthsieve.store.layer_kinds import LayerSpec
from depthsieve.store.layers import Layer
from depthsieve.store.stored_images import to_label_shape
from depthsieve.teachers import resolve_device


class NetworkReliability(Backfill):
    """Adds reliability by a network. An image whose photo is gone or has changed gets 0 everywhere, and its reason is
    noted in the layer: the next call tries it again."""

    title = "recalibrate"

    def __init__(self, store: Store, spec: LayerSpec, network: ErrorNetwork, device: str) -> None:
        super().__init__(store, spec)
        self._device = resolve_device(device)
        self._network = copy.deepcopy(network).to(self._device)
        self._sources = {name: reopen_source(name, root) for name, root in store.sources().items()}
        self._threads = {generation.number: generation.profile.threads for generation in store.generations()}
        self._lacking: dict[str, dict[int, str]] = {}
        self._noted: set[str] = set()

    def todo(self, layer: Layer) -> Iterator[str]:
        """Those that the layer does not have, and those of which it lacks images."""
        self._lacking, self._noted = read_lacking(layer), shards_noted(layer)
        yield from super().todo(layer)
        yield from (one for one in sorted(self._lacking) if one in self.store.committed())

    def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
        """The rows that the layer lacks, beside those that it has; nothing to write where none could be done."""
        folder = layer.folder_of(shard.id, shard.digest)
        before = None if folder is None else ShardReader(self.store.root, folder)
        rows = shard.labelled_rows()
        code_NHW = np.zeros(shard.labels.shape("reliability"), np.uint8)
        if before is not None:
            lacking = self._lacking.get(shard.id, {})
            rows = [row for row in rows if row in lacking]
            for row in range(len(code_NHW)):
                code_NHW[row] = before.reliability(row)
        refused: dict[int, str] = {}
        with ThreadPoolExecutor(cores(), "recalibrate") as pool:
            for row, found in zip(rows, pool.map(lambda row: self._codes(shard, row), rows), strict=True):
                if isinstance(found, np.ndarray):
                    code_NHW[row] = found
                else:
                    refused[row] = str(found)
        done = len(rows) - len(refused)
        if before is not None and not done:
            return Computed(None, 0, refused)
        count_NK = histogram(torch.from_numpy(code_NHW)).numpy().astype(np.uint32)
        images = done if before is not None else len(code_NHW) - len(refused)
        return Computed({"reliability": code_NHW, "histogram": count_NK}, images, refused)

    def commit(self, layer: Layer, shard: CommittedShard, computed: Computed) -> None:
        """Note what the shard lacks before the layer has it, and that it lacks nothing only after."""
        if computed.refused:
            write_lacking(layer, shard.id, computed.refused)
        super().commit(layer, shard, computed)
        if not computed.refused and shard.id in self._noted:
            write_lacking(layer, shard.id, {})

    def _codes(self, shard: CommittedShard, row: int) -> np.ndarray[Any, Any] | ImageRejected | SourceError:
        """The codes [H,W] of one image, as labelling with the network gives them on the same device with as many
        threads; by several threads at once."""
        image, (height, width) = shard.shard.images[row], shard.shard.shape
        try:
            data = read_labelled(self._sources, image, str(shard.labels.column("content_sha256")[row]))
            rgb_HW3 = decode(data, self.store.spec.alpha).rgb_HW3
        except (ImageRejected, SourceError) as error:
            return error
        photo_1HW3 = torch.from_numpy(to_label_shape(rgb_HW3, (height, width)))[None].to(self._device)
        depth_HW, code_HW = shard.labels.depth(row), shard.labels.reliability(row)
        depth_1HW = torch.from_numpy(np.where(code_HW > 0, depth_HW, np.nan).astype(np.float32))[None].to(self._device)
        with torch_threads(self._threads[schema.shard_number(shard.id)[0]]):
            e_1HW = self._network.expected_error(photo_1HW3, depth_1HW, self.store.spec.quantity)
            code_1HW = encode_error(e_1HW, version=self.spec.code_version)
        return np.asarray(code_1HW[0].cpu().numpy())
