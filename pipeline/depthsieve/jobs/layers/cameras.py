"""Give labels that are there already the cameras that a user says, as a layer: for teachers that take none.

No image is read: what is not said stays as the layer has it, or as the labels have it from EXIF.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.cameras.given import Found, GivenCameras, Photo
from depthsieve.core.cameras import GIVEN, Camera, is_apart, known_from
from depthsieve.core.records import ImageRecord
from depthsieve.core.stopping import Stop
from depthsieve.jobs.layers.backfill import Backfill, CommittedShard, Computed
from depthsieve.labelling.remarks import OTHER_CAMERA, OTHER_FOCAL, Remarks, add_remarks
from depthsieve.store import Store
from depthsieve.store.cameras import CameraReader, camera_arrays, camera_in_labels
from depthsieve.store.index import read_index
from depthsieve.store.layer_kinds import cameras_spec
from depthsieve.store.layers import Layer
from depthsieve.store.leases import Leases


@dataclass(frozen=True, slots=True)
class Known:
    """What :func:`keep_cameras` did: labels whose camera is another now, how many of them EXIF contradicts and how many
    were given another one before, why shards are still as they were, and whether it was stopped before the end."""

    images: int = 0
    remarks: Remarks = ()
    errors: tuple[str, ...] = ()
    stopped: bool = False


def keep_cameras(
    store: Store,
    given: GivenCameras,
    found: Found,
    names: tuple[str, ...],
    leases: Leases,
    stop: Stop,
    progress: bool = True,
) -> Known:
    """Keep the cameras that are given for the labelled images of the sources of these names; ``found`` has those of the
    file. Raises :class:`StoreBusy` where another process is at it.
    """
    job = _Cameras(store, given, found.cameras, names, stop)
    filled = job.run(progress=progress, leases=leases)
    remarks = add_remarks(
        *(((OTHER_FOCAL, 1, image_id),) for image_id in job.contradicted),
        *(((OTHER_CAMERA, 1, image_id),) for image_id in job.given_another),
    )
    return Known(filled.images, remarks, filled.errors, filled.stopped)


def photo_of(image: ImageRecord) -> Photo:
    """An image as cameras see it."""
    return Photo(image.id, image.width, image.height, image.orientation)


def camera_note(store: Store, asked: bool) -> str | None:
    """How the focal lengths of a store are known, in a line; None where its index is not up to date, and unless
    ``asked`` where nobody gave any."""
    table = read_index(store, store.snapshot(), ["camera"], "labelled")
    if table is None or not len(table):
        return None
    column: pa.ChunkedArray = table["camera"]
    counts = Counter({row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()})
    if not asked and not any(counts[origin] for origin in GIVEN):
        return None
    line = known_from(counts)
    said = "--cameras, --focal-length or --fov is said again"
    return line if asked else f"{line}; what is added or changed goes by EXIF until {said}"


class _Cameras(Backfill):
    title = "cameras"
    in_index = True

    def __init__(
        self, store: Store, given: GivenCameras, in_file: Mapping[str, Camera], names: tuple[str, ...], stop: Stop
    ) -> None:
        super().__init__(store, cameras_spec(store.spec), stop=stop)
        self._given, self._in_file, self._names = given, in_file, names
        self._reader = CameraReader(store)
        self.contradicted: list[str] = []
        self.given_another: list[str] = []

    def todo(self, layer: Layer) -> Iterator[str]:
        """All shards: what is known may be another camera than what is said now."""
        yield from sorted(self.store.committed())

    def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
        """The cameras of a shard, where they are not as the layer has them."""
        images = shard.shard.images
        kept = self._reader.of_shard(shard.id)
        focal_N = shard.labels.column("focal_px")
        before: list[Camera | None] = [None] * len(images) if kept is None else list(kept)
        now = list(before)
        for row in shard.labelled_rows():
            image = images[row]
            in_labels = camera_in_labels(float(focal_N[row]), (image.height, image.width))
            known = before[row] if kept is not None else in_labels
            now[row] = known
            if image.id.partition("/")[0] not in self._names:
                continue
            exif = in_labels if known is None or known.origin in GIVEN else known
            said = self._in_file.get(image.id) or self._given.for_all(photo_of(image))
            now[row] = said or (known if self._given.file is not None else exif)
            if known is not None and known.origin in GIVEN and now[row] != known:
                self.given_another.append(image.id)
            if said is not None and is_apart(said, exif):
                self.contradicted.append(image.id)
        if now == before:
            return Computed(None, 0)
        return Computed(camera_arrays(now), sum(one != other for one, other in zip(now, before, strict=True)))
