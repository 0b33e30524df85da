"""A store of 13 made-up pictures in three label shapes, and what its samples must be, for tests of the loader."""

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from storemaker import made_image, made_label

SHAPES = {(28, 42): 6, (42, 28): 4, (28, 28): 3}
IDS = sorted(f"default/{n}.png" for n in range(13))


def truth(image_id: str) -> tuple[Any, Any, Any]:
    """(image [H,W,3], depth [H,W], reliability [H,W]) of a whole label, computed again."""
    number = int(image_id.removeprefix("default/").removesuffix(".png"))
    shape = next(s for s, last in zip(SHAPES, itertools.accumulate(SHAPES.values()), strict=True) if number < last)
    image_HW3 = made_image(number, (2 * shape[0], 2 * shape[1]))[::2, ::2]
    return (image_HW3, *made_label(number, shape))


def largest_threshold(reliabilities: Iterable[Any], drop: float) -> int:
    """By trying: the largest code that masks at most ``drop`` of all valid pixels."""
    codes = np.concatenate([r[r > 0] for r in reliabilities])
    return max(t for t in range(1, 256) if (codes < t).sum() <= Fraction(str(drop)) * codes.size)


def ids_of(batches: Iterable[Any]) -> list[Any]:
    """The ids of each sample or batch."""
    return [batch["id"] for batch in batches]


def same(left: Sequence[Any], right: Sequence[Any]) -> None:
    """Both hold the same samples or batches, to the bit and the type."""
    assert ids_of(left) == ids_of(right)
    for a, b in zip(left, right, strict=True):
        assert list(a) == list(b)
        assert all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a if name != "id")
