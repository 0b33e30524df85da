"""A sparse model of COLMAP: which photo saw which point, and how far in front of the camera that point is; and the
intrinsics of each photo's camera.

Read from ``cameras``, ``images`` and ``points3D``, as ``.bin`` or ``.txt``
(https://colmap.github.io/format.html). Of points only what is observed is used: the place of a point in a photo is
where COLMAP found it, in pixels of that photo, so that no camera model has to be computed and a distorted camera is as
good as any.

Axes: P observed points of a photo.
"""

import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import SourceError
from depthsieve.core.records import Shape

PARAMETERS = {
    # What a binary model calls a camera model, and how many numbers follow.
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}
ONE_FOCAL = (
    *("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_DIVISION"),
    "SIMPLE_FISHEYE",
)
"""Models whose parameters begin with f, cx, cy; those of others with fx, fy, cx, cy."""

NO_FOCAL = ("EQUIRECTANGULAR",)
"""Models that are no perspective."""

PINHOLE = ("SIMPLE_PINHOLE", "PINHOLE")
"""Cameras without distortion."""

_PARTS = ("cameras", "images", "points3D")
_OBSERVATION = np.dtype([("xy", "<f8", 2), ("point", "<i8")])


@dataclass(frozen=True, eq=False)
class View:
    """One photo of a model.

    ``name`` is COLMAP's, relative to its folder of images, ``/``-separated. ``camera`` is the name of the camera's
    model, ``shape`` the (height, width) of the photo as COLMAP saw it. ``xy_P2`` is where the observed points are, in
    pixels of the photo from its left upper corner (the centre of the first pixel is at 0.5, 0.5), ``z_P`` their
    distance along the camera's axis in the model's units, positive in front of it.
    """

    name: str
    camera: str
    shape: Shape
    xy_P2: NDArray[np.float64]
    z_P: NDArray[np.float64]


@dataclass(frozen=True)
class PhotoCamera:
    """The camera of one photo of a model: the ``name`` of the photo and of the camera's ``model``, the (height, width)
    that COLMAP saw, and ``fx``, ``fy``, ``cx``, ``cy`` in its pixels; None for a model that is no perspective."""

    name: str
    model: str
    shape: Shape
    intrinsics: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class _Camera:
    model: str
    shape: Shape
    parameters: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Image:
    name: str
    camera: int
    pose: tuple[float, ...]  # qw qx qy qz tx ty tz: from the world to the camera
    xy_P2: NDArray[np.float64]
    point_P: NDArray[np.int64]


def read_model(folder: str | Path) -> tuple[View, ...]:
    """The photos of a model, in the order of their names.

    Args:
        folder: where ``cameras``, ``images`` and ``points3D`` are, or a folder with them in ``sparse/0`` or ``sparse``.
            A binary model goes before a text model, as in COLMAP's readers.

    Raises:
        SourceError: no model there, or a file of it that cannot be read.
    """
    place, suffix = _find(Path(folder))
    read_cameras, read_images, read_points = _READERS[suffix]
    cameras = _read(place / f"cameras{suffix}", read_cameras)
    images = _read(place / f"images{suffix}", read_images)
    id_K, xyz_K3 = _read(place / f"points3D{suffix}", read_points)
    return tuple(_view(image, cameras, id_K, xyz_K3, place) for image in sorted(images, key=lambda image: image.name))


def read_cameras(folder: str | Path) -> tuple[PhotoCamera, ...]:
    """The camera of each photo of a model, in the order of their names; points are not needed.

    Raises as :func:`read_model`.
    """
    place, suffix = _find(Path(folder), _PARTS[:2])
    read, read_images, _ = _READERS[suffix]
    cameras = _read(place / f"cameras{suffix}", read)
    images = _read(place / f"images{suffix}", read_images)
    found = []
    for image in sorted(images, key=lambda image: image.name):
        camera = _camera_of(image, cameras, place)
        found.append(PhotoCamera(image.name, camera.model, camera.shape, _intrinsics(camera, place)))
    return tuple(found)


def is_model(folder: str | Path) -> bool:
    """Whether the cameras of a model lie there."""
    try:
        _find(Path(folder), _PARTS[:2])
    except SourceError:
        return False
    return True


def _intrinsics(camera: _Camera, place: Path) -> tuple[float, float, float, float] | None:
    if camera.model in NO_FOCAL:
        return None
    values = camera.parameters[:4]
    if camera.model in ONE_FOCAL:
        values = (*camera.parameters[:1], *camera.parameters[:3])
    if len(values) < 4 or not all(math.isfinite(value) for value in values) or min(values[:2]) <= 0:
        raise SourceError(
            f"the COLMAP model in {place} has a camera of kind {camera.model} without a focal length over 0"
        )
    return values[0], values[1], values[2], values[3]


def model_files(folder: str | Path) -> tuple[Path, ...]:
    """The three files that :func:`read_model` reads."""
    place, suffix = _find(Path(folder))
    return tuple(place / f"{part}{suffix}" for part in _PARTS)


def _find(folder: Path, parts: Sequence[str] = _PARTS) -> tuple[Path, str]:
    for place in (folder, folder / "sparse" / "0", folder / "sparse"):
        for suffix in _READERS:
            if all((place / f"{part}{suffix}").is_file() for part in parts):
                return place, suffix
    wanted = f"{', '.join(parts[:-1])} and {parts[-1]}"
    raise SourceError(
        f"no COLMAP model in {folder}: {wanted}, all as .bin or all as .txt, must lie there or in its sparse/0"
    )


def _read(path: Path, read: Callable[[bytes], Any]) -> Any:
    try:
        return read(path.read_bytes())
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise SourceError(f"{path} is no such file of COLMAP, or is cut short: {error}") from error


def _view(
    image: _Image, cameras: dict[int, _Camera], id_K: NDArray[np.int64], xyz_K3: NDArray[np.float64], place: Path
) -> View:
    camera = _camera_of(image, cameras, place)
    at_P = np.minimum(np.searchsorted(id_K, image.point_P), max(len(id_K) - 1, 0))
    seen_P = (id_K[at_P] == image.point_P) if len(id_K) else np.zeros(len(image.point_P), bool)
    w, x, y, z, *shift = image.pose
    third_row = np.array([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])  # of the rotation
    z_P = xyz_K3[at_P[seen_P]] @ third_row + shift[2]
    return View(image.name, camera.model, camera.shape, image.xy_P2[seen_P], z_P)


def _camera_of(image: _Image, cameras: dict[int, _Camera], place: Path) -> _Camera:
    if image.camera not in cameras:
        raise SourceError(f"the COLMAP model in {place} has no camera {image.camera}, which took {image.name!r}")
    return cameras[image.camera]


class _Reader:
    """Little-endian numbers of a file, one after another."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def numbers(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{layout}", self._data, self._at)
        self._at += struct.calcsize(f"<{layout}")
        return found

    def text(self) -> str:
        end = self._data.index(b"\0", self._at)
        found = os.fsdecode(self._data[self._at : end])
        self._at = end + 1
        return found

    def table(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        found = np.frombuffer(self._data, dtype, count, self._at)
        self._at += found.nbytes
        return found

    def skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("a track is longer than the file")


def _binary_cameras(data: bytes) -> dict[int, _Camera]:
    reader, cameras = _Reader(data), {}
    for _ in range(reader.numbers("Q")[0]):
        key, kind, width, height = reader.numbers("iiQQ")
        if kind not in PARAMETERS:
            raise ValueError(f"camera {key} is of model {kind}, which this version does not know")
        model, count = PARAMETERS[kind]
        cameras[key] = _Camera(model, (height, width), reader.numbers(f"{count}d"))
    return cameras


def _binary_images(data: bytes) -> list[_Image]:
    reader, images = _Reader(data), []
    for _ in range(reader.numbers("Q")[0]):
        _, *pose, camera = reader.numbers("i7di")
        name = reader.text()
        seen_P = reader.table(_OBSERVATION, reader.numbers("Q")[0])
        images.append(_Image(name, camera, tuple(pose), seen_P["xy"], seen_P["point"]))
    return images


def _binary_points(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    reader = _Reader(data)
    rows = []
    for _ in range(reader.numbers("Q")[0]):
        key, x, y, z, _, _, _, _, track = reader.numbers("q3d3BdQ")
        reader.skip(8 * track)
        rows.append((key, x, y, z))
    return _points(rows)


def _text_cameras(data: bytes) -> dict[int, _Camera]:
    rows = (line.split() for line in _lines(data) if line)
    return {
        int(key): _Camera(model, (int(height), int(width)), tuple(map(float, parameters)))
        for key, model, width, height, *parameters in rows
    }


def _text_images(data: bytes) -> list[_Image]:
    images, lines = [], _lines(data)
    for line in lines:
        if line:
            _, *pose, camera, name = line.split(maxsplit=9)
            row = np.array(next(lines, "").split(), np.float64).reshape(-1, 3)
            images.append(_Image(name, int(camera), tuple(map(float, pose)), row[:, :2], row[:, 2].astype(np.int64)))
    return images


def _text_points(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rows = (line.split(maxsplit=4) for line in _lines(data) if line)
    return _points([(int(row[0]), float(row[1]), float(row[2]), float(row[3])) for row in rows])


def _lines(data: bytes) -> Iterator[str]:
    return (line.strip() for line in os.fsdecode(data).split("\n") if not line.startswith("#"))


def _points(rows: list[tuple[int, float, float, float]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids in order, and the place of each."""
    rows.sort()
    id_K = np.array([row[0] for row in rows], np.int64)
    return id_K, np.array([row[1:] for row in rows], np.float64).reshape(-1, 3)


_READERS = {
    ".bin": (_binary_cameras, _binary_images, _binary_points),
    ".txt": (_text_cameras, _text_images, _text_points),
}
