"""What is said about maps that were made elsewhere, and the label spec that it makes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from depthsieve.core.errors import UsageError
from depthsieve.core.records import LabelSpec, Quantity, digest_of
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.reliability.fusion import UNCALIBRATED
from depthsieve.reliability.kinds import NETWORK
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.store.schema import ENCODING

KIND = "imported"
"""The kind of the label spec."""

Means = Literal["higher-is-better", "lower-is-better", "error", "code"]
"""What confidence maps hold: something whose larger or smaller values are better, the expected relative error, or
reliability codes of depthsieve."""

CALIBRATIONS: Mapping[Means | None, str] = {
    None: "none",
    "higher-is-better": f"confidence-{UNCALIBRATED}",
    "lower-is-better": f"confidence-{UNCALIBRATED}",
    "error": "as told",
    "code": "as told",
}

SIGNALS = ("confidence",)
"""The signals of a store whose reliability was imported."""


@dataclass(frozen=True, kw_only=True)
class ValueSettings:
    """What the numbers in the files mean. All of it decides the labels, and is in their spec.

    ``scale`` is how many units of the files are one metre, or one of disparity; ``invalid`` are numbers, as the files
    have them, that mark pixels without depth; ``max_value`` is the largest depth in metres, or disparity, that counts.
    ``distance_to_depth``: the files hold distance to the camera's centre, for this focal length in pixels of the maps.
    ``dataset`` names the array in HDF5 and .npz files. ``made_by`` says in a few words what made the maps: maps of
    other words are of another spec. Raises :class:`UsageError` for a value that is invalid.
    """

    scale: float | None = None
    invalid: tuple[float, ...] = ()
    max_value: float | None = None
    distance_to_depth: float | None = None
    dataset: str | None = None
    confidence_means: Means | None = None
    confidence_range: tuple[float, float] | None = None
    confidence_dataset: str | None = None
    made_by: str = ""

    def __post_init__(self) -> None:
        for option, value in (
            ("scale", self.scale),
            ("max_value (--max)", self.max_value),
            ("distance_to_depth", self.distance_to_depth),
        ):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{option} must be a number above 0, not {value!r}")
        for marker in self.invalid:
            if not math.isfinite(marker):
                raise UsageError(f"invalid takes finite numbers, not {marker!r}: NaN and infinity are invalid anyway")
        if self.confidence_means not in (None, *get_args(Means)):
            raise UsageError(
                f"confidence_means must be one of {', '.join(get_args(Means))}, not {self.confidence_means!r}"
            )
        span = self.confidence_range
        if span is not None:
            if self.confidence_means not in ("higher-is-better", "lower-is-better"):
                raise UsageError("confidence_range is for confidence of which higher or lower is better")
            if len(span) != 2 or not (math.isfinite(span[0]) and math.isfinite(span[1]) and span[0] < span[1]):
                raise UsageError(f"confidence_range takes two numbers, the smaller first, not {span!r}")

    def to_json(self) -> dict[str, Any]:
        """What is set, by name."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), "")}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "ValueSettings":
        """The settings that :meth:`to_json` wrote, tuples as JSON has them."""
        values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in body.items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class PlaceSettings:
    """Where maps are, as :func:`depthsieve.evaluate_labels` has it; ``confidence`` is the pattern of confidence maps.

    ``stretched``: the maps cover their photos whole although their aspects differ.
    """

    pattern: str | None = None
    confidence: str | None = None
    replace: tuple[tuple[str, str], ...] = ()
    strip: int = 0
    stretched: bool = False

    def __post_init__(self) -> None:
        _ = self.maps, self.confidences

    @property
    def maps(self) -> TruthSettings:
        """Where the map of an image is."""
        return TruthSettings(
            pattern=() if self.pattern is None else self.pattern, replace=self.replace, strip=self.strip
        )

    @property
    def confidences(self) -> TruthSettings:
        """Where its confidence map is."""
        try:
            return TruthSettings(
                pattern=() if self.confidence is None else self.confidence, replace=self.replace, strip=self.strip
            )
        except UsageError as error:
            raise UsageError(f"confidence: {error}") from error


def imported_spec(
    quantity: Quantity,
    values: ValueSettings,
    format: str,
    network: ErrorNetwork | None = None,
    code_version: int = CODE_VERSION,
) -> LabelSpec:
    """What decides the labels that are made of such maps; ``format`` is "files", or what wrote them, ``network`` what
    their reliability comes from, where that is no confidence of theirs, and ``code_version`` what codes stand for."""
    made = {"format": format, **values.to_json()}
    weights = digest_of(made)
    if network is not None:
        signals: tuple[str, ...] = (NETWORK,)
    else:
        signals = () if values.confidence_means is None else SIGNALS
    return LabelSpec(
        weights_digest=weights,
        quantity=quantity,
        unit="m" if quantity == "depth" else "",
        dtype="float32",
        preprocessing={"import": made},
        signals=signals,
        calibration=network.name(weights) if network else CALIBRATIONS[values.confidence_means],
        encoding=ENCODING,
        kind=KIND,
        calibration_digest=network.digest if network else "",
        spec_version=code_version,
    )


def other_settings(store: LabelSpec, here: LabelSpec) -> str:
    """In words, which settings differ between a store and an import, as options of the command; "" where none does."""
    there, now = (
        {"quantity": one.quantity, **one.to_json()["preprocessing"].get("import", {})} for one in (store, here)
    )
    pairs = {name: (_shown(there.get(name)), _shown(now.get(name))) for name in {**there, **now}}
    changed = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return "; ".join(f"{_option(name)} {old} there, {new} here" for name, (old, new) in changed.items())


def _option(name: str) -> str:
    names = {"format": "maps are", "max_value": "--max"}
    return names.get(name, "--" + name.replace("_", "-"))


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def settings_in(spec: LabelSpec) -> tuple[ValueSettings, str]:
    """The settings and the format that a spec was made of."""
    body = dict(spec.to_json()["preprocessing"]["import"])
    made_of = str(body.pop("format"))
    return ValueSettings.from_json(body), made_of
