"""Judges a calibration next to what there is without it, and shows what it finds and misses.

    python benchmarks/error_network.py --scenes 200 --pairs ../rgbd --sheet sheet.png

On rendered scenes of the family `foreign`, which neither `tiny` nor the network has learnt from, and on photos with
measured depth (NAME_rgb.* beside NAME_depth_div1000.png, NAME_div1000.png or NAME_depth_m.npy): AUSE and AURG (Poggi et
al., CVPR 2020) of `|truth - label| / (d + median(d))` and of AbsRel, and what is left of each when the least reliable
10% of the pixels go. `--half 0` or `--half 1` takes the pairs whose name's sha256 is even or odd: networks are chosen
on the first half. The sheet has, for each pair: photo, label, true error, expected error, and what a mask of 10% drops.

Array legend: H, W pixels; 3 red, green, blue.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from depthsieve.jobs.calibrate.examples import Example, example
from depthsieve.jobs.calibrate.judging import NETWORK, TIMED, costs, doubts, extra_times, score
from depthsieve.reliability.network import ErrorNetwork, shipped_network
from depthsieve.scenes import render_scene
from depthsieve.teachers import Teacher, load_teacher

FEWEST = 500
"""Pixels that a pair must have: those of a single sweep of a lidar say little about an order."""

CELL = 150
"""Rows of a picture on the sheet."""


def pairs_in(folder: Path, half: int | None) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]:
    """Name, photo [H,W,3] and metres [H,W] of each pair. A crop (`pc_NAME`) is in the half of what it shows."""
    for rgb in sorted(folder.glob("*_rgb.*")):
        name = rgb.stem.removesuffix("_rgb")
        digest = hashlib.sha256(name.removeprefix("pc_").encode()).hexdigest()
        if half is not None and int(digest, 16) % 2 != half:
            continue
        kinds = ("_div*", "_depth_div*", "_depth_m.npy")
        (truth,) = (path for kind in kinds for path in folder.glob(glob_safe(name) + kind))
        if truth.suffix == ".npy":
            metres_HW = np.load(truth, allow_pickle=False).astype(np.float32)
        else:
            metres_HW = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED).astype(np.float32)
            metres_HW /= float(truth.stem.rpartition("div")[2])
        yield name, cv2.cvtColor(cv2.imread(str(rgb)), cv2.COLOR_BGR2RGB), metres_HW


def glob_safe(name: str) -> str:
    """A name as it stands, in a glob."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def strip(seen: Example, network: ErrorNetwork, teacher: Teacher) -> NDArray[np.uint8]:
    """Five pictures side by side. Errors are logarithmic, from 0.01 (dark) to 1 (bright); unknown is grey."""
    maps = (torch.from_numpy(seen.photo_HW3)[None], torch.from_numpy(seen.depth_HW)[None])
    expected_HW = network.expected_error(*maps, teacher.quantity)[0].numpy()
    low, high = np.quantile(seen.depth_HW, (0.01, 0.99))
    label_HW = np.clip((seen.depth_HW - low) / max(high - low, 1e-9), 0, 1)
    dropped_HW = expected_HW >= np.quantile(expected_HW, 0.9)
    masked_HW3 = seen.photo_HW3.copy()
    masked_HW3[dropped_HW] = (255, 0, 80)
    cells = [
        seen.photo_HW3,
        coloured(label_HW, cv2.COLORMAP_INFERNO),
        coloured(shade(seen.errors_2HW[0]), cv2.COLORMAP_VIRIDIS),
        coloured(shade(expected_HW), cv2.COLORMAP_VIRIDIS),
        masked_HW3,
    ]
    width = round(CELL * seen.depth_HW.shape[1] / seen.depth_HW.shape[0])
    return np.hstack([cv2.resize(cell, (width, CELL), interpolation=cv2.INTER_NEAREST) for cell in cells])


def shade(error_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        return np.asarray((np.log10(error_HW) + 2) / 2, np.float32)


def coloured(value_HW: NDArray[np.float32], colours: int) -> NDArray[np.uint8]:
    known_HW = np.isfinite(value_HW) | np.isneginf(value_HW)
    bytes_HW = (np.clip(np.where(known_HW, value_HW, 0), 0, 1) * 255).astype(np.uint8)
    picture_HW3 = cv2.cvtColor(cv2.applyColorMap(bytes_HW, colours), cv2.COLOR_BGR2RGB)
    picture_HW3[~known_HW] = 128
    return np.asarray(picture_HW3, np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge a calibration, and draw what it finds and misses.")
    parser.add_argument("--calibration", type=Path, help="default: the one that comes with the package")
    parser.add_argument("--teacher", default="tiny")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--pairs", type=Path, action="append", default=[])
    parser.add_argument("--half", type=int, choices=(0, 1))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--shown", nargs="*", help="names of the pairs on the sheet; default: the first ten")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = ErrorNetwork.load(options.calibration) if options.calibration else shipped_network()
    if network is None:
        parser.error("this release has no calibration of its own; name one with --calibration")
    teacher = load_teacher(options.teacher, device="cpu")
    judged, timed = [], []
    for seed in tqdm(range(options.scenes), desc="scenes"):
        scene = render_scene(seed, *teacher.label_shape(126, 168), family="foreign")
        seen = example(teacher, scene.rgb_HW3, scene.depth_HW)
        if len(timed) <= TIMED:
            timed.append(costs(seen, teacher, network, scene.rgb_HW3))
        judged.append((seen, doubts(seen, teacher, network, scene.rgb_HW3)))
    paid = extra_times(timed[1:])
    rows, strips, on_pairs = list(score("scenes", judged, paid)), [], []
    for folder in options.pairs:
        for name, rgb_HW3, metres_HW in tqdm(list(pairs_in(folder, options.half)), desc="pairs"):
            seen = example(teacher, rgb_HW3, metres_HW)
            if seen.pixels >= FEWEST:
                on_pairs.append((name, seen, doubts(seen, teacher, network, rgb_HW3)))
    rows += score("pairs", [(seen, said) for _, seen, said in on_pairs], paid)
    for row in rows:
        print(json.dumps(dataclasses.asdict(row)))
    for name, seen, said in on_pairs:
        one = {row.method: round(row.ause, 4) for row in score("pairs", [(seen, said)], {})}
        expected_HW = said[NETWORK]
        print(name, one, "expected, 1 to 99%:", np.quantile(expected_HW, (0.01, 0.1, 0.5, 0.9, 0.99)).round(4).tolist())
        if name in (options.shown or [each[0] for each in on_pairs[:10]]):
            strips.append(strip(seen, network, teacher))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    if options.sheet and strips:
        width = max(one.shape[1] for one in strips)
        padded = [np.pad(one, ((0, 4), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in strips]
        cv2.imwrite(str(options.sheet), cv2.cvtColor(np.vstack(padded), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
