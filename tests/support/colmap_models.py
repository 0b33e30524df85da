"""A sparse model as COLMAP writes it, made of a rendered scene: for tests of what reads models.

Axes: H row, W column, P points.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WORLD = np.array([0.5, -0.5, 0.5, 0.5]), np.array([1.0, -2.0, 3.0])
"""A pose that mixes up all axes: a quaternion (w first) and a shift, from the world to the camera."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One photo: its points in pixels and their depth along the camera's axis."""

    name: str
    shape: tuple[int, int]
    xy_P2: NDArray[np.float64]
    z_P: NDArray[np.float64]
    focal: float
    camera: str = "PINHOLE"


def rotation(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def shoot(
    name: str,
    depth_HW: NDArray[np.floating],
    focal: float,
    points: int = 200,
    seed: int = 0,
    unit: float = 1.0,
    camera: str = "PINHOLE",
) -> Shot:
    """Points at random pixels of an exact depth map, at their centres; ``unit`` metres are one unit of the model."""
    rows, columns = np.nonzero(np.isfinite(depth_HW) & (depth_HW > 0))
    chosen = np.random.default_rng(seed).choice(len(rows), points, replace=False)
    rows, columns = rows[chosen], columns[chosen]
    xy_P2 = np.stack([columns + 0.5, rows + 0.5], axis=1)
    height, width = depth_HW.shape
    return Shot(name, (height, width), xy_P2, depth_HW[rows, columns].astype(np.float64) / unit, focal, camera)


def write_model(folder: Path, shots: Sequence[Shot], text: bool = False) -> Path:
    """``cameras``, ``images`` and ``points3D`` in ``folder/sparse/0``; each photo has a camera and points of its own,
    and one key point that no point belongs to. Returns ``folder``."""
    place = folder / "sparse" / "0"
    place.mkdir(parents=True)
    (_write_text if text else _write_binary)(place, shots)
    return folder


def _parts(shots: Sequence[Shot]) -> list[tuple[int, Shot, NDArray[np.float64], NDArray[np.int64]]]:
    parts, first = [], 7  # ids need not start at 1, nor lie close
    for number, shot in enumerate(shots, start=1):
        height, width = shot.shape
        rays_P3 = np.concatenate([(shot.xy_P2 - [width / 2, height / 2]) / shot.focal, np.ones((len(shot.z_P), 1))], 1)
        camera_P3 = rays_P3 * shot.z_P[:, None]
        world_P3 = (camera_P3 - WORLD[1]) @ rotation(WORLD[0])  # the inverse of R X + t
        ids_P = np.arange(first, first + 3 * len(shot.z_P), 3)
        first = int(ids_P[-1]) + 100 if len(ids_P) else first
        parts.append((10 + number, shot, world_P3, ids_P))
    return parts


def _camera(shot: Shot) -> list[float]:
    height, width = shot.shape
    middle = [width / 2, height / 2]
    return {
        "PINHOLE": [shot.focal, shot.focal, *middle],
        "SIMPLE_PINHOLE": [shot.focal, *middle],
        "OPENCV": [shot.focal, shot.focal, *middle, 0.1, 0.0, 0.0, 0.0],
    }[shot.camera]


_KINDS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "OPENCV": 4}


def _write_binary(place: Path, shots: Sequence[Shot]) -> None:
    parts = _parts(shots)
    cameras, images, points = ([struct.pack("<Q", len(parts))] for _ in range(3))
    points[0] = struct.pack("<Q", sum(len(part[3]) for part in parts))
    for key, shot, world_P3, ids_P in parts:
        height, width = shot.shape
        parameters = _camera(shot)
        cameras.append(struct.pack("<iiQQ", key, _KINDS[shot.camera], width, height))
        cameras.append(struct.pack(f"<{len(parameters)}d", *parameters))
        images.append(struct.pack("<i7di", key, *WORLD[0], *WORLD[1], key) + shot.name.encode() + b"\0")
        images.append(struct.pack("<Q", len(ids_P) + 1) + struct.pack("<ddq", 1.0, 1.0, -1))
        for (x, y), point in zip(shot.xy_P2, ids_P, strict=True):
            images.append(struct.pack("<ddq", x, y, point))
        for index, (point, xyz) in enumerate(zip(ids_P, world_P3, strict=True)):
            points.append(struct.pack("<q3d3Bd", point, *xyz, 1, 2, 3, 0.5))
            points.append(struct.pack("<Qii", 1, key, index + 1))
    for name, pieces in (("cameras", cameras), ("images", images), ("points3D", points)):
        (place / f"{name}.bin").write_bytes(b"".join(pieces))


def _write_text(place: Path, shots: Sequence[Shot]) -> None:
    cameras, images, points = ["# cameras"], ["# images", "# of two lines each"], ["# points"]
    for key, shot, world_P3, ids_P in _parts(shots):
        height, width = shot.shape
        cameras.append(" ".join(map(str, [key, shot.camera, width, height, *_camera(shot)])))
        images.append(" ".join(map(str, [key, *WORLD[0], *WORLD[1], key, shot.name])))
        seen = [f"{x} {y} {point}" for (x, y), point in zip(shot.xy_P2, ids_P, strict=True)]
        images.append(" ".join(["1.0 1.0 -1", *seen]))
        for index, (point, (x, y, z)) in enumerate(zip(ids_P, world_P3, strict=True)):
            points.append(f"{point} {x} {y} {z} 1 2 3 0.5 {key} {index + 1}")
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        (place / f"{name}.txt").write_text("\n".join(lines) + "\n")
