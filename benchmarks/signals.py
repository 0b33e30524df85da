"""Judges every reliability signal and their fusion: how well each finds the pixels that are wrong, and what it costs.

    python benchmarks/signals.py --second runs/second/model --json signals.json --png signals.png

On rendered scenes of a family that neither the teacher nor the calibration has seen, with exact depth: AUSE and AURG
of AbsRel after Poggi et al. (CVPR 2020; `depthsieve.evaluation.metrics`), what of the AbsRel is left when the least
reliable 10% go, and expected over actual error. `raw` is a signal's relative disagreement, as it is; `fused` what the
shipped calibration makes of it, alone or with others. Cost is extra time over the plain forward pass, measured in the
same run, each part in turn with the others, one thread. With --pairs the same is shown on a folder of real photos with
depth.

Array legend: H, W pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from observed import Observed, load_work, observe, observe_scenes
from tqdm import tqdm

from depthsieve.evaluation.metrics import ause_aurg, sparsification
from depthsieve.labelling.batch import LabelWork, predict_labels
from depthsieve.reliability.fusion import fuse, near_level, shipped_calibration
from depthsieve.scenes import render_scene
from depthsieve.teachers import Batch, Teacher

TIMED = 30
"""Scenes on which costs are measured."""

DROP = 0.10


@dataclass
class Row:
    """One way to tell good pixels from bad, over all scenes."""

    areas: list[tuple[float, float]] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    ratio: list[tuple[float, float]] = field(default_factory=list)

    def add(self, seen: Observed, doubt_HW: torch.Tensor, expected: bool) -> None:
        mask_HW = seen.mask_HW & np.isfinite(doubt_HW.numpy())
        curve = sparsification(seen.abs_rel_HW, -doubt_HW.double().numpy(), mask_HW)
        self.areas.append(ause_aurg(curve))
        self.kept.append(curve.kept_error(DROP) / curve.kept_error(0.0))
        if expected:
            self.ratio.append((float(doubt_HW.numpy()[mask_HW].mean()), float(seen.error_HW[mask_HW].mean())))

    def summary(self) -> dict[str, float]:
        ause, aurg = np.array(self.areas).T
        count = len(ause)
        result = {
            "ause": float(ause.mean()),
            "ause_se": float(ause.std() / np.sqrt(count)),
            "aurg": float(aurg.mean()),
            "aurg_above_zero": float((aurg > 0).mean()),
            "kept_error": float(np.mean(self.kept)),
        }
        if self.ratio:
            expected, actual = np.array(self.ratio).T
            result["expected_over_actual"] = float(expected.mean() / actual.mean())
        return result


def combinations_of(signals: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Those that a user might choose: each alone, what is free or cheap added to it, and all."""
    wanted = [(name,) for name in signals]
    wanted += [("edges", "flip"), ("edges", "lowres"), ("flip", "lowres"), ("edges", "flip", "lowres")]
    wanted += [("flip", "teachers"), ("flip", "lowres", "photometric"), signals]
    return [names for names in dict.fromkeys(wanted) if set(names) <= set(signals)]


def judge(scenes: Iterator[Observed], signals: tuple[str, ...], teacher: Teacher) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    calibration, quantity = shipped_calibration(), teacher.quantity
    for seen in scenes:
        depth_1HW = seen.depth_HW[None]
        rows.setdefault("level alone", Row()).add(seen, 1 - near_level(depth_1HW, quantity)[0], False)
        for name in signals:
            rows.setdefault(f"raw {name}", Row()).add(seen, seen.relative[name], False)
        for names in combinations_of(signals):
            relative = {name: seen.relative[name][None] for name in names}
            expected_HW = fuse(depth_1HW, relative, quantity, calibration)[0]
            rows.setdefault("fused " + "+".join(names), Row()).add(seen, expected_HW, True)
    return rows


@torch.inference_mode()
def costs(work: LabelWork, options: argparse.Namespace) -> dict[str, Sequence[float]]:
    """Extra time over the plain forward pass, (median, 10%, 90% of the scenes): signals with all that comes after."""
    teacher, shape = work.teacher, (options.height, options.width)
    chosen: dict[str, tuple[str, ...]] = {"+".join(names): names for names in combinations_of(work.signals)}
    shares: dict[str, list[float]] = {name: [] for name in chosen}
    for seed in tqdm(range(TIMED), desc="costs"):
        rgb_HW3 = render_scene(seed, *shape, family=options.family).rgb_HW3
        image = Batch.of(torch.from_numpy(teacher.prepare(rgb_HW3, shape))[None])

        def plain(image: Batch = image) -> None:
            teacher.predict(image)

        def with_signals(names: tuple[str, ...], image: Batch = image) -> None:
            label, relative = predict_labels(image, replace(work, signals=names), image)
            fuse(label.depth, relative, teacher.quantity, shipped_calibration())

        for name, names in chosen.items():
            base = _seconds(plain)
            shares[name].append(_seconds(lambda names=names: with_signals(names)) / base - 1)
    return {name: np.quantile(values, [0.5, 0.1, 0.9]).tolist() for name, values in shares.items()}


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def real_pairs(folder: Path, work: LabelWork) -> Iterator[tuple[str, Observed]]:
    """Photos with depth beside them: NAME_rgb.*, and NAME_depth_div1000.png, _div256.png or NAME_depth_m.npy."""
    for rgb in sorted(folder.glob("*_rgb.*")):
        name = rgb.stem.removesuffix("_rgb")
        (truth,) = folder.glob(f"{name}_depth*")
        if truth.suffix == ".npy":
            metres_HW = np.load(truth, allow_pickle=False).astype(np.float32)
        else:
            divisor = float(truth.stem.rpartition("div")[2])
            metres_HW = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED).astype(np.float32) / divisor
        photo_HW3 = cv2.cvtColor(cv2.imread(str(rgb)), cv2.COLOR_BGR2RGB)
        shape = work.teacher.label_shape(*photo_HW3.shape[:2])
        small_HW3 = cv2.resize(photo_HW3, shape[::-1], interpolation=cv2.INTER_AREA)
        truth_HW = cv2.resize(metres_HW, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        yield name, observe(work, small_HW3, np.asarray(truth_HW, np.float32), work.teacher.quantity)


def show(rows: Mapping[str, Mapping[str, float]], paid: Mapping[str, Sequence[float]]) -> None:
    print(f"{'':42}{'AUSE':>8}{'+-':>7}{'AURG':>8}{'AURG>0':>8}{'kept':>7}{'e/actual':>10}{'extra time':>12}")
    for name, row in rows.items():
        ratio = f"{row['expected_over_actual']:.2f}" if "expected_over_actual" in row else ""
        cost = paid.get(name.partition(" ")[2])
        print(
            f"{name:42}{row['ause']:>8.4f}{row['ause_se']:>7.4f}{row['aurg']:>8.4f}{row['aurg_above_zero']:>8.0%}"
            f"{row['kept_error']:>7.3f}{ratio:>10}{f'{cost[0]:.0%}' if cost else '0%':>12}"
        )


def draw(rows: Mapping[str, Mapping[str, float]], paid: Mapping[str, Sequence[float]], png: Path) -> None:
    """Quality against extra compute, signals by their initials; the line joins what no cheaper fusion beats."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    looks = {"raw": ("#888888", "x", "a signal as it is"), "fused": ("#1f6fb4", "o", "expected error fused of them")}
    for kind, (colour, marker, legend) in looks.items():
        points = []
        for name, row in rows.items():
            start, _, signals = name.partition(" ")
            if start == kind:
                points.append(
                    (100 * paid[signals][0], row["ause"], "".join(one[0].upper() for one in signals.split("+")))
                )
        axes.scatter(
            [x for x, _, _ in points], [y for _, y, _ in points], c=colour, marker=marker, label=legend, zorder=3
        )
        for x, y, initials in points:
            axes.annotate(initials, (x, y), xytext=(0, 6), textcoords="offset points", fontsize=8, ha="center")
        if kind == "fused":
            best = [(x, y) for x, y, _ in sorted(points) if y <= min(v for u, v, _ in points if u <= x)]
            axes.plot(*zip(*best, strict=True), c=colour, lw=1, alpha=0.5)
    axes.scatter(
        [0], [rows["level alone"]["ause"]], c="#c04000", marker="s", label="the label's own level, no signal", zorder=3
    )
    axes.set_xlabel("extra time over the plain forward pass, %")
    axes.set_ylabel("AUSE of AbsRel (lower is better)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(title="E edges, F flip, L lowres, P photometric, T teachers", loc="lower right", fontsize=9)
    figure.savefig(png, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge reliability signals and their fusion.")
    parser.add_argument("--teacher", default="tiny")
    parser.add_argument("--second", metavar="NAME", help="second teacher; without one, 'teachers' is left out")
    parser.add_argument("--family", default="foreign", help="of scenes")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--height", type=int, default=126)
    parser.add_argument("--width", type=int, default=168)
    parser.add_argument("--pairs", type=Path, help="folder of real photos with depth")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path, help="figure of quality against cost")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = load_work(options.teacher, options.second)
    teacher, signals, shape = work.teacher, work.signals, (options.height, options.width)
    scenes = observe_scenes(work, range(options.scenes), options.family, shape, teacher.quantity)
    rows = {
        name: row.summary()
        for name, row in judge(tqdm(scenes, total=options.scenes, desc="scenes"), signals, teacher).items()
    }
    paid = costs(work, options)
    print(
        f"{options.scenes} scenes of family {options.family}, {options.height}x{options.width}, teacher {teacher.name}"
    )
    show(rows, paid)
    result: dict[str, Any] = {"scenes": options.scenes, "family": options.family, "rows": rows, "extra_time": paid}
    if options.pairs:
        result["pairs"] = {}
        for name, seen in real_pairs(options.pairs, work):
            judged = {way: row.summary() for way, row in judge(iter([seen]), signals, teacher).items()}
            result["pairs"][name] = judged
            print(f"\n{name}: AbsRel {seen.abs_rel_HW[seen.mask_HW].mean():.3f}, {int(seen.mask_HW.sum())} pixels")
            show(judged, paid)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.png:
        draw(rows, paid, options.png)


if __name__ == "__main__":
    main()
