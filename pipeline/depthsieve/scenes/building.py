"""Which scenes there are, in families, drawn from one seed."""

from __future__ import annotations

import numpy as np

from depthsieve.scenes.foreign import FOREIGN_KINDS, canyon, ruins, warehouse
from depthsieve.scenes.indoors import room, table
from depthsieve.scenes.outdoors import park, street
from depthsieve.scenes.solids import World
from depthsieve.scenes.things import Dice
from depthsieve.scenes.wild import WILD_KINDS, busy_street, chaos, close_by, crowded_room, desk, open_view, thicket

KINDS = ("room", "table", "street", "park")
FAMILIES = {"home": KINDS, "foreign": FOREIGN_KINDS, "wild": WILD_KINDS}
"""Families of kinds. The embedded teacher was trained on ``home`` and ``wild``, and has seen nothing of ``foreign``."""

_SHARES = {
    "home": (0.32, 0.16, 0.28, 0.24),
    "foreign": (1 / 3, 1 / 3, 1 / 3),
    "wild": (3 / 12, 3 / 12, 2 / 12, 1 / 12, 2 / 12, 1 / 12),
}
_BUILDERS = {
    "room": room,
    "table": table,
    "street": street,
    "park": park,
    "warehouse": warehouse,
    "ruins": ruins,
    "canyon": canyon,
    "crowded_room": open_view(crowded_room),
    "desk": open_view(desk),
    "close_by": open_view(close_by),
    "thicket": open_view(thicket),
    "busy_street": open_view(busy_street),
    "chaos": open_view(chaos),
}


def build(seed: int, kind: str | None = None, family: str = "home") -> World:
    """The world of a seed; `kind`, of any family, fixes what it is instead of drawing it from `family`."""
    dice = Dice(seed)
    drawn = dice.unit()
    if kind is None:
        kinds, shares = FAMILIES[family], np.cumsum(_SHARES[family]).tolist()
        kind = next((k for k, total in zip(kinds, shares, strict=True) if drawn < total), kinds[-1])
    return _BUILDERS[kind](dice)
