"""Which image has which of the cameras that a user gives, before anything is written.

Where a teacher takes cameras, what is given is planned with the images, and an image whose camera is another than it
was planned with is planned again, as one whose file has changed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.cameras.given import PHOTO_COLUMNS, Found, Photo, is_resized, photos_in
from depthsieve.core.cameras import GIVEN, Camera
from depthsieve.core.errors import UsageError
from depthsieve.core.tables import CAMERA_SCHEMA
from depthsieve.planning.request import LabelRequest
from depthsieve.sources.scan import Scan
from depthsieve.store import Store
from depthsieve.store.index import read_index
from depthsieve.store.plan import cameras_in
from depthsieve.store.standing import Again


def find_cameras(request: LabelRequest, scan: Scan | None) -> Found:
    """The cameras of a file for the images of a request, those that the store knows too; none without a file.

    Raises :class:`SourceError` for a row of the file that will not do.
    """
    if request.given is None or request.given.file is None:
        return Found()
    return request.given.in_file(_photos(request, scan))


@dataclass(frozen=True)
class PlannedCameras:
    """``of`` says which camera an image is planned with, None where none decides labels; ``other`` are the images of
    the store that were planned with another. ``expected`` are the sources whose images were given cameras, where none
    are given now; ``from_file``: cameras are given by a file."""

    of: Callable[[Photo], Camera | None] | None = None
    other: frozenset[str] = frozenset()
    expected: frozenset[str] = frozenset()
    from_file: bool = False

    def unnamed(self, without: Mapping[str, tuple[int, str]]) -> tuple[int, str]:
        """How many new images the file does not name, and the first, of those ``without`` a given camera, which are
        counted by source with the first id of each.

        Raises :class:`UsageError` where no camera is given, and earlier images of the source were given theirs: EXIF or
        a guess would decide the new labels, and nobody said so."""
        missing = {name: found for name, found in without.items() if name in self.expected}
        if missing:
            count = sum(images for images, _ in missing.values())
            new = "1 new image has" if count == 1 else f"{count:,} new images have"
            name, (_, first) = next(iter(missing.items()))
            raise UsageError(
                f"{new} no camera, such as {first}, and the earlier images of source {name!r} were given theirs: say "
                "--cameras FILE, --focal-length or --fov again. Images that FILE does not name go by EXIF, or keep the "
                "camera that they were given"
            )
        if not (self.from_file and without):
            return 0, ""
        return sum(images for images, _ in without.values()), min(first for _, first in without.values())


def planned_cameras(request: LabelRequest, store: Store | None, scan: Scan | None = None) -> PlannedCameras:
    """The cameras to plan the images of a request with. An image of which nobody says anything now stays as planned.

    Without a ``scan`` only images that the store knows count, and only ``other`` is told. Raises as
    :func:`find_cameras`; ``of`` raises :class:`UsageError` for an image that cannot keep its camera.
    """
    given, names = request.given, {source.name for source in request.sources}
    if not request.work.takes_cameras:
        return PlannedCameras()
    if given is None and (store is None or scan is None or not scan.tally.images):
        return PlannedCameras()  # nothing is to be planned, and nothing is said of what is
    before = _planned_before(store, given is not None) if store is not None else {}

    def kept(photo: Photo) -> Camera | None:
        was, camera = before.get(photo.id, (photo, None))
        if camera is None or (was.width, was.height) == (photo.width, photo.height):
            return camera
        if not is_resized(was, photo):
            raise UsageError(
                f"{photo.id} has {photo.width} x {photo.height} pixels now, and had {was.width} x {was.height} when it "
                "was given its camera: say --cameras FILE, --focal-length or --fov again"
            )
        return camera.scaled(photo.width / was.width, photo.height / was.height)

    if given is None:
        assert store is not None  # see above
        expected = frozenset({image_id.partition("/")[0] for image_id in before} | _given_later(store)) & names
        return PlannedCameras(kept, expected=expected) if before or expected else PlannedCameras()
    found, stays = find_cameras(request, scan), given.file is not None

    def said(photo: Photo) -> Camera | None:
        return found.cameras.get(photo.id) or given.for_all(photo) or (kept(photo) if stays else None)

    mine = (one for one in before.values() if one[0].id.partition("/")[0] in names)
    other = frozenset(photo.id for photo, camera in mine if said(photo) != camera)
    return PlannedCameras(said, other, from_file=stays)


def again(request: LabelRequest, store: Store, cameras: PlannedCameras) -> Again:
    """Images that the store knows and that are planned again."""
    return replace(Again.of(store, request.options.retry_failed), other=cameras.other)


def _planned_before(store: Store, everything: bool) -> dict[str, tuple[Photo, Camera | None]]:
    """The planned images that a camera was given, or ``everything``, each with its camera, by id; the newest plan
    counts. Others take no memory."""
    found: dict[str, tuple[Photo, Camera | None]] = {}
    for generation in store.generations():
        for table in store.read_plan(generation):
            cameras = cameras_in(table) if CAMERA_SCHEMA.names[-1] in table.column_names else [None] * len(table)
            if not (everything or found or any(cameras)):
                continue
            for photo, camera in zip(photos_in(table), cameras, strict=True):
                if everything or camera is not None:
                    found[photo.id] = photo, camera
                else:
                    found.pop(photo.id, None)
    return found


def _given_later(store: Store) -> frozenset[str]:
    """The sources of labels that were given a camera when it decided nothing, so that no plan has it."""
    index = read_index(store, store.snapshot(), ["id", "camera"], "labelled")
    if index is None:
        return frozenset()
    index = index.filter(pc.is_in(index["camera"], value_set=pa.array(GIVEN)))
    return frozenset(image_id.partition("/")[0] for image_id in index["id"].to_pylist())


def _photos(request: LabelRequest, scan: Scan | None) -> Iterator[Photo]:
    """Newest last."""
    names = {source.name for source in request.sources}
    if (store := request.existing) is not None:
        for generation in store.generations():
            for table in store.read_plan(generation, PHOTO_COLUMNS):
                yield from (photo for photo in photos_in(table) if photo.id.partition("/")[0] in names)
    for table in scan.images() if scan is not None else ():
        yield from photos_in(table)
