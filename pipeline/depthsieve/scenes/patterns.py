"""Patterns on surfaces: noise, checkers, planks, bricks, windows, leaves, lanes; what is finer than a pixel fades.

Array legend: P pixels in a flat list.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from depthsieve.scenes.solids import BRICKS, CHECKER, LANES, LEAVES, NOISE, PLANKS, WINDOWS, Floats, Ints

_TILE = 256


@cache
def _noise_tile() -> Floats:
    """A periodic fractal noise image of mean 0 and standard deviation about 1; the same in every scene."""
    rng = np.random.Generator(np.random.Philox(20240613))
    tile = np.zeros((_TILE, _TILE))
    for octave in range(3, 8):
        cells = 2**octave
        lattice = rng.standard_normal((cells, cells))
        position = np.arange(_TILE) * cells / _TILE
        low = position.astype(int)
        blend = position - low
        blend = blend * blend * (3 - 2 * blend)
        rows = lattice[low] * (1 - blend)[:, None] + lattice[(low + 1) % cells] * blend[:, None]
        tile += (rows[:, low] * (1 - blend) + rows[:, (low + 1) % cells] * blend) * 0.62**octave
    scaled: Floats = ((tile - tile.mean()) / tile.std()).astype(np.float32)
    return scaled


def grain_noise(u: Floats, v: Floats) -> Floats:
    """The nearest texel: enough for what is as fine as a pixel."""
    row = (v.astype(np.int32) & (_TILE - 1)) * np.int32(_TILE)
    grain: Floats = _noise_tile().reshape(-1)[row + (u.astype(np.int32) & (_TILE - 1))]
    return grain


def noise(u: Floats, v: Floats) -> Floats:
    """Bilinear look-up; one unit of u or v is one texel of the tile."""
    floor_u, floor_v = np.floor(u), np.floor(v)
    fraction_u, fraction_v = u - floor_u, v - floor_v
    column, row = floor_u.astype(np.int32) & (_TILE - 1), floor_v.astype(np.int32) & (_TILE - 1)
    flat = _noise_tile().reshape(-1)
    row *= _TILE
    right = (column + 1) & (_TILE - 1)
    below = (row + _TILE) & (_TILE * _TILE - 1)
    upper = flat[row + column] * (1 - fraction_u) + flat[row + right] * fraction_u
    lower = flat[below + column] * (1 - fraction_u) + flat[below + right] * fraction_u
    return (upper * (1 - fraction_v) + lower * fraction_v).astype(np.float32, copy=False)


def pattern_mix(
    pattern_P: Ints, u: Floats, v: Floats, level: NDArray[np.bool_], period: Floats, pixel_P: Floats
) -> Floats:
    """The share of the second colour, 0..1; half where the pattern is finer than a pixel."""
    mix_P = np.zeros_like(u)
    a, b = u / period, v / period
    for pattern in (NOISE, CHECKER, PLANKS, BRICKS, WINDOWS, LEAVES, LANES):
        chosen = np.flatnonzero(pattern_P == pattern)
        if not len(chosen):
            continue
        p, q = a[chosen], b[chosen]
        value: Floats
        if pattern == NOISE:
            value = np.float32(0.5) + np.float32(0.35) * noise(p * 9, q * 9)
        elif pattern == CHECKER:
            value = np.mod(np.floor(p) + np.floor(q), 2)
        elif pattern == PLANKS:
            row = np.floor(q * 2)
            along = p * np.float32(0.25) + row * np.float32(0.37)
            value = np.float32(0.5) + np.float32(0.25) * np.sin(row * 12.9 + np.floor(along) * 4.1)
            value = np.where((q * 2 - row < 0.06) | (along - np.floor(along) < 0.012), np.float32(1), value)
        elif pattern == BRICKS:
            row = np.floor(q * 3)
            across = p * np.float32(1.2) + np.float32(0.5) * np.mod(row, 2)
            joint = (q * 3 - row < 0.14) | (across - np.floor(across) < 0.06)
            value = np.where(
                joint, np.float32(1), np.float32(0.2) + np.float32(0.2) * np.sin(row * 7.7 + np.floor(across) * 3.3)
            )
        elif pattern == WINDOWS:
            in_u, in_v = p - np.floor(p), q - np.floor(q)
            pane = (in_u > 0.25) & (in_u < 0.78) & (in_v > 0.22) & (in_v < 0.76)
            value = np.where(pane & ~level[chosen], np.float32(1), np.float32(0))
        elif pattern == LEAVES:
            value = np.float32(0.5) + np.float32(0.6) * noise(p * 40, q * 40)
        else:
            value = ((np.abs(p) % 1 < 0.04) & (q % 1 < 0.5)).astype(np.float32)
        fade = 1 / (1 + np.square(np.float32(1.5) * pixel_P[chosen] / period[chosen]))
        rest = np.float32(0.1 if pattern == LANES else 0.3 if pattern == WINDOWS else 0.5)
        mix_P[chosen] = np.clip(rest + (value - rest) * fade, 0, 1)
    return mix_P
