"""Compare all labels that have ground truth. Axes: H row, W column.

One image is in memory at a time; what grows with their number is a row of scores each.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import GroundTruthError, UsageError
from depthsieve.core.progress import with_progress
from depthsieve.core.records import ImageFailure, Shape
from depthsieve.evaluation.ground_truth.folder import NEEDS_SCALE, needs_scale
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.protocol import GroundTruth
from depthsieve.evaluation.matching import Matches, Pair, match
from depthsieve.evaluation.metrics import (
    METRICS,
    CodeErrors,
    CurveMean,
    actual_code_errors,
    at_shape,
    ause_aurg,
    beats_chance,
    chosen_alignment,
    code_denominator,
    compare,
    find_knee,
    kept_errors,
    label_at_shape,
)
from depthsieve.evaluation.result import MEASURED, Evaluation, ImageScore
from depthsieve.evaluation.settings import EvaluateSettings
from depthsieve.evaluation.writing import prepare_folder, write_evaluation
from depthsieve.store import Store, open_store

DROPS = (0.0, 0.05, 0.10, 0.20, 0.30)

MAX_STRETCH = 1.05
"""The aspect ratios of an image and its ground truth may differ by this factor: both are rounded to whole pixels."""

HYPERSIM = ".depth_meters."
HYPERSIM_NOTE = (
    "files called depth_meters are Hypersim's, which hold distance to the camera's centre and not depth: "
    "--distance-to-depth 886.81 makes them planar (at 1024 x 768)"
)


def evaluate_labels(
    store: str | Path | Store,
    ground_truth: str | Path,
    *,
    out: str | Path | None = None,
    reliability: str | None = None,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Compare the labels of a store with ground truth.

    Labels are brought to the ground truth's resolution, depth bilinearly and reliability from the nearest pixel, and
    aligned image by image. Pixels count that have ground truth within the range of depth and a reliability above 0.
    docs/evaluation.md has the formulas.

    Args:
        store: a label store, or where it is.
        ground_truth: a folder with a file an image, or an HDF5 file with all maps.
        out: a folder for ``evaluation.json``, ``images.csv``, ``sparsification.png`` and ``calibration.png``.
        reliability: the layer that reliability is taken from (see :func:`depthsieve.recalibrate`); None: the labels.
        progress: show a bar on stderr, or in the notebook.
        options: the fields of :class:`depthsieve.evaluation.settings.EvaluateSettings`.

    Raises:
        UsageError: an option that cannot be meant, or a scale that is needed and not there.
        GroundTruthError: no ground truth, ground truth that is ambiguous, or nothing that could be compared. Single
            images that cannot be compared raise nothing: they stand in the result with their reasons.
        StoreError: no store, a damaged one, or one without that layer.
    """
    try:
        settings = EvaluateSettings(**options)
    except TypeError as error:
        raise UsageError(str(error).replace("EvaluateSettings.__init__()", "evaluate_labels()")) from None
    opened = store if isinstance(store, Store) else open_store(store)
    if reliability is not None:
        opened = opened.with_layer(reliability)
    truth = open_ground_truth(ground_truth, settings)
    matches = match(opened, truth)
    if settings.scale is None and any(needs_scale(pair.place) for pair in matches.pairs):
        raise UsageError(NEEDS_SCALE)
    folder = None if out is None else prepare_folder(Path(out))
    gathered = _Gathered(opened, truth, settings)
    for pair in with_progress(matches.pairs, "evaluate", unit="labels", shown=progress):
        gathered.add(pair)
    result = gathered.result(matches)
    if folder is not None:
        write_evaluation(result, folder)
    return result


class _Gathered:
    """Sums over the images compared so far, and their rows."""

    def __init__(self, store: Store, truth: GroundTruth, settings: EvaluateSettings) -> None:
        self._store, self._truth, self._settings = store, truth, settings
        self._scores: list[ImageScore] = []
        self._failed: list[ImageFailure] = []
        self._curves = {metric: CurveMean() for metric in METRICS}
        self._codes = CodeErrors()
        self._better = 0

    def add(self, pair: Pair) -> None:
        """Compare one label; what is wrong with its ground truth is noted down."""
        try:
            truth_HW = self._truth.read(pair.place)
            check_aspect(pair.source_shape, (truth_HW.shape[0], truth_HW.shape[1]))
            self._compare(pair, truth_HW)
        except GroundTruthError as error:
            self._failed.append(ImageFailure(pair.id, f"{pair.place}: {error}"))

    def _compare(self, pair: Pair, truth_HW: NDArray[np.float32]) -> None:
        reader, settings, quantity = self._store.reader(pair.shard), self._settings, self._store.spec.quantity
        label_HW, codes_HW = reader.depth(pair.row), reader.reliability(pair.row)
        shape = (truth_HW.shape[0], truth_HW.shape[1])
        depth_HW, reliability_HW = label_at_shape(label_HW, codes_HW, shape)
        found = compare(depth_HW, reliability_HW, truth_HW, quantity, settings.depth_range, align=settings.align)
        if found is None:
            raise GroundTruthError(
                f"no pixel has ground truth from {settings.min_depth:g} to {settings.max_depth:g} m and a label"
                f"{_range_of(truth_HW)}"
            )
        denominator_HW = at_shape(code_denominator(label_HW), shape)
        errors_HW = actual_code_errors(
            depth_HW, truth_HW, found.mask_HW, denominator_HW, quantity, align=settings.align
        )
        self._codes.add(reliability_HW, errors_HW)
        self._better += beats_chance(found.curves["abs_rel"])
        areas = {}
        for metric, curve in found.curves.items():
            self._curves[metric].add(curve)
            areas[f"ause_{metric}"], areas[f"aurg_{metric}"] = ause_aurg(curve)
        self._scores.append(ImageScore(pair.id, found.pixels, **found.metrics, **areas, spearman=found.spearman))

    def result(self, matches: Matches) -> Evaluation:
        """All of it. Raises :class:`GroundTruthError` if there is nothing."""
        if not self._scores:
            first = self._failed[0]
            raise GroundTruthError(
                f"none of the {len(self._failed)} images with ground truth could be compared; the first: {first.id}: "
                f"{first.reason}"
            )
        curves = {metric: self._curves[metric].mean() for metric in METRICS}
        quantity = self._store.spec.quantity
        return Evaluation(
            store=self._store.location,
            ground_truth=self._truth.location,
            settings=self._settings,
            quantity=quantity,
            align=chosen_alignment(quantity, self._settings.align),
            images=tuple(sorted(self._scores, key=lambda score: score.id)),
            mean={name: _over(np.nanmean, self._scores, name) for name in MEASURED},
            median={name: _over(np.nanmedian, self._scores, name) for name in MEASURED},
            curves=curves,
            kept=kept_errors(curves["abs_rel"], DROPS),
            better_than_chance=self._better / len(self._scores),
            knee=find_knee(self._curves["abs_rel"]),
            calibration=self._codes.calibration(),
            not_compared=tuple(sorted((*self._failed, *matches.without_label), key=lambda failure: failure.id)),
            without_truth=matches.without_truth,
            without_image=matches.without_image,
            notes=_notes(self._settings, (pair.place for pair in matches.pairs)),
            datasets=dict(self._store.datasets()),
        )


def check_aspect(source_shape: Shape, truth_shape: Shape) -> None:
    """Raise :class:`GroundTruthError` where ground truth cannot be of an image of this (height, width), upright."""
    stretch = (truth_shape[1] / truth_shape[0]) / (source_shape[1] / source_shape[0])
    if not 1 / MAX_STRETCH <= stretch <= MAX_STRETCH:
        raise GroundTruthError(
            f"it is {truth_shape[1]}x{truth_shape[0]}, and the upright image {source_shape[1]}x{source_shape[0]}: of "
            "another image, or rotated?"
        )


def _range_of(truth_HW: NDArray[np.float32]) -> str:
    known = truth_HW[np.isfinite(truth_HW) & (truth_HW > 0)]
    return f" (it goes from {known.min():.3g} to {known.max():.3g} m)" if known.size else " (it is empty)"


def _over(statistic: Any, scores: Sequence[ImageScore], name: str) -> float:
    values = [getattr(score, name) for score in scores]
    if all(math.isnan(value) for value in values):
        return float("nan")
    return float(statistic(values))


def _notes(settings: EvaluateSettings, places: Iterable[str]) -> tuple[str, ...]:
    if settings.distance_to_depth is None and any(HYPERSIM in place for place in places):
        return (HYPERSIM_NOTE,)
    return ()
