"""Judges fused labels: how far the merge of two labels is from the truth, and how well its reliability finds errors.

    python benchmarks/fusing.py --second runs/second/model --scenes 200
    python benchmarks/fusing.py --teacher tiny-v1 --second tiny-v1 --second-size 182 --family foreign

Rendered scenes with exact depth are labelled by two teachers (or by one at two sizes), each with the signal flip, as
`depthsieve label` stores them, and merged. One table of all in one run: the labels alone, the merge and other ways to
merge; then the merge with other ways to say how reliable it is. AUSE and AURG are of AbsRel (Poggi et al., CVPR 2020);
`e/actual` is the mean of what is expected over the mean of what is.

Array legend: H, W pixels of the first label; h, w of another.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from observed import FEWEST, RANGE
from tqdm import tqdm

from depthsieve.core.records import Shape
from depthsieve.evaluation.metrics import ause_aurg, pixel_errors, predicted_depth, sparsification, truth_mask
from depthsieve.labelling.batch import LabelWork, predict_labels, reliability_codes
from depthsieve.reliability.alignment import align_robust, align_scale_shift, apply_scale_shift
from depthsieve.reliability.code import decode_error
from depthsieve.reliability.fusion import fuse, relative_error, shipped_calibration
from depthsieve.reliability.merging import OneLabel, merge_labels, on_grid
from depthsieve.scenes import Scene, render_scene
from depthsieve.teachers import Batch, Teacher, load_teacher

SIGNALS = ("flip",)


@dataclass
class Row:
    """One way, over all scenes."""

    abs_rel: list[float] = field(default_factory=list)
    delta1: list[float] = field(default_factory=list)
    areas: list[tuple[float, float]] = field(default_factory=list)
    ratio: list[tuple[float, float]] = field(default_factory=list)

    def add(self, depth_HW: torch.Tensor, e_HW: torch.Tensor, truth_HW: NDArray[np.float32]) -> None:
        mask_HW = truth_mask(truth_HW, None, RANGE) & torch.isfinite(depth_HW).numpy()
        metres_HW = predicted_depth(depth_HW.numpy(), truth_HW, mask_HW, "disparity", RANGE)
        error_HW = pixel_errors(metres_HW, truth_HW, "abs_rel")
        worse_HW = np.maximum(metres_HW / truth_HW, truth_HW / metres_HW)
        self.abs_rel.append(float(error_HW[mask_HW].mean()))
        self.delta1.append(float((worse_HW[mask_HW] < 1.25).mean()))
        self.areas.append(ause_aurg(sparsification(error_HW, -e_HW.double().numpy(), mask_HW)))
        wanted_1HW = 1 / torch.from_numpy(truth_HW)[None].double()
        fit = align_scale_shift(wanted_1HW, depth_HW[None], torch.from_numpy(mask_HW)[None])
        off_HW = apply_scale_shift(wanted_1HW, *fit)[0].float() - depth_HW
        actual_HW = relative_error(depth_HW[None], off_HW[None])[0].numpy()
        self.ratio.append((float(e_HW.numpy()[mask_HW].mean()), float(actual_HW[mask_HW].mean())))

    def summary(self) -> dict[str, float]:
        (ause, aurg), (expected, actual) = np.mean(self.areas, axis=0), np.mean(self.ratio, axis=0)
        return {
            "abs_rel": float(np.mean(self.abs_rel)),
            "delta1": float(np.mean(self.delta1)),
            "ause": float(ause),
            "aurg": float(aurg),
            "expected_over_actual": float(expected / actual),
        }


@torch.inference_mode()
def label(teacher: Teacher, scene: Scene, shape: Shape) -> OneLabel:
    """A scene's label at a shape, as it is stored."""
    rgb_HW3 = scene.rgb_HW3
    if rgb_HW3.shape[:2] != shape:
        rgb_HW3 = np.asarray(cv2.resize(rgb_HW3, shape[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    image = Batch.of(torch.from_numpy(teacher.prepare(rgb_HW3, shape))[None])
    prediction, relative = predict_labels(image, LabelWork(teacher, SIGNALS))
    depth_1hw = prediction.depth
    code_1hw = reliability_codes(depth_1hw, relative, torch.ones_like(depth_1hw, dtype=torch.bool), teacher.quantity)
    return OneLabel(depth_1hw.half().float()[0], code_1hw[0], teacher.quantity)


def judge(labels: Iterator[tuple[Scene, OneLabel, OneLabel]]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    calibration = shipped_calibration()
    for scene, first, second in labels:

        def add(name: str, depth_HW: torch.Tensor, e_HW: torch.Tensor, scene: Scene = scene) -> None:
            rows.setdefault(name, Row()).add(depth_HW, e_HW, scene.depth_HW)

        shape = (first.depth_hw.shape[0], first.depth_hw.shape[1])
        first_e_HW = decode_error(first.code_hw, version=first.code_version)
        second_HW, second_e_HW = on_grid(second, shape)
        merged_HW, e_HW = merge_labels([first, second], calibration)
        aligned_HW = apply_scale_shift(second_HW[None], *align_robust(second_HW[None], first.depth_hw[None]))[0]
        mean_HW = (first.depth_hw + aligned_HW) / 2
        delta_1HW = relative_error(merged_HW[None], (first.depth_hw - aligned_HW)[None])
        apart_HW = fuse(merged_HW[None], {"teachers": delta_1HW}, "disparity", calibration)[0]
        own_HW = (first_e_HW * second_e_HW).sqrt()
        add("first", first.depth_hw, first_e_HW)
        add("second", second_HW, second_e_HW)
        add("fused", merged_HW, e_HW)
        add("plain mean", mean_HW, e_HW)
        add("fused, reliability of the first", merged_HW, first_e_HW)
        add("fused, of both codes (geometric mean)", merged_HW, own_HW)
        add("fused, of the disagreement alone", merged_HW, apart_HW)
        largest_HW = torch.maximum(torch.maximum(apart_HW, first_e_HW), second_e_HW)
        add("fused, the largest of the three", merged_HW, largest_HW)
    return rows


def labelled(options: argparse.Namespace) -> Iterator[tuple[Scene, OneLabel, OneLabel]]:
    first, second = (
        load_teacher(options.teacher, device="cpu"),
        load_teacher(options.second, size=options.second_size, device="cpu"),
    )
    shape = (options.height, options.width)
    for seed in range(options.scenes):
        scene = render_scene(seed, *shape, family=options.family)
        if truth_mask(scene.depth_HW, None, RANGE).sum() >= FEWEST:
            yield scene, label(first, scene, shape), label(second, scene, second.label_shape(*shape))


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge fused labels.")
    parser.add_argument("--teacher", default="tiny")
    parser.add_argument("--second", metavar="NAME", required=True)
    parser.add_argument("--second-size", type=int, metavar="PIXELS", help="short side that the second works at")
    parser.add_argument("--family", default="home", help="of scenes")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--height", type=int, default=126)
    parser.add_argument("--width", type=int, default=168)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {name: row.summary() for name, row in judge(tqdm(labelled(options), total=options.scenes)).items()}
    print("| way | AbsRel | delta1 | AUSE | AURG | e/actual |\n| --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        cells = (f"{row['abs_rel']:.4f}", f"{row['delta1']:.3f}", f"{row['ause']:.4f}", f"{row['aurg']:.4f}")
        print(f"| {name} | {' | '.join(cells)} | {row['expected_over_actual']:.2f} |")
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": ""}, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
