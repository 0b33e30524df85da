"""What a user says of cameras: a file of them, or one focal length or angle of view for all; and what that makes of
each image.

A row of the file goes before the one number, and both before what EXIF says.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from depthsieve.cameras.colmap import PINHOLE, is_model, read_cameras
from depthsieve.cameras.matching import match_names
from depthsieve.cameras.table import read_table
from depthsieve.core.cameras import Camera, Origin, check_angle, focal_of_view
from depthsieve.core.errors import SourceError
from depthsieve.core.records import Shape

SHOWN = 3
_TURNED = 5
"""EXIF orientations from here on swap width and height."""

SAME_SHAPE = 0.01
"""Ratios of sides that differ by no more are those of one photo at two resolutions."""


@dataclass(frozen=True, slots=True)
class Photo:
    """An image to find a camera for: its id, its upright width and height, and the EXIF orientation of its file."""

    id: str
    width: int
    height: int
    orientation: int = 1


PHOTO_COLUMNS = ("id", "width", "height", "orientation")
"""Columns of a table that :func:`photos_in` needs."""


def photos_in(table: pa.Table) -> Iterator[Photo]:
    """The images of a table of a plan or a scan."""
    columns = (table[name].to_pylist() for name in PHOTO_COLUMNS)
    yield from (Photo(*row) for row in zip(*columns, strict=True))


@dataclass(frozen=True)
class _Row:
    """A camera of a file: where in the file it stands, what is known of it, and the (height, width) that it is for."""

    where: str
    fx: float
    fy: float | None
    middle: tuple[float, float] | None
    shape: Shape | None

    def camera(self, photo: Photo, origin: Origin) -> Camera:
        """That of a photo. Raises :class:`SourceError` where it is of another shape."""
        shape = self.shape or (photo.height, photo.width)
        height, width = shape
        fx, fy = self.fx, self.fy or self.fx
        cx, cy = self.middle or (width / 2, height / 2)
        if photo.orientation >= _TURNED and not _alike(shape, photo) and _alike(shape[::-1], photo):
            # Of the pixels as the file has them, before its EXIF orientation was undone.
            cx, cy = height - cy if photo.orientation in (6, 7) else cy, width - cx if photo.orientation >= 7 else cx
            fx, fy, width, height = fy, fx, height, width
        elif not _alike(shape, photo):
            raise SourceError(
                f"{self.where}: is of an image of {width} x {height} pixels, and {photo.id} has {photo.width} x "
                f"{photo.height}, another shape"
            )
        return Camera(fx, fy, cx, cy, origin).scaled(photo.width / width, photo.height / height)


def is_resized(before: Photo, now: Photo) -> bool:
    """Whether an image may be the one before at another resolution, by the ratio of its sides."""
    return _alike((before.height, before.width), now)


def _alike(shape: Shape, photo: Photo) -> bool:
    ratio = abs(math.log(shape[1] * photo.height / (shape[0] * photo.width)))
    return ratio <= max(SAME_SHAPE, 1 / min(photo.width, photo.height))


@dataclass(frozen=True)
class GivenCameras:
    """Cameras that a user gave. Make them with :func:`given_cameras`.

    ``file`` is a path, None without one; ``focal_length`` is in pixels of every image, ``fov`` in degrees along the
    longer side of every image; at most one of the two.
    """

    file: str | None = None
    focal_length: float | None = None
    fov: float | None = None
    notes: tuple[str, ...] = ()
    _origin: Origin = "cameras.csv"
    _rows: Mapping[str, _Row] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return bool(self.file or self.focal_length or self.fov)

    def for_all(self, photo: Photo) -> Camera | None:
        """The one that is given for all images, as that of this photo."""
        if self.focal_length is not None:
            return Camera.centred(self.focal_length, photo.width, photo.height, "given")
        if self.fov is not None:
            focal = focal_of_view(self.fov, max(photo.width, photo.height))
            return Camera.centred(focal, photo.width, photo.height, "given")
        return None

    def in_file(self, photos: Iterable[Photo]) -> "Found":
        """Which photos have a row in the file, and its camera.

        Raises :class:`SourceError` for a row whose image has another shape, and where a row could be of several images.
        """
        known = {photo.id: photo for photo in photos} if self._rows else {}
        if not self._rows:
            return Found()
        matches = match_names((name.replace("::", "/") for name in self._rows), known)
        by_path = {name.replace("::", "/"): row for name, row in self._rows.items()}
        if matches.ambiguous:
            name, ids = next(iter(matches.ambiguous.items()))
            more = f" (and {len(matches.ambiguous) - 1:,} more such rows)" if len(matches.ambiguous) > 1 else ""
            meant = f"could be {' and '.join(ids[:SHOWN])}" if len(ids) > 1 else f"and another row are of {ids[0]}"
            raise SourceError(f"{by_path[name].where}: {name!r} {meant}; write more of its path{more}")
        cameras = {
            image_id: by_path[name].camera(known[image_id], self._origin) for name, image_id in matches.label_of.items()
        }
        strays = [name for name in by_path if name not in matches.label_of]
        return Found(cameras, len(strays), by_path[strays[0]].where if strays else "")


@dataclass(frozen=True)
class Found:
    """Cameras of images, by id; how many rows of the file are of no image, and where the first of those stands."""

    cameras: Mapping[str, Camera] = field(default_factory=dict)
    strays: int = 0
    stray: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of it."""
        if not self.strays:
            return ()
        return (f"{self.strays:,} camera{'s' if self.strays > 1 else ''} of no image here, such as {self.stray}",)


def given_cameras(
    file: str | Path | None = None, focal_length: float | None = None, fov: float | None = None
) -> GivenCameras:
    """What a user says of cameras.

    Args:
        file: a CSV file (:mod:`depthsieve.cameras.table`), or the folder of a COLMAP model or one of its files.
        focal_length: of all images that the file does not name, in pixels of each.
        fov: instead, their angle of view along the longer side, in degrees.

    Raises:
        UsageError: a number that is no focal length or angle, or both.
        SourceError: a file that cannot be read, or a row of it that will not do.
    """
    check_angle(focal_length, fov)
    if file is None:
        return GivenCameras(None, focal_length, fov)
    path = Path(file).expanduser().absolute()
    origin, rows, notes = _colmap(path) if _is_colmap(path) else _csv(path)
    return GivenCameras(str(path), focal_length, fov, tuple(notes), origin, rows)


Read = tuple[Origin, dict[str, _Row], list[str]]


def _is_colmap(path: Path) -> bool:
    return path.is_dir() or (path.name in ("cameras.txt", "cameras.bin") and is_model(path.parent))


def _csv(path: Path) -> Read:
    table = read_table(path)
    rows = {
        row.name: _Row(
            f"{path}, line {row.line}",
            row.fx,
            row.fy,
            None if row.cx is None or row.cy is None else (row.cx, row.cy),
            row.shape,
        )
        for row in table.rows
    }
    unused = f"{path}: column{'s' if len(table.unused) > 1 else ''} {', '.join(table.unused)} not used"
    return "cameras.csv", rows, [unused] if table.unused else []


def _colmap(path: Path) -> Read:
    folder = path if path.is_dir() else path.parent
    photos = read_cameras(folder)
    rows, notes = {}, list(_colmap_notes(path, [(one.model, one.intrinsics is not None) for one in photos]))
    for one in photos:
        if one.intrinsics is not None:
            fx, fy, cx, cy = one.intrinsics
            rows[one.name] = _Row(f"{path}, photo {one.name}", fx, fy, (cx, cy), one.shape)
    if not rows:
        raise SourceError(f"the COLMAP model in {path} has no photo with a focal length")
    return "colmap", rows, notes


def _colmap_notes(path: Path, models: list[tuple[str, bool]]) -> Iterator[str]:
    distorted = sorted({model for model, known in models if known and model not in PINHOLE})
    if distorted:
        count = sum(model in distorted for model, _ in models)
        yield (
            f"{count:,} photos of the COLMAP model have lens distortion ({', '.join(distorted)}), which is not used; "
            "`colmap image_undistorter` writes photos without"
        )
    without = sum(not known for _, known in models)
    if without:
        yield f"{without:,} photos of the COLMAP model are no perspective, and have no focal length"
