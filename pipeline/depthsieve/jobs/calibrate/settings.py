"""The options of ``calibrate``, and which scenes it renders."""

from dataclasses import dataclass

from depthsieve.core.errors import UsageError

FIRST_SEED = 1 << 48
"""Of the scenes to learn from: away from those that the embedded teacher has seen, and from all that others render."""

LEARNT = ("home", "wild")
JUDGED = "foreign"
"""Families of scenes: those to learn from, and the one that is never learnt from.

The scale of expected errors is fitted to scenes of the latter, others than those that are judged: on the former a
teacher may have been trained, and is better than on photos."""

MOST_SCALED, SCALED_SHARE = 48, 0.25
"""How many scenes give the scale, and that many for each scene to learn from, if this is less."""

MOST_SEED = 1 << 20


@dataclass(frozen=True)
class CalibrateSettings:
    """``scenes`` to learn from, and ``judged`` ones of another family to judge on; ``steps`` of training; ``seed`` of
    all that is drawn. Raises :class:`UsageError` for a value out of range."""

    scenes: int = 800
    judged: int = 100
    steps: int = 800
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scenes < 20:
            raise UsageError(f"scenes must be 20 or more, not {self.scenes}")
        if self.judged < 1 or self.steps < 1:
            raise UsageError(f"judged and steps must be 1 or more, not {self.judged} and {self.steps}")
        if not 0 <= self.seed < MOST_SEED:
            raise UsageError(f"seed must lie in 0..{MOST_SEED - 1}, not {self.seed}")

    @property
    def scaled(self) -> int:
        """How many scenes the scale of expected errors is fitted to."""
        return min(MOST_SCALED, int(self.scenes * SCALED_SHARE))
