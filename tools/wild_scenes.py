"""Harder scenes for training the embedded teacher: crowded desks and rooms, tables from above, people and animals
close by, thickets, busy streets, and solids of every kind in no order at all. From 0.3 m to 200 m, every focal length.

Only tools/train_tiny.py uses them; nothing is measured on them. Built of what `depthsieve.scenes` is built of.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from depthsieve.scenes.indoors import _indoor_light, _room_shell
from depthsieve.scenes.outdoors import _daylight, _far_hills, _ground
from depthsieve.scenes.shading import paint
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
    ROOF,
    ROOM,
    TUBE,
    WINDOWS,
    Camera,
    Light,
    Material,
    Solid,
    Vector,
    World,
    cast,
)
from depthsieve.scenes.things import Dice, bush, car, furniture, house, person, pole, tree


def render_wild(seed: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """RGB [H,W,3] uint8 and disparity [H,W] float32 (1 / metres, 0 for sky) of the scene of a seed."""
    dice = Dice(seed)
    build = BUILDERS[int(dice.unit() * len(BUILDERS))]
    world = build(dice)
    solids = tuple(s for s in world.solids if s.shape in (GROUND, ROOM) or not _holds(s, world.camera.position))
    world = dataclasses.replace(world, solids=solids, sensor_noise=dice.between(0.2, 1.5))
    depth_HW, index_HW, rays = cast(world, height, width)
    with np.errstate(divide="ignore"):
        disparity_HW = np.float32(1) / depth_HW
    return paint(world, depth_HW, index_HW, rays, seed), disparity_HW


def _holds(solid: Solid, point: Vector) -> bool:
    ax, ay, az = (p - c for p, c in zip(point, solid.centre, strict=True))
    cos, sin = math.cos(solid.yaw), math.sin(solid.yaw)
    inner = (cos * ax - sin * az, ay, sin * ax + cos * az)
    room = 0.12 + 0.1 * min(solid.half)
    return all(abs(i) < h + room for i, h in zip(inner, solid.half, strict=True))


def _look(dice: Dice, *patterns: int) -> Material:
    """Any material: any contrast, any size of pattern, from black to white."""
    pattern = dice.pick(*(patterns or (PLAIN, PLAIN, PLAIN, NOISE, NOISE, NOISE, CHECKER, PLANKS, BRICKS, LEAVES)))
    first = dice.colour(0.01, 0.95, 0.8)
    second = dice.colour(0.01, 0.95, 0.8) if dice.chance(0.4) else dice.near(first, 0.5)
    return Material(pattern, first, second, dice.log_between(0.04, 2.0), dice.between(0.02, 0.5))


def _strong(dice: Dice, light: Light) -> Light:
    """Sometimes hard light, sometimes hardly any but from everywhere."""
    if dice.chance(0.3):
        hard, soft = dice.between(1.2, 3.0), dice.between(0.2, 0.7)
        colour, ambient = (tuple(c * f for c in v) for v, f in ((light.colour, hard), (light.ambient, soft)))
        r, g, b = colour
        ra, ga, ba = ambient
        return dataclasses.replace(light, colour=(r, g, b), ambient=(ra, ga, ba))
    return light


# Things


def _thing(dice: Dice, x: float, y: float, z: float, size: float) -> list[Solid]:
    """A small thing that stands on y: a box, book, bottle, mug, ball, bowl, can, screen, cone, lamp, stack or toy."""
    look, turn, kind = _look(dice), dice.between(0, 6.3), dice.whole(0, 12)
    s = size
    if kind in (0, 1):
        half = (s * dice.between(0.4, 1.4), s * dice.between(0.2, 1.2), s * dice.between(0.3, 1.0))
        return [Solid(BOX, (x, y + half[1], z), half, look, turn)]
    if kind == 2:
        books, level = [], y
        for _ in range(dice.whole(1, 5)):
            thick = s * dice.between(0.06, 0.2)
            books.append(
                Solid(
                    BOX,
                    (x, level + thick, z),
                    (s, thick, s * 0.75),
                    _look(dice, PLAIN, NOISE),
                    turn + dice.between(-0.2, 0.2),
                )
            )
            level += 2 * thick
        return books
    if kind == 3:
        return [
            Solid(TUBE, (x, y + s, z), (s * 0.38, s, s * 0.38), look, taper=dice.between(0, 0.2)),
            Solid(TUBE, (x, y + s * 2.3, z), (s * 0.14, s * 0.35, s * 0.14), look),
        ]
    if kind == 4:
        return [
            Solid(TUBE, (x, y + s * 0.6, z), (s * 0.5, s * 0.6, s * 0.5), look),
            Solid(BOX, (x + s * 0.6, y + s * 0.6, z), (s * 0.14, s * 0.35, s * 0.06), look),
        ]
    if kind == 5:
        return [Solid(BALL, (x, y + s * 0.7, z), (s * 0.7, s * 0.7, s * 0.7), look)]
    if kind == 6:
        return [
            Solid(
                BALL, (x, y + s * 0.4, z), (s * dice.between(0.6, 1.6), s * 0.4, s * dice.between(0.5, 1)), look, turn
            )
        ]
    if kind == 7:
        return [Solid(TUBE, (x, y + s * 0.7, z), (s * 0.45, s * 0.7, s * 0.45), look)]
    if kind == 8:  # a screen on its foot
        glow = dataclasses.replace(look, glow=dice.between(0, 0.8))
        return [
            Solid(BOX, (x, y + s * 1.3, z), (s * 1.5, s * 0.9, s * 0.06), glow, turn),
            Solid(BOX, (x, y + s * 0.2, z), (s * 0.12, s * 0.3, s * 0.08), look, turn),
            Solid(BOX, (x, y + 0.01, z), (s * 0.5, 0.01, s * 0.35), look, turn),
        ]
    if kind == 9:
        return [Solid(TUBE, (x, y + s, z), (s * 0.5, s, s * 0.5), look, taper=dice.between(0.5, 1))]
    if kind == 10:
        return [
            Solid(TUBE, (x, y + s, z), (s * 0.05, s, s * 0.05), look),
            Solid(TUBE, (x, y + s * 2, z), (s * 0.5, s * 0.3, s * 0.5), _look(dice, PLAIN), taper=0.5),
        ]
    if kind == 11:
        return _leafy(dice, x, y, z, s)
    return [
        Solid(BALL, (x, y + s * 0.5, z), (s * 0.5, s * 0.5, s * 0.4), look, turn),
        Solid(BALL, (x, y + s * 1.15, z), (s * 0.33, s * 0.33, s * 0.33), look),
        Solid(BALL, (x - s * 0.3, y + s * 1.45, z), (s * 0.12, s * 0.14, s * 0.07), look),
        Solid(BALL, (x + s * 0.3, y + s * 1.45, z), (s * 0.12, s * 0.14, s * 0.07), look),
    ]


def _leafy(dice: Dice, x: float, y: float, z: float, size: float) -> list[Solid]:
    """A plant of single leaves in a pot: long ones that stand, or a cloud of small ones on stems."""
    green = dice.near((0.08, 0.2, 0.05), 0.7)
    leaf = Material(dice.pick(PLAIN, LEAVES, NOISE), green, dice.near(green, 0.6), 0.3, dice.between(0.1, 0.4))
    solids = [
        Solid(
            TUBE, (x, y + size * 0.35, z), (size * 0.4, size * 0.35, size * 0.4), _look(dice, PLAIN, NOISE), taper=-0.2
        )
    ]
    if dice.chance(0.5):
        for _ in range(dice.whole(5, 14)):
            tall, out, around = size * dice.between(0.5, 1.6), size * dice.between(0.05, 0.9), dice.between(0, 6.3)
            at = (x + out * math.sin(around), y + size * 0.6 + tall, z + out * math.cos(around))
            solids.append(Solid(BALL, at, (size * dice.between(0.04, 0.15), tall, size * 0.03), leaf, around))
        return solids
    solids.append(Solid(TUBE, (x, y + size * 1.3, z), (size * 0.05, size, size * 0.05), leaf))
    for _ in range(dice.whole(10, 30)):
        out, around = size * dice.between(0, 1.0), dice.between(0, 6.3)
        at = (x + out * math.sin(around), y + size * dice.between(0.9, 2.8), z + out * math.cos(around))
        wide = size * dice.between(0.08, 0.3)
        solids.append(Solid(BALL, at, (wide, wide * dice.between(0.2, 0.8), wide * dice.between(0.4, 1)), leaf, around))
    return solids


def _chair(dice: Dice, x: float, z: float) -> list[Solid]:
    """Four thin legs or one post with a foot, a seat, a back of bars or a board."""
    look, cloth, turn = _look(dice, PLAIN, NOISE, PLANKS), _look(dice, PLAIN, NOISE, CHECKER), dice.between(0, 6.3)
    cos, sin = math.cos(turn), math.sin(turn)
    wide, seat, thin = dice.between(0.18, 0.27), dice.between(0.4, 0.75), dice.between(0.008, 0.025)

    def part(shape: int, at: Vector, half: Vector, material: Material) -> Solid:
        return Solid(shape, (x + cos * at[0] + sin * at[2], at[1], z + cos * at[2] - sin * at[0]), half, material, turn)

    solids = [part(BOX, (0, seat, 0), (wide, dice.between(0.01, 0.05), wide), cloth)]
    if dice.chance(0.7):
        solids += [
            part(TUBE, (a * wide * 0.9, seat / 2, b * wide * 0.9), (thin, seat / 2, thin), look)
            for a in (-1, 1)
            for b in (-1, 1)
        ]
    else:
        solids += [part(TUBE, (0, seat / 2, 0), (thin * 1.5, seat / 2, thin * 1.5), look)]
        solids += [part(BOX, (0, 0.04, 0), half, look) for half in ((wide, 0.02, 0.03), (0.03, 0.02, wide))]
    tall = dice.between(0.12, 0.3)
    if dice.chance(0.5):
        solids.append(part(BOX, (0, seat + 0.15 + tall, wide), (wide, tall, 0.02), cloth))
        solids += [part(BOX, (s * wide * 0.8, seat + 0.1, wide), (thin, 0.12, thin), look) for s in (-1, 1)]
    else:
        solids += [part(TUBE, (s * wide * 0.5, seat + tall, wide), (thin, tall, thin), look) for s in (-2, -1, 0, 1, 2)]
        solids.append(part(BOX, (0, seat + 2 * tall, wide), (wide, 0.04, thin), look))
    return solids


def _shelf(dice: Dice, x: float, z: float, turn: float) -> list[Solid]:
    """Boards with rows of books and things."""
    look = _look(dice, PLAIN, NOISE, PLANKS)
    wide, tall, deep, cos, sin = dice.between(0.3, 0.8), dice.between(0.5, 1.1), 0.16, math.cos(turn), math.sin(turn)

    def part(at: Vector, half: Vector, material: Material) -> Solid:
        return Solid(BOX, (x + cos * at[0] + sin * at[2], at[1], z + cos * at[2] - sin * at[0]), half, material, turn)

    solids = [part((s * wide, tall, 0), (0.015, tall, deep), look) for s in (-1, 1)]
    solids.append(part((0, tall, deep), (wide, tall, 0.01), look))
    level = 0.05
    while level < 2 * tall:
        solids.append(part((0, level, 0), (wide, 0.012, deep), look))
        at = -wide + 0.05
        while at < wide - 0.08:
            thick, high = dice.between(0.012, 0.06), dice.between(0.08, 0.15)
            if dice.chance(0.8):
                solids.append(
                    part(
                        (at + thick, level + high, -0.02),
                        (thick, high, dice.between(0.06, 0.12)),
                        _look(dice, PLAIN, NOISE),
                    )
                )
            at += 2 * thick + (dice.between(0.05, 0.3) if dice.chance(0.2) else 0.004)
        level += dice.between(0.3, 0.45)
    return solids


def _animal(dice: Dice, x: float, z: float, size: float) -> list[Solid]:
    """A body on four legs with head, ears and tail."""
    fur = Material(
        dice.pick(PLAIN, NOISE, LEAVES), dice.near((0.3, 0.2, 0.12), 0.9), dice.near((0.15, 0.1, 0.07), 0.9), 0.3, 0.35
    )
    turn = dice.between(0, 6.3)
    cos, sin = math.cos(turn), math.sin(turn)

    def part(shape: int, at: Vector, half: Vector) -> Solid:
        a, y, b = (v * size for v in at)
        h = (half[0] * size, half[1] * size, half[2] * size)
        return Solid(shape, (x + cos * a + sin * b, y, z + cos * b - sin * a), h, fur, turn)

    legs = [part(TUBE, (a * 0.16, 0.28, b * 0.42), (0.06, 0.28, 0.06)) for a in (-1, 1) for b in (-1, 1)]
    head = [part(BALL, (0, 0.95, 0.72), (0.17, 0.18, 0.24)), part(BALL, (0, 0.78, 0.55), (0.13, 0.25, 0.15))]
    ears = [part(BALL, (a * 0.12, 1.13, 0.65), (0.05, 0.12, 0.03)) for a in (-1, 1)]
    return [
        part(BALL, (0, 0.64, 0), (0.22, 0.24, 0.58)),
        *legs,
        *head,
        *ears,
        part(TUBE, (0, 0.75, -0.62), (0.04, 0.2, 0.04)),
    ]


def _sitting(dice: Dice, x: float, z: float, seat: float) -> list[Solid]:
    """A person on a seat, arms ahead; also the upper half of someone at a desk."""
    shirt, cloth = _look(dice, PLAIN, NOISE, PLANKS), _look(dice, PLAIN, NOISE)
    skin, hair = Material(PLAIN, dice.near((0.45, 0.28, 0.2), 0.6), (0.3, 0.2, 0.1), 1.0, 0.08), _look(dice, NOISE)
    turn = dice.between(0, 6.3)
    cos, sin = math.cos(turn), math.sin(turn)

    def part(shape: int, at: Vector, half: Vector, material: Material) -> Solid:
        return Solid(
            shape, (x + cos * at[0] + sin * at[2], seat + at[1], z + cos * at[2] - sin * at[0]), half, material, turn
        )

    solids = [
        part(BALL, (0, 0.3, 0), (0.22, 0.36, 0.15), shirt),
        part(BALL, (0, 0.78, 0.02), (0.085, 0.13, 0.1), skin),
        part(BALL, (0, 0.83, -0.01), (0.095, 0.11, 0.105), hair),
    ]
    for s in (-1, 1):
        solids.append(part(BALL, (s * 0.1, 0.03, 0.22), (0.09, 0.09, 0.28), cloth))
        solids.append(part(TUBE, (s * 0.1, -0.22, 0.45), (0.06, 0.22, 0.06), cloth))
        solids.append(part(BALL, (s * 0.25, 0.4, 0.03), (0.06, 0.2, 0.07), shirt))
        solids.append(part(BALL, (s * 0.22, 0.24, 0.22), (0.045, 0.05, 0.2), shirt if dice.chance(0.5) else skin))
    return solids


def _thicket(dice: Dice, x: float, z: float, tall: float) -> list[Solid]:
    """A tree of many small clumps on a bent trunk, with branches: what is thin and what has holes."""
    bark = Material(NOISE, dice.near((0.16, 0.12, 0.09), 0.7), dice.near((0.06, 0.05, 0.04), 0.5), 0.3, 0.45)
    green = dice.near((0.1, 0.18, 0.05), 0.7)
    leaves = Material(LEAVES, green, dice.near(green, 0.9), dice.between(0.3, 2.0), 0.5)
    thick, lean = tall * dice.between(0.008, 0.03), dice.between(-0.12, 0.12)
    solids = []
    for n in range(6):
        at = (x + lean * tall * (n / 6) ** 1.5, tall * (n + 0.5) / 7, z)
        solids.append(Solid(TUBE, at, (thick * (1 - n / 8), tall / 13, thick * (1 - n / 8)), bark))
    bare = dice.chance(0.25)
    for _ in range(dice.whole(4, 16)):
        around, out, high = dice.between(0, 6.3), tall * dice.between(0.05, 0.28), tall * dice.between(0.35, 1.0)
        at = (x + lean * tall * 0.7 + out * math.sin(around), high, z + out * math.cos(around))
        if bare:
            for n in range(4):
                share = (n + 0.5) / 4
                step = (
                    x + out * share * 2 * math.sin(around),
                    high + tall * 0.05 * n,
                    z + out * share * 2 * math.cos(around),
                )
                solids.append(Solid(BALL, step, (out * 0.3 + 0.01, tall * 0.02, thick * 0.5), bark, around + 1.57))
        else:
            size = tall * dice.between(0.03, 0.13)
            solids.append(Solid(BALL, at, (size, size * dice.between(0.5, 1.0), size), leaves, around))
    return solids


def _fence(dice: Dice, x: float, z: float, turn: float) -> list[Solid]:
    """Posts or pickets with rails."""
    look, tall, apart = _look(dice, PLAIN, NOISE, PLANKS), dice.between(0.35, 0.9), dice.log_between(0.12, 1.5)
    cos, sin, thin = math.cos(turn), math.sin(turn), dice.between(0.01, 0.05)
    count = dice.whole(6, 24)
    solids = [
        Solid(BOX, (x + cos * n * apart, tall, z - sin * n * apart), (thin, tall, thin), look, turn)
        for n in range(-count // 2, count // 2)
    ]
    half = count * apart / 2
    for level in (0.5, 1.8):
        solids.append(
            Solid(BOX, (x - cos * apart / 2, tall * level, z + sin * apart / 2), (half, 0.03, thin * 0.7), look, turn)
        )
    return solids


# Worlds


def _shell(dice: Dice, half: Vector) -> list[Solid]:
    """A room whose walls, floor and ceiling may look like anything, with more on its walls."""
    solids = _room_shell(dice, half)
    if dice.chance(0.6):
        for n in range(3):
            if dice.chance(0.7):
                solids[n] = dataclasses.replace(solids[n], material=_look(dice))
    for _ in range(dice.whole(0, 5)):  # posters, boards, lamps of the ceiling
        side, tall, wide = dice.pick(-1, 1), dice.between(0.1, 0.7), dice.between(0.1, 0.9)
        if dice.chance(0.4):
            at = (dice.between(-0.8, 0.8) * half[0], 2 * half[1], dice.between(-0.8, 0.8) * half[2])
            solids.append(
                Solid(
                    BOX, at, (0.15, 0.03, 0.6), Material(PLAIN, (0.9, 0.9, 0.9), (1, 1, 1), 1, 0, dice.between(0.5, 3))
                )
            )
        elif dice.chance(0.5):
            solids.append(
                Solid(
                    BOX,
                    (side * half[0], dice.between(0.8, 1.8), dice.between(-0.9, 0.9) * half[2]),
                    (0.02, tall, wide),
                    _look(dice),
                )
            )
        else:
            solids.append(
                Solid(
                    BOX,
                    (dice.between(-0.9, 0.9) * half[0], dice.between(0.8, 1.8), half[2]),
                    (wide, tall, 0.02),
                    _look(dice),
                )
            )
    return solids


def crowded_room(dice: Dice) -> World:
    half = (dice.between(1.3, 5.0), dice.between(1.15, 1.8), dice.between(1.5, 7.0))
    hx, _, hz = half
    solids = _shell(dice, half)
    x, z = dice.between(-0.8, 0.8) * hx, dice.between(-0.9, -0.1) * hz
    yaw = math.atan2(-x, 0.3 * hz - z) + dice.between(-0.9, 0.9)
    camera = Camera(
        (x, dice.between(0.25, 1.9), z),
        yaw,
        dice.between(-0.7, 0.2),
        dice.between(-0.12, 0.12),
        dice.log_between(0.3, 1.2),
    )
    for _ in range(dice.whole(3, 10)):
        away, off = dice.log_between(0.8, 6), yaw + dice.between(-0.8, 0.8)
        fx, fz = x + away * math.sin(off), z + away * math.cos(off)
        if abs(fx) > hx - 0.3 or abs(fz) > hz - 0.3:
            fx, fz = max(-hx + 0.3, min(hx - 0.3, fx)), max(-hz + 0.3, min(hz - 0.3, fz))
            if math.hypot(fx - x, fz - z) < 0.8:
                continue
        kind, turn = dice.whole(0, 9), 1.5708 * dice.whole(0, 3) + dice.between(-0.1, 0.1)
        if kind < 3:
            solids += _chair(dice, fx, fz)
        elif kind == 3:
            solids += _shelf(dice, fx, fz, turn)
        elif kind == 4:
            solids += _leafy(dice, fx, 0, fz, dice.between(0.2, 0.6))
        elif kind == 5:
            solids += _sitting(dice, fx, fz, 0.45) if dice.chance(0.5) else person(dice, fx, fz)
        elif kind == 6:
            solids += [
                s
                for n in range(4)
                for s in _thing(
                    dice, fx + dice.between(-0.4, 0.4), 0, fz + dice.between(-0.4, 0.4), dice.log_between(0.06, 0.4)
                )
            ]
        else:
            solids += furniture(dice, fx, fz, turn)
    return World("crowded room", tuple(solids), camera, _strong(dice, _indoor_light(dice, half)))


def desk(dice: Dice) -> World:
    """Many things on a board, from any side: level with it to straight above it, 0.3 m to 2 m away."""
    half = (dice.between(1.0, 3.5), dice.between(1.2, 1.6), dice.between(1.0, 4.0))
    solids = _shell(dice, half)
    top = dice.between(0.0, 0.9)
    wide, deep = dice.between(0.4, 1.4), dice.between(0.3, 0.9)
    if top > 0.3:
        solids.append(
            Solid(BOX, (0, top - 0.02, 0), (wide, 0.02, deep), _look(dice, PLANKS, NOISE, PLAIN, PLAIN, CHECKER))
        )
        if dice.chance(0.5):
            leg = _look(dice, PLAIN, NOISE)
            solids += [
                Solid(BOX, (a * wide * 0.92, top / 2, b * deep * 0.9), (0.025, top / 2, 0.025), leg)
                for a in (-1, 1)
                for b in (-1, 1)
            ]
        else:
            solids.append(
                Solid(BOX, (0, top / 2 - 0.03, 0), (wide * 0.9, top / 2 - 0.01, deep * 0.8), _look(dice, PLAIN, NOISE))
            )
    else:
        top = 0.002
    reach = dice.log_between(0.1, 0.6)
    if dice.chance(0.2):  # in a tray
        wall = _look(dice, PLAIN, NOISE)
        for s in (-1, 1):
            solids.append(Solid(BOX, (s * reach * 1.3, top + 0.06, 0), (0.01, 0.06, reach), wall))
            solids.append(Solid(BOX, (0, top + 0.06, s * reach), (reach * 1.3, 0.06, 0.01), wall))
    for _ in range(dice.whole(4, 16)):
        size = reach * dice.log_between(0.1, 0.45)
        solids += _thing(dice, dice.between(-1.3, 1.3) * reach, top, dice.between(-1, 1) * reach, size)
    away, pitch, around = reach * dice.log_between(1.6, 5) + 0.15, dice.between(0.02, 1.5), dice.between(-3.1, 3.1)
    back = away * math.cos(pitch)
    x, z = (
        max(-h + 0.1, min(h - 0.1, -back * f)) for h, f in ((half[0], math.sin(around)), (half[2], math.cos(around)))
    )
    y = min(top + 0.08 + away * math.sin(pitch), 2 * half[1] - 0.1)
    camera = Camera(
        (x, y, z),
        around + dice.between(-0.2, 0.2),
        -pitch + dice.between(-0.15, 0.2),
        dice.between(-0.2, 0.2),
        dice.log_between(0.25, 0.9),
    )
    return World("desk", tuple(solids), camera, _strong(dice, _indoor_light(dice, half)))


def close_by(dice: Dice) -> World:
    """Someone, an animal or a thing right ahead, with a room or the open behind."""
    inside = dice.chance(0.5)
    height, yaw = dice.between(0.4, 1.7), 0.0
    if inside:
        half = (dice.between(2, 5), dice.between(1.2, 1.8), dice.between(3, 8))
        solids, light = _shell(dice, half), _indoor_light(dice, half)
        start = -half[2] * dice.between(0.3, 0.9)
        for _ in range(dice.whole(2, 6)):
            solids += furniture(
                dice, dice.between(-0.8, 0.8) * half[0], start + dice.log_between(1.8, 8), dice.between(0, 6.3)
            )
    else:
        solids, start = [_ground(dice), *_far_hills(dice)], 0.0
        light = _daylight(dice, dice.log_between(3e-4, 1.5e-2))
        for _ in range(dice.whole(2, 8)):
            away, off = dice.log_between(4, 80), dice.between(-0.8, 0.8)
            at = (away * math.sin(off), away * math.cos(off))
            solids += (
                _thicket(dice, *at, dice.between(3, 10))
                if dice.chance(0.6)
                else house(dice, *at, (4, dice.between(2, 8), 4), off)
            )
    for _ in range(dice.whole(1, 3)):
        away, off = dice.log_between(0.6, 4), dice.between(-0.5, 0.5)
        x, z = away * math.sin(off), start + away * math.cos(off)
        kind = dice.whole(0, 5)
        if kind == 0:
            solids += person(dice, x, z, base=dice.between(-0.4, 0) if away < 2 else 0)
        elif kind == 1:
            solids += _sitting(dice, x, z, dice.between(0.3, 0.6))
        elif kind == 2:
            solids += _animal(dice, x, z, dice.log_between(0.35, 1.6))
        elif kind == 3:
            solids += _leafy(dice, x, max(0.0, height - 1), z, dice.between(0.2, 0.6))
        elif kind == 4:
            solids += _chair(dice, x, z)
        else:
            solids += _thing(dice, x, max(0.0, height - dice.between(0.2, 0.8)), z, dice.log_between(0.1, 0.5))
    camera = Camera(
        (0, height, start), yaw, dice.between(-0.4, 0.15), dice.between(-0.15, 0.15), dice.log_between(0.25, 1.0)
    )
    return World("close by", tuple(solids), camera, _strong(dice, light))


def thicket(dice: Dice) -> World:
    """Trunks, bushes, rocks, tufts and fences, near and far."""
    solids = [_ground(dice), *_far_hills(dice)]
    height = dice.log_between(0.3, 2.2)
    for _ in range(dice.whole(3, 12)):
        away, off = dice.log_between(1.5, 60), dice.between(-0.9, 0.9)
        at = (away * math.sin(off), away * math.cos(off))
        kind = dice.whole(0, 5)
        if kind < 3:
            solids += _thicket(dice, *at, dice.between(2, 14))
        elif kind == 3:
            solids += tree(dice, *at, dice.between(3, 12))
        elif kind == 4:
            solids += bush(dice, *at, dice.between(0.2, 1.2))
        else:
            solids += _leafy(dice, at[0], -0.1, at[1], dice.between(0.15, 0.7))
    for _ in range(dice.whole(0, 25)):
        away, off, tall = dice.log_between(0.8, 15), dice.between(-0.9, 0.9), dice.log_between(0.05, 0.4)
        look = Material(NOISE, dice.near((0.15, 0.2, 0.07), 0.8), dice.near((0.1, 0.12, 0.05), 0.8), 0.2, 0.4)
        at = (away * math.sin(off), tall * 0.7, away * math.cos(off))
        solids.append(
            Solid(
                dice.pick(TUBE, BALL, BALL),
                at,
                (tall * dice.between(0.1, 1), tall, tall * dice.between(0.1, 1)),
                look,
                off,
                taper=0.9,
            )
        )
    if dice.chance(0.4):
        solids += _fence(dice, dice.between(-3, 3), dice.log_between(2, 15), dice.between(-0.9, 0.9))
    if dice.chance(0.3):
        solids += _animal(dice, dice.between(-2, 2), dice.log_between(2, 10), dice.between(0.5, 1.7))
    if dice.chance(0.3):
        solids += person(dice, dice.between(-2, 2), dice.log_between(1.5, 12))
    camera = Camera(
        (0, height, 0), 0.0, dice.between(-0.5, 0.25), dice.between(-0.15, 0.15), dice.log_between(0.25, 1.1)
    )
    return World("thicket", tuple(solids), camera, _strong(dice, _daylight(dice, dice.log_between(3e-4, 4e-2))))


def busy_street(dice: Dice) -> World:
    """As seen from a car or on foot: parked cars, lorries, signs, trees, fences, people."""
    road, walk = dice.between(2.5, 10), dice.between(0.5, 4.0)
    ground = dice.near((0.16, 0.16, 0.17), 0.6)
    solids = [
        _ground(dice),
        Solid(
            BOX,
            (0, 0, 300),
            (road, 0.01, 400),
            Material(
                dice.pick(LANES, LANES, NOISE, PLAIN),
                ground,
                (0.7, 0.7, 0.68),
                dice.between(2.5, 6.0),
                dice.between(0.05, 0.4),
            ),
        ),
    ]
    paving = _look(dice, BRICKS, CHECKER, NOISE, PLAIN)
    solids += [
        Solid(BOX, (s * (road + walk / 2), 0, 300), (walk / 2, dice.between(0.02, 0.15), 400), paving) for s in (-1, 1)
    ]
    x, height = (
        dice.between(-0.8, 0.8) * road,
        dice.log_between(1.0, 2.5) if dice.chance(0.85) else dice.between(2.5, 9),
    )
    for s in (-1, 1):
        kind, z = dice.whole(0, 3), dice.between(-4, 8)
        edge = road + walk + dice.between(0, 5)
        for _ in range(dice.whole(4, 9)):
            half = (dice.between(2, 8), dice.log_between(1.5, 16), dice.between(2, 9))
            z += half[2]
            if kind < 2:
                solids += house(dice, s * (edge + half[0]), z, half, dice.between(-0.05, 0.05))
            elif kind == 2:
                solids += _thicket(dice, s * (edge + dice.between(0, 6)), z, dice.between(3, 12))
            elif dice.chance(0.6):
                solids += bush(dice, s * edge, z, dice.between(0.4, 1.5))
            z += half[2] + dice.log_between(0.2, 10)
        if dice.chance(0.5):  # parked in a row
            z, lane = dice.between(3, 10), s * (road - dice.between(0.9, 1.3))
            for _ in range(dice.whole(1, 6)):
                if abs(lane - x) > 1.5 or z > 6:
                    solids += car(dice, lane, z, dice.between(-0.05, 0.05) + (1.57 if dice.chance(0.1) else 0))
                z += dice.between(5, 9)
        if dice.chance(0.3):
            solids += _fence(dice, s * (road + walk), dice.between(6, 15), 1.5708)
        z = dice.between(3, 12)
        for _ in range(dice.whole(0, 5)):
            solids += pole(dice, s * (road + walk * 0.3), z)
            z += dice.between(3, 15)
    for _ in range(dice.whole(0, 4)):
        away = dice.log_between(5, 70)
        lane = dice.between(-0.7, 0.7) * road
        if abs(lane - x) > 1.7 or away > 8:
            if dice.chance(0.25):  # a lorry or bus
                solids.append(
                    Solid(BOX, (lane, 1.9, away), (1.25, 1.5, dice.between(2.5, 5)), _look(dice, PLAIN, WINDOWS, NOISE))
                )
            else:
                solids += car(
                    dice, lane, away, dice.between(-0.1, 0.1) + (dice.between(0, 3.1) if dice.chance(0.2) else 0)
                )
    for _ in range(dice.whole(0, 6)):
        solids += person(dice, dice.between(-1.1, 1.1) * (road + walk), dice.log_between(3, 35))
    if dice.chance(0.3):
        solids += house(
            dice, dice.between(-8, 8), dice.log_between(30, 150), (dice.between(5, 15), dice.between(3, 20), 6)
        )
    solids += _far_hills(dice)
    yaw = dice.between(-0.2, 0.2) if dice.chance(0.7) else dice.between(-1.6, 1.6)
    camera = Camera(
        (x, height, 0), yaw, dice.between(-0.25, 0.15), dice.between(-0.06, 0.06), dice.log_between(0.35, 1.3)
    )
    return World("busy street", tuple(solids), camera, _strong(dice, _daylight(dice, dice.log_between(3e-4, 2e-2))))


def chaos(dice: Dice) -> World:
    """Solids of every shape, size and look wherever they fall: what is known of the world does not help here."""
    solids: list[Solid] = []
    inside = dice.chance(0.5)
    if inside:
        half = (dice.log_between(1, 12), dice.log_between(1, 5), dice.log_between(1.5, 15))
        solids += [Solid(ROOM, (0, half[1], 0), half, _look(dice))]
        if dice.chance(0.8):
            solids.append(Solid(BOX, (0, -0.5, 0), (half[0] + 1, 0.501, half[2] + 1), _look(dice)))
        light, start = _indoor_light(dice, half), -half[2] * dice.between(0.1, 0.9)
        height = dice.between(0.1, 0.9) * 2 * half[1]
    else:
        half = (10, 5, 20)
        solids += [Solid(GROUND, (0, 0, 0), (1, 1, 1), _look(dice)), *_far_hills(dice)]
        light, start, height = _daylight(dice, dice.log_between(3e-4, 3e-2)), 0.0, dice.log_between(0.3, 6)
    near = dice.log_between(0.3, 3)
    for _ in range(dice.whole(8, 45)):
        away, off, rise = near * dice.log_between(1, 25), dice.between(-0.9, 0.9), dice.between(-0.6, 0.5)
        size = away * dice.log_between(0.02, 0.3)
        shape = dice.pick(BOX, BOX, BALL, BALL, TUBE, TUBE, ROOF)
        extent = (
            size * dice.log_between(0.15, 1.5),
            size * dice.log_between(0.15, 2),
            size * dice.log_between(0.15, 1.5),
        )
        if dice.chance(0.2):  # a rod or a wire
            extent = (size * 0.08, size * 2, size * 0.08) if dice.chance(0.6) else (size * 3, size * 0.07, size * 0.07)
        level = height + away * rise if dice.chance(0.4) else extent[1]
        at = (away * math.sin(off), level, start + away * math.cos(off))
        solids.append(
            Solid(
                shape,
                at,
                extent,
                _look(dice),
                dice.between(0, 6.3),
                dice.between(0, 1) if shape == TUBE and dice.chance(0.3) else 0,
            )
        )
    camera = Camera(
        (0, height, start),
        dice.between(-0.3, 0.3),
        dice.between(-0.6, 0.4),
        dice.between(-0.5, 0.5),
        dice.log_between(0.25, 1.2),
    )
    return World("chaos", tuple(solids), camera, _strong(dice, light))


BUILDERS: tuple[Callable[[Dice], World], ...] = (
    crowded_room,
    crowded_room,
    crowded_room,
    desk,
    desk,
    desk,
    close_by,
    close_by,
    thicket,
    busy_street,
    busy_street,
    chaos,
)
