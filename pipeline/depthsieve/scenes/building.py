"""Which scenes there are: random rooms, table tops, streets and parks, drawn from one seed."""

from __future__ import annotations

import math

import numpy as np

from depthsieve.scenes.solids import (
    BALL,
    BOX,
    BRICKS,
    CHECKER,
    GROUND,
    LANES,
    LEAVES,
    NOISE,
    PLAIN,
    PLANKS,
    ROOM,
    TUBE,
    Camera,
    Light,
    Material,
    Solid,
    Vector,
    World,
)
from depthsieve.scenes.things import Dice, bush, car, furniture, house, person, pole, tree

KINDS = ("room", "table", "street", "park")
_SHARES = (0.32, 0.16, 0.28, 0.24)


def build(seed: int, kind: str | None = None) -> World:
    """The world of a seed; `kind` fixes what it is instead of drawing it."""
    dice = Dice(seed)
    drawn = dice.unit()
    if kind is None:
        kind = next(
            (k for k, total in zip(KINDS, np.cumsum(_SHARES).tolist(), strict=True) if drawn < total), KINDS[-1]
        )
    return {"room": _room, "table": _table, "street": _street, "park": _park}[kind](dice)


def _indoor_light(dice: Dice, half: Vector) -> Light:
    warm = dice.between(0.7, 1.0)
    at = (dice.between(-0.7, 0.7) * half[0], dice.between(1.5, 2 * half[1] - 0.1), dice.between(-0.7, 0.7) * half[2])
    strength, ambient = dice.between(0.5, 1.6), dice.between(0.25, 0.7)
    return Light(
        (0, 1, 0),
        at,
        (strength, strength * (0.5 + warm / 2), strength * warm),
        (ambient, ambient, ambient),
        (1, 1, 1),
        (1, 1, 1),
        0.0,
        0.0,
    )


def _room_shell(dice: Dice, half: Vector) -> list[Solid]:
    """Walls with their floor, ceiling, rug, pictures, windows and doors."""
    hx, hy, hz = half
    wall = Material(
        dice.pick(PLAIN, PLAIN, NOISE, PLANKS, BRICKS),
        dice.colour(0.15, 0.85, 0.35),
        dice.colour(0.15, 0.85, 0.3),
        0.6,
        0.08,
    )
    floor = dice.material(PLANKS, PLANKS, CHECKER, NOISE, BRICKS, vivid=0.4)
    ceiling = Material(PLAIN, dice.near((0.75, 0.75, 0.73), 0.25), (0.6, 0.6, 0.6), 1.0, 0.04)
    solids = [
        Solid(ROOM, (0, hy, 0), half, wall),
        Solid(BOX, (0, -0.5, 0), (hx + 1, 0.501, hz + 1), floor),
        Solid(BOX, (0, 2 * hy + 0.5, 0), (hx + 1, 0.501, hz + 1), ceiling),
    ]
    for _ in range(dice.whole(2, 7)):
        wide, tall = dice.between(0.2, 0.9), dice.between(0.2, 0.7)
        level = dice.between(1.3, 1.7)
        look = dice.material(PLAIN, NOISE, NOISE, CHECKER, low=0.03)
        drawn = dice.unit()
        if drawn < 0.25:
            wide, tall, level = 0.45, 1.0, 1.0
        elif drawn < 0.55:
            look = Material(
                dice.pick(PLAIN, NOISE),
                dice.colour(0.6, 1.0, 0.3),
                dice.colour(0.2, 0.7, 0.5),
                0.8,
                0.1,
                glow=dice.between(0.4, 2.0),
            )
        side = dice.whole(0, 3)
        if side < 2:
            at = ((2 * side - 1) * hx, level, dice.between(-0.8, 0.8) * hz)
            solids.append(Solid(BOX, at, (0.04, tall, wide), look))
        else:
            at = (dice.between(-0.8, 0.8) * hx, level, (2 * side - 5) * hz)
            solids.append(Solid(BOX, at, (wide, tall, 0.04), look))
    if dice.chance(0.4):
        rug = dice.material(NOISE, CHECKER, PLANKS)
        solids.append(
            Solid(
                BOX,
                (dice.between(-0.4, 0.4) * hx, 0, dice.between(-0.4, 0.4) * hz),
                (0.9, 0.015, 1.3),
                rug,
                dice.between(-0.3, 0.3),
            )
        )
    if dice.chance(0.3):
        beam = dice.material(PLAIN, NOISE)
        solids.append(
            Solid(BOX, (dice.between(-1, 1) * hx, hy, hz), (dice.between(0.15, 0.5), hy, dice.between(0.15, 0.6)), beam)
        )
    return solids


def _room(dice: Dice) -> World:
    half = (dice.between(1.6, 4.5), dice.between(1.15, 1.7), dice.between(1.8, 6.0))
    if dice.chance(0.12):
        half = (half[0] * 2, half[1] * 2, half[2] * 3)
    hx, _, hz = half
    solids = _room_shell(dice, half)
    x, z = dice.between(-0.75, 0.75) * hx, dice.between(-0.85, -0.2) * hz
    yaw = math.atan2(-x, 0.3 * hz - z) + dice.between(-0.7, 0.7)
    camera = Camera(
        (x, dice.between(0.6, 1.8), z),
        yaw,
        dice.between(-0.45, 0.12),
        dice.between(-0.06, 0.06),
        dice.between(0.45, 0.95),
    )
    for number in range(dice.whole(3, 9)):
        along = number % 2 == 0
        fx, fz = dice.between(-0.85, 0.85) * hx, dice.between(-0.6, 0.85) * hz
        turn = dice.between(0, 6.3) if dice.chance(0.3) else 1.5708 * dice.whole(0, 3) + dice.between(-0.05, 0.05)
        if along:
            fx = math.copysign(hx - 0.4, fx)
            turn = math.copysign(1.5708, fx)
        if math.hypot(fx - x, fz - z) > 1.3:
            solids += furniture(dice, fx, fz, turn)
    if dice.chance(0.3):
        away, off = dice.log_between(1.0, 3.5), yaw + dice.between(-0.4, 0.4)
        solids += person(dice, x + away * math.sin(off), z + away * math.cos(off))
    return World("room", tuple(solids), camera, _indoor_light(dice, half))


def _table(dice: Dice) -> World:
    half = (dice.between(1.5, 3.5), 1.3, dice.between(1.5, 3.5))
    solids = _room_shell(dice, half)
    top, wide, deep = dice.between(0.5, 0.9), dice.between(0.4, 1.2), dice.between(0.35, 0.8)
    cloth = dice.material(PLANKS, PLANKS, NOISE, CHECKER, PLAIN)
    solids.append(Solid(BOX, (0, top - 0.03, 0), (wide, 0.03, deep), cloth))
    solids.append(Solid(BOX, (0, top / 2, 0), (wide * 0.8, top / 2, deep * 0.5), dice.material(PLAIN, NOISE)))
    away, pitch = dice.log_between(0.45, 1.3), dice.between(0.15, 1.25)
    yaw = dice.between(-0.6, 0.6)
    aim = (dice.between(-0.25, 0.25), dice.between(-0.2, 0.2))
    back = away * math.cos(pitch)
    position = (aim[0] - back * math.sin(yaw), top + 0.06 + away * math.sin(pitch), aim[1] - back * math.cos(yaw))
    position = (
        max(-half[0] + 0.1, min(half[0] - 0.1, position[0])),
        min(position[1], 2.4),
        max(-half[2] + 0.1, position[2]),
    )
    camera = Camera(
        position,
        yaw + dice.between(-0.1, 0.1),
        -pitch + dice.between(-0.1, 0.2),
        dice.between(-0.1, 0.1),
        dice.between(0.35, 0.7),
    )
    for _ in range(dice.whole(3, 11)):
        x, z = dice.between(-0.55, 0.55), dice.between(-0.35, 0.5)
        x, z = min(max(x, -wide), wide), min(max(z, -deep), deep)
        size, look, kind, turn = dice.log_between(0.03, 0.12), dice.material(), dice.whole(0, 5), dice.between(0, 6.3)
        if math.dist((x, top + size, z), position) < 3 * size + 0.12:
            continue
        if kind == 0:
            solids.append(Solid(BOX, (x, top + size * 0.5, z), (size * 1.5, size * 0.5, size), look, turn))
        elif kind == 1:
            solids.append(Solid(BALL, (x, top + size, z), (size, size, size), look))
        elif kind == 2:
            solids.append(Solid(TUBE, (x, top + size, z), (size * 0.7, size, size * 0.7), look))
        elif kind == 3:
            solids.append(Solid(TUBE, (x, top + 0.01, z), (size * 1.5, 0.01, size * 1.5), look))
            solids.append(
                Solid(
                    BALL,
                    (x, top + size * 0.4, z),
                    (size, size * 0.5, size * 0.8),
                    dice.material(NOISE, PLAIN, LEAVES),
                    turn,
                )
            )
        elif kind == 4:
            solids.append(Solid(TUBE, (x, top + size * 1.4, z), (size * 0.5, size * 1.4, size * 0.5), look, taper=0.1))
            solids.append(Solid(TUBE, (x, top + size * 3.2, z), (size * 0.2, size * 0.5, size * 0.2), look))
        else:
            solids.append(Solid(BALL, (x, top + size * 0.6, z), (size * 1.7, size * 0.6, size * 0.8), look, turn))
    if dice.chance(0.25):
        solids += person(dice, dice.between(-0.6, 0.6), deep + dice.between(0.2, 0.6), base=dice.between(-0.5, 0.0))
    return World("table", tuple(solids), camera, _indoor_light(dice, half))


def _daylight(dice: Dice, haze: float) -> Light:
    around, height = dice.between(0, 6.3), dice.between(0.25, 1.3)
    sun = 0.0 if dice.chance(0.2) else dice.between(0.5, 1.5)
    warm = dice.between(0.75, 1.0)
    level = dice.between(0.55, 1.0)
    low = (level, level * dice.between(0.93, 1.02), level * dice.between(0.85, 1.1))
    blue = dice.between(0.25, 1.0)
    high = (level * blue * 0.75, level * (0.35 + 0.6 * blue), level)
    if dice.chance(0.15):
        low, high = (0.9, 0.5, 0.3), dice.near((0.25, 0.3, 0.5))
    ambient = dice.between(0.3, 0.7)
    toward = (math.sin(around), math.tan(height), math.cos(around))
    return Light(
        toward,
        None,
        (sun, sun * warm, sun * warm * warm),
        (ambient, ambient, ambient * 1.08),
        low,
        high,
        haze,
        dice.between(0, 1.2) if dice.chance(0.6) else 0.0,
    )


def _ground(dice: Dice) -> Solid:
    base = ((0.13, 0.17, 0.05), (0.3, 0.25, 0.16), (0.25, 0.25, 0.24), (0.5, 0.45, 0.33), (0.75, 0.77, 0.8))[
        dice.pick(0, 0, 0, 1, 2, 3, 4)
    ]
    look = Material(
        dice.pick(NOISE, LEAVES, NOISE),
        dice.near(base),
        dice.near(base, 0.5),
        dice.log_between(0.7, 4.0),
        dice.between(0.15, 0.4),
    )
    return Solid(GROUND, (0, 0, 0), (1, 1, 1), look)


def _far_hills(dice: Dice) -> list[Solid]:
    solids = []
    for _ in range(dice.whole(0, 4)):
        away, around = dice.log_between(120, 900), dice.between(-0.8, 0.8)
        wide, tall = away * dice.between(0.2, 0.7), away * dice.between(0.04, 0.22)
        look = Material(NOISE, dice.near((0.12, 0.16, 0.08), 0.5), dice.near((0.2, 0.18, 0.14), 0.5), away * 0.15, 0.3)
        at = (away * math.sin(around), -tall * 0.1, away * math.cos(around))
        if dice.chance(0.6):
            solids.append(Solid(BALL, at, (wide, tall, wide * 0.5), look, dice.between(-0.5, 0.5)))
        else:
            solids.append(Solid(TUBE, (at[0], tall * 0.9, at[2]), (wide, tall, wide), look, taper=1.0))
    return solids


def _street(dice: Dice) -> World:
    road = dice.between(2.5, 6.5)
    walk = dice.between(1.0, 4.0)
    asphalt = dice.near((0.16, 0.16, 0.17), 0.5)
    solids = [_ground(dice)]
    lanes = Material(LANES, asphalt, (0.7, 0.7, 0.68), dice.between(3.0, 6.0), dice.between(0.1, 0.3))
    solids.append(Solid(BOX, (0, 0, 300), (road, 0.01, 400), lanes))
    paving = dice.material(BRICKS, CHECKER, NOISE, low=0.15, vivid=0.2)
    for side in (-1, 1):
        solids.append(Solid(BOX, (side * (road + walk / 2), 0, 300), (walk / 2, 0.12, 400), paving))
    city, edge = dice.chance(0.6), road + walk + dice.between(0, 4)
    x = dice.between(-0.9, 0.9) * (road + walk * 0.6)
    height = dice.log_between(1.1, 2.6) if dice.chance(0.85) else dice.between(3, 14)
    yaw = dice.between(-0.25, 0.25) if dice.chance(0.8) else dice.between(-1.3, 1.3)
    pitch = dice.between(-0.18, 0.12) if height < 3 else dice.between(-0.5, -0.05)
    camera = Camera((x, height, 0), yaw, pitch, dice.between(-0.05, 0.05), dice.between(0.4, 0.95))
    for side in (-1, 1):
        z = dice.between(-6, 10)
        for _ in range(dice.whole(4, 8)):
            half = (dice.between(3, 8), dice.log_between(4, 18) if city else dice.between(1.5, 3.2), dice.between(3, 9))
            z += half[2]
            if dice.chance(0.85):
                solids += house(dice, side * (edge + half[0] + dice.between(0, 1.5)), z, half)
            z += half[2] + (dice.between(0, 2.5) if city else dice.between(2, 12))
    if dice.chance(0.25):
        half = (dice.between(5, 15), dice.between(4, 20), 6)
        solids += house(dice, dice.between(-8, 8), dice.log_between(40, 160), half)
    for _ in range(dice.whole(0, 6)):
        side, away = dice.pick(-1, 1), dice.log_between(5, 60)
        lane = side * dice.between(0.3, 0.9) * (road - 0.9)
        if abs(lane - x) > 1.6 or away > 7:
            solids += car(dice, lane, away, dice.between(-0.06, 0.06))
    for _ in range(dice.whole(0, 4)):
        side, away = dice.pick(-1, 1), dice.log_between(2.5, 35)
        solids += person(dice, side * (road + dice.between(0.2, 0.9) * walk), away)
    if dice.chance(0.12):
        away, off = dice.log_between(1.2, 3), yaw + dice.between(-0.3, 0.3)
        solids += person(dice, x + away * math.sin(off), away * math.cos(off), base=max(0.0, height - 1.7))
    spacing, trees = dice.between(6, 14), dice.chance(0.6)
    start = dice.between(3, 8)
    for number in range(dice.whole(0, 4)):
        for side in (-1, 1):
            at = side * (road + walk * 0.25)
            if dice.chance(0.7):
                solids += (
                    tree(dice, at, start + number * spacing, dice.between(4, 9))
                    if trees
                    else pole(dice, at, start + number * spacing)
                )
    solids += _far_hills(dice)
    return World("street", tuple(solids), camera, _daylight(dice, dice.log_between(3e-4, 1.2e-2)))


def _park(dice: Dice) -> World:
    solids = [_ground(dice)]
    height = dice.log_between(0.5, 2.2) if dice.chance(0.85) else dice.between(3, 20)
    pitch = dice.between(-0.3, 0.1) if height < 3 else dice.between(-0.6, -0.05)
    camera = Camera((0, height, 0), 0.0, pitch, dice.between(-0.06, 0.06), dice.between(0.4, 0.95))

    def place(low: float, high: float) -> tuple[float, float]:
        away, around = dice.log_between(low, high), dice.between(-0.75, 0.75)
        return away * math.sin(around), away * math.cos(around)

    if dice.chance(0.45):
        path = Material(NOISE, dice.near((0.35, 0.3, 0.22), 0.4), dice.near((0.3, 0.28, 0.25), 0.4), 0.8, 0.25)
        solids.append(
            Solid(BOX, (dice.between(-2, 2), 0, 0), (dice.between(0.5, 2.0), 0.01, 300), path, dice.between(-0.4, 0.4))
        )
    if dice.chance(0.2):
        water = Material(NOISE, dice.near((0.1, 0.16, 0.22), 0.5), dice.near((0.2, 0.28, 0.35), 0.4), 3.0, 0.1)
        solids.append(Solid(BOX, (dice.between(-20, 20), 0, dice.between(25, 80)), (60, 0.012, 20), water))
    for _ in range(dice.whole(0, 7)):
        x, z = place(4, 60)
        solids += tree(dice, x, z, dice.between(3, 12))
    for _ in range(dice.whole(0, 5)):
        x, z = place(2.0, 25)
        solids += bush(dice, x, z, dice.between(0.2, 0.9))
    for _ in range(dice.whole(0, 4)):
        x, z = place(2.0, 25)
        size = dice.log_between(0.15, 1.2)
        rock = Material(NOISE, dice.near((0.3, 0.28, 0.26), 0.4), dice.near((0.15, 0.14, 0.13), 0.4), 0.6, 0.35)
        shape = dice.pick(BALL, BALL, BOX)
        solids.append(
            Solid(
                shape, (x, size * 0.4, z), (size * dice.between(0.8, 1.6), size * 0.7, size), rock, dice.between(0, 3)
            )
        )
    for _ in range(dice.whole(0, 3)):
        x, z = place(1.3, 20)
        solids += person(dice, x, z)
    if dice.chance(0.25):
        x, z = place(5, 25)
        solids += car(dice, x, z, dice.between(0, 3))
    if dice.chance(0.4):
        x, z = place(15, 80)
        solids += house(
            dice, x, z, (dice.between(3, 7), dice.between(1.5, 4), dice.between(3, 7)), dice.between(-0.8, 0.8)
        )
    if dice.chance(0.35):
        wood, away, turn = dice.material(PLANKS, NOISE, vivid=0.3), dice.log_between(4, 25), dice.between(-0.5, 0.5)
        tall = dice.between(0.4, 0.9)
        if dice.chance(0.5):
            solids.append(Solid(BOX, (0, tall, away), (30, tall, 0.05), wood, turn))
        else:
            for level in (0.6, 1.2, 1.9):
                solids.append(Solid(BOX, (0, tall * level, away), (30, 0.05, 0.04), wood, turn))
    if dice.chance(0.3):
        x, z = place(1.2, 4)
        size = dice.between(0.15, 0.5)
        solids.append(
            Solid(dice.pick(BALL, BOX, TUBE), (x, size, z), (size, size, size), dice.material(), dice.between(0, 3))
        )
    solids += _far_hills(dice)
    return World("park", tuple(solids), camera, _daylight(dice, dice.log_between(3e-4, 1.5e-2)))
