"""Compare all labels that have ground truth. Axes: H row, W column.

One image is in memory at a time; what grows with their number is a row of scores and a curve each.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import GroundTruthError
from depthsieve.core.progress import with_progress
from depthsieve.core.records import ImageFailure, Shape
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.protocol import GroundTruth
from depthsieve.evaluation.ground_truth.scales import check_scales
from depthsieve.evaluation.ground_truth.settings import GroundTruthQuantity
from depthsieve.evaluation.matching import Matches, Pair, match
from depthsieve.evaluation.metrics import (
    CURVES,
    Bools,
    CodeErrors,
    Comparison,
    CurveMean,
    CurveMetric,
    Floats,
    actual_code_errors,
    aligned_depth,
    at_shape,
    ause_aurg,
    beats_chance,
    boundary_f1,
    chosen_alignment,
    code_denominator,
    compare,
    compared_mask,
    degenerate,
    find_knee,
    has_boundaries,
    kept_errors,
    label_at_shape,
    nearest_at_shape,
    sparsification,
)
from depthsieve.evaluation.notes import Note, TruthObserver, on_scales
from depthsieve.evaluation.result import MEASURED, Evaluation, ImageScore
from depthsieve.evaluation.settings import Alignment, EvaluateSettings
from depthsieve.evaluation.stability import stability_of
from depthsieve.evaluation.writing import prepare_folder, write_evaluation
from depthsieve.storage import expand
from depthsieve.store import Store, open_store

_DROPS = (0.0, 0.05, 0.10, 0.20, 0.30)

_MAX_STRETCH = 1.05
"""The aspect ratios of an image and its ground truth may differ by this factor: both are rounded to whole pixels."""


def evaluate_labels(
    store: str | Path | Store,
    ground_truth: str | Path,
    *,
    out: str | Path | None = None,
    scale: float | None = None,
    scale_by: Mapping[str, float] | Sequence[tuple[str, float]] = (),
    min_depth: float = 0.001,
    max_depth: float = 80.0,
    align: Alignment = "auto",
    min_pixels: int = 100,
    ground_truth_quantity: GroundTruthQuantity = "depth",
    baseline_focal: float | None = None,
    calib_pattern: str | None = None,
    missing: Sequence[float] = (),
    mask_pattern: str | None = None,
    pattern: str | Sequence[str] = (),
    replace: Sequence[tuple[str, str]] = (),
    strip: int = 0,
    associate: float | None = None,
    dataset: str | None = None,
    count_from: int = 1,
    distance_to_depth: float | None = None,
    reliability: str | None = None,
    progress: bool = True,
) -> Evaluation:
    """Compare the labels of a store with ground truth.

    Labels are brought to the ground truth's resolution, depth bilinearly and reliability from the nearest pixel, and
    aligned image by image. Pixels count that have ground truth within the range of depth and a reliability above 0.
    docs/evaluation.md has the formulas, and examples for common data sets.

    Args:
        store: a label store, or its location.
        ground_truth: a folder with a file per image, or an HDF5 file with all maps.
        out: a folder for ``evaluation.json``, ``images.csv``, ``sparsification.png`` and ``calibration.png``.
        scale: how many units of the files are a metre (for inverse depth: one over a metre; for disparity: a pixel).
            None: 1, and files of whole numbers are refused.
        scale_by: for maps in different units: patterns of files and the scale of those that fit, such as
            ``{"*_mm.png": 1000, "kitti/": 256}``. A pattern without a slash fits a name in any folder, one that ends in
            a slash all that is in a folder. ``scale`` is then for files that fit none.
        min_depth: in metres; nearer ground truth does not count.
        max_depth: in metres; farther ground truth does not count.
        align: what is fitted to the ground truth by least squares, image by image, in the label's own quantity: "none",
            "scale", "scale-shift", or "auto": scale and shift for disparity, nothing for metres.
        min_pixels: an image with fewer pixels to compare is not compared, but named in the result.
        ground_truth_quantity: the values of the files: "depth" (metres), "inverse" (one over metres) or "disparity"
            (pixels of a stereo camera, which needs ``baseline_focal`` or ``calib_pattern``).
        baseline_focal: for disparity, the camera's baseline in metres times its focal length in pixels of the ground
            truth: metres are this over the disparity.
        calib_pattern: for disparity, where an image's ``calib.txt`` is (Middlebury, ETH3D), as ``pattern``.
        missing: values, in the files' own units, that mark missing ground truth, besides 0, less, NaN, infinity and the
            largest value of a whole-number type.
        mask_pattern: where an image's mask is, as ``pattern``: a ``.npy`` or PNG file of the ground truth's size, 0
            where ground truth does not count.
        pattern: where in the folder an image's ground truth is. ``{dir}`` is the folder that the image is in, relative
            to its source, ``{stem}`` its name without the suffix, ``{name}`` with it, ``{source}`` the name of its
            source, and ``*`` any one folder. Of several, each is looked for. None: ``{dir}/{stem}`` with one of the
            suffixes .npy, .png, .pfm, .h5, .hdf5, .npz, .exr.
        replace: pairs of texts; before ``pattern``, the first is replaced by the second in the image's path.
        strip: before ``replace``, leave out so many folders at the start of the image's path.
        associate: match by time: an image and its ground truth have numbers in their names that differ by at most so
            many seconds. The closest pairs come first, and no file is used twice.
        dataset: the array in HDF5 and .npz files. None: the only one, and ``depths`` in a ``.mat`` file.
        count_from: the number of the first image, 0 or 1, where one file holds all maps and images are named by number.
        distance_to_depth: the files hold distance to the camera's centre; convert it to depth for this focal length, in
            pixels of the ground truth.
        reliability: the layer to take reliability from (see :func:`depthsieve.recalibrate`). None: the labels.
        progress: show a bar on stderr, or in the notebook.

    Returns:
        The numbers, what could not be compared and why, and notes on what looks wrong.

    Raises:
        UsageError: an invalid option, options that exclude or need each other, a scale that is needed and missing, or
            a file that fits none or two of ``scale_by``.
        GroundTruthError: no ground truth, ground truth that is ambiguous, or nothing that could be compared. Single
            images that cannot be compared raise nothing: they are in the result with their reasons.
        StoreError: no store, a damaged one, or one without that layer.
    """
    settings = EvaluateSettings(
        scale=scale,
        scale_by=tuple(scale_by.items() if isinstance(scale_by, Mapping) else scale_by),
        min_depth=min_depth,
        max_depth=max_depth,
        align=align,
        min_pixels=min_pixels,
        ground_truth_quantity=ground_truth_quantity,
        baseline_focal=baseline_focal,
        calib_pattern=calib_pattern,
        missing=tuple(missing),
        mask_pattern=mask_pattern,
        pattern=pattern if isinstance(pattern, str) else tuple(pattern),
        replace=tuple(replace),
        strip=strip,
        associate=associate,
        dataset=dataset,
        count_from=count_from,
        distance_to_depth=distance_to_depth,
    )
    opened = store if isinstance(store, Store) else open_store(store)
    if reliability is not None:
        opened = opened.with_layer(reliability)
    truth = open_ground_truth(ground_truth, settings)
    matches = match(opened, truth, by_time=associate is not None)
    check_scales([pair.place for pair in matches.pairs], settings)
    folder = None if out is None else prepare_folder(Path(expand(out)))
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
        self._align = chosen_alignment(store.spec.quantity, settings.align)
        self._observer = TruthObserver(settings)
        self._scores: list[ImageScore] = []
        self._failed: list[ImageFailure] = []
        self._curves: dict[CurveMetric, CurveMean] = {metric: CurveMean() for metric in CURVES}
        self._abs_rel: list[Floats] = []
        self._codes = CodeErrors(store.code_version)
        self._better = 0

    def add(self, pair: Pair) -> None:
        """Compare one label; what is wrong with its ground truth is recorded."""
        try:
            truth = self._truth.read(pair.place, pair.id)
            _check_aspect(pair.source_shape, (truth.metres_HW.shape[0], truth.metres_HW.shape[1]))
            self._observer.read(pair.id, truth)
            self._compare(pair, truth.metres_HW)
        except GroundTruthError as error:
            self._failed.append(ImageFailure(pair.id, f"{pair.place}: {error}"))

    def _compare(self, pair: Pair, truth_HW: NDArray[np.float32]) -> None:
        reader, settings, quantity = self._store.reader(pair.shard), self._settings, self._store.spec.quantity
        label_HW, codes_HW = reader.depth(pair.row), reader.reliability(pair.row)
        shape = (truth_HW.shape[0], truth_HW.shape[1])
        depth_HW, reliability_HW = label_at_shape(label_HW, codes_HW, shape)
        self._check_pixels(truth_HW, compared_mask(depth_HW, reliability_HW, truth_HW, settings.depth_range))
        found = compare(depth_HW, reliability_HW, truth_HW, quantity, settings.depth_range, align=settings.align)
        assert found is not None
        self._observer.compared(pair.id, depth_HW[found.mask_HW], truth_HW[found.mask_HW], quantity)
        denominator_HW = at_shape(code_denominator(label_HW), shape)
        errors_HW = actual_code_errors(
            depth_HW, truth_HW, found.mask_HW, denominator_HW, quantity, align=settings.align
        )
        self._codes.add(reliability_HW, errors_HW)
        self._better += beats_chance(found.curves["abs_rel"])
        self._abs_rel.append(found.curves["abs_rel"].method_S)
        if np.isfinite(errors_HW).any():  # else the label is 0 everywhere, and nothing is relative to it
            found.curves["label_error"] = sparsification(errors_HW, reliability_HW)
        boundary = self._boundary(np.where(codes_HW > 0, label_HW, np.nan), found, truth_HW)
        self._scores.append(self._score(pair.id, found, boundary))

    def _score(self, image_id: str, found: Comparison, boundary: float) -> ImageScore:
        areas = dict.fromkeys((f"{area}_{metric}" for area in ("ause", "aurg") for metric in CURVES), math.nan)
        for metric, curve in found.curves.items():
            self._curves[metric].add(curve)
            areas[f"ause_{metric}"], areas[f"aurg_{metric}"] = ause_aurg(curve)
        label_error = found.curves.get("label_error")
        return ImageScore(
            image_id,
            found.pixels,
            found.scale,
            found.shift,
            **found.metrics,
            boundary_f1=boundary,
            label_error=math.nan if label_error is None else float(label_error.random_S[0]),
            **areas,
            spearman=found.spearman,
        )

    def _boundary(self, label_HW: NDArray[np.float32], found: Comparison, truth_HW: NDArray[np.float32]) -> float:
        """On the coarser of the two grids: to enlarge a label smears every edge in it. NaN where it says nothing."""
        known_HW = np.where(found.mask_HW, truth_HW, np.float32(np.nan))
        predicted_HW = found.predicted_HW
        if label_HW.size < truth_HW.size:
            known_HW = nearest_at_shape(known_HW, (label_HW.shape[0], label_HW.shape[1]))
            predicted_HW = aligned_depth(
                label_HW, found.scale, found.shift, self._store.spec.quantity, self._settings.depth_range
            )
        mask_HW = np.isfinite(known_HW) & np.isfinite(predicted_HW)
        return boundary_f1(predicted_HW, known_HW, mask_HW) if has_boundaries(known_HW, mask_HW) else math.nan

    def _check_pixels(self, truth_HW: NDArray[np.float32], mask_HW: Bools) -> None:
        """Raise :class:`GroundTruthError` for too few pixels to say anything, and those that any label would fit."""
        settings, pixels = self._settings, int(mask_HW.sum())
        span = f"from {settings.min_depth:g} to {settings.max_depth:g} m"
        if pixels == 0:
            raise GroundTruthError(f"no pixel has ground truth {span} and a label{_range_of(truth_HW, settings)}")
        exactly = degenerate(truth_HW[mask_HW], self._align)
        if exactly is not None:
            raise GroundTruthError(f"its ground truth is {exactly}")
        if pixels < settings.min_pixels:
            raise GroundTruthError(
                f"{pixels:,} pixel{'s have' if pixels > 1 else ' has'} ground truth {span} and a label, fewer than the "
                f"{settings.min_pixels:,} of --min-pixels"
            )

    def result(self, matches: Matches) -> Evaluation:
        """All of it. Raises :class:`GroundTruthError` if there is nothing."""
        if not self._scores:
            first = self._failed[0]
            raise GroundTruthError(
                f"none of the {len(self._failed)} images with ground truth could be compared; the first: {first.id}: "
                f"{first.reason}"
            )
        curves = {metric: each.mean() for metric, each in self._curves.items() if each.images}
        quantity = self._store.spec.quantity
        return Evaluation(
            store=self._store.location,
            ground_truth=self._truth.location,
            settings=self._settings,
            quantity=quantity,
            align=self._align,
            images=tuple(sorted(self._scores, key=lambda score: score.id)),
            mean={name: _over(np.nanmean, self._scores, name) for name in MEASURED},
            median={name: _over(np.nanmedian, self._scores, name) for name in MEASURED},
            curves=curves,
            kept={metric: kept_errors(curve, _DROPS) for metric, curve in curves.items()},
            better_than_chance=self._better / len(self._scores),
            knee=find_knee(np.stack(self._abs_rel), curves["abs_rel"].dropped_S),
            calibration=self._codes.calibration(),
            not_compared=tuple(sorted((*self._failed, *matches.unusable), key=lambda failure: failure.id)),
            without_truth=matches.without_truth,
            without_image=matches.without_image,
            notes=(
                *_on_times(matches),
                *on_scales([pair.place for pair in matches.pairs], self._settings),
                *self._observer.notes(pair.place for pair in matches.pairs),
            ),
            datasets=dict(self._store.datasets()),
            stability=stability_of(self._store),
        )


def _check_aspect(source_shape: Shape, truth_shape: Shape) -> None:
    """Raise :class:`GroundTruthError` where ground truth cannot be of an image of this (height, width), upright."""
    stretch = (truth_shape[1] / truth_shape[0]) / (source_shape[1] / source_shape[0])
    if not 1 / _MAX_STRETCH <= stretch <= _MAX_STRETCH:
        raise GroundTruthError(
            f"it is {truth_shape[1]}x{truth_shape[0]}, and the upright image {source_shape[1]}x{source_shape[0]}: of "
            "another image, or rotated?"
        )


def _range_of(truth_HW: NDArray[np.float32], settings: EvaluateSettings) -> str:
    known = truth_HW[np.isfinite(truth_HW)]
    if not known.size:
        return " (it is empty" + (" within its mask)" if settings.mask_pattern is not None else ")")
    outside = known.min() > settings.max_depth or known.max() < settings.min_depth
    units = ": is --scale right?" if outside else ""
    return f" (it goes from {known.min():.3g} to {known.max():.3g} m{units})"


def _on_times(matches: Matches) -> tuple[Note, ...]:
    if not matches.apart:
        return ()
    farthest, typical = max(matches.apart), float(np.median(matches.apart))
    number = len(matches.apart)
    return (
        Note(
            "associated-by-time",
            f"{number:,} image{'s' * (number != 1)} matched by time, at most {farthest:.4g} s apart (median "
            f"{typical:.4g} s); {len(matches.without_truth):,} without ground truth near enough",
        ),
    )


def _over(statistic: Any, scores: Sequence[ImageScore], name: str) -> float:
    values = [getattr(score, name) for score in scores]
    if all(math.isnan(value) for value in values):
        return float("nan")
    return float(statistic(values))
