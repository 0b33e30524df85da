"""benchmarks/ablation.py in small: labels that are mostly right, judging, runs that are kept, and the statistics."""

import dataclasses
import itertools
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.metrics import boundary_f1, depth_metrics

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import ablation  # noqa: E402
from ablation_report import Run, compared, holm, markdown, read_runs, report, sign_flip_p  # noqa: E402
from student_data import Scenes, Setup  # noqa: E402

SIZES = ("--scenes", "2", "--held-out", "1", "--steps", "1", "--seeds", "1", "--arms", "none", "mask-10")
RANGE = (0.0, 80.0)


class Told(Scenes):
    """Scenes whose reliability is told, by drop, and not that of a store."""

    kept: dict[float, torch.Tensor]

    def mask(self, drop: float) -> torch.Tensor:
        return self.kept[drop]


def made_scenes() -> Scenes:
    random = np.random.default_rng(0)
    exact_NHW = random.uniform(0.05, 1, (3, 20, 30))
    wrong_NHW = np.where(random.random(exact_NHW.shape) < 0.1, random.normal(0, 0.3, exact_NHW.shape), 0)
    label_NHW = 7 * (exact_NHW + wrong_NHW + random.normal(0, 0.02, exact_NHW.shape)) + 3
    image_N3HW = torch.zeros((3, 3, 20, 30), dtype=torch.uint8)
    maps = [torch.from_numpy(each).float() for each in (label_NHW, exact_NHW)]
    return Scenes(Setup(3, 1, "flip"), Path("nowhere"), ("a", "b", "c"), image_N3HW, *maps)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of two photos, in metres and in millimetres, and one with too little measured depth."""
    folder = tmp_path_factory.mktemp("pairs")
    random = np.random.default_rng(1)
    for name, size in (("wide", (48, 96)), ("tall", (96, 48)), ("sparse", (48, 48))):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    np.save(folder / "wide.npy", np.full((48, 96), 3.0, np.float32) + np.arange(96, dtype=np.float32) / 20)
    rows_HW = (2000 + 10 * np.arange(96)[:, None] + np.zeros((96, 48))).astype(np.uint16)
    Image.fromarray(rows_HW).save(folder / "tall_depth.png")
    np.save(folder / "sparse.npy", np.zeros((48, 48), np.float32))
    table = "photo,depth,scale\nwide.png,wide.npy,\ntall.png,tall_depth.png,1000\nsparse.png,sparse.npy,\n"
    (folder / "pairs.csv").write_text(table)
    return folder / "pairs.csv"


def test_labels_are_exact_but_where_they_are_most_wrong() -> None:
    scenes = made_scenes()
    right = ablation.mostly_right(scenes)
    for label_HW, exact_HW, own_HW in zip(right.label_NHW, scenes.exact_NHW, scenes.label_NHW, strict=True):
        off_HW = (label_HW - exact_HW).abs()
        assert float((off_HW > 1e-6).float().mean()) == pytest.approx(0.2, abs=0.02)
        columns = np.stack([own_HW.ravel(), np.ones(own_HW.numel())], axis=1)
        fitted = columns @ np.linalg.lstsq(columns, exact_HW.ravel().numpy(), rcond=None)[0]
        error = np.abs(fitted - exact_HW.ravel().numpy())
        worst = off_HW.ravel().numpy() > 1e-6
        assert error[worst].min() >= error[~worst].max() - 0.06, "there and in no other place (but below 0 disparity)"
        assert off_HW.max() <= error.max()
    assert torch.equal(right.exact_NHW, scenes.exact_NHW)


def test_a_student_sees_images_averaged_and_the_nearest_pixels_of_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "STUDENT", (10, 10))
    scenes = made_scenes()
    scenes.image_N3HW[1, 2, 4, 7] = 60
    small = ablation.for_student(scenes)
    assert small.image_N3HW.shape == (3, 3, 10, 10) and small.image_N3HW[1, 2, 2, 2] == 10
    assert torch.equal(small.label_NHW, scenes.label_NHW[:, 1::2, 1::3])
    assert torch.equal(small.exact_NHW, scenes.exact_NHW[:, 1::2, 1::3])


def test_another_reliability_is_another_student_only_where_it_is_asked_for() -> None:
    scenes = made_scenes()
    arms = ("none", "trim-10", "exact", "random-10", "level-10", "loss-10", "oracle-10", "mask-10", "both-10")

    def digests(mask_NHW: torch.Tensor, **changed: torch.Tensor) -> dict[str, str]:
        fields = {**vars(scenes), **changed}
        told = Told(**fields)
        object.__setattr__(told, "kept", {0.0: torch.ones(3, 20, 30, dtype=torch.bool), 0.1: mask_NHW})
        return {arm: ablation.seen_by(arm, told) for arm in arms}

    one, other, fewer = (torch.ones(3, 20, 30, dtype=torch.bool) for _ in range(3))
    one[:, :2], other[:, 5:7], fewer[:, 5:6] = False, False, False
    first, same_count, few = digests(one), digests(other), digests(fewer)
    assert first == digests(one.clone())
    assert {arm for arm in arms if first[arm] != same_count[arm]} == {"mask-10", "both-10"}
    assert {arm for arm in arms if first[arm] != few[arm]} == set(arms) - {"none", "trim-10", "exact"}
    relabelled = digests(one, label_NHW=scenes.label_NHW + 1)
    assert {arm for arm in arms if first[arm] != relabelled[arm]} == set(arms) - {"exact"}


def test_photos_come_at_the_size_of_a_scene_and_sparse_ones_are_left_out(pairs: Path) -> None:
    wide, tall = ablation.read_pairs(pairs, RANGE)
    assert (wide.name, tall.name) == ("wide.png", "tall.png")
    assert tuple(wide.image_3HW.shape) == (3, 80, 160) and tuple(tall.image_3HW.shape) == (3, 160, 80)
    assert wide.truth_HW[0, 20] == 4.0 and tall.truth_HW[1, 0] == np.float32(2.01)
    for line, what in (("gone.png,wide.npy,", "gone.png"), ("wide.png,tall_depth.png,", "whole numbers|scale")):
        bad = pairs.with_name("bad.csv")
        bad.write_text(f"photo,depth,scale\n{line}\n")
        with pytest.raises(UsageError, match=rf"bad\.csv, line 2: .*({what})"):
            ablation.read_pairs(bad, RANGE)


def test_a_map_is_judged_as_evaluate_does() -> None:
    random = np.random.default_rng(2)
    truth_HW = np.kron(random.uniform(1, 9, (6, 8)), np.ones((4, 4))).astype(np.float32)
    truth_HW[0, :3] = np.inf
    disparity_HW = (1 / np.minimum(truth_HW, 90) + random.normal(0, 0.01, truth_HW.shape)).astype(np.float32)
    abs_rel, delta1, edges = ablation.judged(3 * disparity_HW + 1, truth_HW, RANGE)
    want = depth_metrics(disparity_HW, truth_HW, None, "disparity", RANGE)
    assert (abs_rel, delta1) == pytest.approx((want["abs_rel"], want["delta1"]), rel=1e-4)
    known = np.isfinite(truth_HW)
    assert edges == pytest.approx(boundary_f1(1 / disparity_HW, truth_HW, known), abs=0.05) and edges > 0.3
    # Of a smaller map the edges are judged on its own grid.
    coarse = ablation.judged(1 / np.minimum(truth_HW[2::4, 2::4], 80), truth_HW, RANGE)
    assert coarse[2] == pytest.approx(1.0, abs=0.15)


def test_runs_are_kept_and_gone_on_from(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    ablation.main(["--work", str(work), *SIZES, "--pairs", str(pairs), "--part", "1/2"])
    assert "UNFINISHED: 2 of 4 runs are done; say of how many seeds a number is." in capsys.readouterr().out
    done = {path: path.read_bytes() for path in sorted((work / "runs").rglob("*.json"))}
    assert [path.relative_to(work / "runs").as_posix() for path in done] == [
        "foreign/none-00.json",
        "mostly-right/none-00.json",
    ]
    first = json.loads(next(iter(done.values())))
    assert {judge: len(rows) for judge, rows in first["images"].items()} == {"scenes": 1, "photos": 2}
    assert 0 < first["images"]["photos"][0][0] < 2
    ablation.main(["--work", str(work), *SIZES, "--pairs", str(pairs)])
    told = capsys.readouterr().out
    assert "UNFINISHED" not in told
    assert re.search(r"\n\d+ comparisons in all; p is corrected by Holm within each table", told)
    assert all(path.read_bytes() == before for path, before in done.items())
    runs = {(run.setting, run.arm): run for run in read_runs(work)}
    assert set(runs) == set(itertools.product(("foreign", "mostly-right"), ("none", "mask-10")))
    masked = runs["foreign", "mask-10"]
    assert 0 < masked.masked <= 0.1 and runs["foreign", "none"].masked == 0
    assert masked.images != runs["foreign", "none"].images != runs["mostly-right", "none"].images
    assert len((work / "means.csv").read_text().splitlines()) == 5
    stale = json.loads((work / "runs/foreign/none-00.json").read_text()) | {"seen": "something else", "masked": 0.5}
    (work / "runs/foreign/none-00.json").write_text(json.dumps(stale))
    ablation.main(["--work", str(work), *SIZES, "exact", "--pairs", str(pairs)])
    again = {(run.setting, run.arm): run for run in read_runs(work)}
    before = runs["foreign", "none"]
    assert again["foreign", "none"] == dataclasses.replace(before, seconds=again["foreign", "none"].seconds)
    assert again["foreign", "mask-10"] == masked, "what saw the same is not run again"
    exact = again["foreign", "exact"]
    assert dataclasses.replace(exact, setting="mostly-right") == again["mostly-right", "exact"], "the same run"
    assert (work / "means.csv").read_text().splitlines()[1].startswith("tiny,foreign,exact,0,1,0.00000,")
    for wrong in (["--steps", "2"], ["--arms", "mask-0"], ["--seeds", "0"]):
        with pytest.raises(SystemExit, match=r"^error: "):
            ablation.main(["--work", str(work), *SIZES, "--pairs", str(pairs), *wrong])


# Statistics


def made_run(arm: str, seed: int, values: np.ndarray, setting: str = "foreign") -> Run:
    rows = [[float(value), 0.5, math.nan] for value in values]
    return Run(setting, arm, seed, 400, 0.1, 9.0, "", {"scenes": rows, "photos": []})


def test_differences_are_paired_by_seed_and_image() -> None:
    random = np.random.default_rng(3)
    plain, better = random.normal(0.3, 0.05, (6, 40)), random.normal(0.02, 0.01, (6, 40))
    runs = [made_run("none", seed, plain[seed]) for seed in range(6)]
    runs += [made_run("mask-10", seed, plain[seed] - better[seed]) for seed in range(1, 6)]
    found = compared(runs, "mask-10", "none", "scenes", "abs_rel")
    assert found is not None and found.seeds == 5
    of_seed = -better[1:].mean(axis=1)
    assert found.mean == pytest.approx(of_seed.mean())
    half = 2.776 * of_seed.std(ddof=1) / math.sqrt(5)
    assert found.over_seeds == pytest.approx((of_seed.mean() - half, of_seed.mean() + half), rel=1e-2)
    spread = 1.96 * better[1:].mean(axis=0).std(ddof=1) / math.sqrt(40)
    assert found.over_images == pytest.approx((found.mean - spread, found.mean + spread), abs=0.25 * spread)
    assert found.p == 2 / 32, "of five seeds that agree"
    assert compared(runs, "mask-10", "none", "photos", "abs_rel") is None
    assert compared(runs, "mask-10", "none", "scenes", "boundary_f1") is None
    assert compared(runs, "mask-10", "exact", "scenes", "abs_rel") is None
    few = compared(runs[:3] + runs[6:8], "mask-10", "none", "scenes", "abs_rel")
    assert few is not None and math.isnan(few.p) and math.isnan(few.over_seeds[0])


def test_p_counts_the_flips() -> None:
    assert sign_flip_p(np.array([3.0, 1.0, 1.0])) == 2 / 8
    assert sign_flip_p(np.array([3.0, -1.0, 1.0])) == 6 / 8
    assert sign_flip_p(np.array([1.0, -1.0])) == sign_flip_p(np.zeros(4)) == 1


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_the_report_states_what_was_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(4)
    arms = ("none", "mask-10", "random-10")
    runs = [made_run(arm, seed, random.normal(0.3, 0.1, 8)) for arm in arms for seed in range(5)]
    report(tmp_path, "tiny", runs, [("foreign", arm, seed) for arm in arms for seed in range(5)])
    told = capsys.readouterr().out
    assert "\n6 comparisons in all;" in told, "three in each of two metrics that are defined"
    found = compared(runs, "mask-10", "random-10", "scenes", "abs_rel")
    assert found is not None
    (line,) = [line for line in told.splitlines() if line.startswith("mask-10 - random-10") and "+0.0000" not in line]
    assert f"{found.mean:+.4f}" in line and "foreign, photos" not in told


def test_differences_as_a_table_of_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    plain = np.full((6, 4), 0.3)
    runs = [made_run("none", seed, plain[seed]) for seed in range(6)]
    runs += [made_run("mask-10", seed, plain[seed] - 0.01 - 0.001 * (seed % 2)) for seed in range(6)]
    runs += [made_run("trim-10", seed, plain[seed] + 0.01 * (-1) ** seed) for seed in range(6)]
    markdown(runs, [("foreign", arm, seed) for arm in ("none", "mask-10", "trim-10") for seed in range(6)])
    none, mask, trim = (line.split(" | ") for line in capsys.readouterr().out.splitlines()[-3:])
    assert none[:4] == ["| none", "6", "10.0%", "0.3000"]
    half = 2.571 * np.std([0.01, 0.011], ddof=0) * math.sqrt(6 / 5) / math.sqrt(6)
    assert mask[3] == f"**-0.0105** ± {half:.4f}", "p is 2/64 of two comparisons, so 0.0625"
    assert trim[3].startswith("+0.0000 ± 0.01")
    markdown(runs, [("foreign", arm, seed) for arm in ("none", "mask-10") for seed in range(2)])
    assert capsys.readouterr().out.splitlines()[-1].split(" | ")[3] == "-0.0105 (-0.0105..-0.0105)", "over images"
