"""The cameras of what is learnt from, for teachers that take one: scenes have their own, pairs as `label` has them."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO

from depthsieve.cameras.given import GivenCameras, Photo
from depthsieve.core.cameras import Camera, is_apart, known_from
from depthsieve.core.errors import ImageRejected, SourceError, UsageError
from depthsieve.images.decode import read_header
from depthsieve.images.headers import ImageHeader
from depthsieve.jobs.calibrate.pairs import Pair, Pairs
from depthsieve.labelling.metric import lacks_camera
from depthsieve.labelling.remarks import OTHER_FOCAL, add_remarks, remark_notes
from depthsieve.scenes import Scene
from depthsieve.sources.ids import encode_path
from depthsieve.teachers import Teacher


def scene_camera(scene: Scene) -> Camera:
    """That of a rendered scene."""
    return Camera.centred(scene.focal_px, scene.rgb_HW3.shape[1], scene.rgb_HW3.shape[0], "given")


def with_cameras(pairs: Pairs, teacher: Teacher, given: GivenCameras) -> tuple[Pairs, tuple[str, ...]]:
    """The pairs with their cameras, as given or by EXIF, and what a person should know of those; as they are for a
    teacher that takes none.

    Raises :class:`UsageError` where that teacher is given cameras, or no pair has one that the teacher needs, and
    :class:`SourceError` for a row of the file that will not do.
    """
    if teacher.intrinsics_in == "ignored":
        if given:
            raise UsageError(
                f"teacher {teacher.name!r} takes no camera: leave out cameras, focal_length and fov (--cameras, "
                "--focal-length, --fov)"
            )
        return pairs, ()
    whole = (*pairs.learnt, *pairs.judged)
    headers = {_place(pair): header for pair in whole if (header := _header(pair)) is not None}
    photos = {place: Photo(place, header.width, header.height, header.orientation) for place, header in headers.items()}
    found = given.in_file(photos.values())
    said = {place: found.cameras.get(place) or given.for_all(photo) for place, photo in photos.items()}
    cameras = {place: said[place] or header.camera for place, header in headers.items()}
    if teacher.intrinsics_in == "needed" and cameras and not any(cameras.values()):
        raise UsageError(lacks_camera(teacher, "any pair"))
    known = Counter[str | None](camera.origin if camera else None for camera in cameras.values())
    apart = [
        (OTHER_FOCAL, 1, pair.id)
        for pair in whole
        if (camera := said.get(_place(pair))) is not None and is_apart(camera, headers[_place(pair)].camera)
    ]
    about = (known_from(known),) if known else ()
    notes = (*given.notes, *about, *found.notes, *remark_notes(add_remarks(tuple(apart))))
    learnt, judged = (tuple(_with(pair, cameras) for pair in some) for some in (pairs.learnt, pairs.judged))
    return replace(pairs, learnt=learnt, judged=judged), notes


def _with(pair: Pair, cameras: Mapping[str, Camera | None]) -> Pair:
    return replace(pair, camera=cameras.get(_place(pair)))


def _place(pair: Pair) -> str:
    """The photo as an id with the whole path of its folder: those of two folders differ by it."""
    folder = encode_path(os.fsencode(os.path.abspath(pair.source.root)).lstrip(b"/"))  # noqa: PTH100
    return f"pairs/{folder}/{pair.id.partition('/')[2]}"


def _header(pair: Pair) -> ImageHeader | None:
    """None for a photo that cannot be read, which is told of when its turn comes."""
    try:
        return read_header(BytesIO(pair.source.read(pair.id)))
    except (ImageRejected, SourceError, OSError):
        return None
