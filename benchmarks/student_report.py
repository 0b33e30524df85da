"""The table and the figure of `student.py`. Array legend: H, W pixels."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from student_data import Scenes, Setup, load_scenes

from depthsieve.core.errors import RunError
from depthsieve.evaluation.metrics import truth_mask

FIELDS = (
    "arm",
    "seed",
    "steps",
    "batch",
    "abs_rel",
    "delta1",
    "masked",
    "trimmed",
    "loss_first",
    "loss_last",
    "seconds",
)
_WHOLE = ("seed", "steps", "batch")
LABEL_DROPS = (0.05, 0.10, 0.20, 0.30)


def read_rows(path: Path, steps: int) -> list[dict[str, Any]]:
    """The whole rows of runs with so many steps. A line that was cut off by a kill is passed over."""
    rows = []
    if path.exists():
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                try:
                    row = {k: v if k == "arm" else int(v) if k in _WHOLE else float(v) for k, v in line.items()}
                except (TypeError, ValueError):
                    continue
                if set(row) == set(FIELDS) and row["steps"] == steps:
                    rows.append(row)
    return rows


@dataclass(frozen=True)
class Result:
    """An arm over its seeds: values in the order of `seeds`, and the paired differences to no filter."""

    arm: str
    seeds: tuple[int, ...]
    abs_rel: tuple[float, ...]
    delta1: tuple[float, ...]
    paired: tuple[float, ...]
    masked: float
    seconds: float


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its standard error: NaN for less than two values."""
    if not values:
        return math.nan, math.nan
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(np.mean(values)), spread


def results_of(rows: Sequence[dict[str, Any]], arms: Sequence[str]) -> list[Result]:
    """In the order of `arms`; others after them."""
    plain = {row["seed"]: row["abs_rel"] for row in rows if row["arm"] == "none"}
    results = []
    for arm in dict.fromkeys([*arms, *(row["arm"] for row in rows)]):
        own = sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])
        if own:
            results.append(
                Result(
                    arm,
                    tuple(row["seed"] for row in own),
                    tuple(row["abs_rel"] for row in own),
                    tuple(row["delta1"] for row in own),
                    tuple(row["abs_rel"] - plain[row["seed"]] for row in own if row["seed"] in plain),
                    float(np.mean([row["masked"] for row in own])),
                    float(np.mean([row["seconds"] for row in own])),
                )
            )
    return results


def report(work: Path, setup: Setup, steps: int, arms: Sequence[str]) -> None:
    """Print the tables, and draw `student.png`. Raises RunError where there is no row."""
    rows = read_rows(work / "runs.csv", steps)
    if not rows:
        raise RunError(f"{work / 'runs.csv'} has no run of {steps} steps; leave --report out to make some")
    results, batch = results_of(rows, arms), rows[0]["batch"]
    scenes, held_out = load_scenes(work, setup, "train"), load_scenes(work, setup, "held-out")
    references = {
        "teacher itself": held_out.measured(held_out.label_NHW.numpy()),
        "constant map": held_out.measured(np.ones_like(held_out.label_NHW.numpy())),
    }
    pixels = steps * batch * scenes.label_NHW[0].numel()
    print(
        f"{setup.scenes} training scenes, {setup.held_out} held out, signals {setup.signals}; each run {steps} steps "
        f"of {batch} images ({steps * batch / setup.scenes:.1f} epochs, {pixels / 1e6:.1f} million pixels seen)"
    )
    print(f"{'arm':<16}{'runs':>5}{'AbsRel':>17}{'delta1':>17}{'AbsRel - none':>19}{'masked':>8}{'s a run':>9}")
    for one in results:
        paired = _pair(one.paired, sign="+") if one.arm != "none" else "-"
        print(
            f"{one.arm:<16}{len(one.seeds):>5}{_pair(one.abs_rel):>17}{_pair(one.delta1):>17}{paired:>19}"
            f"{one.masked:>8.1%}{one.seconds:>9.0f}"
        )
    for name, (abs_rel, delta1) in references.items():
        print(f"{name:<16}{'-':>5}{abs_rel:>17.4f}{delta1:>17.4f}{'-':>19}{'-':>8}{'-':>9}")
    print("mean +- standard error over seeds; differences are paired by seed, below 0 is better than no filter")
    print_label_error(scenes)
    draw(results, references, work / "student.png", f"{steps} steps of {batch} images, {setup.scenes} training scenes")
    print(f"drawn: {work / 'student.png'}")


def _pair(values: Sequence[float], sign: str = "") -> str:
    mean, error = mean_and_error(values)
    if math.isnan(mean):
        return "-"
    return f"{mean:{sign}.4f} +- {error:.4f}" if not math.isnan(error) else f"{mean:{sign}.4f}"


def print_label_error(scenes: Scenes) -> None:
    """How wrong the labels are that students learn from, and those that a filter keeps."""
    print("AbsRel of the training labels that are kept (aligned once over all pixels; mean over scenes)")
    errors = [scenes.label_error(image) for image in range(len(scenes.ids))]
    counted = [truth_mask(depth_HW, None, scenes.setup.depth_range) for depth_HW in scenes.depth_NHW]
    every = float(np.mean([error_HW[mask_HW].mean() for error_HW, mask_HW in zip(errors, counted, strict=True)]))
    print(f"{'dropped':>8}{'any pixels':>12}{'least reliable':>16}{'oracle':>9}")
    print(f"{'0%':>8}{every:>12.4f}{every:>16.4f}{every:>9.4f}")
    for drop in LABEL_DROPS:
        kept_NHW = scenes.mask(drop).numpy()
        method, oracle = [], []
        for error_HW, count_HW, kept_HW in zip(errors, counted, kept_NHW, strict=True):
            kept = count_HW & kept_HW
            if kept.any():
                method.append(error_HW[kept].mean())
                oracle.append(np.sort(error_HW[count_HW])[: kept.sum()].mean())
        print(f"{drop:>8.0%}{every:>12.4f}{np.mean(method):>16.4f}{np.mean(oracle):>9.4f}")


def draw(results: Sequence[Result], references: dict[str, tuple[float, float]], path: Path, what: str) -> None:
    """Left: AbsRel of every run, its mean and standard error. Right: what a filter changes, paired by seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [one.arm for one in results]
    figure, (left, right) = pyplot.subplots(
        1, 2, sharey=True, figsize=(11, 1.6 + 0.36 * len(names)), width_ratios=(1, 1), layout="constrained"
    )
    colours = {
        "none": "black",
        "exact": "tab:green",
        "oracle": "tab:green",
        "trim": "tab:blue",
        "mask": "tab:orange",
        "both": "tab:purple",
    }
    for place, one in enumerate(results):
        colour = colours.get(one.arm.partition("-")[0], "tab:gray")
        for axes, values in ((left, one.abs_rel), (right, one.paired if one.arm not in ("none", "exact") else ())):
            if not values:
                continue
            mean, error = mean_and_error(values)
            axes.plot(values, [place] * len(values), ".", color=colour, alpha=0.3, markersize=6)
            axes.errorbar(mean, place, xerr=None if math.isnan(error) else error, fmt="o", color=colour, capsize=3)
    for one in results:
        if one.arm == "none":
            left.axvline(mean_and_error(one.abs_rel)[0], color="black", linewidth=1, label="no filter")
    for (name, (abs_rel, _)), style in zip(references.items(), ("--", ":"), strict=True):
        left.axvline(abs_rel, color="tab:brown", linewidth=1, linestyle=style, label=name)
    left.set_xlabel("AbsRel on held-out scenes (less is better)")
    left.legend(fontsize=8)
    right.axvline(0, color="black", linewidth=1)
    right.set_xlabel("AbsRel less that of no filter, same seed (left of 0: helps)")
    right.locator_params(axis="x", nbins=6)
    left.set_yticks(range(len(names)), names)
    left.set_ylim(-0.6, len(names) - 0.4)
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    counts = sorted({len(one.seeds) for one in results})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    figure.suptitle(
        f"Students on pseudo-labels of a teacher from another family of scenes: {what}.\n"
        f"{seeds} seeds an arm (faint dots); large dots and bars: mean and standard error",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
