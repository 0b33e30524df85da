"""Measures embedded teachers on photos with measured depth, which nobody trained them on.

    python benchmarks/tiny_on_photos.py PAIRS [PAIRS ...] --teachers tiny tiny-v1 --json photos.json

PAIRS are folders of NAME_rgb.jpg or .png beside NAME_divN.png (depth in metres times N, 0 where nothing was measured)
or NAME_m.npy. A map is aligned to the measured disparity by least squares (one scale and shift an image), held to at
least 1 / MAX_DEPTH, and inverted; AbsRel and delta1 are as in evaluate_tiny.py, over the measured pixels nearer than
MAX_DEPTH, at the measurement's own size. The constant map sees no image.

Edges, on the pairs whose depth is dense: the scale-invariant boundary F1 of Depth Pro (Bochkovskii et al. 2024; ten
thresholds from 1.05 to 1.25, weighted by themselves) of the aligned depth, where both neighbours are measured, on a
grid of EDGE_SIDE pixels on the short side.

Array legend: H, W pixels; P counted pixels.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from evaluate_tiny import MAX_DEPTH, Doubles, errors
from numpy.typing import NDArray

import depthsieve
from depthsieve.teachers import Batch, Teacher

DENSE = 0.7
"""From this share of measured pixels on a pair counts for edges."""
EDGE_SIDE = 192
THRESHOLDS = np.linspace(1.05, 1.25, 10)
Floats = NDArray[np.float32]


def pairs_in(folder: Path) -> list[tuple[str, Path, Path, float]]:
    """(name, photo, depth file, divisor) of each pair."""
    found = []
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(r"(.+?)_(?:depth_)?(?:div(\d+)\.png|m\.npy)", path.name)
        if match is None:
            continue
        photos = [p for p in sorted(folder.glob(f"{match[1]}_rgb.*")) if p.suffix in (".png", ".jpg")]
        if photos:
            found.append((match[1], photos[0], path, float(match[2] or 1)))
    return found


def read_pair(photo: Path, depth: Path, divisor: float) -> tuple[NDArray[np.uint8], Floats]:
    bgr_HW3 = cv2.imread(str(photo), cv2.IMREAD_COLOR)
    assert bgr_HW3 is not None, photo
    raw: Any = np.load(depth) if depth.suffix == ".npy" else cv2.imread(str(depth), cv2.IMREAD_UNCHANGED)
    depth_HW = np.nan_to_num(raw.astype(np.float32) / np.float32(divisor), posinf=0)
    return np.ascontiguousarray(bgr_HW3[..., ::-1]).astype(np.uint8), depth_HW


def predict(teacher: Teacher, rgb_HW3: NDArray[np.uint8]) -> tuple[Floats, float]:
    """The teacher's disparity at its own size, and the seconds that preparing and predicting took."""
    import torch

    start = time.perf_counter()
    image_CHW = teacher.prepare(rgb_HW3, teacher.label_shape(*rgb_HW3.shape[:2]))
    map_HW: Floats = teacher.predict(Batch.of(torch.from_numpy(image_CHW[None]))).depth[0].numpy()
    return map_HW, time.perf_counter() - start


def aligned_depth(map_HW: Floats, disparity_HW: Floats) -> Floats:
    counted_HW = disparity_HW >= 1 / MAX_DEPTH
    columns_P2 = np.stack([map_HW[counted_HW], np.ones(counted_HW.sum())], axis=1)
    scale, shift = np.linalg.lstsq(columns_P2, disparity_HW[counted_HW], rcond=None)[0]
    depth_HW: Floats = (1 / np.maximum(map_HW * scale + shift, 1 / MAX_DEPTH)).astype(np.float32)
    return depth_HW


def boundary_f1(depth_HW: Floats, truth_HW: Floats) -> float:
    """Depth Pro's, over the pairs of neighbours that are both measured."""

    def ratios(value_HW: Floats) -> list[Doubles]:
        down, across = value_HW[1:] / value_HW[:-1], value_HW[:, 1:] / value_HW[:, :-1]
        return [across, 1 / across, down, 1 / down]

    measured_HW = truth_HW > 0
    both = [measured_HW[:, 1:] & measured_HW[:, :-1]] * 2 + [measured_HW[1:] & measured_HW[:-1]] * 2
    safe_HW = np.where(measured_HW, truth_HW, 1).astype(np.float32)
    values = []
    for threshold in THRESHOLDS:
        precision, recall = 0.0, 0.0
        for own, true, seen in zip(ratios(depth_HW), ratios(safe_HW), both, strict=True):
            found, there = (own > threshold) & seen, (true > threshold) & seen
            hits = float((found & there).sum())
            precision += 0.25 * hits / max(1, found.sum())
            recall += 0.25 * hits / max(1, there.sum())
        values.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return float(np.average(values, weights=THRESHOLDS))


def measure(folders: list[Path], names: list[str], size: int | None) -> dict[str, Any]:
    teachers = {name: depthsieve.load_teacher(name, device="cpu", size=size) for name in names}
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for folder in folders:
        for pair, photo, depth_file, divisor in pairs_in(folder):
            rgb_HW3, depth_HW = read_pair(photo, depth_file, divisor)
            measured_HW = depth_HW > 0
            disparity_HW = np.where(measured_HW, 1 / np.where(measured_HW, depth_HW, 1), 0).astype(np.float32)
            row: dict[str, dict[str, float]] = {}
            for name in [*names, "constant map"]:
                if name == "constant map":
                    map_HW, seconds = np.ones((8, 8), np.float32), 0.0
                else:
                    map_HW, seconds = predict(teachers[name], rgb_HW3)
                high, wide = depth_HW.shape
                whole_HW = cv2.resize(map_HW, (wide, high), interpolation=cv2.INTER_LINEAR).astype(np.float32)
                error_P, delta1 = errors(whole_HW, disparity_HW)
                row[name] = {"absrel": float(error_P.mean()), "delta1": delta1, "seconds": seconds}
                if measured_HW.mean() >= DENSE:
                    scale = EDGE_SIDE / min(high, wide)
                    to = (round(wide * scale), round(high * scale))
                    truth = cv2.resize(depth_HW, to, interpolation=cv2.INTER_NEAREST)
                    small = cv2.resize(map_HW, to, interpolation=cv2.INTER_LINEAR).astype(np.float32)
                    near = np.where(truth > 0, 1 / np.where(truth > 0, truth, 1), 0).astype(np.float32)
                    row[name]["boundary_f1"] = boundary_f1(aligned_depth(small, near), truth.astype(np.float32))
            rows[pair] = row
    return {"max_depth_m": MAX_DEPTH, "pairs": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure embedded teachers on photos with measured depth.")
    parser.add_argument("folders", type=Path, nargs="+", metavar="PAIRS")
    parser.add_argument("--teachers", nargs="+", default=["tiny", "tiny-v1"], metavar="NAME", help="names or folders")
    parser.add_argument("--size", type=int, help="short side, for all of them")
    parser.add_argument("--each", action="store_true", help="print each pair, too")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    result = measure(options.folders, options.teachers, options.size)
    pairs, first = result["pairs"], options.teachers[0]
    names = [*options.teachers, "constant map"]
    if options.each:
        for pair, row in pairs.items():
            print(f"{pair:28}" + "".join(f"{row[name]['absrel']:>9.3f}" for name in names))
    print(f"{len(pairs)} pairs, depth up to {MAX_DEPTH:g} m")
    print(
        f"{'':24}{'AbsRel mean':>12}{'median':>8}{'delta1 mean':>13}{'boundary F1':>13}{f'  {first[-16:]} better':>22}"
    )
    for name in names:
        absrel = np.array([row[name]["absrel"] for row in pairs.values()])
        delta1 = np.mean([row[name]["delta1"] for row in pairs.values()])
        edges = [row[name]["boundary_f1"] for row in pairs.values() if "boundary_f1" in row[name]]
        better = np.mean([row[first]["absrel"] < row[name]["absrel"] for row in pairs.values()])
        edge = f"{np.mean(edges):>13.3f}" if edges else f"{'-':>13}"
        print(f"{name[-24:]:24}{absrel.mean():>12.3f}{np.median(absrel):>8.3f}{delta1:>13.3f}{edge}{better:>22.0%}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
