"""Which scenes there are, in families, drawn from one seed."""

from __future__ import annotations

import numpy as np

from depthsieve.scenes.foreign import FOREIGN_KINDS, canyon, ruins, warehouse
from depthsieve.scenes.indoors import room, table
from depthsieve.scenes.outdoors import park, street
from depthsieve.scenes.solids import World
from depthsieve.scenes.things import Dice

KINDS = ("room", "table", "street", "park")
FAMILIES = {"home": KINDS, "foreign": FOREIGN_KINDS}
"""Families of kinds. The embedded teacher was trained on ``home`` and has seen nothing of ``foreign``."""

_SHARES = {"home": (0.32, 0.16, 0.28, 0.24), "foreign": (1 / 3, 1 / 3, 1 / 3)}
_BUILDERS = {
    "room": room,
    "table": table,
    "street": street,
    "park": park,
    "warehouse": warehouse,
    "ruins": ruins,
    "canyon": canyon,
}


def build(seed: int, kind: str | None = None, family: str = "home") -> World:
    """The world of a seed; `kind`, of any family, fixes what it is instead of drawing it from `family`."""
    dice = Dice(seed)
    drawn = dice.unit()
    if kind is None:
        kinds, shares = FAMILIES[family], np.cumsum(_SHARES[family]).tolist()
        kind = next((k for k, total in zip(kinds, shares, strict=True) if drawn < total), kinds[-1])
    return _BUILDERS[kind](dice)
