"""The result of an evaluation."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from depthsieve.core.records import DatasetNote, ImageFailure, Quantity
from depthsieve.evaluation.metrics import Calibration, CurveMetric, KeptError, Knee, Sparsification
from depthsieve.evaluation.notes import Note
from depthsieve.evaluation.settings import EvaluateSettings
from depthsieve.evaluation.stability import Stability


@dataclass(frozen=True)
class ImageScore:
    """The numbers of one image.

    ``pixels`` were compared. ``scale`` and ``shift`` were fitted: ``scale * label + shift`` is closest to the ground
    truth, in one over metres for labels in disparity, in metres for others; 1 and 0 where nothing is fitted.
    Accuracy is as :func:`depthsieve.evaluation.metrics.metrics_of` has it, ``boundary_f1`` as
    :func:`depthsieve.evaluation.metrics.boundary_f1` (NaN: the ground truth is too sparse, or has too few edges),
    ``label_error`` the mean of
    :func:`depthsieve.evaluation.metrics.actual_code_errors` (NaN: the label is 0 everywhere), areas as
    :func:`depthsieve.evaluation.metrics.ause_aurg`; ``spearman`` is the rank correlation of reliability and relative
    error (NaN: none).
    """

    id: str
    pixels: int
    scale: float
    shift: float
    abs_rel: float
    rmse: float
    log10: float
    delta1: float
    delta2: float
    delta3: float
    boundary_f1: float
    label_error: float
    ause_abs_rel: float
    aurg_abs_rel: float
    ause_label_error: float
    aurg_label_error: float
    ause_rmse: float
    aurg_rmse: float
    ause_delta1: float
    aurg_delta1: float
    spearman: float


MEASURED = tuple(
    field.name for field in dataclasses.fields(ImageScore) if field.name not in ("id", "pixels", "scale", "shift")
)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Labels of a store against ground truth.

    Attributes:
        store, ground_truth: where they are.
        settings: the options of the evaluation.
        quantity: of the labels, "disparity" or "depth".
        align: what was fitted: "none", "scale" or "scale-shift".
        images: the numbers of each image that was compared, sorted by id.
        mean, median: over images, by the names of :class:`ImageScore` from ``abs_rel`` on; each over the images that
            have a value.
        curves: mean sparsification curves by metric ("abs_rel", "label_error" where it is defined, "rmse", "delta1").
        kept: mean errors after some drops, by metric.
        better_than_chance: the share of images where reliability lowers AbsRel
            (:func:`depthsieve.evaluation.metrics.beats_chance`).
        knee: the ``drop`` that the curve suggests, or why it suggests none.
        calibration: expected against actual errors, over all pixels.
        not_compared: images that have ground truth and could not be compared, with the reason. They are in no mean.
        without_truth: ids of labels without ground truth.
        without_image: ground truth without an image in the store.
        notes: what a person should know about the comparison.
        datasets: where images come from and under which terms, by the names of the sources of which the store knows it.
        stability: how steady labels are in time, in all clips that :func:`depthsieve.align_clips` aligned.
    """

    store: str
    ground_truth: str
    settings: EvaluateSettings
    quantity: Quantity
    align: str
    images: tuple[ImageScore, ...]
    mean: dict[str, float]
    median: dict[str, float]
    curves: dict[CurveMetric, Sparsification]
    kept: dict[CurveMetric, tuple[KeptError, ...]]
    better_than_chance: float
    knee: Knee
    calibration: Calibration
    not_compared: tuple[ImageFailure, ...]
    without_truth: tuple[str, ...]
    without_image: tuple[str, ...]
    notes: tuple[Note, ...]
    datasets: dict[str, DatasetNote] = field(default_factory=dict)
    stability: Stability = field(default_factory=Stability)

    def __repr__(self) -> str:
        mean = ", ".join(f"{name} {self.mean[name]:.4f}" for name in ("abs_rel", "rmse", "delta1", "ause_abs_rel"))
        drop = "no knee" if self.knee.drop is None else f"drop {self.knee.drop:.2f}"
        more = "".join(
            f", {len(found):,} {what}"
            for found, what in (
                (self.not_compared, "not compared"),
                (self.notes, "note" + "s" * (len(self.notes) != 1)),
            )
            if found
        )
        return f"<Evaluation of {len(self.images):,} image{'s' * (len(self.images) != 1)}: {mean}, {drop}{more}>"

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
