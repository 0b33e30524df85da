"""benchmarks/student.py in small: what each arm leaves out, rows that are kept and gone on from, and the report."""

import csv
import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from depthsieve.core.errors import UsageError
from depthsieve.demo.student import train_on
from depthsieve.reliability.masking import drop_count
from depthsieve.scenes import render_scene
from depthsieve.store import open_store

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import student  # noqa: E402
from student_data import Scenes, Setup, load_scenes  # noqa: E402
from student_report import FIELDS, mean_and_error, read_rows, results_of  # noqa: E402

SIZES = ("--scenes", "5", "--held-out", "2", "--steps", "2", "--seeds", "1")
SETUP = Setup.make(5, 2, None)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished benchmark of two arms, run in this process."""
    folder = tmp_path_factory.mktemp("student")
    student.main(["--work", str(folder), *SIZES, "--arms", "none", "mask-10"])
    return folder


@pytest.fixture(scope="module")
def scenes(work: Path) -> Scenes:
    return load_scenes(work, SETUP, "train")


def rows_of(work: Path) -> list[dict[str, Any]]:
    return read_rows(work / "runs.csv", 2)


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seconds"}


def test_every_run_has_a_row_that_says_what_it_was(work: Path) -> None:
    with (work / "runs.csv").open(newline="") as file:
        assert tuple(csv.DictReader(file).fieldnames or ()) == FIELDS
    plain, masked = rows_of(work)
    assert [(row["arm"], row["seed"], row["steps"], row["batch"]) for row in (plain, masked)] == [
        ("none", 0, 2, 5),
        ("mask-10", 0, 2, 5),
    ]
    assert plain["masked"] == 0 and 0.05 < masked["masked"] <= 0.1
    assert plain["abs_rel"] != masked["abs_rel"] and 0.1 < plain["abs_rel"] < 1
    assert (work / "student.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_that_was_killed_goes_on_with_what_is_missing(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, before = work / "runs.csv", rows_of(work)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert lines[1].startswith(b"none,0,")
    kept, _, _ = lines[1].rpartition(b",")
    marked = kept + b",12345.0\r\n"  # a row that is there is not run again
    path.write_bytes(lines[0] + marked + lines[2][:20])
    student.main(["--work", str(work), *SIZES, "--arms", "none", "mask-10"])
    after = rows_of(work)
    assert [row["arm"] for row in after] == ["none", "mask-10"]
    assert after[0]["seconds"] == 12345.0
    assert without_seconds(after[1]) == without_seconds(before[1])
    report = capsys.readouterr().out
    assert f"none                1{before[0]['abs_rel']:>17.4f}{before[0]['delta1']:>17.4f}" in report
    path.write_bytes(whole)


@pytest.mark.slow
def test_worker_processes_give_the_same_rows(work: Path) -> None:
    held = (work / "runs.csv").read_bytes()
    before = rows_of(work)
    (work / "runs.csv").unlink()
    command = [sys.executable, "-W", "error", str(BENCHMARKS / "student.py"), "--work", str(work), *SIZES]
    ran = subprocess.run(
        [*command, "--arms", "none", "mask-10", "--jobs", "2"], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    after = sorted(rows_of(work), key=lambda row: -len(row["arm"]))
    assert [without_seconds(row) for row in after[::-1]] == [without_seconds(row) for row in before]
    assert "constant map" in ran.stdout and "least reliable" in ran.stdout
    (work / "runs.csv").write_bytes(held)


def test_another_experiment_and_unknown_arms_are_refused_in_one_line(work: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*another experiment.*--work$"):
        student.main(["--work", str(work), "--scenes", "6", "--held-out", "2"])
    with pytest.raises(SystemExit, match=r"^error: unknown arm 'mask-0'"):
        student.main(["--work", str(tmp_path / "new"), "--arms", "mask-0"])
    with pytest.raises(SystemExit, match=r"^error: --jobs must be at least 1, not 0$"):
        student.main(["--work", str(tmp_path / "new"), "--jobs", "0"])
    with pytest.raises(SystemExit, match=r"^error: .*no run of 3 steps"):
        student.main(["--work", str(work), "--scenes", "5", "--held-out", "2", "--steps", "3", "--report"])
    assert not (tmp_path / "new").exists()
    assert all(student.Arm.parse(name) for name in student.ARMS)


def test_images_labels_and_exact_depth_are_those_of_the_scene(work: Path, scenes: Scenes) -> None:
    assert scenes.ids[3] == "scenes/train/00003.png"
    scene = render_scene(10_000_000 + 3 * 16, 126, 168, family="foreign")
    assert torch.equal(scenes.image_N3HW[3].permute(1, 2, 0), torch.from_numpy(scene.rgb_HW3))
    assert scenes.exact_NHW[3].numpy().tobytes() == scene.disparity_HW.tobytes()
    label = open_store(work / "labels").label(scenes.ids[3])
    assert torch.equal(scenes.label_NHW[3], torch.from_numpy(label.depth.astype(np.float32)))
    held_out = load_scenes(work, SETUP, "held-out")
    assert not {e.numpy().tobytes() for e in scenes.exact_NHW} & {e.numpy().tobytes() for e in held_out.exact_NHW}


def test_arms_leave_out_what_they_say(scenes: Scenes) -> None:
    def mask(name: str, seed: int = 0) -> torch.Tensor:
        return student.mask_of(student.Arm.parse(name), scenes, seed)

    every = mask("none")
    assert torch.equal(mask("trim-30"), every) and mask("exact").all()
    masked = mask("mask-20")
    assert torch.equal(mask("both-20"), masked)
    left_out = (every & ~masked).flatten(1).sum(dim=1)
    valid = every.flatten(1).sum(dim=1)
    assert all(0 < n <= drop_count(0.2, v) for n, v in zip(left_out.tolist(), valid.tolist(), strict=True))
    for name in ("random-20", "oracle-20", "loss-20", "level-20"):
        other = mask(name)
        assert torch.equal((every & ~other).flatten(1).sum(dim=1), left_out), name
        assert not torch.equal(other, masked) and not (other & ~every).any()
    assert torch.equal(mask("random-20", 3), mask("random-20", 3))
    assert not torch.equal(mask("random-20", 3), mask("random-20", 4))
    assert torch.equal(mask("oracle-20", 3), mask("oracle-20", 4))
    for image in range(len(every)):
        ranks = {
            "oracle": scenes.label_error(image),
            "loss": scenes.loss_error(image),
            "level": -scenes.label_NHW[image].numpy(),
        }
        for name, rank_HW in ranks.items():
            kept = every[image].numpy() & mask(f"{name}-20")[image].numpy()
            assert rank_HW[kept].max() <= rank_HW[every[image].numpy() & ~kept].min(), name
        label_HW, exact_HW = (
            (maps_HW - np.sort(maps_HW, axis=None)[(maps_HW.size - 1) // 2])
            for maps_HW in (scenes.label_NHW[image].double().numpy(), scenes.exact_NHW[image].double().numpy())
        )
        off_HW = label_HW / np.abs(label_HW).mean() - exact_HW / np.abs(exact_HW).mean()
        np.testing.assert_allclose(ranks["loss"], np.abs(off_HW), rtol=1e-3, atol=1e-4)
    for seed in range(6):
        borrowed = mask("borrowed-20", seed)
        sources = [
            next(j for j in range(5) if torch.equal(borrowed[i], every[i] & masked[j])) for i in range(len(every))
        ]
        assert sorted(sources) == [0, 1, 2, 3, 4] and all(i != j for i, j in enumerate(sources))


def test_every_arm_of_a_seed_sees_the_same_images(scenes: Scenes) -> None:
    every = scenes.mask(0.0)

    def first(name: str, seed: int) -> list[dict[str, Any]]:
        arm = student.Arm.parse(name)
        mask_NHW = student.mask_of(arm, scenes, seed)
        return list(itertools.islice(student.batches(scenes, arm, mask_NHW, seed, batch=2), 5))

    plain, masked, exact, other = first("none", 0), first("mask-20", 0), first("exact", 0), first("none", 1)
    for a, b, c in zip(plain, masked, exact, strict=True):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["image"], c["image"])
        assert torch.equal(a["depth"], b["depth"]) and not torch.equal(a["depth"], c["depth"])
        assert b["mask"].sum() < a["mask"].sum()
    assert not all(torch.equal(a["image"], d["image"]) for a, d in zip(plain, other, strict=True))
    # Two batches of two an epoch; each sample is an image with its own label, mirrored alike or not at all.
    known = {}
    for i, mirrored in itertools.product(range(5), (False, True)):
        image, label = scenes.image_N3HW[i], scenes.label_NHW[i]
        image, label = (image.flip(-1), label.flip(-1)) if mirrored else (image, label)
        known[(image.float() / 255).numpy().tobytes()] = (i, mirrored, label)
    seen = [known[image.numpy().tobytes()] for batch in plain for image in batch["image"]]
    assert len({i for i, _, _ in seen[:4]}) == 4 and {m for _, m, _ in seen} == {False, True}
    labels = [label for batch in plain for label in batch["depth"]]
    assert all(torch.equal(label, expected) for label, (_, _, expected) in zip(labels, seen, strict=True))
    assert every.all()


def test_the_trim_of_an_arm_reaches_the_loss(scenes: Scenes) -> None:
    held_out = scenes
    rows = {name: student.run(name, 0, 1, (scenes, held_out), SETUP) for name in ("none", "trim-30", "both-30")}
    assert rows["trim-30"]["loss_first"] < 0.85 * rows["none"]["loss_first"]
    assert [rows[name]["trimmed"] for name in rows] == [0.0, 0.3, 0.3]
    assert [rows[name]["masked"] > 0.2 for name in rows] == [False, False, True]


def test_training_takes_no_more_batches_than_steps_and_wants_as_many(scenes: Scenes) -> None:
    arm = student.Arm.parse("none")
    source = student.batches(scenes, arm, scenes.mask(0.0), 0, batch=1)
    taken = iter(list(itertools.islice(source, 3)))
    assert len(train_on(taken, 2, seed=0).losses) == 2
    assert len(list(taken)) == 1
    with pytest.raises(UsageError, match="3 steps got 1 batches"):
        train_on(itertools.islice(source, 1), 3, seed=0)


def test_results_are_paired_by_seed() -> None:
    def row(arm: str, seed: int, abs_rel: float) -> dict[str, Any]:
        return {"arm": arm, "seed": seed, "abs_rel": abs_rel, "delta1": 0.5, "masked": 0.1, "seconds": 2.0}

    rows = [row("mask-10", 1, 0.31), row("mask-10", 0, 0.25), row("none", 0, 0.26), row("none", 1, 0.30)]
    rows.append(row("mask-10", 2, 0.4))  # no run without a filter to be compared with
    plain, masked = results_of(rows, ("none", "trim-5", "mask-10"))
    assert (plain.arm, plain.abs_rel, plain.paired) == ("none", (0.26, 0.30), (0.0, 0.0))
    assert masked.seeds == (0, 1, 2) and masked.abs_rel == (0.25, 0.31, 0.4)
    assert masked.paired == pytest.approx((-0.01, 0.01))
    assert mean_and_error((1.0, 2.0, 6.0)) == pytest.approx((3.0, math.sqrt(7 / 3)))
    assert math.isnan(mean_and_error((1.0,))[1])
