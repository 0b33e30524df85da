"""Judges how relative labels are brought to metres: the recipe of `label --metric-from` against simpler fits.

    python benchmarks/metric_fit.py labels/ depth/ 1000
    python benchmarks/metric_fit.py labels/ depth/ 1000 more_labels/ more_depth/ 1     (any number of sets)

STORE holds relative labels of photos whose depth was measured. The measured depth stands for the metric teacher: as it
is, with an error that is the same over some 50 pixels (a third, as a factor), or with a ninth of the picture three
times too near or too far. Each fit sees that; what comes out is compared with the measured depth, by AbsRel and delta1.

Array legend: H, W pixels of the label; P the pixels that count.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.core.errors import GroundTruthError
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.evaluation.matching import match
from depthsieve.reliability.alignment import align_robust, align_scale_shift
from depthsieve.reliability.masking import threshold_code, train_mask
from depthsieve.reliability.metric import fit_metres, to_metres
from depthsieve.store import open_store

MOST_M = 80.0
LEAST_SHARE = 0.01
"""Fewer pixels with measured depth than this share of the label are no stand-in for a teacher."""

Floats = NDArray[np.float64]
Fit = Callable[[Floats, NDArray[np.uint8], Floats], tuple[float, float]]


def ours(label_HW: Floats, codes_HW: NDArray[np.uint8], metres_HW: Floats) -> tuple[float, float]:
    """What `label --metric-from` does."""
    found = fit_metres(label_HW, codes_HW, metres_HW)
    return found.scale, found.shift


def without_reliability(label_HW: Floats, codes_HW: NDArray[np.uint8], metres_HW: Floats) -> tuple[float, float]:
    """The same, unreliable pixels too."""
    return ours(label_HW, np.where(codes_HW > 0, 255, 0).astype(np.uint8), metres_HW)


def aligned(align: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Fit:
    """A fit of inverse depth, on the same pixels."""

    def fit(label_HW: Floats, codes_HW: NDArray[np.uint8], metres_HW: Floats) -> tuple[float, float]:
        kept_HW = train_mask(codes_HW, threshold_code(np.bincount(codes_HW.ravel(), minlength=256), 0.10))
        kept_HW &= np.isfinite(metres_HW)
        maps = (torch.from_numpy(map_HW)[None] for map_HW in (label_HW, 1 / metres_HW))
        scale_1, shift_1 = align(*maps, torch.from_numpy(kept_HW)[None])
        return float(scale_1[0]), float(shift_1[0])

    return fit


FITS: dict[str, Fit] = {
    "least squares of inverse depth": aligned(align_scale_shift),
    "least trimmed squares of inverse depth": aligned(align_robust),
    "ours, without reliability": without_reliability,
    "ours": ours,
}
TEACHERS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "exact": lambda metres_HW, random: metres_HW,
    "rough": lambda metres_HW, random: metres_HW * np.exp(0.3 * _patches(metres_HW.shape, random)),
    "a part wrong": lambda metres_HW, random: (
        np.where(_part(metres_HW.shape, random), 3.0, 1.0) ** random.choice([-1, 1]) * metres_HW
    ),
}


def _patches(shape: tuple[int, ...], random: np.random.Generator) -> Floats:
    """Noise of standard deviation 1 that is the same over some 50 pixels."""
    noise_HW = cv2.GaussianBlur(random.normal(size=shape), (0, 0), 16)
    return np.asarray(noise_HW / noise_HW.std())


def _part(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.bool_]:
    """A ninth of the picture."""
    height, width = shape
    part_HW = np.zeros(shape, np.bool_)
    top, left = random.integers(0, height * 2 // 3), random.integers(0, width * 2 // 3)
    part_HW[top : top + height // 3, left : left + width // 3] = True
    return part_HW


def judge(sets: list[tuple[str, str, float | None]]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """AbsRel and delta1 of each image, by metric teacher and fit."""
    scores: dict[tuple[str, str], list[tuple[float, float]]] = {(one, fit): [] for one in TEACHERS for fit in FITS}
    random = np.random.default_rng(0)
    for location, folder, scale in sets:
        store = open_store(location)
        truth = open_ground_truth(folder, replace(TruthSettings(), scale=scale))
        for pair in match(store, truth).pairs:
            label = store[pair.id]
            try:
                metres_HW = truth.read(pair.place, pair.id).metres_HW
            except GroundTruthError:
                continue
            near = cv2.resize(metres_HW, label.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.float64)
            near[~((near > 0) & (near < MOST_M))] = np.nan
            counted_HW = np.isfinite(near) & (label.reliability > 0)
            if counted_HW.mean() < LEAST_SHARE:
                continue
            for name, teacher in TEACHERS.items():
                seen_HW = teacher(near, random)
                for fit, find in FITS.items():
                    scale, shift = find(label.depth.astype(np.float64), label.reliability, seen_HW)
                    if not scale > 0:
                        scores[name, fit].append((np.nan, np.nan))
                        continue
                    made_HW = to_metres(label.depth, scale, shift)
                    made_P = np.minimum(made_HW[counted_HW], MOST_M)
                    ratio_P = made_P / near[counted_HW]
                    delta1 = float(np.mean((ratio_P < 1.25) & (ratio_P > 0.8)))
                    scores[name, fit].append((float(np.abs(ratio_P - 1).mean()), delta1))
    return scores


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sets", nargs="+", metavar="STORE GROUND_TRUTH SCALE", help="three for each set; scale 1: metres"
    )
    given = parser.parse_args().sets
    if len(given) % 3:
        parser.error("name a store, its ground truth and the scale of that for each set")
    scores = judge([(given[n], given[n + 1], float(given[n + 2])) for n in range(0, len(given), 3)])
    print(f"{len(next(iter(scores.values())))} images; compared where every fit of a row's teacher has a scale above 0")
    print(f"{'metric teacher':16} {'fit':42} {'no fit':>6} {'AbsRel':>7} {'median':>7} {'delta1':>7}")
    for teacher in TEACHERS:
        rows = {fit: np.array(scores[teacher, fit]) for fit in FITS}
        fitted_N = np.all([np.isfinite(scores_N2[:, 0]) for scores_N2 in rows.values()], axis=0)
        for fit, scores_N2 in rows.items():
            none = int(np.isnan(scores_N2[:, 0]).sum())
            abs_rel, delta1 = scores_N2[fitted_N].T
            print(
                f"{teacher:16} {fit:42} {none:6} {abs_rel.mean():7.3f} {np.median(abs_rel):7.3f} {delta1.mean():7.3f}"
            )


if __name__ == "__main__":
    main()
