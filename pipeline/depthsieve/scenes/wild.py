"""Wild scenes: crowded desks and rooms, tables from above, people and animals close by, thickets, busy streets, and
solids of every kind in no order at all. From 0.3 m to 200 m, every focal length.

For training, of the embedded teacher and of error networks; nothing is ever measured on them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from depthsieve.scenes.indoors import indoor_light, room_shell
from depthsieve.scenes.outdoors import daylight, far_hills, ground
from depthsieve.scenes.solids import (
    BALL,
    BOX,
    BRICKS,
    CHECKER,
    GROUND,
    LANES,
    NOISE,
    PLAIN,
    PLANKS,
    ROOF,
    ROOM,
    TUBE,
    WINDOWS,
    Camera,
    Material,
    Solid,
    Vector,
    World,
)
from depthsieve.scenes.things import Dice, bush, car, furniture, house, person, pole, tree
from depthsieve.scenes.wild_things import (
    animal,
    any_light,
    any_look,
    chair,
    fence,
    leafy_plant,
    ragged_tree,
    shelf,
    sitting_person,
    small_thing,
)

WILD_KINDS = ("crowded_room", "desk", "close_by", "thicket", "busy_street", "chaos")


def open_view(build: Callable[[Dice], World]) -> Callable[[Dice], World]:
    """The same worlds without what the camera would stand in, through sensors good and bad."""

    def built(dice: Dice) -> World:
        world = build(dice)
        solids = tuple(s for s in world.solids if s.shape in (GROUND, ROOM) or not _holds(s, world.camera.position))
        return dataclasses.replace(world, solids=solids, sensor_noise=dice.between(0.2, 1.5))

    return built


def _holds(solid: Solid, point: Vector) -> bool:
    room = 0.12 + 0.1 * min(solid.half)
    return all(abs(i) < h + room for i, h in zip(solid.inner(point), solid.half, strict=True))


def _shell(dice: Dice, half: Vector) -> list[Solid]:
    """A room whose walls, floor and ceiling may look like anything, with more on its walls."""
    solids = room_shell(dice, half)
    if dice.chance(0.6):
        for n in range(3):
            if dice.chance(0.7):
                solids[n] = dataclasses.replace(solids[n], material=any_look(dice))
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
                    any_look(dice),
                )
            )
        else:
            solids.append(
                Solid(
                    BOX,
                    (dice.between(-0.9, 0.9) * half[0], dice.between(0.8, 1.8), half[2]),
                    (wide, tall, 0.02),
                    any_look(dice),
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
            solids += chair(dice, fx, fz)
        elif kind == 3:
            solids += shelf(dice, fx, fz, turn)
        elif kind == 4:
            solids += leafy_plant(dice, fx, 0, fz, dice.between(0.2, 0.6))
        elif kind == 5:
            solids += sitting_person(dice, fx, fz, 0.45) if dice.chance(0.5) else person(dice, fx, fz)
        elif kind == 6:
            solids += [
                s
                for n in range(4)
                for s in small_thing(
                    dice, fx + dice.between(-0.4, 0.4), 0, fz + dice.between(-0.4, 0.4), dice.log_between(0.06, 0.4)
                )
            ]
        else:
            solids += furniture(dice, fx, fz, turn)
    return World("crowded_room", tuple(solids), camera, any_light(dice, indoor_light(dice, half)))


def desk(dice: Dice) -> World:
    """Many things on a board, from any side: level with it to straight above it, 0.3 m to 2 m away."""
    half = (dice.between(1.0, 3.5), dice.between(1.2, 1.6), dice.between(1.0, 4.0))
    solids = _shell(dice, half)
    top = dice.between(0.0, 0.9)
    wide, deep = dice.between(0.4, 1.4), dice.between(0.3, 0.9)
    if top > 0.3:
        solids.append(
            Solid(BOX, (0, top - 0.02, 0), (wide, 0.02, deep), any_look(dice, PLANKS, NOISE, PLAIN, PLAIN, CHECKER))
        )
        if dice.chance(0.5):
            leg = any_look(dice, PLAIN, NOISE)
            solids += [
                Solid(BOX, (a * wide * 0.92, top / 2, b * deep * 0.9), (0.025, top / 2, 0.025), leg)
                for a in (-1, 1)
                for b in (-1, 1)
            ]
        else:
            solids.append(
                Solid(
                    BOX, (0, top / 2 - 0.03, 0), (wide * 0.9, top / 2 - 0.01, deep * 0.8), any_look(dice, PLAIN, NOISE)
                )
            )
    else:
        top = 0.002
    reach = dice.log_between(0.1, 0.6)
    if dice.chance(0.2):  # in a tray
        wall = any_look(dice, PLAIN, NOISE)
        for s in (-1, 1):
            solids.append(Solid(BOX, (s * reach * 1.3, top + 0.06, 0), (0.01, 0.06, reach), wall))
            solids.append(Solid(BOX, (0, top + 0.06, s * reach), (reach * 1.3, 0.06, 0.01), wall))
    for _ in range(dice.whole(4, 16)):
        size = reach * dice.log_between(0.1, 0.45)
        solids += small_thing(dice, dice.between(-1.3, 1.3) * reach, top, dice.between(-1, 1) * reach, size)
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
    return World("desk", tuple(solids), camera, any_light(dice, indoor_light(dice, half)))


def close_by(dice: Dice) -> World:
    """Someone, an animal or a thing right ahead, with a room or the open behind."""
    inside = dice.chance(0.5)
    height, yaw = dice.between(0.4, 1.7), 0.0
    if inside:
        half = (dice.between(2, 5), dice.between(1.2, 1.8), dice.between(3, 8))
        solids, light = _shell(dice, half), indoor_light(dice, half)
        start = -half[2] * dice.between(0.3, 0.9)
        for _ in range(dice.whole(2, 6)):
            solids += furniture(
                dice, dice.between(-0.8, 0.8) * half[0], start + dice.log_between(1.8, 8), dice.between(0, 6.3)
            )
    else:
        solids, start = [ground(dice), *far_hills(dice)], 0.0
        light = daylight(dice, dice.log_between(3e-4, 1.5e-2))
        for _ in range(dice.whole(2, 8)):
            away, off = dice.log_between(4, 80), dice.between(-0.8, 0.8)
            at = (away * math.sin(off), away * math.cos(off))
            solids += (
                ragged_tree(dice, *at, dice.between(3, 10))
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
            solids += sitting_person(dice, x, z, dice.between(0.3, 0.6))
        elif kind == 2:
            solids += animal(dice, x, z, dice.log_between(0.35, 1.6))
        elif kind == 3:
            solids += leafy_plant(dice, x, max(0.0, height - 1), z, dice.between(0.2, 0.6))
        elif kind == 4:
            solids += chair(dice, x, z)
        else:
            solids += small_thing(dice, x, max(0.0, height - dice.between(0.2, 0.8)), z, dice.log_between(0.1, 0.5))
    camera = Camera(
        (0, height, start), yaw, dice.between(-0.4, 0.15), dice.between(-0.15, 0.15), dice.log_between(0.25, 1.0)
    )
    return World("close_by", tuple(solids), camera, any_light(dice, light))


def thicket(dice: Dice) -> World:
    """Trunks, bushes, rocks, tufts and fences, near and far."""
    solids = [ground(dice), *far_hills(dice)]
    height = dice.log_between(0.3, 2.2)
    for _ in range(dice.whole(3, 12)):
        away, off = dice.log_between(1.5, 60), dice.between(-0.9, 0.9)
        at = (away * math.sin(off), away * math.cos(off))
        kind = dice.whole(0, 5)
        if kind < 3:
            solids += ragged_tree(dice, *at, dice.between(2, 14))
        elif kind == 3:
            solids += tree(dice, *at, dice.between(3, 12))
        elif kind == 4:
            solids += bush(dice, *at, dice.between(0.2, 1.2))
        else:
            solids += leafy_plant(dice, at[0], -0.1, at[1], dice.between(0.15, 0.7))
    for _ in range(dice.whole(0, 25)):
        away, off, tall = dice.log_between(0.8, 15), dice.between(-0.9, 0.9), dice.log_between(0.05, 0.4)
        look = Material(NOISE, dice.near((0.15, 0.2, 0.07), 0.8), dice.near((0.1, 0.12, 0.05), 0.8), 0.2, 0.4)
        middle = (away * math.sin(off), tall * 0.7, away * math.cos(off))
        solids.append(
            Solid(
                dice.pick(TUBE, BALL, BALL),
                middle,
                (tall * dice.between(0.1, 1), tall, tall * dice.between(0.1, 1)),
                look,
                off,
                taper=0.9,
            )
        )
    if dice.chance(0.4):
        solids += fence(dice, dice.between(-3, 3), dice.log_between(2, 15), dice.between(-0.9, 0.9))
    if dice.chance(0.3):
        solids += animal(dice, dice.between(-2, 2), dice.log_between(2, 10), dice.between(0.5, 1.7))
    if dice.chance(0.3):
        solids += person(dice, dice.between(-2, 2), dice.log_between(1.5, 12))
    camera = Camera(
        (0, height, 0), 0.0, dice.between(-0.5, 0.25), dice.between(-0.15, 0.15), dice.log_between(0.25, 1.1)
    )
    return World("thicket", tuple(solids), camera, any_light(dice, daylight(dice, dice.log_between(3e-4, 4e-2))))


def busy_street(dice: Dice) -> World:
    """As seen from a car or on foot: parked cars, lorries, signs, trees, fences, people."""
    road, walk = dice.between(2.5, 10), dice.between(0.5, 4.0)
    tar = dice.near((0.16, 0.16, 0.17), 0.6)
    solids = [
        ground(dice),
        Solid(
            BOX,
            (0, 0, 300),
            (road, 0.01, 400),
            Material(
                dice.pick(LANES, LANES, NOISE, PLAIN),
                tar,
                (0.7, 0.7, 0.68),
                dice.between(2.5, 6.0),
                dice.between(0.05, 0.4),
            ),
        ),
    ]
    paving = any_look(dice, BRICKS, CHECKER, NOISE, PLAIN)
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
                solids += ragged_tree(dice, s * (edge + dice.between(0, 6)), z, dice.between(3, 12))
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
            solids += fence(dice, s * (road + walk), dice.between(6, 15), 1.5708)
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
                    Solid(
                        BOX, (lane, 1.9, away), (1.25, 1.5, dice.between(2.5, 5)), any_look(dice, PLAIN, WINDOWS, NOISE)
                    )
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
    solids += far_hills(dice)
    yaw = dice.between(-0.2, 0.2) if dice.chance(0.7) else dice.between(-1.6, 1.6)
    camera = Camera(
        (x, height, 0), yaw, dice.between(-0.25, 0.15), dice.between(-0.06, 0.06), dice.log_between(0.35, 1.3)
    )
    return World("busy_street", tuple(solids), camera, any_light(dice, daylight(dice, dice.log_between(3e-4, 2e-2))))


def chaos(dice: Dice) -> World:
    """Solids of every shape, size and look wherever they fall: what is known of the world does not help here."""
    solids: list[Solid] = []
    inside = dice.chance(0.5)
    if inside:
        half = (dice.log_between(1, 12), dice.log_between(1, 5), dice.log_between(1.5, 15))
        solids += [Solid(ROOM, (0, half[1], 0), half, any_look(dice))]
        if dice.chance(0.8):
            solids.append(Solid(BOX, (0, -0.5, 0), (half[0] + 1, 0.501, half[2] + 1), any_look(dice)))
        light, start = indoor_light(dice, half), -half[2] * dice.between(0.1, 0.9)
        height = dice.between(0.1, 0.9) * 2 * half[1]
    else:
        half = (10, 5, 20)
        solids += [Solid(GROUND, (0, 0, 0), (1, 1, 1), any_look(dice)), *far_hills(dice)]
        light, start, height = daylight(dice, dice.log_between(3e-4, 3e-2)), 0.0, dice.log_between(0.3, 6)
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
                any_look(dice),
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
    return World("chaos", tuple(solids), camera, any_light(dice, light))
