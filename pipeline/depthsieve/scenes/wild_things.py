"""What wild scenes are full of: things, plants, chairs, shelves, animals, sitting people, ragged trees, fences."""

from __future__ import annotations

import dataclasses
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
    TUBE,
    Light,
    Material,
    Solid,
    Vector,
)
from depthsieve.scenes.things import Dice


def any_look(dice: Dice, *patterns: int) -> Material:
    """Any material: any contrast, any size of pattern, from black to white."""
    pattern = dice.pick(*(patterns or (PLAIN, PLAIN, PLAIN, NOISE, NOISE, NOISE, CHECKER, PLANKS, BRICKS, LEAVES)))
    first = dice.colour(0.01, 0.95, 0.8)
    second = dice.colour(0.01, 0.95, 0.8) if dice.chance(0.4) else dice.near(first, 0.5)
    return Material(pattern, first, second, dice.log_between(0.04, 2.0), dice.between(0.02, 0.5))


def any_light(dice: Dice, light: Light) -> Light:
    """Sometimes hard light, sometimes hardly any but from everywhere."""
    if dice.chance(0.3):
        hard, soft = dice.between(1.2, 3.0), dice.between(0.2, 0.7)
        colour, ambient = (tuple(c * f for c in v) for v, f in ((light.colour, hard), (light.ambient, soft)))
        r, g, b = colour
        ra, ga, ba = ambient
        return dataclasses.replace(light, colour=(r, g, b), ambient=(ra, ga, ba))
    return light


def small_thing(dice: Dice, x: float, y: float, z: float, size: float) -> list[Solid]:
    """A small thing that stands on y: a box, book, bottle, mug, ball, bowl, can, screen, cone, lamp, stack or toy."""
    look, turn, kind = any_look(dice), dice.between(0, 6.3), dice.whole(0, 12)
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
                    any_look(dice, PLAIN, NOISE),
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
            Solid(TUBE, (x, y + s * 2, z), (s * 0.5, s * 0.3, s * 0.5), any_look(dice, PLAIN), taper=0.5),
        ]
    if kind == 11:
        return leafy_plant(dice, x, y, z, s)
    return [
        Solid(BALL, (x, y + s * 0.5, z), (s * 0.5, s * 0.5, s * 0.4), look, turn),
        Solid(BALL, (x, y + s * 1.15, z), (s * 0.33, s * 0.33, s * 0.33), look),
        Solid(BALL, (x - s * 0.3, y + s * 1.45, z), (s * 0.12, s * 0.14, s * 0.07), look),
        Solid(BALL, (x + s * 0.3, y + s * 1.45, z), (s * 0.12, s * 0.14, s * 0.07), look),
    ]


def leafy_plant(dice: Dice, x: float, y: float, z: float, size: float) -> list[Solid]:
    """A plant of single leaves in a pot: long ones that stand, or a cloud of small ones on stems."""
    green = dice.near((0.08, 0.2, 0.05), 0.7)
    leaf = Material(dice.pick(PLAIN, LEAVES, NOISE), green, dice.near(green, 0.6), 0.3, dice.between(0.1, 0.4))
    solids = [
        Solid(
            TUBE,
            (x, y + size * 0.35, z),
            (size * 0.4, size * 0.35, size * 0.4),
            any_look(dice, PLAIN, NOISE),
            taper=-0.2,
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


def chair(dice: Dice, x: float, z: float) -> list[Solid]:
    """Four thin legs or one post with a foot, a seat, a back of bars or a board."""
    look, cloth, turn = (
        any_look(dice, PLAIN, NOISE, PLANKS),
        any_look(dice, PLAIN, NOISE, CHECKER),
        dice.between(0, 6.3),
    )
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


def shelf(dice: Dice, x: float, z: float, turn: float) -> list[Solid]:
    """Boards with rows of books and things."""
    look = any_look(dice, PLAIN, NOISE, PLANKS)
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
                        any_look(dice, PLAIN, NOISE),
                    )
                )
            at += 2 * thick + (dice.between(0.05, 0.3) if dice.chance(0.2) else 0.004)
        level += dice.between(0.3, 0.45)
    return solids


def animal(dice: Dice, x: float, z: float, size: float) -> list[Solid]:
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


def sitting_person(dice: Dice, x: float, z: float, seat: float) -> list[Solid]:
    """A person on a seat, arms ahead; also the upper half of someone at a desk."""
    shirt, cloth = any_look(dice, PLAIN, NOISE, PLANKS), any_look(dice, PLAIN, NOISE)
    skin, hair = Material(PLAIN, dice.near((0.45, 0.28, 0.2), 0.6), (0.3, 0.2, 0.1), 1.0, 0.08), any_look(dice, NOISE)
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


def ragged_tree(dice: Dice, x: float, z: float, tall: float) -> list[Solid]:
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


def fence(dice: Dice, x: float, z: float, turn: float) -> list[Solid]:
    """Posts or pickets with rails."""
    look, tall, apart = any_look(dice, PLAIN, NOISE, PLANKS), dice.between(0.35, 0.9), dice.log_between(0.12, 1.5)
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
