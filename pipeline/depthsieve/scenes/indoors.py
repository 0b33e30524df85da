"""Random rooms and table tops."""

from __future__ import annotations

import math

from depthsieve.scenes.solids import (
    BALL,
    BOX,
    BRICKS,
    CHECKER,
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
from depthsieve.scenes.things import Dice, furniture, person


def indoor_light(dice: Dice, half: Vector) -> Light:
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


def room_shell(dice: Dice, half: Vector) -> list[Solid]:
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


def room(dice: Dice) -> World:
    """A furnished room or a corridor, seen from within."""
    half = (dice.between(1.6, 4.5), dice.between(1.15, 1.7), dice.between(1.8, 6.0))
    if dice.chance(0.12):
        half = (half[0] * 2, half[1] * 2, half[2] * 3)
    hx, _, hz = half
    solids = room_shell(dice, half)
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
    return World("room", tuple(solids), camera, indoor_light(dice, half))


def table(dice: Dice) -> World:
    """Things on a table, seen from near."""
    half = (dice.between(1.5, 3.5), 1.3, dice.between(1.5, 3.5))
    solids = room_shell(dice, half)
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
    return World("table", tuple(solids), camera, indoor_light(dice, half))
