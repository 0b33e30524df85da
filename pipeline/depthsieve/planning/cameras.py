"""Which image has which of the cameras that a user gives, before anything is written.

Where a teacher takes cameras, what is given is planned with the images, and an image whose camera is another than it
was planned with is planned again, as one whose file has changed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from depthsieve.cameras.given import PHOTO_COLUMNS, Found, Photo, photos_in
from depthsieve.core.cameras import Camera
from depthsieve.core.tables import CAMERA_SCHEMA
from depthsieve.planning.request import LabelRequest
from depthsieve.sources.scan import Scan
from depthsieve.store import Store
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
    """``of`` says which camera an image is to be planned with, None where none decides labels; ``other`` are the images
    of the store that were planned with another."""

    of: Callable[[Photo], Camera | None] | None = None
    other: frozenset[str] = frozenset()


def planned_cameras(request: LabelRequest, store: Store | None, scan: Scan | None = None) -> PlannedCameras:
    """The cameras to plan the images of a request with. What nobody says now stays as it is planned.

    Without a ``scan`` only images that the store knows count, and only ``other`` is told. Raises as
    :func:`find_cameras`.
    """
    if not request.work.takes_cameras:
        return PlannedCameras()
    given = request.given
    if given is None:
        known = _given_before(store) if store is not None and scan is not None else {}
        return PlannedCameras(lambda photo: known.get(photo.id)) if known else PlannedCameras()
    before = _planned_before(store) if store is not None else {}
    found = find_cameras(request, scan)

    def said(photo: Photo) -> Camera | None:
        return found.cameras.get(photo.id) or given.for_all(photo)

    names = {source.name for source in request.sources}
    mine = (one for one in before.values() if one[0].id.partition("/")[0] in names)
    return PlannedCameras(said, frozenset(photo.id for photo, camera in mine if said(photo) != camera))


def again(request: LabelRequest, store: Store, cameras: PlannedCameras) -> Again:
    """Images that the store knows and that are planned again."""
    return replace(Again.of(store, request.options.retry_failed), other=cameras.other)


def _given_before(store: Store) -> dict[str, Camera]:
    """The cameras that images are planned with, by id; the newest plan counts. Other images take no memory."""
    found: dict[str, Camera] = {}
    for generation in store.generations():
        for table in store.read_plan(generation):
            cameras = cameras_in(table) if CAMERA_SCHEMA.names[-1] in table.column_names else [None] * len(table)
            if not (found or any(cameras)):
                continue
            for image_id, camera in zip(table["id"].to_pylist(), cameras, strict=True):
                if camera is not None:
                    found[image_id] = camera
                else:
                    found.pop(image_id, None)
    return found


def _planned_before(store: Store) -> dict[str, tuple[Photo, Camera | None]]:
    """Each planned image with the camera that was given for it, by id; the newest plan counts."""
    found: dict[str, tuple[Photo, Camera | None]] = {}
    for generation in store.generations():
        for table in store.read_plan(generation):
            cameras = cameras_in(table) if CAMERA_SCHEMA.names[-1] in table.column_names else [None] * len(table)
            found |= {photo.id: (photo, camera) for photo, camera in zip(photos_in(table), cameras, strict=True)}
    return found


def _photos(request: LabelRequest, scan: Scan | None) -> Iterator[Photo]:
    """Newest last."""
    names = {source.name for source in request.sources}
    if (store := request.existing) is not None:
        for generation in store.generations():
            for table in store.read_plan(generation, PHOTO_COLUMNS):
                yield from (photo for photo in photos_in(table) if photo.id.partition("/")[0] in names)
    for table in scan.images() if scan is not None else ():
        yield from photos_in(table)
