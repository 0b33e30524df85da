"""Measures the embedded teacher on rendered scenes it has never seen, beside two baselines that see no image.

    python benchmarks/evaluate_tiny.py pipeline/depthsieve/teachers/tiny-v1 --json tiny.json

What counts: every pixel nearer than MAX_DEPTH metres (sky and farther ground do not). A map is aligned to the exact
disparity by least squares (scale and shift, one pair an image), held to at least 1 / MAX_DEPTH, and inverted: AbsRel is
mean(|z' - z| / z), delta1 the share with max(z' / z, z / z') < 1.25. The baselines are aligned in the same way: a
constant map, and the mean map (disparity over its 98th percentile) of 300 other scenes of the family.

Whether flip disagreement (the reliability signal of the labels) finds the errors: sparsification after Poggi et al.
(CVPR 2020), abs_rel, 50 steps, most uncertain first, trapezoid; AUSE = area above the oracle's curve, AURG = area under
a random order's.

Array legend: N scenes; H, W pixels; P counted pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import depthsieve
from depthsieve.reliability.fusion import relative_error
from depthsieve.reliability.signals import flip_disagreement
from depthsieve.scenes import render_scene
from depthsieve.teachers import Batch, Teacher

HELD_OUT = range(200)
MEAN_MAP_SEEDS = range(1 << 32, (1 << 32) + 300)
MAX_DEPTH = 80.0
STEPS = 50
Doubles = NDArray[np.float64]


def align(prediction_P: Doubles, disparity_P: Doubles) -> Doubles:
    """The prediction times a scale plus a shift that bring it nearest to the disparity, in depth (metres)."""
    columns_P2 = np.stack([prediction_P, np.ones_like(prediction_P)], axis=1)
    scale, shift = np.linalg.lstsq(columns_P2, disparity_P, rcond=None)[0]
    return 1 / np.maximum(prediction_P * scale + shift, 1 / MAX_DEPTH)


def errors(prediction_HW: NDArray[np.float32], disparity_HW: NDArray[np.float32]) -> tuple[Doubles, float]:
    """|z' - z| / z of each counted pixel, and delta1."""
    counted_HW = disparity_HW >= 1 / MAX_DEPTH
    disparity_P = disparity_HW[counted_HW].astype(np.float64)
    ratio_P = align(prediction_HW[counted_HW].astype(np.float64), disparity_P) * disparity_P
    return np.abs(ratio_P - 1), float((np.maximum(ratio_P, 1 / ratio_P) < 1.25).mean())


def sparsification(error_P: Doubles, uncertainty_P: Doubles) -> tuple[float, float]:
    """(AUSE, AURG) with abs_rel."""

    def curve(order: NDArray[np.int64]) -> Doubles:
        cumulated = np.cumsum(error_P[order[::-1]])  # the most certain first
        kept = [max(1, round(len(order) * (1 - step / STEPS))) for step in range(STEPS)]
        return np.array([cumulated[n - 1] / n for n in kept])

    removed = np.arange(STEPS) / STEPS
    method, oracle = curve(np.argsort(-uncertainty_P, kind="stable")), curve(np.argsort(-error_P, kind="stable"))
    return float(np.trapezoid(method - oracle, removed)), float(np.trapezoid(error_P.mean() - method, removed))


def predict(teacher: Teacher, rgb_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The teacher's disparity, at its own size, brought to the scenes'."""
    _, height, width, _ = rgb_NHW3.shape
    shape = teacher.label_shape(height, width)
    maps = []
    for first in range(0, len(rgb_NHW3), 20):
        images = np.stack([teacher.prepare(rgb_HW3, shape) for rgb_HW3 in rgb_NHW3[first : first + 20]])
        maps += list(teacher.predict(Batch.of(torch.from_numpy(images).to(teacher.device))).depth.cpu().numpy())
    whole = [cv2.resize(map_HW, (width, height), interpolation=cv2.INTER_LINEAR) for map_HW in maps]
    return np.stack(whole).astype(np.float32)


def render(seeds: range, height: int, width: int, family: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    scenes = [render_scene(seed, height, width, family=family) for seed in seeds]
    return np.stack([s.rgb_HW3 for s in scenes]), np.stack([s.disparity_HW for s in scenes])


def evaluate(names: list[str], height: int, width: int, family: str) -> dict[str, Any]:
    rgb_NHW3, disparity_NHW = render(HELD_OUT, height, width, family)
    _, other_NHW = render(MEAN_MAP_SEEDS, height, width, family)
    top_N11 = np.percentile(other_NHW, 98, axis=(1, 2), keepdims=True)
    mean_HW = np.minimum(other_NHW / np.maximum(top_N11, 1e-6), 1.5).mean(axis=0)
    maps = {"mean map": [mean_HW] * len(rgb_NHW3), "constant map": [np.ones_like(mean_HW)] * len(rgb_NHW3)}
    result: dict[str, Any] = {"family": family, "max_depth_m": MAX_DEPTH}
    for name in [*names, *maps]:
        doubts_NHW = None
        if name in names:
            teacher = depthsieve.load_teacher(name)
            maps[name] = list(predict(teacher, rgb_NHW3))
            mirrored = torch.from_numpy(predict(teacher, np.ascontiguousarray(rgb_NHW3[:, :, ::-1])))
            upright = torch.from_numpy(np.stack(maps[name]))
            doubts_NHW = relative_error(upright, flip_disagreement(upright, mirrored, "disparity")).numpy()
        rows, areas = [], []
        for row, (map_HW, disparity_HW) in enumerate(zip(maps[name], disparity_NHW, strict=True)):
            counted_HW = disparity_HW >= 1 / MAX_DEPTH
            if not counted_HW.any():
                continue
            error_P, delta1 = errors(map_HW, disparity_HW)
            rows.append((float(error_P.mean()), delta1))
            if doubts_NHW is not None:
                areas.append(sparsification(error_P, doubts_NHW[row][counted_HW]))
        absrel_N, delta1_N = np.array(rows).T
        result[name] = {
            "absrel_median": float(np.median(absrel_N)),
            "absrel_mean": float(absrel_N.mean()),
            "delta1_median": float(np.median(delta1_N)),
            "delta1_mean": float(delta1_N.mean()),
        }
        if areas:
            ause_N, aurg_N = np.array(areas).T
            result[name] |= {
                "aurg_above_zero": float((aurg_N > 0).mean()),
                "aurg_mean": float(aurg_N.mean()),
                "ause_mean": float(ause_N.mean()),
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure embedded teachers on held-out rendered scenes.")
    parser.add_argument("teachers", nargs="+", help="embedded teachers' names, or folders")
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--family", choices=("home", "foreign"), default="home")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    result = evaluate(options.teachers, options.height, options.width, options.family)
    size = f"{options.height}x{options.width}"
    print(f"{len(HELD_OUT)} held-out {options.family} scenes of {size}, depth up to {MAX_DEPTH:g} m")
    print(
        f"{'':14}{'AbsRel median':>14}{'mean':>8}{'delta1 median':>16}{'mean':>8}{'AURG > 0':>12}{'mean':>8}{'AUSE':>8}"
    )
    for name in (*options.teachers, "mean map", "constant map"):
        r = result[name]
        line = f"{name[-14:]:14}{r['absrel_median']:>14.3f}{r['absrel_mean']:>8.3f}"
        line += f"{r['delta1_median']:>16.3f}{r['delta1_mean']:>8.3f}"
        if "aurg_mean" in r:  # of flip disagreement
            line += f"{r['aurg_above_zero']:>12.1%}{r['aurg_mean']:>8.3f}{r['ause_mean']:>8.3f}"
        print(line)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
