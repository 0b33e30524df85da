"""Add features to shards of a store that were labelled without, from its labels, its images and its teacher's backbone.

Axes: N images of a shard, C channels, H and W the label shape, D numbers of an embedding.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthsieve.core.errors import ImageRejected, StoreError
from depthsieve.core.processes import cores
from depthsieve.core.records import ImageFailure, Shard
from depthsieve.core.threads import torch_threads
from depthsieve.features import IMAGE_COLUMNS, LABEL_COLUMNS, label_signals
from depthsieve.jobs.importing.settings import KIND
from depthsieve.jobs.importing.shards import NO_TEACHER, imported_features
from depthsieve.jobs.layers.backfill import CommittedShard, Computed, ImageBackfill, raise_if_gone
from depthsieve.labelling.batch import PreparedImage, feature_arrays
from depthsieve.labelling.image import prepare_image
from depthsieve.labelling.predicting import predict
from depthsieve.labelling.shard import features_of
from depthsieve.runners.dispatch import disk_errors_named
from depthsieve.storage import open_root
from depthsieve.store import Store, open_store
from depthsieve.store.create import write_index
from depthsieve.store.layer_kinds import LayerSpec
from depthsieve.store.layers import Layer
from depthsieve.teachers import Batch, Teacher, load_requested


@dataclass(frozen=True)
class FeaturesSummary:
    """What :func:`add_features` did. ``images_now`` were looked at in ``seconds``; the layer has ``shards`` in all.
    ``without_image`` have the features of their labels alone, each with the reason. ``errors`` say which shards could
    not be read, and why."""

    store: str
    images_now: int
    shards_now: int
    shards: int
    seconds: float
    without_image: tuple[ImageFailure, ...] = ()
    errors: tuple[str, ...] = ()


def add_features(store: str | Path, *, device: str = "auto", progress: bool = True) -> FeaturesSummary:
    """Add features to every committed shard that has none: those labelled by an earlier release, and those that a
    repair took out.

    Images are read again, and go through the teacher once for their embedding (labelling takes two passes and more);
    labels are read from the store, and stay as they are. Shards that have features are skipped: the same call resumes
    after a crash. An image that is no longer there, or was changed, gets the features of its label alone.

    Args:
        store: path or URL of the store.
        device: where the teacher computes: "auto", "cpu", "cuda", "cuda:1", "mps".
        progress: show a bar on stderr, or in the notebook.

    Raises:
        StoreError: no store there, or one that was labelled with other weights than its teacher has now.
        StoreBusy: another process is adding features.
        TeacherError: the teacher can no longer be loaded.
        RunError: the store cannot be written, or a source is not there; what is committed is kept.
    """
    opened = open_store(open_root(store))
    imported = opened.spec.kind == KIND
    teacher = NO_TEACHER if imported else _load_teacher(opened, device)
    spec = imported_features(opened.spec) if imported else features_of(teacher, opened.spec)
    filled = _Features(opened, teacher, spec).run(progress=progress)
    with disk_errors_named(opened.root):
        write_index(opened)  # which a run that was killed may have left out of date
    return FeaturesSummary(
        store=opened.location,
        images_now=filled.images,
        shards_now=filled.shards,
        shards=filled.shards_in_all,
        seconds=filled.seconds,
        without_image=filled.refused,
        errors=filled.errors,
    )


def _load_teacher(store: Store, device: str) -> Teacher:
    """The teacher that the store was labelled with."""
    generations = store.generations()
    if not generations:
        raise StoreError(f"{store.location} has no plan; label into it first")
    request = generations[-1].teacher
    if request is None:
        raise StoreError(
            f"{store.location} was fused from other stores and has no teacher of its own to compute embeddings; add "
            "features to those stores, and curate them"
        )
    teacher = load_requested(request.on(device))
    if teacher.weights_digest != store.spec.weights_digest:
        raise StoreError(
            f"{store.location} was labelled with other weights than teacher {request.name!r} has now; its embeddings "
            "would not compare"
        )
    return teacher


class _Features(ImageBackfill):
    title = "features"
    in_index = True

    def __init__(self, store: Store, teacher: Teacher, spec: LayerSpec) -> None:
        super().__init__(store, spec)
        self._teacher = teacher

    def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
        """Features of labels and images; of the label alone where the image is not the one that was labelled."""
        histogram_NK, digest_N = shard.labels.column("histogram"), shard.labels.column("content_sha256")
        images = shard.shard.images
        arrays = feature_arrays(len(images), self._teacher.embedding_size)
        rows, refused = shard.labelled_rows(), {}
        with ThreadPoolExecutor(cores()) as pool:
            for row, image in zip(rows, pool.map(lambda row: self._look(shard.shard, row), rows), strict=True):
                about = label_signals(
                    shard.labels.depth(row), shard.labels.reliability(row), histogram_NK[row], self.store.spec.quantity
                )
                arrays["values"][row, : len(LABEL_COLUMNS)] = about
                if isinstance(image, tuple) and image[0].content_sha256 == digest_N[row]:
                    arrays["values"][row, len(LABEL_COLUMNS) :] = image[0].signals.values
                    arrays["phash"][row] = image[0].signals.phash
                    if "embedding" in arrays and image[1] is not None:
                        arrays["embedding"][row] = image[1]
                    continue
                arrays["values"][row, len(LABEL_COLUMNS) :] = np.full(len(IMAGE_COLUMNS), np.nan)
                refused[row] = str(image) if isinstance(image, ImageRejected) else "changed since it was labelled"
        return Computed(arrays, len(images), refused)

    def _look(self, shard: Shard, row: int) -> tuple[PreparedImage, np.ndarray[Any, Any] | None] | ImageRejected:
        """One image, and its embedding; by several threads at once, each with one of torch's."""
        name = shard.images[row].id.partition("/")[0]
        try:
            image = prepare_image(
                shard.images[row], shard.shape, self.sources, self._teacher, False, alpha=self.store.spec.alpha
            )
        except OSError as error:
            raise_if_gone(name, self.sources[name], error)
            raise
        if isinstance(image, ImageRejected):
            return image
        if self._teacher.embedding_size is None:
            return image, None
        with torch_threads(1):
            image_1CHW = torch.from_numpy(image.image_CHW)[None].to(self._teacher.device)
            embedding_1D = predict(self._teacher, Batch.of(image_1CHW)).embedding
        return image, None if embedding_1D is None else embedding_1D[0].half().cpu().numpy()
