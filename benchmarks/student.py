"""Does leaving out doubtful pseudo-labels help a student? The recipe of Depth Anything V2 in small, with exact depth.

    python benchmarks/student.py --work runs/student --jobs 2          # every arm, 5 seeds: an hour or more
    python benchmarks/student.py --work runs/student --report          # the table and the figure of what is there

The teacher `tiny-v1`, trained on one family of rendered scenes, labels another one (`scenes.FAMILIES`): its mistakes
are real, none is put in. Students learn from these labels and are judged on scenes that neither has seen, against exact
depth (AbsRel, delta1: aligned by scale and shift, depth up to 80 m). Arms:

* none: every labelled pixel;
* trim-D: `TrimmedLoss` leaves out the D% of largest loss of each image, at each step;
* mask-D: `PseudoLabelDataset` masks the D% least reliable pixels of each image; both-D: mask and trim;
* random-D: as many pixels of each image as mask-D masks, any of them; borrowed-D: the mask-D of another image, which
  has the shape and place of such masks but knows nothing of this image's mistakes;
* oracle-D: as many pixels again, those where the label is most wrong (AbsRel; sky counts as 80 m); loss-D: those where
  it is most wrong in the student's own loss; level-D: those that the label says are farthest (with `ablation.py`);
* exact: exact depth instead of labels, no filter: what there is to win.

All arms of a seed share the student's first weights, the steps, and the images in their order and mirroring: the same
pixels are seen, the filter decides which of them count. A run is a row of `runs.csv`, written when it is done; rows
that are there are not run again, so the benchmark can be stopped at any time and goes on with the same command.

Array legend: N images; H, W pixels; B images of a batch; C, 3 colour channels.
"""

import argparse
import csv
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from student_data import Scenes, Setup, load_scenes, prepare
from student_report import FIELDS, read_rows, report
from tqdm import tqdm

from depthsieve.core.errors import DepthsieveError, UsageError
from depthsieve.core.lifelines import die_with_parent
from depthsieve.core.threads import torch_threads
from depthsieve.demo.student import Student, train_on
from depthsieve.evaluation.metrics import depth_metrics
from depthsieve.training.epoch import shuffled, stream

ARMS = (
    "none",
    *(f"trim-{percent}" for percent in (5, 10, 20, 30)),
    *(f"mask-{percent}" for percent in (5, 10, 20, 30)),
    "both-10",
    "random-10",
    "borrowed-10",
    "oracle-10",
    "exact",
)
FILTERS = ("trim", "mask", "both", "random", "borrowed", "oracle", "loss", "level")
BATCH = 8
STEPS = 400


@dataclass(frozen=True)
class Arm:
    """What is left out: ``kind`` is none, exact or one of FILTERS, ``drop`` its share."""

    kind: str
    drop: float = 0.0

    @classmethod
    def parse(cls, name: str) -> "Arm":
        kind, _, percent = name.partition("-")
        if name in ("none", "exact"):
            return cls(name)
        if kind in FILTERS and percent.isdecimal() and 0 < int(percent) < 100:
            return cls(kind, int(percent) / 100)
        raise UsageError(
            f"unknown arm {name!r}; there are none, exact, and {', '.join(FILTERS)} with a percentage: mask-10"
        )

    @property
    def trim(self) -> float:
        return self.drop if self.kind in ("trim", "both") else 0.0


def mask_of(arm: Arm, scenes: Scenes, seed: int) -> torch.Tensor:
    """[N,H,W] bool: the pixels that an arm trains on, before any trim."""
    all_NHW = scenes.mask(0.0)
    if arm.kind in ("none", "exact", "trim"):
        return all_NHW if arm.kind != "exact" else torch.ones_like(all_NHW)
    masked_NHW = scenes.mask(arm.drop)
    if arm.kind in ("mask", "both"):
        return masked_NHW
    if arm.kind == "borrowed":  # never an image's own
        return all_NHW & masked_NHW.roll(1 + seed % max(1, len(masked_NHW) - 1), dims=0)
    left_out_N = (all_NHW & ~masked_NHW).flatten(1).sum(dim=1).tolist()
    result_NHW = all_NHW.clone()
    for image, left_out in enumerate(left_out_N):
        if arm.kind == "oracle":
            rank_HW = scenes.label_error(image)
        elif arm.kind == "loss":
            rank_HW = scenes.loss_error(image)
        elif arm.kind == "level":
            rank_HW = -scenes.label_NHW[image].double().numpy()
        else:
            rank_HW = np.random.default_rng((seed, image)).random(all_NHW.shape[1:])
        rank_HW = np.where(all_NHW[image].numpy(), rank_HW, -np.inf)
        worst = np.argsort(-rank_HW, axis=None, kind="stable")[:left_out]
        result_NHW[image].view(-1)[torch.from_numpy(worst)] = False
    return result_NHW


def batches(
    scenes: Scenes, arm: Arm, mask_NHW: torch.Tensor, seed: int, batch: int = BATCH
) -> Iterator[dict[str, Any]]:
    """Batches without end. Which images, in what order and how mirrored depends on the seed alone."""
    target_NHW = scenes.exact_NHW if arm.kind == "exact" else scenes.label_NHW
    count = len(target_NHW)
    batch = min(batch, count)
    for epoch in itertools.count():
        order = shuffled(count, "order", seed, epoch)
        mirrored = torch.from_numpy((stream("mirror", seed, epoch).random_raw(count) >> np.uint64(63)).astype(bool))
        for start in range(0, count - batch + 1, batch):
            chosen = torch.from_numpy(order[start : start + batch].astype(np.int64))
            flip = mirrored[chosen]
            yield {
                "image": _mirror(scenes.image_N3HW[chosen], flip).float() / 255,
                "depth": _mirror(target_NHW[chosen], flip),
                "mask": _mirror(mask_NHW[chosen], flip),
            }


def _mirror(maps: torch.Tensor, flip_B: torch.Tensor) -> torch.Tensor:
    return torch.where(flip_B.view(-1, *[1] * (maps.dim() - 1)), maps.flip(-1), maps)


def judge(student: Student, held_out: Scenes, depth_range: tuple[float, float]) -> tuple[float, float]:
    """AbsRel and delta1 against exact depth, means over the held-out scenes."""
    found = []
    with torch.inference_mode():
        for image, depth_HW in enumerate(held_out.depth_NHW):
            predicted_HW = student(held_out.image_N3HW[image, None].float() / 255)[0].numpy()
            metrics = depth_metrics(predicted_HW, depth_HW, None, "disparity", depth_range)
            found.append((metrics["abs_rel"], metrics["delta1"]))
    abs_rel, delta1 = np.mean(found, axis=0).tolist()
    return abs_rel, delta1


def run(name: str, seed: int, steps: int, data: tuple[Scenes, Scenes], setup: Setup) -> dict[str, Any]:
    """One row: a student trained as the arm says, and what it is worth."""
    arm, (scenes, held_out), start = Arm.parse(name), data, time.perf_counter()
    mask_NHW = mask_of(arm, scenes, seed)
    training = train_on(batches(scenes, arm, mask_NHW, seed), steps, seed=seed, drop=arm.trim)
    abs_rel, delta1 = judge(training.student, held_out, setup.depth_range)
    valid = float(scenes.mask(0.0).sum())
    few = max(1, steps // 10)
    return {
        "arm": name,
        "seed": seed,
        "steps": steps,
        "batch": min(BATCH, len(mask_NHW)),
        "abs_rel": round(abs_rel, 6),
        "delta1": round(delta1, 6),
        "masked": 0.0 if arm.kind == "exact" else round(1 - float(mask_NHW.sum()) / valid, 5),
        "trimmed": arm.trim,
        "loss_first": round(float(np.mean(training.losses[:few])), 5),
        "loss_last": round(float(np.mean(training.losses[-few:])), 5),
        "seconds": round(time.perf_counter() - start, 1),
    }


_held: dict[str, Any] = {}
"""What a worker process loads once and keeps: decoding images again for each run would take too long."""


def _load(work: Path, setup: Setup) -> None:
    _held["data"] = load_scenes(work, setup, "train"), load_scenes(work, setup, "held-out")


def _begin(work: Path, setup: Setup, parent: int) -> None:
    if sys.platform == "linux":
        die_with_parent(parent, lifeline=-1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)
    _load(work, setup)


def _run_on_held(name: str, seed: int, steps: int, setup: Setup) -> dict[str, Any]:
    return run(name, seed, steps, _held["data"], setup)


def _rows(work: Path, setup: Setup, left: Sequence[tuple[str, int]], steps: int, jobs: int) -> Iterator[dict[str, Any]]:
    """The rows of runs, each as soon as it is done."""
    if jobs == 1:
        _load(work, setup)
        for name, seed in left:
            yield _run_on_held(name, seed, steps, setup)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(left)), spawn, _begin, (work, setup, os.getpid())) as pool:
        futures = [pool.submit(_run_on_held, name, seed, steps, setup) for name, seed in left]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_all(work: Path, setup: Setup, wanted: Sequence[tuple[str, int]], steps: int, jobs: int) -> None:
    """Do the (arm, seed) that have no row yet, and add a row for each as soon as it is done."""
    path = work / "runs.csv"
    done = {(row["arm"], row["seed"]) for row in read_rows(path, steps)}
    left = [one for one in wanted if one not in done]
    if not left:
        return
    _end_last_line(path)
    with (
        path.open("a", newline="") as file,
        tqdm(total=len(wanted), initial=len(wanted) - len(left), desc="train", unit=" runs") as bar,
    ):
        writer = csv.DictWriter(file, FIELDS)
        if file.tell() == 0:
            writer.writeheader()
        for row in _rows(work, setup, left, steps, jobs):
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())
            bar.update()
            bar.set_postfix_str(f"{row['arm']} seed {row['seed']}: AbsRel {row['abs_rel']:.4f}", refresh=True)


def _end_last_line(path: Path) -> None:
    """A row that was being written when the run was killed must not run into the next one."""
    if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\r\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path("runs/student"), help="scenes, labels, rows and figure go here"
    )
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help=f"default: {' '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, default=5, help="runs an arm")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimiser steps of {BATCH} images")
    parser.add_argument("--scenes", type=int, default=400, help="training scenes")
    parser.add_argument("--held-out", type=int, default=150, help="scenes that judge")
    parser.add_argument(
        "--signals", default=None, help="what reliability is made of; default: as depthsieve label has it"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument(
        "--report", action="store_true", help="only the table and the figure of the rows that are there"
    )
    chosen = parser.parse_args(arguments)
    try:
        for option in ("seeds", "steps", "scenes", "held_out", "jobs"):
            if getattr(chosen, option) < 1:
                raise UsageError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(chosen, option)}")
        for name in chosen.arms:
            Arm.parse(name)
        setup = Setup.make(chosen.scenes, chosen.held_out, chosen.signals)
        prepare(chosen.work, setup)
        if not chosen.report:
            wanted = [(name, seed) for seed in range(chosen.seeds) for name in dict.fromkeys(chosen.arms)]
            with torch_threads(1):
                run_all(chosen.work, setup, wanted, chosen.steps, chosen.jobs)
        report(chosen.work, setup, chosen.steps, ARMS)
    except DepthsieveError as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt as error:
        raise SystemExit("stopped; the same command goes on") from error


if __name__ == "__main__":
    main()
