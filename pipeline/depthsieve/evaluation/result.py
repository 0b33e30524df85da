"""What an evaluation found."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from depthsieve.core.records import DatasetNote, ImageFailure, Quantity
from depthsieve.evaluation.metrics import Calibration, ErrorMetric, KeptError, Knee, Sparsification
from depthsieve.evaluation.settings import EvaluateSettings


@dataclass(frozen=True)
class ImageScore:
    """One image: how many pixels were compared, accuracy as :func:`depthsieve.evaluation.metrics.metrics_of`, areas as
    :func:`depthsieve.evaluation.metrics.ause_aurg`, and the rank correlation of reliability and relative error (NaN:
    none)."""

    id: str
    pixels: int
    abs_rel: float
    rmse: float
    log10: float
    delta1: float
    delta2: float
    delta3: float
    ause_abs_rel: float
    aurg_abs_rel: float
    ause_rmse: float
    aurg_rmse: float
    ause_delta1: float
    aurg_delta1: float
    spearman: float


MEASURED = tuple(field.name for field in dataclasses.fields(ImageScore) if field.name not in ("id", "pixels"))


@dataclass(frozen=True)
class Evaluation:
    """Labels of a store against ground truth.

    ``align`` is what was fitted ("none", "scale", "scale-shift"). ``images`` are the scores, sorted by id. ``mean`` and
    ``median`` are over images, by the names of :class:`ImageScore`, each over the images that have a value; so is the
    mean of the ``curves``. ``kept`` is AbsRel after some drops, ``better_than_chance`` the share of images where
    reliability lowers AbsRel (:func:`depthsieve.evaluation.metrics.beats_chance`), ``calibration`` over all pixels.

    ``not_compared``: images that have ground truth, but could not be compared, with the reason. ``without_truth``: ids
    of labels without ground truth; ``without_image``: ground truth without an image in the store. ``notes``: what a
    person should know about the comparison. ``datasets``: where images come from and under which terms, by the names of
    sources of which the store knows it.
    """

    store: str
    ground_truth: str
    settings: EvaluateSettings
    quantity: Quantity
    align: str
    images: tuple[ImageScore, ...]
    mean: dict[str, float]
    median: dict[str, float]
    curves: dict[ErrorMetric, Sparsification]
    kept: tuple[KeptError, ...]
    better_than_chance: float
    knee: Knee
    calibration: Calibration
    not_compared: tuple[ImageFailure, ...]
    without_truth: tuple[str, ...]
    without_image: tuple[str, ...]
    notes: tuple[str, ...]
    datasets: dict[str, DatasetNote] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        """How many pixels were compared in all."""
        return sum(score.pixels for score in self.images)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON's types; what is undefined (NaN) is null."""
        body = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"pixels": self.pixels, **_plain(body)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, float):  # numpy's float64 is one
        return float(value) if math.isfinite(value) else None
    return value
