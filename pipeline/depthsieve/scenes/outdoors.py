"""Random streets and parks."""

from __future__ import annotations

import math

from depthsieve.scenes.solids import (
    BALL,
    BOX,
    BRICKS,
    CHECKER,
    GROUND,
    LANES,
    LEAVES,
    NOISE,
    PLANKS,
    TUBE,
    Camera,
    Light,
    Material,
    Solid,
    World,
)
from depthsieve.scenes.things import Dice, bush, car, house, person, pole, tree


def daylight(dice: Dice, haze: float) -> Light:
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


def ground(dice: Dice) -> Solid:
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


def far_hills(dice: Dice) -> list[Solid]:
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


def street(dice: Dice) -> World:
    """A street between houses, with cars and people."""
    road = dice.between(2.5, 6.5)
    walk = dice.between(1.0, 4.0)
    asphalt = dice.near((0.16, 0.16, 0.17), 0.5)
    solids = [ground(dice)]
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
    solids += far_hills(dice)
    return World("street", tuple(solids), camera, daylight(dice, dice.log_between(3e-4, 1.2e-2)))


def park(dice: Dice) -> World:
    """Open ground with trees, bushes and paths."""
    solids = [ground(dice)]
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
    solids += far_hills(dice)
    return World("park", tuple(solids), camera, daylight(dice, dice.log_between(3e-4, 1.5e-2)))
