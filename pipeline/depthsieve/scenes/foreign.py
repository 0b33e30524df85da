"""Scenes of another family than the embedded teacher has seen: random warehouses, ruins and canyons.

Their shapes, textures, light, fog and sensor noise differ from those of rooms, tables, streets and parks on purpose: a
teacher that was trained on these makes mistakes of its own on those, and the mistakes are not injected. For judging;
nothing is ever trained on them.
"""

from __future__ import annotations

import math

from depthsieve.scenes.solids import (
    BALL,
    BOX,
    BRICKS,
    CHECKER,
    GROUND,
    LEAVES,
    NOISE,
    PLAIN,
    PLANKS,
    ROOM,
    TUBE,
    Camera,
    Colour,
    Light,
    Material,
    Solid,
    Vector,
    World,
)
from depthsieve.scenes.things import Dice

FOREIGN_KINDS = ("warehouse", "ruins", "canyon")

_ROOMY = 0.35  # metres that stay free around the camera
_SENSOR_NOISE = (1.0, 5.0)  # times the noise of the other family's photographs
_DUSKS: tuple[tuple[Colour, Colour, Colour], ...] = (
    # sun, horizon (and fog), zenith
    ((1.5, 0.7, 0.3), (0.85, 0.45, 0.25), (0.25, 0.2, 0.45)),
    ((1.0, 0.5, 0.8), (0.6, 0.35, 0.55), (0.12, 0.12, 0.35)),
    ((0.9, 1.1, 0.6), (0.5, 0.6, 0.4), (0.3, 0.45, 0.4)),
    ((0.4, 0.6, 1.1), (0.3, 0.42, 0.6), (0.05, 0.08, 0.2)),
)


def _clear_of(solids: list[Solid], camera: Camera) -> tuple[Solid, ...]:
    """Without those that the camera would stand in or touch."""
    return tuple(s for s in solids if s.shape in (GROUND, ROOM) or not _holds(s, camera.position))


def _holds(solid: Solid, point: Vector) -> bool:
    x, y, z = (abs(i) / (h + _ROOMY) for i, h in zip(solid.inner(point), solid.half, strict=True))
    if solid.shape == BALL:
        return x * x + y * y + z * z < 1
    if solid.shape == TUBE:
        return y < 1 and x * x + z * z < 1
    return max(x, y, z) < 1


def _dusk(dice: Dice, haze: float) -> Light:
    """A low coloured sun in fog of its own colour."""
    sun, low, high = _DUSKS[dice.pick(0, 1, 2, 3)]
    around, height, ambient = dice.between(0, 6.3), dice.between(0.08, 0.7), dice.between(0.2, 0.6)
    return Light(
        (math.sin(around), math.tan(height), math.cos(around)),
        None,
        dice.near(sun, 0.3),
        _ambient(dice.near(high, 0.2), ambient * 2),
        dice.near(low, 0.25),
        dice.near(high, 0.25),
        haze,
        dice.between(0, 1.0) if dice.chance(0.5) else 0.0,
    )


def _ambient(colour: Colour, strength: float) -> Colour:
    """Light from everywhere, never quite without a colour."""
    r, g, b = (0.08 + strength * c for c in colour)
    return r, g, b


def _camera(dice: Dice, position: Vector, yaw: float, pitch: tuple[float, float]) -> Camera:
    """Held less level than those of the other family, and with wider and narrower lenses."""
    return Camera(position, yaw, dice.between(*pitch), dice.between(-0.2, 0.2), dice.between(0.3, 1.15))


def warehouse(dice: Dice) -> World:
    """Aisles between racks of crates, with barrels, pallets, pipes and ducts under one coloured lamp."""
    half = (dice.between(5, 14), dice.between(2.2, 4.5), dice.between(10, 32))
    hx, hy, hz = half
    shell = Material(
        dice.pick(PLANKS, CHECKER, BRICKS), dice.colour(0.1, 0.6, 0.5), dice.colour(0.1, 0.5, 0.5), 1.6, 0.2
    )
    floor = Material(
        dice.pick(NOISE, CHECKER, LEAVES), dice.colour(0.1, 0.6, 0.3), dice.colour(0.05, 0.4, 0.3), 2.2, 0.3
    )
    roof = Material(PLANKS, dice.colour(0.05, 0.5, 0.3), dice.colour(0.03, 0.2, 0.3), 1.2, 0.15)
    solids = [
        Solid(ROOM, (0, hy, 0), half, shell),
        Solid(BOX, (0, -0.5, 0), (hx + 1, 0.501, hz + 1), floor),
        Solid(BOX, (0, 2 * hy + 0.5, 0), (hx + 1, 0.501, hz + 1), roof),
    ]
    aisle, rack = dice.between(1.2, 2.6), dice.between(0.5, 0.9)
    steel = dice.material(PLAIN, NOISE, vivid=0.9)
    rows = [side * (aisle + rack + n * 2 * (aisle + rack)) for side in (-1, 1) for n in range(2)]
    for x in rows:
        if abs(x) < hx - rack:
            solids += _rack(dice, x, hz, rack, hy, steel)
    for _ in range(dice.whole(2, 9)):
        x, z = dice.between(-0.9, 0.9) * aisle, dice.between(-0.9, 0.9) * hz
        solids += _freight(dice, x, z)
    for _ in range(dice.whole(1, 5)):  # ducts along the hall, pipes from floor to roof
        thick, look = dice.between(0.08, 0.45), dice.material(PLAIN, NOISE, PLANKS, vivid=0.9)
        x = dice.between(-0.9, 0.9) * hx
        if dice.chance(0.6):
            solids.append(Solid(BOX, (x, 2 * hy - dice.between(0.5, 1.5), 0), (thick, thick, hz), look))
        else:
            solids.append(Solid(TUBE, (x, hy, dice.between(-0.8, 0.8) * hz), (thick, hy, thick), look))
    position = (dice.between(-0.6, 0.6) * aisle, dice.log_between(0.5, 3.5), -hz * dice.between(0.3, 0.9))
    yaw = dice.between(-0.35, 0.35) if dice.chance(0.7) else dice.between(-1.5, 1.5)
    camera = _camera(dice, position, yaw, (-0.45, 0.25))
    tint, strength, ambient = dice.colour(0.5, 1.0, 0.7), dice.between(0.8, 2.5), dice.between(0.1, 0.45)
    light = Light(
        (0, 1, 0),
        (dice.between(-0.5, 0.5) * hx, 2 * hy - 0.4, position[2] + dice.between(2, 10)),
        (tint[0] * strength * 3, tint[1] * strength * 3, tint[2] * strength * 3),
        (ambient * tint[0] + 0.05, ambient * tint[1] + 0.05, ambient * tint[2] + 0.05),
        dice.colour(0.2, 0.7, 0.5),
        (0.5, 0.5, 0.5),
        dice.log_between(0.004, 0.07),
        0.0,
    )
    return World("warehouse", _clear_of(solids, camera), camera, light, dice.between(*_SENSOR_NOISE))


def _rack(dice: Dice, x: float, hz: float, rack: float, hy: float, steel: Material) -> list[Solid]:
    """One row of posts and boards with crates on them, along the hall."""
    solids, bay = [], dice.between(2.4, 3.6)
    levels = [0.05 + n * dice.between(1.1, 1.6) for n in range(1 + int(hy / 1.1))]
    far = min(hz, 16.0)
    for level in levels[1:]:
        solids.append(Solid(BOX, (x, level, 0), (rack, 0.06, far), steel))
    z = -far
    while z < far:
        solids.append(Solid(BOX, (x, levels[-1] / 2 + 0.3, z), (rack, levels[-1] / 2 + 0.3, 0.05), steel))
        for level in levels:
            if dice.chance(0.6):
                size = (rack * dice.between(0.5, 0.95), dice.between(0.2, 0.5), bay * dice.between(0.15, 0.45))
                crate = dice.material(PLANKS, PLANKS, CHECKER, BRICKS, NOISE, PLAIN)
                solids.append(
                    Solid(BOX, (x, level + 0.06 + size[1], z + bay / 2), size, crate, dice.between(-0.1, 0.1))
                )
        z += bay
    return solids


def _freight(dice: Dice, x: float, z: float) -> list[Solid]:
    """A barrel or two, a stack of pallets, a heap of sacks or a crate, on the floor."""
    kind, look = dice.whole(0, 3), dice.material(PLANKS, NOISE, PLAIN, CHECKER, vivid=0.9)
    if kind == 0:
        tall = dice.between(0.4, 0.6)
        return [
            Solid(TUBE, (x + n * 0.75, tall, z + n * 0.2), (0.33, tall, 0.33), look) for n in range(dice.whole(1, 2))
        ]
    if kind == 1:
        return [
            Solid(BOX, (x, 0.09 + n * 0.2, z), (0.6, 0.06, 0.5), look, dice.between(-0.2, 0.2))
            for n in range(dice.whole(2, 7))
        ]
    if kind == 2:
        return [
            Solid(BALL, (x + dice.between(-0.5, 0.5), 0.2 + 0.25 * n, z), (0.55, 0.22, 0.4), look, dice.between(0, 3))
            for n in range(dice.whole(2, 4))
        ]
    size = dice.between(0.3, 0.8)
    return [Solid(BOX, (x, size, z), (size, size, size), look, dice.between(0, 3))]


def ruins(dice: Dice) -> World:
    """Colonnades, arches, stairs and rubble of one stone, in fog."""
    pale = dice.near((0.5, 0.42, 0.32), 0.6)
    stone = Material(dice.pick(NOISE, BRICKS, LEAVES), pale, dice.near(pale, 0.6), dice.between(0.6, 1.6), 0.4)
    other = Material(dice.pick(BRICKS, PLANKS, NOISE), dice.near(pale, 0.5), dice.near(pale, 0.7), 0.8, 0.4)
    floor = dice.material(NOISE, LEAVES, CHECKER, BRICKS, vivid=0.4)
    solids = [Solid(GROUND, (0, 0, 0), (1, 1, 1), floor)]
    for _ in range(dice.whole(1, 3)):
        solids += _colonnade(dice, stone)
    for _ in range(dice.whole(0, 3)):
        solids += _arch(dice, dice.between(-9, 9), dice.log_between(4, 40), other)
    for _ in range(dice.whole(0, 2)):
        solids += _stairs(dice, dice.between(-8, 8), dice.log_between(5, 25), stone)
    for _ in range(dice.whole(0, 3)):
        long, tall = dice.between(1, 7), dice.log_between(0.4, 4)
        at = (dice.between(-14, 14), tall, dice.log_between(4, 45))
        solids.append(Solid(BOX, at, (long, tall, dice.between(0.25, 0.7)), other, dice.between(-1.6, 1.6)))
    for _ in range(dice.whole(6, 22)):
        size, away, around = dice.log_between(0.1, 0.9), dice.log_between(1.6, 25), dice.between(-0.8, 0.8)
        at = (away * math.sin(around), size * dice.between(0.1, 0.7), away * math.cos(around))
        shape = dice.pick(BOX, BOX, BALL, TUBE)
        solids.append(Solid(shape, at, (size, size * dice.between(0.3, 1), size * dice.between(0.4, 1)), stone, at[0]))
    camera = _camera(dice, (0, dice.log_between(0.3, 6.0), 0), dice.between(-0.3, 0.3), (-0.3, 0.18))
    light = _dusk(dice, dice.log_between(0.008, 0.07))
    return World("ruins", _clear_of(solids, camera), camera, light, dice.between(*_SENSOR_NOISE))


def _colonnade(dice: Dice, stone: Material) -> list[Solid]:
    """Columns in a row that recedes, some broken, some still with their lintel."""
    solids, tall, thick = [], dice.between(2.5, 7), dice.between(0.25, 0.7)
    x, z = dice.between(-7, 7), dice.log_between(2.5, 12)
    turn, apart = dice.between(-1.3, 1.3), dice.between(1.8, 4)
    for n in range(dice.whole(3, 8)):
        at_x, at_z = x + n * apart * math.sin(turn), z + n * apart * math.cos(turn)
        whole = dice.chance(0.65)
        high = tall / 2 if whole else tall / 2 * dice.between(0.1, 0.8)
        solids.append(Solid(TUBE, (at_x, high, at_z), (thick, high, thick), stone, taper=0.15))
        solids.append(Solid(BOX, (at_x, 0.12, at_z), (thick * 1.4, 0.12, thick * 1.4), stone, turn))
        if whole:
            solids.append(Solid(BOX, (at_x, tall + 0.15, at_z), (thick * 1.3, 0.15, thick * 1.3), stone, turn))
            if dice.chance(0.5):
                mid = (at_x + apart / 2 * math.sin(turn), tall + 0.6, at_z + apart / 2 * math.cos(turn))
                solids.append(Solid(BOX, mid, (thick, 0.3, apart / 2 + thick), stone, turn))
    return solids


def _arch(dice: Dice, x: float, z: float, stone: Material) -> list[Solid]:
    """Two piers and stones around a half circle."""
    wide, tall, deep = dice.between(0.9, 2.4), dice.between(1.2, 3.2), dice.between(0.3, 1.0)
    turn = dice.between(-0.7, 0.7)
    cos, sin = math.cos(turn), math.sin(turn)
    solids = [
        Solid(BOX, (x + s * wide * cos, tall / 2, z - s * wide * sin), (0.35, tall / 2, deep), stone, turn)
        for s in (-1, 1)
    ]
    for n in range(7):
        angle = math.pi * n / 6
        off, level = wide * math.cos(angle), tall + wide * math.sin(angle)
        solids.append(Solid(BOX, (x + off * cos, level, z - off * sin), (0.42, 0.42, deep), stone, turn))
    return solids


def _stairs(dice: Dice, x: float, z: float, stone: Material) -> list[Solid]:
    turn, wide, rise = dice.between(-0.6, 0.6), dice.between(1, 4), dice.between(0.15, 0.4)
    count = dice.whole(4, 10)
    return [
        Solid(
            BOX,
            (x + n * 0.4 * math.sin(turn), rise * (n + 1) / 2, z + n * 0.4 * math.cos(turn)),
            (wide, rise * (n + 1) / 2, 0.2 if n < count - 1 else 1.5),
            stone,
            turn,
        )
        for n in range(count)
    ]


def canyon(dice: Dice) -> World:
    """Banded walls, spires, mesas, dunes and boulders in one colour of rock, under a coloured dusk."""
    rock = dice.near(
        ((0.45, 0.2, 0.1), (0.5, 0.4, 0.25), (0.25, 0.22, 0.3), (0.6, 0.6, 0.62))[dice.pick(0, 0, 1, 2, 3)], 0.4
    )

    def bands() -> Material:
        pattern = dice.pick(PLANKS, PLANKS, NOISE, BRICKS)
        return Material(
            pattern, dice.near(rock, 0.3), dice.near(rock, 0.7), dice.log_between(1, 6), dice.between(0.2, 0.5)
        )

    sand = Material(
        dice.pick(NOISE, NOISE, PLANKS), dice.near(rock, 0.4), dice.near(rock, 0.4), dice.log_between(1, 5), 0.25
    )
    solids = [Solid(GROUND, (0, 0, 0), (1, 1, 1), sand)]
    if dice.chance(0.7):  # the two walls of a gorge, of blocks that stand back and come forward
        gap = dice.between(2.5, 9)
        for side in (-1, 1):
            z = dice.between(-8, 0)
            for _ in range(dice.whole(4, 8)):
                half = (dice.between(2, 6), dice.log_between(2, 16), dice.between(2, 6))
                z += half[2]
                at = (side * (gap + half[0] + dice.between(-1.5, 3)), half[1] * 0.9, z)
                if dice.chance(0.6):
                    solids.append(Solid(BOX, at, half, bands(), dice.between(-0.4, 0.4)))
                else:
                    solids.append(Solid(TUBE, at, (half[0], half[1], half[2]), bands(), taper=dice.between(0, 0.5)))
                z += half[2] * dice.between(0.6, 1.3)
    for _ in range(dice.whole(1, 6)):
        away, around = dice.log_between(7, 75), dice.between(-0.8, 0.8)
        wide, tall = away * dice.between(0.04, 0.15), away * dice.between(0.08, 0.3)
        at = (away * math.sin(around), tall * 0.95, away * math.cos(around))
        solids.append(Solid(TUBE, at, (wide, tall, wide), bands(), taper=dice.between(0.1, 0.95)))
    for _ in range(dice.whole(2, 7)):
        away, around = dice.log_between(5, 60), dice.between(-0.9, 0.9)
        wide, tall = away * dice.between(0.25, 0.6), away * dice.between(0.03, 0.12)
        at = (away * math.sin(around), 0.0, away * math.cos(around))
        solids.append(Solid(BALL, at, (wide, tall, wide * 0.4), sand, dice.between(-0.6, 0.6)))
    for _ in range(dice.whole(2, 12)):
        size, away, around = dice.log_between(0.15, 2.0), dice.log_between(2, 40), dice.between(-0.8, 0.8)
        at = (away * math.sin(around), size * 0.4, away * math.cos(around))
        half = (size * dice.between(0.6, 1.5), size * dice.between(0.4, 1.2), size)
        solids.append(Solid(dice.pick(BALL, BALL, BOX), at, half, bands(), dice.between(0, 3)))
    camera = _camera(dice, (0, dice.log_between(0.5, 9.0), 0), dice.between(-0.4, 0.4), (-0.45, 0.2))
    light = _dusk(dice, dice.log_between(0.006, 0.05))
    return World("canyon", _clear_of(solids, camera), camera, light, dice.between(*_SENSOR_NOISE))
