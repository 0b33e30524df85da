"""Add features to shards of a store that were labelled without, from its labels, its images and its teacher's backbone.

Axes: N images of a shard, C channels, H and W the label shape, D numbers of an embedding.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthsieve.core.errors import ImageRejected, StoreDamaged, StoreError
from depthsieve.core.processes import cores
from depthsieve.core.progress import progress_bar
from depthsieve.core.records import ImageFailure, Shard
from depthsieve.core.threads import torch_threads
from depthsieve.features import IMAGE_COLUMNS, LABEL_COLUMNS, label_signals
from depthsieve.labelling.batch import PreparedImage, feature_arrays
from depthsieve.labelling.image import prepare_image
from depthsieve.labelling.shard import features_of, load_with_second
from depthsieve.sources import Source, reopen_source
from depthsieve.storage import open_root
from depthsieve.store import Store, open_store, schema
from depthsieve.store.create import write_index
from depthsieve.store.layer_kinds import FEATURES
from depthsieve.store.layers import Layer, adding_to_layer, commit_to_layer, make_layer
from depthsieve.teachers import Teacher


@dataclass(frozen=True)
class FeaturesSummary:
    """What :func:`add_features` did. ``images_now`` were looked at in ``seconds``; the layer has ``shards`` in all.
    ``without_image`` have the features of their labels alone, each with the reason. ``errors`` say which shards cannot
    be read, and why."""

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
    labels are read from the store, and stay as they are. Shards that have features are passed by: the same call goes on
    after a crash. An image that is not there any more, or was changed, gets the features of its label alone.

    Args:
        store: path or URL of the store.
        device: where the teacher works.
        progress: show a bar on stderr, or in the notebook.

    Raises:
        StoreError: no store there, or one that is labelled with other weights than its teacher has now.
        TeacherError: the teacher cannot be loaded any more.
        RunError: the store cannot be written; what is committed stands.
    """
    start = time.perf_counter()
    opened = open_store(open_root(store))
    generations = opened.generations()
    if not generations:
        raise StoreError(f"{opened.location} has no plan; label into it first")
    done: list[int] = []
    failed: list[ImageFailure] = []
    errors: list[str] = []
    with adding_to_layer(opened.root, FEATURES):
        found = _Refill.of(opened, device)
        images_of = opened.images_of(sorted(opened.committed() - found.layer.shards()))
        shown = progress and bool(images_of)
        with progress_bar("features", total=sum(images_of.values()), shown=shown, leave=True) as bar:
            for shard_id, images in images_of.items():
                try:
                    failed += found.add(shard_id)
                    done.append(images)
                except StoreDamaged as error:  # it costs no other shard its features
                    errors.append(f"shard {shard_id}: {error}")
                bar.update(images)
        if done:
            opened.root.remove(schema.INDEX_RECORD)  # it says nothing of layers: made anew
            write_index(opened)
    return FeaturesSummary(
        store=opened.location,
        images_now=sum(done),
        shards_now=len(done),
        shards=len(found.layer.shards() & opened.committed()),
        seconds=time.perf_counter() - start,
        without_image=tuple(failed),
        errors=tuple(errors),
    )


@dataclass(frozen=True)
class _Refill:
    store: Store
    teacher: Teacher
    layer: Layer
    sources: Mapping[str, Source]

    @classmethod
    def of(cls, store: Store, device: str) -> "_Refill":
        request = store.generations()[-1].teacher
        if request is None:
            raise StoreError(
                f"{store.location} was fused of other stores, and no teacher of its own gives embeddings; add features "
                "to those, and curate them"
            )
        teacher = load_with_second(request.on(device))
        if teacher.weights_digest != store.spec.weights_digest:
            raise StoreError(
                f"{store.location} was labelled with other weights than teacher {request.name!r} has now; its "
                "embeddings would not compare"
            )
        sources = {name: reopen_source(name, root) for name, root in store.sources().items()}
        return cls(store, teacher, make_layer(store.root, features_of(teacher, store.spec)), sources)

    def add(self, shard_id: str) -> list[ImageFailure]:
        """Add one shard. Returns the images that could not be looked at."""
        shard, labels = self.store.planned_shard(shard_id), self.store.reader(shard_id)
        status_N, histogram_NK = labels.column("status"), labels.column("histogram")
        digest_N = labels.column("content_sha256")
        arrays = feature_arrays(len(shard.images), self.teacher.embedding_size)
        failed = []
        rows = np.flatnonzero(status_N == schema.STATUS_LABELLED).tolist()
        with ThreadPoolExecutor(cores()) as pool:
            for row, image in zip(rows, pool.map(lambda row: self._look(shard, row), rows), strict=True):
                about = label_signals(labels.depth(row), histogram_NK[row], self.store.spec.quantity)
                arrays["values"][row, : len(LABEL_COLUMNS)] = about
                if isinstance(image, tuple) and image[0].content_sha256 == digest_N[row]:
                    arrays["values"][row, len(LABEL_COLUMNS) :] = image[0].signals.values
                    arrays["phash"][row] = image[0].signals.phash
                    if "embedding" in arrays and image[1] is not None:
                        arrays["embedding"][row] = image[1]
                    continue
                arrays["values"][row, len(LABEL_COLUMNS) :] = np.full(len(IMAGE_COLUMNS), np.nan)
                reason = str(image) if isinstance(image, ImageRejected) else "changed since it was labelled"
                failed.append(ImageFailure(shard.images[row].id, reason))
        digest = self.store.commit_record(shard_id)["content_sha256"]
        commit_to_layer(self.layer, shard_id, digest, arrays, self.store.spec.encoding)
        return failed

    def _look(self, shard: Shard, row: int) -> tuple[PreparedImage, np.ndarray[Any, Any] | None] | ImageRejected:
        """One image, and its embedding; by several threads at once, each with one of torch's."""
        image = prepare_image(shard.images[row], shard.shape, self.sources, self.teacher, last_attempt=True)
        if isinstance(image, ImageRejected):
            return image
        if self.teacher.embedding_size is None:
            return image, None
        with torch_threads(1):
            self.teacher.predict(torch.from_numpy(image.image_CHW)[None].to(self.teacher.device))
        embedding_1D = self.teacher.take_embedding()
        return image, None if embedding_1D is None else embedding_1D[0].half().cpu().numpy()
