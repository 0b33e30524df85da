"""Give labels that are there already a scale and shift to metres, as a layer.

A shard at a time: its labels are read from the store, its images from their sources and through the metric teacher, in
the batches that they were labelled in, so that a scale is the same whether it was fitted then or now.

Axes: N images of a shard, C the numbers of a fit.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from depthsieve.core.cameras import GIVEN, Camera
from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.processes import cores
from depthsieve.core.records import ImageFailure, ImageRecord, Shape, TeacherRequest
from depthsieve.core.stopping import Stop
from depthsieve.core.threads import torch_threads
from depthsieve.images.decode import DecodedImage
from depthsieve.jobs.layers.backfill import CommittedShard, Computed, ImageBackfill
from depthsieve.labelling.metric import MetricInput, fit_batch, metric_spec, prepare_metric
from depthsieve.labelling.remarks import NO_METRES, Remarks, add_remarks
from depthsieve.store import Store, schema
from depthsieve.store.arrays import ShardReader
from depthsieve.store.cameras import CameraReader
from depthsieve.store.layer_kinds import METRIC_COLUMNS
from depthsieve.store.layers import Layer
from depthsieve.store.leases import Leases
from depthsieve.teachers import Teacher


@dataclass(frozen=True, slots=True)
class Scaled:
    """What :func:`fit_stored` did: labels looked at, those of them whose image could not be read, how many have none
    since none fits, why shards are still without, and whether it was stopped before the end."""

    images: int = 0
    refused: tuple[ImageFailure, ...] = ()
    remarks: Remarks = ()
    errors: tuple[str, ...] = ()
    stopped: bool = False


def fit_stored(
    store: Store,
    asked: TeacherRequest,
    metric: Teacher,
    leases: Leases,
    stop: Stop,
    progress: bool = True,
    again: bool = False,
) -> Scaled:
    """Fit the labels of every committed shard that the layer lacks.

    An image that is not the one labelled, or cannot be read, is refused by name and leaves its label without a scale;
    with ``again`` such are retried. Raises :class:`RunError` where a source is not there at all, and
    :class:`StoreBusy` where another process is at it.
    """
    job = _Metric(store, asked, metric, stop, again)
    filled = job.run(progress=progress, leases=leases)
    remarks = add_remarks(*(((NO_METRES, 1, image_id),) for image_id in job.unfitted))
    return Scaled(filled.images, filled.refused, remarks, filled.errors, filled.stopped)


class _Metric(ImageBackfill):
    title = "metres"
    in_index = True

    def __init__(self, store: Store, asked: TeacherRequest, metric: Teacher, stop: Stop, again: bool) -> None:
        super().__init__(store, metric_spec(store.root, store.spec, asked, metric), stop=stop, again=again)
        self._metric = metric
        self._profiles = {generation.number: generation.profile for generation in store.generations()}
        self._cameras = CameraReader(store)
        self.unfitted: list[str] = []

    def empty_rows(self, group: ShardReader) -> Iterable[int]:
        """Those that nobody tried to fit."""
        rows: list[int] = np.flatnonzero(np.isnan(group.column("fit")[:, METRIC_COLUMNS.index("pixels")])).tolist()
        return rows

    def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
        """The fits of a shard, batch by batch."""
        images, rows = shard.shard.images, shard.labelled_rows()
        digest_N = shard.labels.column("content_sha256")
        cameras = self._cameras.of_shard(shard.id) or [None] * len(images)
        profile = self._profiles[schema.shard_number(shard.id)[0]]
        fit_NC = np.full((len(images), len(METRIC_COLUMNS)), np.nan)
        refused: dict[int, str] = {}
        with ThreadPoolExecutor(cores(), "metres") as pool:
            for start in range(0, len(images), profile.batch_size):
                batch = range(start, min(start + profile.batch_size, len(images)))
                labelled = [row for row in batch if row in set(rows)]
                found = pool.map(
                    lambda row: self._input(images[row], shard.shard.shape, str(digest_N[row]), cameras[row]), labelled
                )
                inputs: dict[int, MetricInput | None] = {}
                for row, one in zip(labelled, found, strict=True):
                    if isinstance(one, ImageRejected | SourceError):
                        refused[row] = str(one)
                    else:
                        inputs[row] = one
                depth_BHW = np.stack([shard.labels.depth(row) for row in batch])
                code_BHW = np.stack([shard.labels.reliability(row) for row in batch])
                with torch_threads(profile.threads):
                    slots = [inputs.get(row) for row in batch]
                    fit_NC[batch.start : batch.stop] = fit_batch(
                        depth_BHW, code_BHW, slots, self._metric, profile.batch_size
                    )
        tried = [row for row in rows if row not in refused]
        self.unfitted += [images[row].id for row in tried if not fit_NC[row, 0] > 0]
        return Computed({"fit": fit_NC}, len(tried), refused)

    def _input(
        self, image: ImageRecord, shape: Shape, digest: str, known: Camera | None
    ) -> MetricInput | ImageRejected | SourceError | None:
        """The input of the metric teacher; ``known`` is the camera that the store knows of the image."""
        found = self.decoded(image, digest)
        if not isinstance(found, DecodedImage):
            return found
        camera = found.header.camera if known is None or known.origin not in GIVEN else known
        return prepare_metric(found.rgb_HW3, shape, self._metric, camera)
