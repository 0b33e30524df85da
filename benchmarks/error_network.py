"""Judges a calibration next to what there is without it, and shows what it finds and misses.

    python benchmarks/error_network.py --scenes 200 --pairs ../rgbd --sheet sheet.png
    python benchmarks/error_network.py --scenes 0 --photos ../photos --sheet photos.png

On rendered scenes of the family `foreign`, which neither `tiny` nor the network has learnt from, and on photos with
measured depth (NAME_rgb.* beside NAME_depth_div1000.png, NAME_div1000.png or NAME_depth_m.npy): AUSE and AURG (Poggi et
al., CVPR 2020) of `|truth - label| / (d + median(d))` and of AbsRel, and what is left of each when the least reliable
10% of the pixels go. `--half 0` or `--half 1` takes the pairs whose name's sha256 is even or odd: networks are chosen
on the first half. The sheet has, for each pair or photo: photo, label, true error, expected error, and what a mask of
10% drops, by codes as labels have them. Of each it prints how much that mask drops, and how often its last code occurs.

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

from depthsieve.images.decode import decode
from depthsieve.jobs.calibrate.examples import Example, example
from depthsieve.jobs.calibrate.judging import DROP, NETWORK, TIMED, Floats, costs, doubts, extra_times, score
from depthsieve.labelling.batch import LabelWork, predict_labels
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.fusion import calibration_for, fuse
from depthsieve.reliability.masking import masked_share, threshold_code, train_mask
from depthsieve.reliability.network import ErrorNetwork, shipped_network
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.scenes import render_scene
from depthsieve.teachers import Batch, Teacher, load_teacher

FEWEST = 500
"""Pixels that a pair must have: those of a single sweep of a lidar say little about an order."""

WITH_LOWRES = ("flip", "lowres")

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
    codes_HW, histogram_256 = coded(expected_HW)
    masked_HW3 = seen.photo_HW3.copy()
    masked_HW3[~train_mask(codes_HW, threshold_code(histogram_256, DROP))] = (255, 0, 80)
    cells = [
        seen.photo_HW3,
        coloured(label_HW, cv2.COLORMAP_INFERNO),
        coloured(shade(seen.errors_2HW[0]), cv2.COLORMAP_VIRIDIS),
        coloured(shade(expected_HW), cv2.COLORMAP_VIRIDIS),
        masked_HW3,
    ]
    width = round(CELL * seen.depth_HW.shape[1] / seen.depth_HW.shape[0])
    return np.hstack([cv2.resize(cell, (width, CELL), interpolation=cv2.INTER_NEAREST) for cell in cells])


def coded(expected_HW: Floats) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The codes of expected errors [H,W], and how often each occurs [256]."""
    codes_HW: NDArray[np.uint8] = encode_error(torch.from_numpy(expected_HW), version=CODE_VERSION).numpy()
    return codes_HW, np.bincount(codes_HW.ravel(), minlength=256)


def told_of(name: str, expected_HW: Floats) -> float:
    """Print what the network says of an image, and how well its codes serve a mask; returns what the mask drops."""
    codes_HW, histogram_256 = coded(expected_HW)
    last = threshold_code(histogram_256, DROP)
    dropped = masked_share(histogram_256, last)
    spread = np.quantile(expected_HW, (0.01, 0.1, 0.5, 0.9, 0.99)).round(4).tolist()
    tied = histogram_256[last] / codes_HW.size
    print(f"{name}: expected, 1 to 99%: {spread}; a mask of 10% drops {dropped:.2%}; code {last} has {tied:.2%}")
    return dropped


@torch.inference_mode()
def others(seen: Example, teacher: Teacher, rgb_HW3: NDArray[np.uint8]) -> dict[str, Floats]:
    """What the flip says as it is, and fused with half the resolution."""
    shape = (seen.depth_HW.shape[0], seen.depth_HW.shape[1])
    batch = Batch.of(torch.from_numpy(teacher.prepare(rgb_HW3, shape))[None].to(teacher.device))
    label, relative = predict_labels(batch, LabelWork(teacher, WITH_LOWRES))
    fused_1HW = fuse(label.depth, relative, teacher.quantity, calibration_for(teacher.quantity, WITH_LOWRES))
    return {"flip, lowres, fused": fused_1HW[0].cpu().numpy(), "flip as it is": relative["flip"][0].cpu().numpy()}


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
    parser.add_argument("--photos", type=Path, help="a folder of photos without depth, for the sheet")
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
        said = doubts(seen, teacher, network, scene.rgb_HW3) | others(seen, teacher, scene.rgb_HW3)
        judged.append((seen, said))
    paid = extra_times(timed[1:])
    rows, strips, on_pairs = list(score("scenes", judged, paid)), [], []
    for folder in options.pairs:
        for name, rgb_HW3, metres_HW in tqdm(list(pairs_in(folder, options.half)), desc="pairs"):
            seen = example(teacher, rgb_HW3, metres_HW)
            if seen.pixels >= FEWEST:
                said = doubts(seen, teacher, network, rgb_HW3) | others(seen, teacher, rgb_HW3)
                on_pairs.append((name, seen, said))
    rows += score("pairs", [(seen, said) for _, seen, said in on_pairs], paid)
    for row in rows:
        print(json.dumps(dataclasses.asdict(row)))
    for name, seen, said in on_pairs:
        one = {row.method: round(row.ause, 4) for row in score("pairs", [(seen, said)], {})}
        told_of(f"{name} {one}", said[NETWORK])
        if name in (options.shown or [each[0] for each in on_pairs[:10]]):
            strips.append(strip(seen, network, teacher))
    dropped = []
    for path in sorted(options.photos.iterdir()) if options.photos else ():
        rgb_HW3 = decode(path.read_bytes()).rgb_HW3
        seen = example(teacher, rgb_HW3, np.zeros(rgb_HW3.shape[:2], np.float32))
        maps = (torch.from_numpy(seen.photo_HW3)[None], torch.from_numpy(seen.depth_HW)[None])
        dropped.append(told_of(path.name, network.expected_error(*maps, teacher.quantity)[0].numpy()))
        strips.append(strip(seen, network, teacher))
    if dropped:
        print(f"photos: a mask of 10% drops {np.mean(dropped):.2%} on average, {np.min(dropped):.2%} at least")
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    if options.sheet and strips:
        width = max(one.shape[1] for one in strips)
        padded = [np.pad(one, ((0, 4), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in strips]
        cv2.imwrite(str(options.sheet), cv2.cvtColor(np.vstack(padded), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
