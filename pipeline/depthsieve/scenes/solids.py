"""What scenes are made of: solids, materials, camera, light; and the rays that meet them.

World axes: x right, y up, z ahead, in metres; the ground is y = 0. Every solid is a simple body in its own unit space
(a box is [-1, 1]^3, a ball the unit ball, ...), placed by centre, half extents and a turn about the vertical axis. A
ray keeps its parameter in unit space, and rays are scaled so that it is the z-depth: what `cast` finds is depth.

Array legend: H, W pixels; K solids; P pixels in a flat list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Colour = tuple[float, float, float]
Vector = tuple[float, float, float]

GROUND, ROOM, BOX, BALL, TUBE, ROOF = range(6)
PLAIN, NOISE, CHECKER, PLANKS, BRICKS, WINDOWS, LEAVES, LANES = range(8)
SKY = -1
NEAREST = 0.05  # metres; nothing is closer to the camera than this


@dataclass(frozen=True, slots=True)
class Material:
    """Two colours (linear RGB, 0..1) in a pattern of `period` metres; `grain` is the strength of fine noise."""

    pattern: int
    first: Colour
    second: Colour
    period: float = 1.0
    grain: float = 0.2
    glow: float = 0.0


@dataclass(frozen=True, slots=True)
class Solid:
    """A body: half extents in metres, `yaw` in radians; `taper` (tubes): 0 is a cylinder, 1 a cone with its tip up."""

    shape: int
    centre: Vector
    half: Vector
    material: Material
    yaw: float = 0.0
    taper: float = 0.0

    def inner(self, point: Vector) -> Vector:
        """A point of the world as seen from the solid's centre, along its own axes."""
        ax, ay, az = (p - c for p, c in zip(point, self.centre, strict=True))
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return cos * ax - sin * az, ay, sin * ax + cos * az


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera; `spread` is the tangent of half the field of view along the longer side."""

    position: Vector
    yaw: float
    pitch: float
    roll: float
    spread: float

    def axes(self) -> NDArray[np.float64]:
        """Rows: the camera's right, up and forward in world axes."""
        cy, sy = math.cos(self.yaw), math.sin(self.yaw)
        cp, sp = math.cos(self.pitch), math.sin(self.pitch)
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        right, up, ahead = (cy, 0.0, -sy), (-sy * sp, cp, -cy * sp), (sy * cp, sp, cy * cp)
        rolled_right = tuple(cr * r + sr * u for r, u in zip(right, up, strict=True))
        rolled_up = tuple(cr * u - sr * r for r, u in zip(right, up, strict=True))
        return np.array([rolled_right, rolled_up, ahead])

    def focal_px(self, height: int, width: int) -> float:
        return 0.5 * max(height, width) / self.spread

    def rays(self, height: int, width: int) -> tuple[Floats, Floats, Floats]:
        """World directions (x, y, z), each [H,W], through pixel centres, with a forward component of exactly one."""
        focal = self.focal_px(height, width)
        a_W = ((np.arange(width) + 0.5 - width / 2) / focal)[None, :]
        b_H = ((height / 2 - np.arange(height) - 0.5) / focal)[:, None]
        right, up, ahead = self.axes()
        x, y, z = ((right[i] * a_W + up[i] * b_H + ahead[i]).astype(np.float32) for i in range(3))
        return x, y, z


@dataclass(frozen=True, slots=True)
class Light:
    """One lamp or sun: a sun lies `toward` a direction (`at` is None), a lamp stands `at` a point. Linear RGB."""

    toward: Vector
    at: Vector | None
    colour: Colour
    ambient: Colour
    sky_low: Colour
    sky_high: Colour
    haze_per_m: float
    clouds: float


@dataclass(frozen=True, slots=True)
class World:
    """All there is to see; `sensor_noise` multiplies the noise of the photograph."""

    kind: str
    solids: tuple[Solid, ...]
    camera: Camera
    light: Light
    sensor_noise: float = 1.0


def cast(world: World, height: int, width: int) -> tuple[Floats, Ints, tuple[Floats, Floats, Floats]]:
    """The nearest solid of every pixel.

    Returns: z-depth [H,W] in metres (infinite for sky), the solid's index [H,W] (`SKY` for none), and the rays.
    """
    rays = world.camera.rays(height, width)
    depth_HW = np.full((height, width), np.inf, np.float32)
    index_HW = np.full((height, width), SKY, np.int32)
    windows = _windows(world, height, width)
    with np.errstate(all="ignore"):
        for index, solid in enumerate(world.solids):
            top, bottom, left, right = windows[index]
            if top >= bottom or left >= right:
                continue
            window = np.s_[top:bottom, left:right]
            found = _meet(solid, world.camera, rays[0][window], rays[1][window], rays[2][window])
            nearer = found < depth_HW[window]  # a miss is NaN or infinite: never nearer
            nearer &= found > NEAREST
            np.copyto(depth_HW[window], found, where=nearer)
            np.copyto(index_HW[window], np.int32(index), where=nearer)
    return depth_HW, index_HW, rays


def _windows(world: World, height: int, width: int) -> list[list[int]]:
    """Each solid's bounding box on the image: top, bottom, left, right."""
    count = len(world.solids)
    centre_K3 = np.array([s.centre for s in world.solids])
    half_K3 = np.array([s.half for s in world.solids])
    yaw_K = np.array([s.yaw for s in world.solids])
    signs_83 = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    local_K83 = half_K3[:, None] * signs_83
    cos_K1, sin_K1 = np.cos(yaw_K)[:, None], np.sin(yaw_K)[:, None]
    x_K8 = cos_K1 * local_K83[..., 0] + sin_K1 * local_K83[..., 2] + (centre_K3[:, :1] - world.camera.position[0])
    y_K8 = local_K83[..., 1] + (centre_K3[:, 1:2] - world.camera.position[1])
    z_K8 = cos_K1 * local_K83[..., 2] - sin_K1 * local_K83[..., 0] + (centre_K3[:, 2:] - world.camera.position[2])
    right, up, ahead = world.camera.axes()
    depth_K8 = ahead[0] * x_K8 + ahead[1] * y_K8 + ahead[2] * z_K8
    focal = world.camera.focal_px(height, width)
    safe_K8 = np.maximum(depth_K8, NEAREST)
    column_K8 = width / 2 + focal * (right[0] * x_K8 + right[1] * y_K8 + right[2] * z_K8) / safe_K8
    row_K8 = height / 2 - focal * (up[0] * x_K8 + up[1] * y_K8 + up[2] * z_K8) / safe_K8
    edges = (row_K8.min(1) - 1, row_K8.max(1) + 2, column_K8.min(1) - 1, column_K8.max(1) + 2)
    limits = (height, height, width, width)
    boxes_K4 = np.stack([np.clip(e, 0, n).astype(int) for e, n in zip(edges, limits, strict=True)], axis=1)
    around_K = depth_K8.min(1) < NEAREST
    shape_K = np.array([s.shape for s in world.solids])
    boxes_K4[around_K | (shape_K <= ROOM)] = (0, height, 0, width)
    behind_K = (depth_K8.max(1) < NEAREST) & (shape_K > ROOM)
    boxes_K4[behind_K] = 0
    assert len(boxes_K4) == count
    windows: list[list[int]] = boxes_K4.tolist()
    return windows


def _meet(solid: Solid, camera: Camera, x: Floats, y: Floats, z: Floats) -> Floats:
    """Ray parameter of the first hit; NaN or infinite where there is none."""
    ox, oy, oz = (p - c for p, c in zip(camera.position, solid.centre, strict=True))
    if solid.shape == GROUND:
        ground: Floats = np.float32(-oy) / y  # negative above the horizon: no hit
        return ground
    hx, hy, hz = solid.half
    cos, sin = math.cos(solid.yaw), math.sin(solid.yaw)
    origin = ((cos * ox - sin * oz) / hx, oy / hy, (sin * ox + cos * oz) / hz)
    ux = x * np.float32(cos / hx) - z * np.float32(sin / hx)
    uy = y * np.float32(1 / hy)
    uz = x * np.float32(sin / hz) + z * np.float32(cos / hz)
    if solid.shape in (ROOM, BOX):
        return _meet_box(origin, (ux, uy, uz), inside=solid.shape == ROOM)
    if solid.shape == ROOF:
        return _meet_roof(origin, (ux, uy, uz))
    # Curved bodies are solved around the centre's depth: from the camera, float32 would cancel for small distant ones.
    ahead = camera.axes()[2]
    middle = -(ahead[0] * ox + ahead[1] * oy + ahead[2] * oz)
    px, py, pz = (np.float32(o) + np.float32(middle) * u for o, u in zip(origin, (ux, uy, uz), strict=True))
    if solid.shape == BALL:
        a = ux * ux + uy * uy + uz * uz
        b = ux * px + uy * py + uz * pz
        c = px * px + py * py + pz * pz - np.float32(1)
        ball: Floats = np.float32(middle) - (b + np.sqrt(b * b - a * c)) / a
        return ball
    return _meet_tube(solid.taper, origin[1], middle, (px, py, pz), (ux, uy, uz))


def _meet_box(origin: Vector, direction: tuple[Floats, Floats, Floats], inside: bool) -> Floats:
    enter: Floats | None = None
    leave: Floats | None = None
    for o, u in zip(origin, direction, strict=True):
        inverse = np.float32(1) / u
        low, high = np.float32(-1 - o) * inverse, np.float32(1 - o) * inverse
        far = np.maximum(low, high)
        leave = far if leave is None else np.minimum(leave, far)
        if not inside:
            near = np.minimum(low, high)
            enter = near if enter is None else np.maximum(enter, near)
    assert leave is not None
    if enter is None:
        return leave
    box: Floats = np.where(enter < leave, enter, np.float32(np.inf))
    return box


def _meet_roof(origin: Vector, direction: tuple[Floats, Floats, Floats]) -> Floats:
    """A gable: the part of the unit box under x + y/2 <= 1/2 and -x + y/2 <= 1/2."""
    enter = np.full_like(direction[0], -np.inf)
    leave = np.full_like(direction[0], np.inf)
    for nx, ny, nz, bound in ((1, 0.5, 0, 0.5), (-1, 0.5, 0, 0.5), (0, -1, 0, 1), (0, 0, 1, 1), (0, 0, -1, 1)):
        speed = np.float32(nx) * direction[0] + np.float32(ny) * direction[1] + np.float32(nz) * direction[2]
        t = np.float32(bound - nx * origin[0] - ny * origin[1] - nz * origin[2]) / speed
        enter = np.where(speed < 0, np.maximum(enter, t), enter)
        leave = np.where(speed > 0, np.minimum(leave, t), leave)
    roof: Floats = np.where(enter < leave, enter, np.float32(np.inf))
    return roof


def _meet_tube(
    taper: float,
    origin_y: float,
    middle: float,
    point: tuple[Floats, Floats, Floats],
    direction: tuple[Floats, Floats, Floats],
) -> Floats:
    """Radius at height y: 1 - taper * (y + 1) / 2. The nearest of the side's two roots and the cap that can be seen."""
    (px, py, pz), (ux, uy, uz) = point, direction
    slope = np.float32(-taper / 2)
    radius, change = np.float32(1 - taper / 2) + slope * py, slope * uy
    a = ux * ux + uz * uz - change * change
    b = ux * px + uz * pz - change * radius
    c = px * px + pz * pz - radius * radius
    root = np.sqrt(b * b - a * c)
    tube = np.full_like(px, np.inf)
    for t in ((-b - root) / a, (-b + root) / a) if taper else ((-b - root) / a,):
        inside = np.abs(py + t * uy) <= 1
        np.minimum(tube, t, out=tube, where=inside & (t > NEAREST - middle))
    if abs(origin_y) > 1:
        cap = math.copysign(1.0, origin_y)
        t = (np.float32(cap) - py) / uy
        x, z = px + t * ux, pz + t * uz
        rim = np.float32((1 - taper * (cap + 1) / 2) ** 2)
        np.minimum(tube, t, out=tube, where=(x * x + z * z <= rim) & (t > NEAREST - middle))
    tube += np.float32(middle)
    return tube
