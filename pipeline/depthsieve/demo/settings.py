"""The demo's settings, and which scenes it renders. ``data_manifests/demo-scenes.toml`` says the same."""

from dataclasses import dataclass

from depthsieve.core.errors import UsageError

FIRST_SEED = 1_000_000
TRAINING_SEEDS = 1 << 32
"""The embedded teacher was trained on scenes of the seeds from here on, and on no others."""

HEIGHT, WIDTH = 168, 224
HELD_OUT_PART = 6
"""One in so many scenes, the last ones, is held out: the student is measured on it."""


@dataclass(frozen=True)
class DemoSettings:
    """``scenes`` is the number of scenes, 2 or more; ``seed`` that of the first, the others follow; ``steps`` those of
    the student's training; ``teacher`` as in :func:`depthsieve.label`. Raises :class:`UsageError` for a value out of
    range."""

    scenes: int = 360
    seed: int = FIRST_SEED
    steps: int = 300
    teacher: str = "tiny"

    def __post_init__(self) -> None:
        if self.scenes < 2:
            raise UsageError(f"a demo needs at least 2 scenes, one to learn from and one to measure, not {self.scenes}")
        if self.steps < 1:
            raise UsageError(f"the student needs at least 1 step, not {self.steps}")
        if not 0 <= self.seed <= TRAINING_SEEDS - self.scenes:
            raise UsageError(
                f"the scenes' seeds must lie in 0..{TRAINING_SEEDS - 1} (the teacher was trained on later ones), not "
                f"{self.seed}..{self.seed + self.scenes - 1}"
            )

    @property
    def held_out(self) -> int:
        """How many scenes are held out."""
        return max(1, self.scenes // HELD_OUT_PART)

    @property
    def names(self) -> list[str]:
        """Each scene's name below ``scenes/`` and ``depth/``: ``train/<seed>`` or, at the end, ``held-out/<seed>``."""
        groups = ["train"] * (self.scenes - self.held_out) + ["held-out"] * self.held_out
        return [f"{group}/{self.seed + number}" for number, group in enumerate(groups)]
