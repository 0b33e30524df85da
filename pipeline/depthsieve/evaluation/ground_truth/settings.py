"""How ground truth is found and read."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from depthsieve.core.errors import UsageError
from depthsieve.core.patterns import check_pattern

GroundTruthQuantity = Literal["depth", "inverse", "disparity"]
"""What the values of the files are: metres, one over metres, or disparity in pixels of a stereo camera."""

SUFFIXES = (".npy", ".png", ".pfm", ".h5", ".hdf5", ".npz", ".exr")
"""Suffixes of the ground truth of one image, in the order in which they are looked for."""

MASK_SUFFIXES = (".npy", ".png")
CALIB_SUFFIXES = (".txt",)

FIELDS = ("dir", "stem", "name", "source")
_FIELD = re.compile(r"\{([^{}]*)\}")

ANY_FOLDER = "\0"
"""Stands for the ``*`` of a pattern in a filled one: a folder of an image may be called ``*`` itself."""


@dataclass(frozen=True)
class TruthSettings:
    """See the options of the same names of :func:`depthsieve.evaluate_labels`.

    Raises :class:`UsageError` for an invalid value, and for options that exclude or need each other.
    """

    pattern: str | tuple[str, ...] = ()
    replace: tuple[tuple[str, str], ...] = ()
    strip: int = 0
    associate: float | None = None
    mask_pattern: str | None = None
    scale: float | None = None
    scale_by: tuple[tuple[str, float], ...] = ()
    ground_truth_quantity: GroundTruthQuantity = "depth"
    baseline_focal: float | None = None
    calib_pattern: str | None = None
    missing: tuple[float, ...] = ()
    dataset: str | None = None
    count_from: int = 1
    distance_to_depth: float | None = None

    def __post_init__(self) -> None:
        for option in ("scale", "associate", "baseline_focal", "distance_to_depth"):
            value = getattr(self, option)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{option} must be a number above 0, not {value!r}")
        if self.strip < 0:
            raise UsageError(f"strip must be 0 or more folders, not {self.strip!r}")
        if self.count_from not in (0, 1):
            raise UsageError(f"count_from must be 0 or 1, not {self.count_from!r}")
        for marker in self.missing:
            if not math.isfinite(marker):
                raise UsageError(f"missing takes finite numbers, not {marker!r}: NaN and infinity are missing anyway")
        for pair in self.replace:
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not pair[0]:
                raise UsageError(f"replace takes pairs of a non-empty text and its replacement, not {pair!r}")
        if self.ground_truth_quantity not in get_args(GroundTruthQuantity):
            known = ", ".join(get_args(GroundTruthQuantity))
            raise UsageError(f"ground_truth_quantity must be one of {known}, not {self.ground_truth_quantity!r}")
        self._check_disparity()
        self._check_scale_by()
        for pattern in self.patterns:
            _check_pattern("pattern", pattern, SUFFIXES)
        _check_pattern("mask_pattern", self.mask_pattern, MASK_SUFFIXES)
        _check_pattern("calib_pattern", self.calib_pattern, CALIB_SUFFIXES)
        if self.calib_pattern is not None and "*" in self.calib_pattern:
            raise UsageError(f"calib_pattern {self.calib_pattern!r} must not contain *")
        for pattern in self.patterns if self.associate is not None else ():
            folder, _, name = pattern.rpartition("/")
            if name.count("{stem}") != 1 or "{name}" in pattern or "{stem}" in folder or "*" in folder:
                raise UsageError(
                    f"with associate, the file name of pattern {pattern!r} must contain {{stem}} once, which "
                    "stands for the timestamp, and the rest neither {stem}, {name} nor *"
                )

    @property
    def patterns(self) -> tuple[str, ...]:
        """``pattern``, one or several; none: the default."""
        return (self.pattern,) if isinstance(self.pattern, str) else self.pattern

    def _check_scale_by(self) -> None:
        for each in self.scale_by:
            if not isinstance(each, tuple | list) or len(each) != 2:
                raise UsageError(f"scale_by takes pairs of a pattern and how many units are a metre, not {each!r}")
            pattern, units = each
            if not isinstance(pattern, str) or not pattern.strip("/"):
                raise UsageError(f"scale_by: {pattern!r} is no pattern of files, such as '*_mm.png' or 'kitti/'")
            try:
                check_pattern(pattern)
            except ValueError as error:
                raise UsageError(f"scale_by: {error}") from error
            if isinstance(units, str) or not 0 < units < math.inf:
                raise UsageError(f"scale_by: {pattern!r} needs a number above 0, not {units!r}")

    def _check_disparity(self) -> None:
        given = [name for name in ("baseline_focal", "calib_pattern") if getattr(self, name) is not None]
        if self.ground_truth_quantity == "disparity":
            if len(given) != 1:
                raise UsageError(
                    "ground truth in disparity needs either baseline_focal, the baseline in metres times the focal "
                    "length in pixels, or calib_pattern, where an image's calib.txt is"
                    + (", not both" if given else "")
                )
        elif given:
            raise UsageError(f"{given[0]} is for ground_truth_quantity='disparity'")
        if self.distance_to_depth is not None and self.ground_truth_quantity != "depth":
            raise UsageError(f"distance_to_depth is for ground truth in metres, not for {self.ground_truth_quantity!r}")


def _check_pattern(option: str, pattern: str | None, suffixes: Sequence[str]) -> None:
    if pattern is None:
        return
    unknown = [field for field in _FIELD.findall(pattern) if field not in FIELDS]
    known = ", ".join(f"{{{field}}}" for field in FIELDS)
    if unknown:
        raise UsageError(f"{option} {pattern!r} has the unknown field {{{unknown[0]}}}; there are {known}")
    if not pattern.lower().endswith(tuple(suffixes)) and not pattern.endswith("{name}"):
        raise UsageError(f"{option} {pattern!r} must end in one of {', '.join(suffixes)}")
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise UsageError(f"{option} {pattern!r} would leave the folder of the ground truth")
    *folders, name = pattern.split("/")
    if "*" in name or any("*" in folder and folder != "*" for folder in folders):
        raise UsageError(f"{option} {pattern!r}: * stands for a whole folder, as in '*/{{dir}}/{{stem}}.png'")


def fill(pattern: str, fields: dict[str, str]) -> str:
    """A pattern with its fields filled in, as a relative path; ``*`` becomes :data:`ANY_FOLDER`."""
    filled = _FIELD.sub(lambda match: fields[match[1]], pattern.replace("*", ANY_FOLDER))
    return "/".join(part for part in filled.split("/") if part not in ("", "."))
