"""What stands in scenes: trees, people, cars, houses, furniture, as solids around a place (x, z) on the ground.

Every number comes from the `Dice`, in a fixed order: that order is part of what a seed means.
"""

from __future__ import annotations

import math

import numpy as np

from depthsieve.scenes.solids import (
    BALL,
    BOX,
    BRICKS,
    CHECKER,
    LEAVES,
    NOISE,
    PLAIN,
    PLANKS,
    ROOF,
    TUBE,
    WINDOWS,
    Colour,
    Material,
    Solid,
    Vector,
)


class Dice:
    """Uniform numbers drawn in blocks: a scene needs hundreds, and one call for each would cost more than the rays."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.Philox(key=seed))
        self._pool: list[float] = []

    def unit(self) -> float:
        if not self._pool:
            self._pool = self._rng.random(512).tolist()
        return self._pool.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def log_between(self, low: float, high: float) -> float:
        return low * math.exp(math.log(high / low) * self.unit())

    def whole(self, low: int, high: int) -> int:
        """From `low` to `high`, both possible."""
        return low + int(self.unit() * (high - low + 1))

    def chance(self, share: float) -> bool:
        return self.unit() < share

    def pick(self, *choices: int) -> int:
        return choices[int(self.unit() * len(choices))]

    def colour(self, low: float = 0.05, high: float = 0.85, vivid: float = 0.5) -> Colour:
        value = self.log_between(low, high)
        hue, strength = self.unit() * 2 * math.pi, vivid * self.unit()
        r, g, b = (value * (1 + strength * math.cos(hue + shift)) for shift in (0.0, -2.1, 2.1))
        return min(r, 1.0), min(g, 1.0), min(b, 1.0)

    def near(self, base: Colour, spread: float = 0.35) -> Colour:
        common = math.exp(self.between(-spread, spread))
        r, g, b = (min(1.0, c * common * math.exp(self.between(-spread, spread) / 2)) for c in base)
        return r, g, b

    def material(self, *patterns: int, low: float = 0.04, high: float = 0.85, vivid: float = 0.6) -> Material:
        pattern = self.pick(*(patterns or (PLAIN, PLAIN, NOISE, NOISE, CHECKER, PLANKS)))
        first = self.colour(low, high, vivid)
        second = self.colour(low, high, vivid) if self.chance(0.4) else self.near(first, 0.5)
        return Material(pattern, first, second, self.log_between(0.15, 1.2), self.between(0.05, 0.35))


def tree(dice: Dice, x: float, z: float, tall: float) -> list[Solid]:
    bark = Material(NOISE, dice.near((0.16, 0.1, 0.06)), dice.near((0.07, 0.05, 0.03)), 0.5, 0.4)
    green = dice.near((0.10, 0.19, 0.045), 0.5) if dice.chance(0.85) else dice.near((0.4, 0.2, 0.05), 0.5)
    leaves = Material(LEAVES, green, dice.near((0.03, 0.06, 0.02), 0.4), dice.between(1.0, 2.5), 0.45)
    trunk = tall * dice.between(0.2, 0.45)
    radius = tall * dice.between(0.015, 0.035)
    solids = [Solid(TUBE, (x, tall * 0.4, z), (radius, tall * 0.4, radius), bark, taper=0.5)]
    if dice.chance(0.3):
        for level in range(dice.whole(1, 3)):
            low = trunk * 0.6 + level * tall * 0.2
            wide = tall * (0.24 - 0.06 * level)
            solids.append(Solid(TUBE, (x, (low + tall) / 2, z), (wide, (tall - low) / 2, wide), leaves, taper=1.0))
        return solids
    for _ in range(dice.whole(2, 5)):
        size = tall * dice.between(0.14, 0.26)
        at = (
            x + dice.between(-0.16, 0.16) * tall,
            trunk + dice.between(0.1, 0.5) * tall,
            z + dice.between(-0.16, 0.16) * tall,
        )
        solids.append(Solid(BALL, at, (size, size * dice.between(0.7, 1.1), size), leaves, dice.between(0, 3)))
    return solids


def bush(dice: Dice, x: float, z: float, size: float) -> list[Solid]:
    green = dice.near((0.09, 0.17, 0.04), 0.6)
    leaves = Material(LEAVES, green, dice.near((0.03, 0.05, 0.02), 0.4), dice.between(0.6, 1.6), 0.4)
    solids = []
    for _ in range(dice.whole(1, 3)):
        part = size * dice.between(0.6, 1.0)
        at = (x + dice.between(-0.7, 0.7) * size, part * 0.6, z + dice.between(-0.5, 0.5) * size)
        solids.append(
            Solid(
                BALL,
                at,
                (part * dice.between(0.8, 1.4), part * dice.between(0.7, 1.1), part),
                leaves,
                dice.between(0, 3),
            )
        )
    return solids


def person(dice: Dice, x: float, z: float, base: float = 0.0) -> list[Solid]:
    tall, yaw = dice.between(1.45, 1.9), dice.between(0, 6.3)
    skin = Material(PLAIN, dice.near((0.5, 0.3, 0.2), 0.5), (0.3, 0.2, 0.1), 1.0, 0.08)
    shirt, cloth = dice.material(PLAIN, NOISE, PLANKS), dice.material(PLAIN, NOISE)
    hair = Material(NOISE, dice.near((0.08, 0.05, 0.03), 0.8), (0.02, 0.02, 0.02), 0.2, 0.3)
    cos, sin, apart = math.cos(yaw), math.sin(yaw), dice.between(0.08, 0.16)
    solids = [
        Solid(BALL, (x, base + tall * 0.66, z), (0.24, tall * 0.2, 0.15), shirt, yaw),
        Solid(BALL, (x, base + tall * 0.925, z), (0.085, 0.125, 0.1), skin, yaw),
        Solid(BALL, (x - 0.02 * sin, base + tall * 0.945, z - 0.02 * cos), (0.095, 0.11, 0.105), hair, yaw),
    ]
    for side in (-1, 1):
        leg = (x + side * apart * cos, base + tall * 0.24, z - side * apart * sin)
        arm = (x + side * 0.25 * cos, base + tall * 0.62, z - side * 0.25 * sin)
        solids.append(Solid(TUBE, leg, (0.08, tall * 0.24, 0.09), cloth))
        solids.append(Solid(TUBE, arm, (0.05, tall * 0.17, 0.055), shirt))
    return solids


def car(dice: Dice, x: float, z: float, yaw: float) -> list[Solid]:
    length, wide, tall = dice.between(1.8, 2.4), dice.between(0.82, 0.95), dice.between(0.7, 0.95)
    if dice.chance(0.2):
        length, tall = length * 1.3, tall * 1.5
    body = Material(PLAIN, dice.colour(0.03, 0.8, 0.8), (0.1, 0.1, 0.1), 1.0, 0.06)
    glass, tyre = (
        Material(PLAIN, (0.05, 0.06, 0.07), (0.1, 0.1, 0.1), 1.0, 0.1),
        Material(PLAIN, (0.02, 0.02, 0.02), (0, 0, 0), 1.0, 0.1),
    )
    solids = [
        Solid(BOX, (x, 0.3 + tall * 0.32, z), (wide, tall * 0.34, length), body, yaw),
        Solid(BOX, (x, 0.3 + tall * 0.95, z), (wide * 0.88, tall * 0.32, length * 0.52), glass, yaw),
        Solid(BOX, (x, 0.3 + tall * 1.28, z), (wide * 0.86, 0.03, length * 0.5), body, yaw),
    ]
    cos, sin = math.cos(yaw), math.sin(yaw)
    for a in (-1, 1):
        for b in (-0.62, 0.62):
            lx, lz = a * wide * 0.92, b * length
            solids.append(
                Solid(BALL, (x + cos * lx + sin * lz, 0.31, z + cos * lz - sin * lx), (0.13, 0.31, 0.31), tyre, yaw)
            )
    return solids


def house(dice: Dice, x: float, z: float, half: Vector, yaw: float = 0.0) -> list[Solid]:
    hx, hy, hz = half
    wall = dice.colour(0.12, 0.8, 0.4)
    pattern = dice.pick(WINDOWS, WINDOWS, WINDOWS, BRICKS, NOISE)
    dark = dice.near((0.06, 0.08, 0.1), 0.6) if pattern == WINDOWS else dice.near(wall, 0.5)
    period = dice.between(2.2, 4.0) if pattern == WINDOWS else dice.between(0.5, 1.0)
    solids = [Solid(BOX, (x, hy, z), half, Material(pattern, wall, dark, period, dice.between(0.05, 0.25)), yaw)]
    if hy < 6 and dice.chance(0.6):
        rise = dice.between(0.6, 1.6)
        tiles = Material(BRICKS, dice.near((0.25, 0.1, 0.07), 0.7), dice.near((0.1, 0.05, 0.04)), 0.6, 0.2)
        solids.append(Solid(ROOF, (x, 2 * hy + rise, z), (hx * 1.08, rise, hz * 1.05), tiles, yaw))
    elif dice.chance(0.3):
        solids.append(Solid(BOX, (x, 2 * hy + 0.5, z), (hx * 0.4, 0.7, hz * 0.4), dice.material(PLAIN, NOISE), yaw))
    return solids


def pole(dice: Dice, x: float, z: float) -> list[Solid]:
    tall, radius = dice.between(2.5, 8.0), dice.between(0.04, 0.14)
    metal = dice.material(PLAIN, NOISE, vivid=0.1)
    solids = [Solid(TUBE, (x, tall / 2, z), (radius, tall / 2, radius), metal)]
    if dice.chance(0.5):
        sign = dice.material(PLAIN, CHECKER, vivid=0.9)
        solids.append(
            Solid(
                BOX,
                (x, tall * 0.9, z - 0.1),
                (dice.between(0.2, 0.6), dice.between(0.2, 0.5), 0.03),
                sign,
                dice.between(-0.4, 0.4),
            )
        )
    elif dice.chance(0.5):
        solids.append(Solid(BOX, (x + 0.6, tall, z), (0.7, 0.05, 0.08), metal))
    return solids


def furniture(dice: Dice, x: float, z: float, yaw: float) -> list[Solid]:
    """A cupboard, shelf, table, chair, sofa, bed, lamp, plant, ball or column."""
    kind = dice.whole(0, 9)
    cos, sin = math.cos(yaw), math.sin(yaw)
    main, trim = dice.material(PLAIN, NOISE, PLANKS), dice.material(PLAIN, NOISE)

    def part(shape: int, at: Vector, half: Vector, material: Material, taper: float = 0.0) -> Solid:
        return Solid(
            shape, (x + cos * at[0] + sin * at[2], at[1], z + cos * at[2] - sin * at[0]), half, material, yaw, taper
        )

    if kind == 0:
        tall = dice.between(0.3, 1.1)
        return [part(BOX, (0, tall, 0), (dice.between(0.25, 0.9), tall, dice.between(0.2, 0.35)), main)]
    if kind == 1:
        wide, tall = dice.between(0.3, 0.7), dice.between(0.6, 1.0)
        shelf = [part(BOX, (side * wide, tall, 0), (0.02, tall, 0.17), main) for side in (-1, 1)]
        shelf.append(part(BOX, (0, tall, 0.16), (wide, tall, 0.01), trim))
        for level in range(dice.whole(2, 4)):
            height = 0.1 + level * 0.42
            if height < 2 * tall:
                shelf.append(part(BOX, (0, height, 0), (wide, 0.015, 0.17), main))
                shelf.append(
                    part(BOX, (dice.between(-0.4, 0.4) * wide, height + 0.13, 0), (0.12, 0.12, 0.1), dice.material())
                )
        return shelf
    if kind in (2, 3):
        wide, deep = dice.between(0.35, 0.9), dice.between(0.3, 0.5)
        top = dice.between(0.6, 0.78) if kind == 2 else dice.between(0.35, 0.48)
        table = [part(BOX, (0, top, 0), (wide, 0.025, deep), main)]
        for sx in (-1, 1):
            for sz in (-1, 1):
                table.append(part(BOX, (sx * wide * 0.9, top / 2, sz * deep * 0.88), (0.03, top / 2, 0.03), trim))
        if kind == 3:
            table.append(part(BOX, (0, top + 0.3, deep * 0.95), (wide, 0.28, 0.025), main))
        for _ in range(dice.whole(0, 3)):
            size = dice.between(0.05, 0.13)
            at = (dice.between(-0.7, 0.7) * wide, top + 0.025 + size, dice.between(-0.7, 0.7) * deep)
            table.append(part(dice.pick(BOX, BALL, TUBE), at, (size, size, size), dice.material()))
        return table
    if kind in (4, 5):
        wide, deep = dice.between(0.6, 1.1), dice.between(0.38, 0.9 if kind == 5 else 0.45)
        seat = dice.between(0.2, 0.26)
        sofa = [
            part(BOX, (0, seat, 0), (wide, seat, deep), main),
            part(BOX, (0, seat * 1.9, deep), (wide, seat * 1.9, 0.1), main),
        ]
        sofa += [
            part(BOX, (side * wide, seat * 1.3, 0), (0.1, seat * 1.3, deep), main) for side in (-1, 1) if kind == 4
        ]
        sofa.append(part(BALL, (dice.between(-0.5, 0.5) * wide, seat * 2.2, deep * 0.5), (0.25, 0.16, 0.12), trim))
        return sofa
    if kind == 6:
        tall = dice.between(0.9, 1.6)
        shade = Material(PLAIN, dice.colour(0.4, 0.95, 0.3), (1, 1, 1), 1.0, 0.05, glow=dice.between(0.2, 1.2))
        stand = [
            part(TUBE, (0, tall / 2, 0), (0.02, tall / 2, 0.02), trim),
            part(TUBE, (0, 0.02, 0), (0.14, 0.02, 0.14), trim),
        ]
        return [*stand, part(TUBE, (0, tall + 0.12, 0), (0.2, 0.15, 0.2), shade, 0.5)]
    if kind == 7:
        pot = dice.between(0.12, 0.25)
        plant = [part(TUBE, (0, pot, 0), (pot * 0.8, pot, pot * 0.8), main)]
        green = Material(LEAVES, dice.near((0.08, 0.2, 0.05), 0.5), (0.02, 0.05, 0.02), 0.4, 0.4)
        for _ in range(dice.whole(2, 4)):
            at = (dice.between(-0.15, 0.15), pot * 2 + dice.between(0.1, 0.5), dice.between(-0.15, 0.15))
            plant.append(
                part(BALL, at, (dice.between(0.1, 0.25), dice.between(0.1, 0.3), dice.between(0.1, 0.25)), green)
            )
        return plant
    if kind == 8:
        size = dice.between(0.12, 0.4)
        return [part(BALL, (0, size, 0), (size, size, size), dice.material())]
    tall = dice.between(0.3, 1.3)
    return [
        part(
            TUBE,
            (0, tall, 0),
            (dice.between(0.1, 0.3),) * 1 + (tall,) + (dice.between(0.1, 0.3),),
            main,
            dice.between(0, 0.3),
        )
    ]
