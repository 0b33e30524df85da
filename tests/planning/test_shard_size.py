"""How large shards are: as said, else 256, or what a trial finds to take about a minute."""

from pathlib import Path
from typing import Any

import pytest
from labelled import decided_bytes, small_teacher, write_photos

import depthsieve
from depthsieve.planning import workforce
from depthsieve.planning.workforce import shard_size_for
from depthsieve.store import open_store


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


@pytest.mark.parametrize(
    ("images", "size"), [(0.2, 16), (31.9, 16), (32, 32), (63, 32), (64, 64), (200, 128), (256, 256), (10_000, 256)]
)
def test_a_shard_takes_no_longer_than_a_worker_needs_for_so_many_images(images: float, size: int) -> None:
    assert shard_size_for(images) == size


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes that were tried, on a worker of 0.8 images a second."""
    tried: list[int] = []

    def slow(teacher: object, settings: object, batch_size: int) -> float:
        tried.append(batch_size)
        return 0.8

    monkeypatch.setattr(workforce, "images_per_second", slow)
    return tried


def planned(folder: Path, store: str, teacher: str, **options: Any) -> tuple[depthsieve.PlanSummary, list[int]]:
    """The summary of a plan that is written, and the images of its shards."""
    summary = depthsieve.plan(
        folder / "photos", folder / store, teacher=teacher, write=True, trial=False, progress=False, **options
    )
    (generation,) = open_store(folder / store).generations()
    return summary, open_store(folder / store).shard_table(generation).images_S.tolist()


def test_a_slow_teacher_gets_small_shards_and_the_plan_says_so(tmp_path: Path, teacher: str, asked: list[int]) -> None:
    write_photos(tmp_path / "photos", 60)  # 40 and 20 of a shape
    summary, images = planned(tmp_path, "store", teacher, threads=1, signals="flip")
    # flip takes a second pass: 0.4 images a second, 24 a minute
    assert images == [16, 16, 8, 16, 4]
    assert asked == [1], "a small job is tried with one image at a time"
    assert summary.notes == ("shards hold at most 16 images, about a minute's work by a trial (--shard-size sets it)",)
    (generation,) = open_store(tmp_path / "store").generations()
    assert generation.shard_size == 16
    asked.clear()
    _, images = planned(tmp_path, "plain", teacher, threads=1, signals="none")
    assert images == [32, 8, 20]
    again = depthsieve.label(tmp_path / "photos", tmp_path / "store", progress=False)
    assert (again.planned_now, again.labelled) == (0, 60)


def test_what_is_given_decides_without_a_trial(tmp_path: Path, teacher: str, asked: list[int]) -> None:
    write_photos(tmp_path / "photos", 60)
    for store, options in {"batch": {"batch_size": 2}, "size": {"shard_size": 50}, "both": {"batch_size": 2}}.items():
        summary, images = planned(tmp_path, store, teacher, threads=1, **options)
        assert images == [40, 20] and summary.notes == () and asked == []
        (generation,) = open_store(tmp_path / store).generations()
        assert "shard_size" not in generation.to_json()
    assert decided_bytes(tmp_path / "batch") == decided_bytes(tmp_path / "both")


def test_few_images_of_a_shape_need_no_trial(tmp_path: Path, teacher: str, asked: list[int]) -> None:
    write_photos(tmp_path / "photos", 24)  # 16 and 8 of a shape
    _, images = planned(tmp_path, "store", teacher, threads=1)
    assert images == [16, 8] and asked == []


def test_where_larger_shards_would_be_the_same_nothing_is_said(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 30)
    monkeypatch.setattr(workforce, "images_per_second", lambda *arguments: 1.2)  # 36 a minute
    summary, images = planned(tmp_path, "store", teacher, threads=1)
    assert images == [20, 10] and summary.notes == ()
    (generation,) = open_store(tmp_path / "store").generations()
    assert generation.shard_size is None
