"""Which scenes there are: random rooms, table tops, streets and parks, drawn from one seed."""

from __future__ import annotations

import numpy as np

from depthsieve.scenes.indoors import room, table
from depthsieve.scenes.outdoors import park, street
from depthsieve.scenes.solids import World
from depthsieve.scenes.things import Dice

KINDS = ("room", "table", "street", "park")
_SHARES = (0.32, 0.16, 0.28, 0.24)


def build(seed: int, kind: str | None = None) -> World:
    """The world of a seed; `kind` fixes what it is instead of drawing it."""
    dice = Dice(seed)
    drawn = dice.unit()
    if kind is None:
        kind = next(
            (k for k, total in zip(KINDS, np.cumsum(_SHARES).tolist(), strict=True) if drawn < total), KINDS[-1]
        )
    return {"room": room, "table": table, "street": street, "park": park}[kind](dice)
