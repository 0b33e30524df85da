"""How scenes look: light with soft shadows, haze, sky, and a camera's faults.

Array legend: H, W pixels; P hit pixels in a flat list; 3 colour channels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from depthsieve.scenes.patterns import grain_noise, noise, pattern_mix
from depthsieve.scenes.solids import (
    BALL,
    GROUND,
    ROOF,
    ROOM,
    SKY,
    TUBE,
    Floats,
    Ints,
    World,
)


def paint(
    world: World, depth_HW: Floats, index_HW: Ints, rays: tuple[Floats, Floats, Floats], noise_seed: int
) -> NDArray[np.uint8]:
    """The photograph [H,W,3], uint8 sRGB-like, of what `cast` found."""
    rng = np.random.Generator(np.random.Philox(key=noise_seed + (1 << 64)))
    height, width = depth_HW.shape
    rgb_3HW = np.empty((3, height, width), np.float32)
    hit_HW = index_HW != SKY
    with np.errstate(all="ignore"):
        if not hit_HW.all():
            _sky(world, rays, rgb_3HW)
        chosen = np.flatnonzero(hit_HW)
        depth_P = depth_HW.reshape(-1)[chosen]
        rays_P = tuple(r.reshape(-1)[chosen] for r in rays)
        shade = tuple(s.reshape(-1)[chosen] for s in _coarse_shadows(world, depth_HW, index_HW, rays))
        rgb_3HW.reshape(3, -1)[:, chosen] = _surfaces(world, depth_P, index_HW.reshape(-1)[chosen], rays_P, shade)
    return _photograph(rgb_3HW, rng, world.sensor_noise)


def _surfaces(
    world: World, depth_P: Floats, index_P: Ints, rays_P: tuple[Floats, ...], shade: tuple[Floats, ...]
) -> Floats:
    solids = world.solids
    table = np.array(
        [
            (
                *s.centre,
                math.cos(s.yaw),
                math.sin(s.yaw),
                *s.half,
                s.shape,
                s.taper,
                s.material.period,
                s.material.grain,
            )
            for s in solids
        ],
        np.float32,
    )
    cx, cy, cz, cos, sin, hx, hy, hz, shape, taper, period, grain = np.take(table.T, index_P, axis=1)
    look = np.array([(*s.material.first, *s.material.second, s.material.glow) for s in solids], np.float32)
    pattern_P = np.array([s.material.pattern for s in solids], np.int32)[index_P]
    wx, wy, wz = (np.float32(o) + depth_P * r for o, r in zip(world.camera.position, rays_P, strict=True))
    ax, y, az = wx - cx, wy - cy, wz - cz
    x, z = cos * ax - sin * az, sin * ax + cos * az
    normal = _normals(x / hx, y / hy, z / hz, (hx, hy, hz), shape, taper)
    nx, ny, nz = normal
    steep = np.abs(ny)
    flat_on_x = np.abs(nx) > np.abs(nz)
    level = steep > 0.7
    number = index_P.astype(np.float32)
    u = np.where(level, x, np.where(flat_on_x, z, x)) + np.float32(7.3) * number
    v = np.where(level, z, y) + np.float32(3.1) * number
    # One pixel's size on the surface, for fading what is too fine to be seen.
    world_nx, world_nz = cos * nx + sin * nz, cos * nz - sin * nx
    facing = -(world_nx * rays_P[0] + ny * rays_P[1] + world_nz * rays_P[2])
    flip = np.where(facing < 0, np.float32(-1), np.float32(1))
    world_nx, ny, world_nz = world_nx * flip, ny * flip, world_nz * flip
    pixel_P = depth_P * np.float32(world.camera.spread / 100) / np.maximum(np.abs(facing), np.float32(0.05))
    mix_P = pattern_mix(pattern_P, u, v, level, period, pixel_P)
    colours = np.take(look.T, index_P, axis=1)
    rgb_3P = colours[:3] + (colours[3:6] - colours[:3]) * mix_P
    scale = np.maximum(period, np.float32(0.05))
    per_metre = np.float32(37) / scale
    fine = grain_noise(u * per_metre, v * per_metre) / (1 + np.square(pixel_P * per_metre * np.float32(0.5)))
    per_metre = np.float32(5) / scale
    broad = noise(u * per_metre + np.float32(91), v * per_metre + np.float32(17))
    rgb_3P *= np.exp(grain * (np.float32(0.6) * fine + np.float32(0.5) * broad))
    light_3P = _light(world, (wx, wy, wz), (world_nx, ny, world_nz), shade)
    light_3P += colours[6]
    rgb_3P *= light_3P
    if world.light.haze_per_m > 0:
        clear = np.exp(depth_P * np.float32(-world.light.haze_per_m))
        rgb_3P *= clear
        rgb_3P += np.array(world.light.sky_low, np.float32)[:, None] * (1 - clear)
    surfaces: Floats = rgb_3P
    return surfaces


def _normals(
    x: Floats, y: Floats, z: Floats, half: tuple[Floats, ...], shape: Floats, taper: Floats
) -> tuple[Floats, Floats, Floats]:
    """Unit normals in the solid's own (turned) axes, from unit-space positions."""
    hx, hy, hz = half
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    side_x = (ax >= ay) & (ax >= az)
    side_y = ~side_x & (ay >= az)
    nx = np.where(side_x, np.sign(x), np.float32(0))
    ny = np.where(side_y, np.sign(y), np.float32(0))
    nz = np.where(side_x | side_y, np.float32(0), np.sign(z))
    ball = shape == BALL
    if ball.any():
        nx, ny, nz = np.where(ball, x / hx, nx), np.where(ball, y / hy, ny), np.where(ball, z / hz, nz)
    tube = shape == TUBE
    if tube.any():
        cap = tube & (ay > np.float32(0.9995))
        lean = np.sqrt(x * x + z * z) * taper * np.float32(0.5) / hy
        nx = np.where(tube, np.where(cap, 0, x / hx), nx)
        ny = np.where(tube, np.where(cap, np.sign(y), lean), ny)
        nz = np.where(tube, np.where(cap, 0, z / hz), nz)
    roof = shape == ROOF
    if roof.any():
        slanted = roof & (np.abs(ax + y / 2 - np.float32(0.5)) < np.float32(2e-3))
        nx = np.where(slanted, np.sign(x) / hx, np.where(roof, 0, nx))
        ny = np.where(slanted, np.float32(0.5) / hy, np.where(roof, 0, ny))
        nz = np.where(slanted, 0, np.where(roof, np.sign(z), nz))
    ground = shape == GROUND
    if ground.any():
        nx, ny, nz = np.where(ground, 0, nx), np.where(ground, 1, ny), np.where(ground, 0, nz)
    length = np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-9)
    return nx / length, ny / length, nz / length


def _toward(world: World, point: tuple[Floats, ...]) -> tuple[tuple[Floats | np.float32, ...], Floats | np.float32]:
    """Unit direction to the light, and its strength there."""
    light = world.light
    if light.at is None:
        length = math.sqrt(sum(c * c for c in light.toward))
        return tuple(np.float32(c / length) for c in light.toward), np.float32(1)
    to = tuple(np.float32(c) - p for c, p in zip(light.at, point, strict=True))
    distance = np.sqrt(to[0] * to[0] + to[1] * to[1] + to[2] * to[2]) + np.float32(1e-3)
    return tuple(c / distance for c in to), np.float32(6) / (np.float32(2) + distance * distance)


def _light(world: World, point: tuple[Floats, ...], normal: tuple[Floats, ...], shade: tuple[Floats, ...]) -> Floats:
    toward, strength = _toward(world, point)
    lit, open_sky = shade
    diffuse = np.maximum(normal[0] * toward[0] + normal[1] * toward[1] + normal[2] * toward[2], 0) * strength
    ambient = (np.float32(0.75) + np.float32(0.25) * normal[1]) * open_sky
    sun_3P = diffuse * lit * np.array(world.light.colour, np.float32)[:, None]
    total: Floats = sun_3P + ambient * np.array(world.light.ambient, np.float32)[:, None]
    return total


def _coarse_shadows(world: World, depth_HW: Floats, index_HW: Ints, rays: tuple[Floats, ...]) -> tuple[Floats, Floats]:
    """Light that arrives past the solids, and openness (contact shade), 0..1: every third pixel, repeated.

    Each solid shades as the ellipsoid in it: few operations, and a soft edge. It never shades itself.
    """
    index_P = np.ascontiguousarray(index_HW[::3, ::3])
    depth_P = np.minimum(depth_HW[::3, ::3], np.float32(1e4))
    point = tuple(np.float32(o) + depth_P * r[::3, ::3] for o, r in zip(world.camera.position, rays, strict=True))
    toward, _ = _toward(world, point)
    dark = [
        (n, s)
        for n, s in enumerate(world.solids)
        if s.shape not in (GROUND, ROOM) and not s.material.glow and max(s.half) <= 40 and s.half[1] >= 0.03
    ]
    lit, open_sky = np.ones_like(depth_P), np.ones_like(depth_P)
    if dark:
        # Over all solids at once: at this coarseness the calls would cost more than the numbers.
        row = np.array(
            [
                (
                    n,
                    math.cos(s.yaw),
                    math.sin(s.yaw),
                    *s.centre,
                    *(1 / h / (1 if s.shape == BALL else 1.1) for h in s.half),
                )
                for n, s in dark
            ],
            np.float32,
        ).T[:, :, None, None]
        number, cos, sin, cx, cy, cz, hx, hy, hz = row
        ax, ay, az = point[0] - cx, point[1] - cy, point[2] - cz
        px, py, pz = (cos * ax - sin * az) * hx, ay * hy, (sin * ax + cos * az) * hz
        square = px * px + py * py + pz * pz
        other = index_P != number.astype(np.int32)
        open_sky = np.prod(1 - np.clip(np.float32(1.6) - np.float32(0.6) * square, 0, np.float32(0.45)) * other, axis=0)
        dx, dy, dz = (cos * toward[0] - sin * toward[2]) * hx, toward[1] * hy, (sin * toward[0] + cos * toward[2]) * hz
        along = px * dx + py * dy + pz * dz
        apart = square - along * along / (dx * dx + dy * dy + dz * dz)
        other &= along < 0
        lit = np.prod(1 - np.clip(np.float32(1.5) - np.float32(1.2) * apart, 0, np.float32(0.9)) * other, axis=0)
    height, width = depth_HW.shape
    fine = tuple(s.repeat(3, axis=0).repeat(3, axis=1)[:height, :width] for s in (lit, open_sky))
    return fine[0], fine[1]


def _sky(world: World, rays: tuple[Floats, Floats, Floats], rgb_3HW: Floats) -> None:
    """Fills the image with sky: from the horizon's colour to the zenith's, and clouds."""
    x, y, z = rays
    across = np.sqrt(x * x + z * z)
    rise = np.maximum(y / across, np.float32(0))
    share = 1 - np.exp(np.float32(-2.5) * rise)
    low, high = (np.array(c, np.float32)[:, None, None] for c in (world.light.sky_low, world.light.sky_high))
    np.multiply(high - low, share, out=rgb_3HW)
    rgb_3HW += low
    if world.light.clouds > 0:
        lift = (np.float32(60) / (rise + np.float32(0.15)) / across).astype(np.float32, copy=False)
        cloud = np.clip(noise(x * lift, z * lift) * np.float32(0.6) + np.float32(world.light.clouds - 0.6), 0, 1)
        rgb_3HW += (np.float32(0.95) - rgb_3HW) * cloud


def _photograph(rgb_3HW: Floats, rng: np.random.Generator, noisier: float) -> NDArray[np.uint8]:
    """Exposure, white balance, a soft lens, a tone curve, sensor noise, eight bits."""
    exposure, gamma, soft, noise, contrast = rng.uniform(size=5).tolist()
    balance = 1 + 0.12 * (rng.random(3) - 0.5)
    level = float(rgb_3HW.mean()) + 1e-3
    target = 0.17 + 0.16 * exposure
    rgb_3HW *= (balance * (target / level)).astype(np.float32)[:, None, None]
    np.clip(rgb_3HW, 0, np.float32(1.6), out=rgb_3HW)
    rgb_3HW /= 1 + np.float32(0.35 * contrast) * rgb_3HW
    side = np.float32(0.12 + 0.2 * soft)
    # A three-tap blur down, then across; edge pixels keep what falls outside.
    down_3HW = (1 - 2 * side) * rgb_3HW
    down_3HW[:, 1:] += side * rgb_3HW[:, :-1]
    down_3HW[:, :-1] += side * rgb_3HW[:, 1:]
    down_3HW[:, 0] += side * rgb_3HW[:, 0]
    down_3HW[:, -1] += side * rgb_3HW[:, -1]
    soft_3HW = (1 - 2 * side) * down_3HW
    soft_3HW[..., 1:] += side * down_3HW[..., :-1]
    soft_3HW[..., :-1] += side * down_3HW[..., 1:]
    soft_3HW[..., 0] += side * down_3HW[..., 0]
    soft_3HW[..., -1] += side * down_3HW[..., -1]
    soft_3HW = np.power(np.minimum(soft_3HW, np.float32(1)), np.float32(1 / (1.8 + 0.6 * gamma)))
    soft_3HW += rng.standard_normal(soft_3HW.shape[1:], dtype=np.float32) * np.float32(0.02 * noise * noise * noisier)
    soft_3HW += (rng.random(soft_3HW.shape, dtype=np.float32) - np.float32(0.5)) * np.float32(
        0.004 + 0.035 * noise * noise * noisier
    )
    soft_3HW *= np.float32(255)
    soft_3HW += np.float32(0.5)
    return np.ascontiguousarray(np.clip(soft_3HW, 0, 255).astype(np.uint8).transpose(1, 2, 0))
