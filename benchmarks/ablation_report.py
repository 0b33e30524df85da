"""The tables of `ablation.py`: means over seeds, and paired comparisons of arms.

A comparison is paired by seed: both students begin with the same weights and see the same images in the same order. Its
p is that of the exact sign-flip test over the seeds (all 2^S of them), corrected for the number of comparisons of one
setting, judge and metric by Holm. The interval over seeds is Student's t, 95%, uncorrected; the one over images is that
of a bootstrap over scenes or photos of the difference of the means over seeds: how far other images might move it.

Axes: S seed, N image, C flip of signs.
"""

import csv
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import RunError
from depthsieve.evaluation.metrics.knee import t_quantile

JUDGES = ("scenes", "photos")
METRICS = ("abs_rel", "delta1", "boundary_f1")
NAMES = {"abs_rel": "AbsRel (less is better)", "delta1": "delta1 (more)", "boundary_f1": "boundary F1 (more)"}
SHORT = {"abs_rel": "AbsRel", "delta1": "delta1", "boundary_f1": "F1"}
BESIDE = (
    ("mask-10", "random-10"),
    ("mask-30", "random-30"),
    ("mask-10", "level-10"),
    ("mask-30", "level-30"),
    ("both-10", "trim-10"),
)
"""Comparisons besides those of each arm with none."""

LEAST_SEEDS = 4
RESAMPLINGS = 1000


@dataclass(frozen=True)
class Run:
    """One student. ``seen``: a digest of what it saw. ``images``: for each judge a row of `METRICS` for each image, NaN
    where undefined."""

    setting: str
    arm: str
    seed: int
    steps: int
    masked: float
    seconds: float
    seen: str
    images: Mapping[str, Sequence[Sequence[float]]]

    def text(self) -> str:
        """As JSON; NaN is null."""
        images = {
            judge: [[None if math.isnan(value) else round(value, 6) for value in row] for row in rows]
            for judge, rows in self.images.items()
        }
        body = {**vars(self), "masked": round(self.masked, 5), "seconds": round(self.seconds, 1), "images": images}
        return json.dumps(body, allow_nan=False) + "\n"

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Run":
        """What `text` wrote."""
        images = {
            judge: [[math.nan if value is None else value for value in row] for row in rows]
            for judge, rows in body["images"].items()
        }
        return cls(**{**body, "images": images})

    def values_N(self, judge: str, metric: str) -> NDArray[np.float64]:  # noqa: N802 - axis suffix
        """The numbers of single images."""
        rows = self.images.get(judge, ())
        return np.array([row[METRICS.index(metric)] for row in rows], dtype=np.float64)


def read_run(path: Path) -> Run:
    """One that is done."""
    return Run.of(json.loads(path.read_text()))


def read_runs(work: Path) -> list[Run]:
    """All runs that are done, in the order of their names."""
    return [read_run(path) for path in sorted((work / "runs").glob("*/*.json"))]


@dataclass(frozen=True)
class Comparison:
    """``mean`` is the first arm less the second, over ``seeds``; intervals and ``p`` (uncorrected) as above, NaN where
    there are too few seeds or images."""

    first: str
    second: str
    seeds: int
    mean: float
    over_seeds: tuple[float, float]
    over_images: tuple[float, float]
    p: float


def compared(runs: Sequence[Run], first: str, second: str, judge: str, metric: str) -> Comparison | None:
    """Two arms of one setting on the seeds that both have; None without any, or where nothing is defined."""
    by_arm = {arm: {run.seed: run for run in runs if run.arm == arm} for arm in (first, second)}
    seeds = sorted(set(by_arm[first]) & set(by_arm[second]))
    if not seeds:
        return None
    difference_SN = np.stack(
        [by_arm[first][seed].values_N(judge, metric) - by_arm[second][seed].values_N(judge, metric) for seed in seeds]
    )
    difference_SN = difference_SN[:, np.isfinite(difference_SN).all(axis=0)]
    if not difference_SN.size:
        return None
    of_seed_S = difference_SN.mean(axis=1)
    mean = float(of_seed_S.mean())
    over_seeds, p = (math.nan, math.nan), math.nan
    if len(seeds) >= LEAST_SEEDS:
        half = t_quantile(len(seeds) - 1) * float(of_seed_S.std(ddof=1)) / math.sqrt(len(seeds))
        over_seeds, p = (mean - half, mean + half), sign_flip_p(of_seed_S)
    of_image_N = difference_SN.mean(axis=0)
    drawn = np.random.default_rng(0).integers(0, len(of_image_N), (RESAMPLINGS, len(of_image_N)))
    low, high = np.quantile(of_image_N[drawn].mean(axis=1), [0.025, 0.975])
    return Comparison(first, second, len(seeds), mean, over_seeds, (float(low), float(high)), p)


def sign_flip_p(of_seed_S: NDArray[np.float64]) -> float:
    """The two-sided p of the mean under random signs: the share of all 2^S flips with a mean as far from 0."""
    signs_CS = np.array(list(itertools.product((1.0, -1.0), repeat=len(of_seed_S))))
    means_C = np.abs(signs_CS @ of_seed_S)
    return float((means_C >= abs(of_seed_S.sum()) * (1 - 1e-9)).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p corrected for their number (Holm, 1979); NaN stays."""
    known = [place for place, p in enumerate(p_values) if not math.isnan(p)]
    corrected, highest = list(p_values), 0.0
    for rank, place in enumerate(sorted(known, key=lambda one: p_values[one])):
        highest = max(highest, min(1.0, p_values[place] * (len(known) - rank)))
        corrected[place] = highest
    return corrected


def report(work: Path, teacher: str, runs: Sequence[Run], wanted: Sequence[tuple[str, str, int]]) -> None:
    """Print the tables, and write `means.csv`. Raises RunError where there is no run."""
    asked = set(wanted)
    chosen = [run for run in runs if (run.setting, run.arm, run.seed) in asked]
    if not chosen:
        raise RunError(f"{work / 'runs'} has none of the runs that were asked for; leave --report out to make them")
    if len(chosen) < len(asked):
        print(f"UNFINISHED: {len(chosen)} of {len(asked)} runs are done; say of how many seeds a number is.")
    arms = list(dict.fromkeys(arm for _, arm, _ in wanted))
    pairs, total = _pairs_of(arms), 0
    for setting in dict.fromkeys(setting for setting, _, _ in wanted):
        own = [run for run in chosen if run.setting == setting]
        for judge, metric in itertools.product(JUDGES, METRICS):
            total += _print_table(setting, judge, metric, own, arms, pairs)
    print(
        f"\n{total} comparisons in all; p is corrected by Holm within each table, not over tables. Intervals are 95%: "
        "over seeds (Student's t), and over images (bootstrap of the mean over seeds)."
    )
    _write_means(work / "means.csv", teacher, chosen)


def _print_table(
    setting: str, judge: str, metric: str, runs: Sequence[Run], arms: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> int:
    """Of one setting, judge and metric; returns how many comparisons it has."""
    rows = []
    for arm in arms:
        values = [_mean(run, judge, metric) for run in runs if run.arm == arm]
        values = [value for value in values if not math.isnan(value)]
        if values:
            error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            masked = np.mean([run.masked for run in runs if run.arm == arm])
            rows.append(f"{arm:<12}{len(values):>6}{np.mean(values):>10.4f}{_plain(error):>9}{masked:>9.1%}")
    if not rows:
        return 0
    print(f"\n{setting}, {judge}: {NAMES[metric]}\n{'arm':<12}{'seeds':>6}{'mean':>10}{'+-':>9}{'masked':>9}")
    print("\n".join(rows))
    found = [each for pair in pairs if (each := compared(runs, *pair, judge, metric)) is not None]
    head = f"{'comparison':<22}{'seeds':>6}{'difference':>12}{'over seeds':>20}{'over images':>20}{'p (Holm)':>10}"
    print(f"{head}   of {len(found)} comparisons")
    for each, p in zip(found, holm([each.p for each in found]), strict=True):
        name = f"{each.first} - {each.second}"
        intervals = f"{_interval(each.over_seeds):>20}{_interval(each.over_images):>20}"
        print(f"{name:<22}{each.seeds:>6}{each.mean:>+12.4f}{intervals}{'-' if math.isnan(p) else f'{p:.3f}':>10}")
    return len(found)


def markdown(runs: Sequence[Run], wanted: Sequence[tuple[str, str, int]]) -> None:
    """Print a table for each setting: the mean of none, and each arm's difference to it with the 95% interval over
    seeds, in bold where that does not hold 0, starred where p, corrected as in `report`, is below 0.05. Of few seeds
    the one over images, in brackets."""
    arms = list(dict.fromkeys(arm for _, arm, _ in wanted))
    kinds = list(itertools.product(JUDGES, METRICS))
    pairs = _pairs_of(arms)
    for setting in dict.fromkeys(setting for setting, _, _ in wanted):
        own = [run for run in runs if (run.setting, run.arm, run.seed) in set(wanted) and run.setting == setting]
        cells: dict[str, list[str]] = {arm: [] for arm in arms}
        for judge, metric in kinds:
            found = [each for pair in pairs if (each := compared(own, *pair, judge, metric)) is not None]
            corrected = holm([each.p for each in found])
            told = {
                each.first: _cell(each, p) for each, p in zip(found, corrected, strict=True) if each.second == "none"
            }
            values = [_mean(run, judge, metric) for run in own if run.arm == "none"]
            if values and not math.isnan(values[0]):
                told["none"] = f"{np.mean(values):.4f}"
            for arm in arms:
                cells[arm].append(told.get(arm, ""))
        print(f"\n{setting}\n\n| arm | seeds | masked | {' | '.join(f'{j}: {SHORT[m]}' for j, m in kinds)} |")
        print("|" + " --- |" * (3 + len(kinds)))
        for arm in arms:
            done = [run for run in own if run.arm == arm]
            if done:
                share = np.mean([run.masked for run in done])
                print(f"| {arm} | {len(done)} | {share:.1%} | {' | '.join(cells[arm])} |")


def _cell(each: Comparison, p: float) -> str:
    low, high = each.over_seeds
    if math.isnan(low):
        return f"{each.mean:+.4f} ({each.over_images[0]:+.4f}..{each.over_images[1]:+.4f})"
    bold = "**" if low > 0 or high < 0 else ""
    return f"{bold}{each.mean:+.4f}{bold} ± {(high - low) / 2:.4f}{'*' if p < 0.05 else ''}"


def _pairs_of(arms: Sequence[str]) -> list[tuple[str, str]]:
    """What is compared: each arm with none, and `BESIDE`."""
    return [(arm, "none") for arm in arms if arm != "none"] + [pair for pair in BESIDE if set(pair) <= set(arms)]


def _mean(run: Run, judge: str, metric: str) -> float:
    values_N = run.values_N(judge, metric)
    return float(np.nanmean(values_N)) if np.isfinite(values_N).any() else math.nan


def _plain(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _interval(ends: tuple[float, float]) -> str:
    return "-" if math.isnan(ends[0]) else f"{ends[0]:+.4f}..{ends[1]:+.4f}"


def _write_means(path: Path, teacher: str, runs: Sequence[Run]) -> None:
    """A row for each run: means over images."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        means_of = [f"{judge}_{metric}" for judge in JUDGES for metric in METRICS]
        table.writerow(["teacher", "setting", "arm", "seed", "steps", "masked", *means_of])
        for run in sorted(runs, key=lambda one: (one.setting, one.arm, one.seed)):
            means = [_mean(run, judge, metric) for judge in JUDGES for metric in METRICS]
            shown = ["" if math.isnan(mean) else f"{mean:.6f}" for mean in means]
            table.writerow([teacher, run.setting, run.arm, run.seed, run.steps, f"{run.masked:.5f}", *shown])
