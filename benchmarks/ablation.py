"""Does leaving out doubtful labels help a student? More seeds, two kinds of labels, real photos, and paired tests.

    nice -n 10 python benchmarks/ablation.py --work runs/ablation --pairs pairs.csv    # it goes on after a kill
    python benchmarks/ablation.py --work runs/ablation --pairs pairs.csv --report    # the tables of what is there

Scenes, labels, students and most arms are those of `student.py`. Settings:

* foreign: labels of a teacher from another family of scenes as they are: wrong nearly everywhere;
* mostly-right: the same labels brought to the exact depth, but for the fifth of each image where they are most wrong
  (in disparity): there what their error exceeds that of the rest stays. So the places and the shape of the failures
  are the teacher's own, and a filter finds them or not with what the teacher's reliability knows.

Filters choose pixels at the resolution of the teacher's labels. The student sees all at `STUDENT`, images averaged,
labels and masks by their nearest pixels, and computes in bfloat16: a run takes seconds instead of minutes.

A student is judged on held-out scenes and, with `--pairs`, on photos with measured depth: a CSV of `photo,depth,scale`
with paths relative to it (depth as `depthsieve evaluate` reads it; `scale` units are a metre). AbsRel, delta1 and
boundary F1 of every scene and photo are kept: each (setting, arm, seed) is a file below `runs/`, written whole when it
is done. It holds a digest of all that the student saw, and is run again only where that has changed: after `labels/`
was made anew with another reliability, those arms that do not ask for it stay. `--part I/N` leaves the others to other
processes or machines that share the folder.

Array legend: N images; H, W pixels; B images of a batch.
"""

import argparse
import csv
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from ablation_report import JUDGES, Run, markdown, read_run, read_runs, report
from numpy.typing import NDArray
from PIL import Image, ImageOps
from student import BATCH, Arm, batches, mask_of
from student_data import HEIGHT, WIDTH, Scenes, Setup, load_scenes, prepare
from tqdm import tqdm

from depthsieve.core.errors import DepthsieveError, UsageError
from depthsieve.core.threads import torch_threads
from depthsieve.demo.student import Student, train_on
from depthsieve.evaluation.ground_truth.folder import read_values
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.evaluation.ground_truth.values import to_metres
from depthsieve.evaluation.metrics import (
    aligned_depth,
    at_shape,
    boundary_f1,
    fitted_alignment,
    has_boundaries,
    metrics_of,
    nearest_at_shape,
    truth_mask,
)
from depthsieve.teachers import load_teacher

ARMS = (
    "none",
    "trim-10",
    *(f"mask-{percent}" for percent in (10, 20, 30)),
    "both-10",
    "random-10",
    "random-30",
    "level-10",
    "level-30",
    "loss-10",
    "oracle-10",
    "exact",
)
SETTINGS = ("foreign", "mostly-right")
SEEDS = 10
STEPS = 200
"""With 400 steps at the full size and teacher `tiny-v1`, AbsRel is 0.3465 with its labels and 0.3311 with exact depth;
with these, 0.348 and 0.333."""

WRONG_SHARE = 0.2
"""Of each image, where labels of the setting mostly-right are wrong."""

LEAST_PIXELS = 500
"""A photo with fewer pixels of measured depth says too little."""

STUDENT = (96, 128)
"""Rows and columns of what a student sees of a scene; photos get about as many pixels."""

SIDE = 16
"""Photos get sides of a multiple of this."""

MOST_POINTS = 20_000
"""Accuracy is judged at up to so many pixels of measured depth, evenly spread over all of them."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo at the student's resolution, and its measured depth at its own: metres, NaN where there is none."""

    name: str
    image_3HW: torch.Tensor
    truth_HW: NDArray[np.float32]


def mostly_right(scenes: Scenes) -> Scenes:
    """The same scenes with labels that are exact but for `WRONG_SHARE` of each image; see above."""
    exact_NHW = scenes.exact_NHW.double().numpy()
    labels = []
    for label_HW, exact_HW in zip(scenes.label_NHW.double().numpy(), exact_NHW, strict=True):
        columns = np.stack([label_HW.ravel(), np.ones(label_HW.size)], axis=1)
        fitted = columns @ np.linalg.lstsq(columns, exact_HW.ravel(), rcond=None)[0]
        error_HW = fitted.reshape(label_HW.shape) - exact_HW
        usual = np.quantile(np.abs(error_HW), 1 - WRONG_SHARE)
        left_HW = np.sign(error_HW) * np.maximum(np.abs(error_HW) - usual, 0)
        labels.append(np.maximum(exact_HW + left_HW, 0))
    return dataclasses.replace(scenes, label_NHW=torch.from_numpy(np.stack(labels)).float())


def read_pairs(table: Path | None, depth_range: tuple[float, float]) -> list[Photo]:
    """The photos of a CSV. Raises UsageError that names the line that cannot be used."""
    if table is None:
        return []
    found = []
    with table.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                scale = float(row["scale"]) if row["scale"] else None
                data = (table.parent / row["depth"]).read_bytes()
                values_HW = read_values(data, row["depth"], scale, None)
                truth_HW = to_metres(values_HW, TruthSettings(scale=scale)).metres_HW
                with Image.open(table.parent / row["photo"]) as image:
                    rgb_HW3 = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            except (KeyError, TypeError, ValueError, OSError, DepthsieveError) as error:
                raise UsageError(f"{table}, line {number}: {error}") from error
            if truth_mask(truth_HW, None, depth_range).sum() < LEAST_PIXELS:
                continue
            found.append(Photo(row["photo"], _at_student_size(rgb_HW3), truth_HW))
    if not found:
        raise UsageError(f"{table} has no photo with {LEAST_PIXELS} pixels of measured depth or more")
    return found


def _at_student_size(rgb_HW3: NDArray[np.uint8]) -> torch.Tensor:
    """As many pixels as a scene has, of the photo's aspect."""
    height, width = rgb_HW3.shape[:2]
    rows = math.sqrt(STUDENT[0] * STUDENT[1] * height / width)
    size = tuple(max(1, round(side / SIDE)) * SIDE for side in (rows * width / height, rows))
    small_HW3 = cv2.resize(rgb_HW3, size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small_HW3).permute(2, 0, 1).contiguous()


def for_student(scenes: Scenes) -> Scenes:
    """The same scenes at `STUDENT`."""
    images = [
        cv2.resize(image_HW3, STUDENT[::-1], interpolation=cv2.INTER_AREA)
        for image_HW3 in scenes.image_N3HW.permute(0, 2, 3, 1).numpy()
    ]
    image_N3HW = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    label_NHW, exact_NHW = nearest_for_student(scenes.label_NHW), nearest_for_student(scenes.exact_NHW)
    return dataclasses.replace(scenes, image_N3HW=image_N3HW, label_NHW=label_NHW, exact_NHW=exact_NHW)


def nearest_for_student(map_NHW: torch.Tensor) -> torch.Tensor:
    """Maps at `STUDENT`, of the pixels whose centres are nearest."""
    rows, columns = (
        ((torch.arange(wanted) + 0.5) * side / wanted).long()
        for wanted, side in zip(STUDENT, map_NHW.shape[1:], strict=True)
    )
    return map_NHW[:, rows[:, None], columns].contiguous()


def judged(disparity_HW: NDArray[np.float32], truth_HW: NDArray[Any], depth_range: tuple[float, float]) -> list[float]:
    """The numbers of `METRICS` as `depthsieve evaluate` has them: accuracy at the truth's resolution, at up to
    `MOST_POINTS`; edges at the map's."""
    mask_HW = truth_mask(truth_HW, None, depth_range)
    points = np.flatnonzero(mask_HW)
    points = points[:: -(-len(points) // MOST_POINTS) or 1]
    grown_P = at_shape(disparity_HW, (truth_HW.shape[0], truth_HW.shape[1])).ravel()[points]
    truth_P = np.asarray(truth_HW).ravel()[points]
    scale, shift = fitted_alignment(grown_P, truth_P, np.ones(len(points), np.bool_), "disparity")
    found = metrics_of(aligned_depth(grown_P, scale, shift, "disparity", depth_range), truth_P)
    known_HW = np.where(mask_HW, truth_HW, np.float32(np.nan)).astype(np.float32)
    known_HW = nearest_at_shape(known_HW, (disparity_HW.shape[0], disparity_HW.shape[1]))
    known = np.isfinite(known_HW)
    edges = math.nan
    if has_boundaries(known_HW, known):
        edges = boundary_f1(aligned_depth(disparity_HW, scale, shift, "disparity", depth_range), known_HW, known)
    return [found["abs_rel"], found["delta1"], edges]


def judge(
    student: Student, held_out: Scenes, photos: Sequence[Photo], depth_range: tuple[float, float]
) -> dict[str, list[list[float]]]:
    """For each of `JUDGES` a row of `METRICS` for each image."""
    scenes = zip(for_student(held_out).image_N3HW, held_out.depth_NHW, strict=True)
    parts = (list(scenes), [(photo.image_3HW, photo.truth_HW) for photo in photos])
    found = {}
    with torch.inference_mode():
        for name, part in zip(JUDGES, parts, strict=True):
            found[name] = [
                judged(student(image_3HW[None].float() / 255)[0].numpy(), truth_HW, depth_range)
                for image_3HW, truth_HW in part
            ]
    return found


def run_one(
    setting: str,
    name: str,
    seed: int,
    steps: int,
    scenes: Scenes,
    mask: "Mask",
    held_out: Scenes,
    photos: Sequence[Photo],
) -> Run:
    """A student trained as the arm says, on the pixels of a mask, and what it is worth."""
    arm, start = Arm.parse(name), time.perf_counter()
    seen = batches(for_student(scenes), arm, mask.student_NHW, seed)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):  # weights change within it
        training = train_on(seen, steps, seed=seed, drop=arm.trim)
    images = judge(training.student, held_out, photos, scenes.setup.depth_range)
    return Run(setting, name, seed, steps, mask.share, time.perf_counter() - start, seen_by(name, scenes), images)


@dataclass(frozen=True, eq=False)
class Mask:
    """Where an arm trains, at `STUDENT`; and the ``share`` of all labelled pixels that it leaves out."""

    student_NHW: torch.Tensor
    share: float

    @classmethod
    def of(cls, arm: Arm, scenes: Scenes, seed: int) -> "Mask":
        mask_NHW = mask_of(arm, scenes, seed)
        share = 0.0 if arm.kind == "exact" else 1 - float(mask_NHW.sum()) / float(scenes.mask(0.0).sum())
        return cls(nearest_for_student(mask_NHW), share)


def seen_by(name: str, scenes: Scenes) -> str:
    """A digest of all that decides what a student of an arm sees, but for the seed. Of reliability that is nothing
    where there is no mask, the mask itself where there is, and for controls how many pixels it leaves out of an image.
    """
    arm = Arm.parse(name)
    maps = [scenes.image_N3HW, scenes.exact_NHW]
    if arm.kind != "exact":
        maps += [scenes.label_NHW, scenes.mask(0.0)]
    if arm.kind in ("mask", "both", "borrowed"):
        maps.append(scenes.mask(arm.drop))
    elif arm.kind not in ("none", "exact", "trim"):
        maps.append(scenes.mask(arm.drop).flatten(1).sum(dim=1))
    whole = hashlib.sha256(f"{STUDENT}".encode())
    for each in maps:
        whole.update(each.contiguous().numpy())
    return whole.hexdigest()[:16]


def run_all(work: Path, setup: Setup, wanted: Sequence[tuple[str, str, int]], steps: int, photos: list[Photo]) -> None:
    """Do the (setting, arm, seed) that have no file yet, or the file of a student that saw something else."""
    plain, held_out = load_scenes(work, setup, "train"), load_scenes(work, setup, "held-out")
    by_setting = {setting: _labels_of(setting, plain) for setting in dict.fromkeys(setting for setting, _, _ in wanted)}
    digests: dict[tuple[str, str], str] = {}
    masks: dict[tuple[str, str], Mask] = {}
    for setting, name, seed in tqdm(wanted, desc="train", unit=" runs"):
        scenes, arm = by_setting[setting], Arm.parse(name)
        if (setting, name) not in digests:
            digests[setting, name] = seen_by(name, scenes)
        run = _same_run(work, name, seed, digests[setting, name])
        if run is None:
            mask = masks.get((setting, name)) or Mask.of(arm, scenes, seed)
            if arm.kind not in ("random", "borrowed"):  # the same for all seeds
                masks[setting, name] = mask
            run = run_one(setting, name, seed, steps, scenes, mask, held_out, photos)
        path = _file(work, setting, name, seed)
        if run.setting != setting or not path.exists() or read_run(path).seen != run.seen:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".{path.name}.part")
            scratch.write_text(dataclasses.replace(run, setting=setting).text())
            scratch.replace(path)


def _same_run(work: Path, name: str, seed: int, seen: str) -> Run | None:
    """A run of a student that saw the same, of any setting: exact depth is that of all."""
    paths = (_file(work, setting, name, seed) for setting in SETTINGS)
    runs = [read_run(path) for path in paths if path.exists()]
    return next((run for run in runs if run.seen == seen), None)


def _file(work: Path, setting: str, name: str, seed: int) -> Path:
    return work / "runs" / setting / f"{name}-{seed:02}.json"


def check_experiment(work: Path, steps: int, pairs: Path | None) -> None:
    """Raise UsageError where `work` has runs of another experiment; runs of two are never put together."""
    digest = hashlib.sha256(pairs.read_bytes()).hexdigest() if pairs is not None else None
    body, marker = json.dumps({"steps": steps, "batch": BATCH, "pairs": digest}), work / "ablation.json"
    if marker.exists() and marker.read_text() != body:
        raise UsageError(f"{marker} is of other steps or pairs than {body}; name a new folder with --work")
    marker.write_text(body)


def shape_of(name: str) -> tuple[int, int]:
    """Of the scenes for a teacher, and of its labels. Raises UsageError for a teacher of metres."""
    teacher = load_teacher(name, device="cpu")
    if teacher.quantity != "disparity":
        raise UsageError(f"teacher {name!r} predicts metres; this needs a relative one")
    shape = teacher.label_shape(HEIGHT, WIDTH)
    if teacher.label_shape(*shape) != shape:
        raise UsageError(f"teacher {name!r} labels scenes of {shape} at another shape")
    return shape


def _print_labels(work: Path, setup: Setup, settings: Sequence[str]) -> None:
    plain = load_scenes(work, setup, "train")
    for setting in settings:
        scenes = _labels_of(setting, plain)
        abs_rel, delta1 = scenes.measured(scenes.label_NHW.numpy())
        print(f"{setting}: training labels have AbsRel {abs_rel:.4f}, delta1 {delta1:.4f} ({setup.scenes} scenes)")


def _labels_of(setting: str, plain: Scenes) -> Scenes:
    return mostly_right(plain) if setting == "mostly-right" else plain


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, such as 1/2")
    return int(number), int(count)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"), help="scenes, labels and runs go here")
    parser.add_argument("--pairs", type=Path, help="CSV of photo,depth,scale: photos with measured depth to judge by")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help=f"default: {' '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of an arm in a setting")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimiser steps of {BATCH} images")
    parser.add_argument("--scenes", type=int, default=400, help="training scenes")
    parser.add_argument("--held-out", type=int, default=150, help="scenes that judge")
    parser.add_argument("--teacher", default="tiny", help="a relative one, as depthsieve label takes it")
    parser.add_argument(
        "--signals", default="", help="what reliability is made of; default: as depthsieve label has it"
    )
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="I/N", help="do every N-th run, from the I-th on")
    parser.add_argument("--report", action="store_true", help="only the tables of the runs that are there")
    parser.add_argument("--markdown", action="store_true", help="also print the differences to none as Markdown")
    chosen = parser.parse_args(arguments)
    try:
        for option in ("seeds", "steps", "scenes", "held_out"):
            if getattr(chosen, option) < 1:
                raise UsageError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(chosen, option)}")
        for name in chosen.arms:
            Arm.parse(name)
        shape = shape_of(chosen.teacher)
        setup = Setup(chosen.scenes, chosen.held_out, chosen.signals, teacher=chosen.teacher, shape=shape)
        photos = read_pairs(chosen.pairs, setup.depth_range)
        arms = list(dict.fromkeys(chosen.arms))
        wanted = [(setting, name, seed) for seed in range(chosen.seeds) for setting in chosen.settings for name in arms]
        prepare(chosen.work, setup)
        check_experiment(chosen.work, chosen.steps, chosen.pairs)
        if not chosen.report:
            number, count = chosen.part
            with torch_threads(1):
                run_all(chosen.work, setup, wanted[number - 1 :: count], chosen.steps, photos)
        _print_labels(chosen.work, setup, chosen.settings)
        report(chosen.work, chosen.teacher, read_runs(chosen.work), wanted)
        if chosen.markdown:
            markdown(read_runs(chosen.work), wanted)
    except DepthsieveError as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt as error:
        raise SystemExit("stopped; the same command goes on") from error


if __name__ == "__main__":
    main()
