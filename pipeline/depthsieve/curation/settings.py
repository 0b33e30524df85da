"""What can be set about curation. Nothing heavy is imported here: the command line reads its defaults from this."""

import math
from dataclasses import dataclass, fields
from typing import Any

from depthsieve.core.errors import UsageError
from depthsieve.core.settings import whole_number

NEAR_DUPLICATES = 0.9
"""Cosine similarity from which two images are near-duplicates, where no other is asked for."""


@dataclass(frozen=True)
class Cut:
    """A comparison of one column with a number: ``least`` says that smaller values go, else larger ones go."""

    option: str
    column: str
    least: bool
    faulty: float | None = None
    """The number that :attr:`CurateSettings.faulty` takes."""

    def words(self, value: float, limit: float) -> str:
        """The reason of an image that goes."""
        return f"{self.column} {value:.4g} is {'under' if self.least else 'over'} {limit:g}"


CUTS = (
    Cut("min_size", "short_side", True),
    Cut("max_dark", "dark", False, 0.5),
    Cut("max_bright", "bright", False, 0.5),
    Cut("min_detail", "detail", True, 0.8),
    Cut("min_sharpness", "sharpness", True, 0.53),
    Cut("max_text", "text", False, 2.85),
    Cut("min_colourfulness", "colourfulness", True),
    Cut("min_depth_range", "depth_range", True),
    Cut("max_flatness", "flatness", False),
    Cut("max_sky", "sky", False),
    Cut("min_reliability", "reliability", True),
    Cut("max_unreliable", "unreliable", False),
)
"""In this order: an image that several would drop is dropped by the first."""


KEEP = ("resolution", "colour", "sharpness", "compression", "reliability")
"""What decides which of near-duplicates stays, in this order: the most pixels; colour before grey; not clearly blurrier
than another of as many pixels; the largest file; the most reliable label. After that, the first by id."""


@dataclass(frozen=True)
class CurateSettings:
    """The options of :func:`depthsieve.curate`; the command line has the same. Steps come in the order of these fields.

    ``where`` is one SQL expression over the columns of the index, true for images that stay. ``faulty`` sets the cuts
    of images that are dark, bright, blurred, without detail, or pages of text to what docs/curation.md found, where
    they are not set themselves. ``near_frames`` (within clips, in time) and ``near_duplicates`` are cosine
    similarities, 0..1; ``keep`` lists, separated by commas, what decides which near-duplicate stays (:data:`KEEP`);
    ``crops`` also finds near-duplicates that show a part of one another, for which images that are somewhat alike are
    read again. ``balance`` is "sources", or a number of clusters of like images; of each at most ``cap`` images stay.
    ``max_images`` keeps the most diverse so many. ``drop`` is what of the pixels training will mask over the dataset,
    which "unreliable" goes by. Raises :class:`UsageError` for an invalid value."""

    where: str | None = None
    faulty: bool = False
    min_size: float | None = None
    max_dark: float | None = None
    max_bright: float | None = None
    min_detail: float | None = None
    min_sharpness: float | None = None
    max_text: float | None = None
    min_colourfulness: float | None = None
    min_depth_range: float | None = None
    max_flatness: float | None = None
    max_sky: float | None = None
    min_reliability: float | None = None
    max_unreliable: float | None = None
    near_frames: float | None = None
    near_duplicates: float | None = None
    keep: str = ",".join(KEEP)
    crops: bool = True
    balance: str | None = None
    cap: int | None = None
    max_images: int | None = None
    drop: float = 0.10

    def __post_init__(self) -> None:
        for cut in CUTS:
            limit = getattr(self, cut.option)
            if limit is not None and not (isinstance(limit, int | float) and math.isfinite(limit)):
                raise UsageError(f"{_both(cut.option)} must be a number, not {limit!r}")
        if self.where is not None and not (isinstance(self.where, str) and self.where.strip()):
            raise UsageError(f"where must be an SQL expression, such as 'sky < 0.5', not {self.where!r}")
        for option in ("near_frames", "near_duplicates"):
            value = getattr(self, option)
            if value is not None and not 0 < value <= 1:
                raise UsageError(f"{_both(option)} must be a similarity over 0 and up to 1, not {value!r}")
        unknown = [name for name in self.keep_names if name not in KEEP]
        if unknown or not self.keep_names:
            raise UsageError(f"keep lists some of {', '.join(KEEP)}, separated by commas, not {self.keep!r}")
        if self.balance is not None and self.balance != "sources" and self.clusters is None:
            raise UsageError(f"balance must be 'sources' or a number of clusters of at least 2, not {self.balance!r}")
        if (self.balance is None) != (self.cap is None):
            raise UsageError("balance and cap go together: how to group images, and how many of a group may stay")
        for option in ("cap", "max_images"):
            value = getattr(self, option)
            if value is not None and (whole_number(value) is None or value < 1):
                raise UsageError(f"{_both(option)} must be a whole number of at least 1, not {value!r}")
        if not 0 <= self.drop < 1:
            raise UsageError(f"drop must be a share from 0 to under 1, not {self.drop!r}")

    @property
    def keep_names(self) -> tuple[str, ...]:
        """What decides which near-duplicate stays, in order."""
        return tuple(name.strip() for name in self.keep.split(",")) if isinstance(self.keep, str) else ()

    @property
    def clusters(self) -> int | None:
        """Into how many clusters ``balance`` groups images; None where it does not."""
        text = str(self.balance)
        return int(text) if text.isascii() and text.isdecimal() and int(text) >= 2 else None

    @property
    def cuts(self) -> tuple[tuple[Cut, float], ...]:
        """The cuts that are made, with their limits, in order."""
        limits = [(cut, getattr(self, cut.option)) for cut in CUTS]
        if self.faulty:
            limits = [(cut, cut.faulty if limit is None else limit) for cut, limit in limits]
        return tuple((cut, float(limit)) for cut, limit in limits if limit is not None)

    def to_json(self) -> dict[str, Any]:
        """What is set, by name."""
        set_now = {one.name: getattr(self, one.name) for one in fields(self)}
        asked = self.near_duplicates is not None
        return {
            name: value
            for name, value in set_now.items()
            if (asked if name in ("keep", "crops") else value is not None and value is not False)
        }


def _both(option: str) -> str:
    """An option as Python spells it, and as the command line does where that differs."""
    flag = "--max" if option == "max_images" else f"--{option.replace('_', '-')}"
    return option if flag == f"--{option}" else f"{option} ({flag})"
