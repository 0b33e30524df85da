"""benchmarks/study_teachers.py and study_networks.py in small: which scenes, which teachers, and what is counted."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from depthsieve.jobs.calibrate.judging import FLIP, LEVEL, MethodScore
from depthsieve.teachers import load_teacher

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import study_networks  # noqa: E402
import study_teachers  # noqa: E402


def test_a_teacher_learns_from_its_own_kinds_of_scenes(tmp_path: Path) -> None:
    for shard in range(3):
        np.save(tmp_path / f"{shard:04}_rgb.npy", np.zeros((2, 48, 64, 3), np.uint8))
        np.save(tmp_path / f"{shard:04}_disparity.npy", np.full((2, 48, 64), 1 + shard, np.float16))
    recipe = study_teachers.RECIPES["da-4"]
    batches = study_teachers.ChosenShards(tmp_path, recipe)
    rgb_BHW3, disparity_BHW = batches.batch_of_step(3)
    assert rgb_BHW3.shape == (study_teachers.BATCH, *recipe.shape, 3) and rgb_BHW3.dtype == torch.uint8
    assert set(disparity_BHW.unique().tolist()) == {2.0, 3.0}, "wild scenes are shards 1 and 2"
    again, _ = study_teachers.ChosenShards(tmp_path, recipe).batch_of_step(3)
    assert torch.equal(again, rgb_BHW3) and not torch.equal(batches.batch_of_step(4)[0], rgb_BHW3)


def test_the_metric_loss_is_least_for_the_true_metres() -> None:
    metres_BHW = torch.linspace(1, 30, 600).reshape(1, 20, 30)
    right = study_teachers.metric_loss(metres_BHW, 1 / metres_BHW)
    assert right < 1e-3
    assert study_teachers.metric_loss(metres_BHW * 1.1, 1 / metres_BHW) > right + 0.05
    beyond_BHW = torch.where(metres_BHW > study_teachers.FARTHEST + 0.1, 5.0, metres_BHW)
    assert study_teachers.metric_loss(beyond_BHW, 1 / metres_BHW) < 1e-3, "what lies beyond does not count"


def test_a_shrunk_teacher_sees_photos_at_the_size_it_has_learnt_at() -> None:
    teacher = load_teacher("tiny", device="cpu")
    shrunk = study_networks.Shrunk(teacher, 96)
    assert shrunk.label_shape(480, 640) == teacher.label_shape(96, 128) and shrunk.quantity == "disparity"
    photo_HW3 = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    shape = shrunk.label_shape(480, 640)
    assert shrunk.prepare(photo_HW3, shape).shape == (3, *shape)


def test_a_network_is_applied_to_a_teacher_that_it_has_not_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, list[str]] = {}
    network_of = study_networks.network_of

    def noted(files: list[Path], quantity: str, steps: int, path: Path) -> object:
        trained[path.stem] = sorted({file.parent.name for file in files})
        return network_of(files, quantity, steps, path)

    monkeypatch.setattr(study_networks, "network_of", noted)
    sizes = ["--scenes", "2", "--steps", "1", "--judged", "1", "--own", "tiny"]
    monkeypatch.setattr(sys, "argv", ["study", "--work", str(tmp_path), "--teachers", "tiny", "tiny-v1", *sizes])
    study_networks.main()
    assert trained == {"without-tiny": ["tiny-v1"], "own-tiny": ["tiny"], "without-tiny-v1": ["tiny"]}
    rows = json.loads((tmp_path / "scores/tiny.json").read_text())
    assert {row["method"] for row in rows} == set(study_networks.METHODS) and {row["data"] for row in rows} == {
        "scenes"
    }
    told = capsys.readouterr().out
    assert "| tiny |" in told and "| tiny-v1 |  |" in told and "of 2 teachers\n" in told
    trained.clear()
    study_networks.main()
    assert not trained, "what is there is not made again"
    assert capsys.readouterr().out == told
    monkeypatch.setattr(sys, "argv", ["study", "--work", str(tmp_path), "--teachers", "tiny,tiny-v1"])
    with pytest.raises(SystemExit):
        study_networks.main()


def test_the_table_counts_teachers_on_which_the_flip_is_worse(capsys: pytest.CaptureFixture[str]) -> None:
    def rows(others: float, flip: float) -> list[MethodScore]:
        scores = {study_networks.OTHERS: (others, 0.9), FLIP: (flip, 0.5), LEVEL: (0.1, None)}
        return [
            MethodScore("scenes", name, 9, ause, 0.0, 1.0, 0.1 - ause, 0.0, 1.0, ratio)
            for name, (ause, ratio) in scores.items()
        ]

    study_networks.show({"a": rows(0.04, 0.05), "b": rows(0.06, 0.05), "c": rows(0.03, 0.05)})
    told = capsys.readouterr().out
    assert "| a |  | 0.0400 / 0.0600 |  | 0.0500 / 0.0500 |  | 0.1000 / 0.0000 |" in told
    assert "others, the first error: better than the fused flip on 2 of 3 teachers" in told
    assert "others, AbsRel: better than the fused flip on 1 of 3 teachers" in told
    assert "| b |  | 0.90 |  | 0.50 |  |  |" in told
