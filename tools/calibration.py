"""Fits the calibration of reliability: which weights turn signals into the error to be expected.

    python tools/calibration.py --second runs/second/model --out calibration.json

Scenes are rendered, labelled by the teacher, and compared with their exact depth; none of them was in the training of
`tiny-v1`. For every combination of signals, the expected error is a power law of them (see
`depthsieve/reliability/fusion.py`), fitted by quasi-Poisson regression with a logarithmic link: so that the mean of
what is expected is the mean of what is found, whatever the errors' distribution. The second teacher, for the signal
"teachers", is any checkpoint: `train_tiny_v1.py --layers 4 --start pipeline/depthsieve/teachers/tiny-v1` makes a
smaller one.

Your own calibration, from your own scenes or photos, has the same form; `depthsieve recalibrate` takes it.

Array legend: P pixels of all scenes together, F features.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from depthsieve.core.records import Quantity
from depthsieve.labelling.batch import LabelWork
from depthsieve.reliability.fusion import fusion_features

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from observed import Observed, load_work, observe_scenes

FIRST_SEED = 10_000
"""Away from the scenes that other scripts evaluate with, which start at 0, and from those of the training."""

PIXELS = 500
"""Drawn from each scene."""

MOST_ERROR = 1.0
"""Larger errors count as this, which is where the reliability code ends."""

ROUNDS = 50
VERSION = "2"


def fit(features_PF: NDArray[np.float64], error_P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights w that make exp(features w) the expected error: iteratively reweighted least squares. A signal whose
    weight comes out below 0 is left out: more disagreement never means less error."""
    used = list(range(features_PF.shape[1]))
    while True:
        weights_F = np.zeros(features_PF.shape[1])
        weights_F[used] = _unbounded(features_PF[:, used], error_P)
        worst = min(range(2, len(weights_F)), key=weights_F.__getitem__)
        if weights_F[worst] >= 0:
            return weights_F
        used.remove(worst)


def _unbounded(features_PF: NDArray[np.float64], error_P: NDArray[np.float64]) -> NDArray[np.float64]:
    weights_F = np.zeros(features_PF.shape[1])
    weights_F[0] = np.log(error_P.mean())
    for _ in range(ROUNDS):
        expected_P = np.exp(features_PF @ weights_F).clip(1e-6, 10)
        wanted_P = features_PF @ weights_F + (error_P - expected_P) / expected_P
        weighted_PF = features_PF * expected_P[:, None]
        weights_F = np.linalg.solve(weighted_PF.T @ features_PF, weighted_PF.T @ wanted_P)
    return weights_F


def gather(
    work: LabelWork, quantity: Quantity, options: argparse.Namespace
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features [P,F] (a constant, the level, each signal) and errors [P] of pixels drawn from every scene."""
    seeds = range(FIRST_SEED, FIRST_SEED + options.scenes)
    shape = (options.height, options.width)
    rows: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    scenes = observe_scenes(work, seeds, options.family, shape, quantity)
    for number, seen in enumerate(tqdm(scenes, total=options.scenes, desc=f"scenes, {quantity}")):
        rows.append(_drawn(seen, work.signals, quantity, number))
    return np.concatenate([row[0] for row in rows]), np.concatenate([row[1] for row in rows])


def _drawn(
    seen: Observed, signals: tuple[str, ...], quantity: Quantity, number: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    maps = fusion_features(seen.depth_HW, [seen.relative[name] for name in signals], quantity)
    features_FHW = np.stack([np.ones(seen.mask_HW.shape), *(map_HW.double().numpy() for map_HW in maps)])
    known = np.flatnonzero(seen.mask_HW & np.isfinite(features_FHW).all(axis=0))
    chosen = np.random.default_rng(number).choice(known, min(PIXELS, len(known)), replace=False)
    return features_FHW.reshape(len(features_FHW), -1)[:, chosen].T, seen.error_HW.ravel()[chosen].clip(max=MOST_ERROR)


def calibrate(work: LabelWork, options: argparse.Namespace) -> dict[str, Any]:
    teacher, signals = work.teacher, work.signals
    weights: dict[str, dict[str, dict[str, float]]] = {}
    for quantity in ("disparity", "depth") if teacher.quantity == "disparity" else ("depth",):
        features_PF, error_P = gather(work, quantity, options)
        table = weights[quantity] = {}
        for count in range(1, len(signals) + 1):
            for chosen in combinations(range(len(signals)), count):
                names = [signals[index] for index in chosen]
                values = fit(features_PF[:, [0, 1, *(2 + index for index in chosen)]], error_P)
                row = dict(zip(("constant", "level", *names), values.round(4).tolist(), strict=True))
                table["+".join(names)] = row
    return {
        "version": options.version,
        "fitted_on": [teacher.weights_digest],
        "second_teacher": work.second.weights_digest if work.second else None,
        "fitted_by": "tools/calibration.py",
        "scenes": {"family": options.family, "first_seed": FIRST_SEED, "count": options.scenes},
        "weights": weights,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the calibration of reliability on rendered scenes.")
    parser.add_argument("--teacher", default="tiny-v1")
    parser.add_argument("--second", metavar="NAME", help="second teacher; without one, no weights for 'teachers'")
    parser.add_argument("--family", default="home", help="of scenes")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--height", type=int, default=126)
    parser.add_argument("--width", type=int, default=168)
    parser.add_argument("--version", default=VERSION, help="its name, in the label specs and layers made with it")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    body = calibrate(load_work(options.teacher, options.second), options)
    options.out.write_text(json.dumps(body, indent=1) + "\n")
    for quantity, table in body["weights"].items():
        print(f"{quantity}:")
        for names, row in table.items():
            print(f"  {names:44}" + "  ".join(f"{name} {value:+.3f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
