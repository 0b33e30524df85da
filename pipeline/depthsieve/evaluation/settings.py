"""The options of an evaluation."""

from dataclasses import dataclass
from typing import Literal, get_args

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.ground_truth.settings import TruthSettings

Alignment = Literal["auto", "none", "scale", "scale-shift"]
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)


@dataclass(frozen=True)
class EvaluateSettings(TruthSettings):
    """The options of :func:`depthsieve.evaluate_labels`, which documents them, with their defaults.

    Raises :class:`UsageError` for an invalid value, and for options that exclude or need each other.
    """

    min_depth: float = 0.001
    max_depth: float = 80.0
    align: Alignment = "auto"
    min_pixels: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_depth < self.max_depth < float("inf"):
            raise UsageError(
                f"the range of depth needs 0 < min_depth < max_depth, not {self.min_depth} and {self.max_depth}"
            )
        if self.align not in ALIGNMENTS:
            raise UsageError(f"align must be one of {', '.join(ALIGNMENTS)}, not {self.align!r}")
        if self.min_pixels < 1:
            raise UsageError(f"min_pixels must be 1 or more, not {self.min_pixels!r}")

    @property
    def depth_range(self) -> tuple[float, float]:
        """``min_depth`` and ``max_depth``."""
        return self.min_depth, self.max_depth
