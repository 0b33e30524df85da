"""Measures the embedded teacher on rendered scenes it has never seen, beside two baselines that see no image.

    python benchmarks/evaluate_tiny.py pipeline/depthsieve/teachers/tiny-v1 --json tiny.json

What counts: every pixel nearer than MAX_DEPTH metres (sky and farther ground do not). A map is aligned to the exact
disparity by least squares (scale and shift, one pair an image), held to at least 1 / MAX_DEPTH, and inverted: AbsRel is
mean(|z' - z| / z), delta1 the share with max(z' / z, z / z') < 1.25. The baselines are aligned in the same way: a
constant map, and the mean map (disparity over its 98th percentile) of the first training scenes.

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

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForDepthEstimation

from depthsieve.reliability.fusion import relative_error
from depthsieve.reliability.signals import flip_disagreement
from depthsieve.scenes import render_scenes

HELD_OUT = range(200)
MEAN_MAP_SEEDS = range(1 << 32, (1 << 32) + 1000)  # the first scenes of the training run
MAX_DEPTH = 80.0
STEPS = 50
MEAN_3, STD_3 = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
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


def predict(model: Any, rgb_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    image_NCHW = torch.from_numpy(((rgb_NHW3 / np.float32(255) - MEAN_3) / STD_3).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        maps = [
            model(pixel_values=part.to(model.device)).predicted_depth.float().cpu() for part in image_NCHW.split(20)
        ]
    predicted_NHW: NDArray[np.float32] = torch.cat(maps).numpy()
    return predicted_NHW


def evaluate(folder: Path, height: int, width: int) -> dict[str, Any]:
    model = AutoModelForDepthEstimation.from_pretrained(folder, dtype=torch.float32).eval()
    rgb_NHW3, disparity_NHW = render_scenes(HELD_OUT, height, width)
    _, training_NHW = render_scenes(MEAN_MAP_SEEDS, height, width)
    top_N11 = np.percentile(training_NHW, 98, axis=(1, 2), keepdims=True)
    mean_HW = np.minimum(training_NHW / np.maximum(top_N11, 1e-6), 1.5).mean(axis=0)
    upright_NHW = predict(model, rgb_NHW3)
    mirrored_NHW = predict(model, np.ascontiguousarray(rgb_NHW3[:, :, ::-1]))
    upright, mirrored = torch.from_numpy(upright_NHW), torch.from_numpy(mirrored_NHW)
    doubt_NHW = relative_error(upright, flip_disagreement(upright, mirrored, "disparity")).numpy()
    rows: dict[str, list[tuple[float, float]]] = {"tiny": [], "mean map": [], "constant map": []}
    areas = []
    for prediction_HW, doubt_HW, disparity_HW in zip(upright_NHW, doubt_NHW, disparity_NHW, strict=True):
        if not (disparity_HW >= 1 / MAX_DEPTH).any():
            continue
        error_P, delta1 = errors(prediction_HW, disparity_HW)
        rows["tiny"].append((float(error_P.mean()), delta1))
        areas.append(sparsification(error_P, doubt_HW[disparity_HW >= 1 / MAX_DEPTH]))
        for name, map_HW in (("mean map", mean_HW), ("constant map", np.ones_like(mean_HW))):
            error_P, delta1 = errors(map_HW, disparity_HW)
            rows[name].append((float(error_P.mean()), delta1))
    result: dict[str, Any] = {"scenes": len(areas), "height": height, "width": width, "max_depth_m": MAX_DEPTH}
    for name, values in rows.items():
        absrel_N, delta1_N = np.array(values).T
        result[name] = {
            "absrel_median": float(np.median(absrel_N)),
            "absrel_mean": float(absrel_N.mean()),
            "delta1_median": float(np.median(delta1_N)),
            "delta1_mean": float(delta1_N.mean()),
        }
    ause_N, aurg_N = np.array(areas).T
    result["flip"] = {
        "aurg_above_zero": float((aurg_N > 0).mean()),
        "aurg_mean": float(aurg_N.mean()),
        "ause_mean": float(ause_N.mean()),
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the embedded teacher on held-out rendered scenes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--height", type=int, default=126)
    parser.add_argument("--width", type=int, default=168)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    result = evaluate(options.folder, options.height, options.width)
    size = f"{options.height}x{options.width}"
    print(f"{result['scenes']} held-out scenes of {size}; depth up to {MAX_DEPTH:g} m counts, sky does not")
    print(f"{'':14}{'AbsRel median':>14}{'mean':>8}{'delta1 median':>16}{'mean':>8}")
    for name in ("tiny", "mean map", "constant map"):
        r = result[name]
        print(
            f"{name:14}{r['absrel_median']:>14.3f}{r['absrel_mean']:>8.3f}{r['delta1_median']:>16.3f}{r['delta1_mean']:>8.3f}"
        )
    flip = result["flip"]
    print(f"flip disagreement: AURG > 0 on {flip['aurg_above_zero']:.1%} of the scenes, mean {flip['aurg_mean']:.4f};")
    print(f"                   mean AUSE {flip['ause_mean']:.4f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
