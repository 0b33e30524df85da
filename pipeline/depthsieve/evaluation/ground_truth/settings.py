"""How ground truth is found and read."""

import re
from dataclasses import dataclass

from depthsieve.core.errors import UsageError

SUFFIXES = (".npy", ".png", ".pfm", ".h5", ".hdf5")
"""What ground truth of one image may be called, in the order in which it is looked for."""

FIELDS = ("dir", "stem", "name", "source")
_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class TruthSettings:
    """See the fields of the same names in :class:`depthsieve.evaluation.settings.EvaluateSettings`.

    Raises :class:`UsageError` for a value that cannot be meant.
    """

    pattern: str | None = None
    replace: tuple[tuple[str, str], ...] = ()
    scale: float | None = None
    dataset: str | None = None
    count_from: int = 1
    distance_to_depth: float | None = None

    def __post_init__(self) -> None:
        for option in ("scale", "distance_to_depth"):
            value = getattr(self, option)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{option} must be a number above 0, not {value!r}")
        if self.count_from not in (0, 1):
            raise UsageError(f"count_from must be 0 or 1, not {self.count_from!r}")
        for pair in self.replace:
            if not isinstance(pair, tuple) or len(pair) != 2 or not pair[0]:
                raise UsageError(
                    f"replace takes pairs of a text that is not empty and what stands for it, not {pair!r}"
                )
        if self.pattern is not None:
            self._check_pattern(self.pattern)

    @staticmethod
    def _check_pattern(pattern: str) -> None:
        unknown = [field for field in _FIELD.findall(pattern) if field not in FIELDS]
        known = ", ".join(f"{{{field}}}" for field in FIELDS)
        if unknown:
            raise UsageError(f"pattern {pattern!r} has the unknown field {{{unknown[0]}}}; there are {known}")
        if not pattern.lower().endswith(SUFFIXES) and not pattern.endswith("{name}"):
            raise UsageError(f"pattern {pattern!r} must end in one of {', '.join(SUFFIXES)}")
        if pattern.startswith("/") or ".." in pattern.split("/"):
            raise UsageError(f"pattern {pattern!r} would leave the folder of the ground truth")

    def fill(self, fields: dict[str, str]) -> str:
        """The pattern with its fields filled in, as a relative path."""
        filled = _FIELD.sub(lambda match: fields[match[1]], self.pattern or "")
        return "/".join(part for part in filled.split("/") if part not in ("", "."))
