"""`depthsieve plan` as a user meets it."""

import json
import re
from pathlib import Path

import pytest
from commandline import command
from labelled import small_teacher, write_photos

from depthsieve_cli.output import size
from depthsieve_cli.plan import _duration


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


def test_a_plan_says_what_is_left_and_writes_nothing_unless_told_to(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, store = write_photos(tmp_path / "it's photos", 6), tmp_path / "a store"
    arguments = ("plan", photos, store, "--teacher", teacher, "--batch-size", 2, "--shard-size", 2)
    assert command(monkeypatch, *arguments) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{store}: 6 images to label in 3 shards, about 0.")
    assert re.search(r" MB \([\d.]+ MB to [\d.]+ MB\); [\d.,]+ [GT]B are free\.$", first)
    assert re.fullmatch(r"About [\d.]+ s \([\d.]+ to [\d.]+\) with 1 worker, judging by \d+ images\.", second)
    assert third.startswith("Nothing was written.")
    assert not store.exists()
    assert command(monkeypatch, *arguments, "--write") == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("The plan is written.")
    assert len(list((store / "plan").iterdir())) == 4
    assert list(store.glob("commits/0000-*")) == []
    assert command(monkeypatch, "label", photos, store, "--teacher", teacher, "--part", "2/3") == 0
    told = capsys.readouterr().out
    assert f"{store}: 2 of 6 images labelled." in told and "See them" not in told, "there are other parts"
    (photos / "empty.jpg").write_bytes(b"")
    assert command(monkeypatch, *arguments, "--json", "--no-trial") == 3
    body = json.loads(capsys.readouterr().out)
    assert (body["images"], body["shards"], body["written"]) == (4, 2, False)
    assert body["rejected"] == [{"id": "default/empty.jpg", "reason": "empty file"}]
    assert body["bytes"] == int(2 * (98 * 70 * 2.2) * 2)
    assert (body["tried"], body["hours"], body["bytes_range"]) == (0, None, None)
    assert command(monkeypatch, *arguments, "--json") == 3
    body = json.loads(capsys.readouterr().out)
    assert body["tried"] > 0 and body["hours"] == body["worker_hours"] and body["gpu_hours"] is None
    assert body["bytes"] == int(body["bytes_range"][1])
    for low, likely, high in (body["hours"], body["bytes_range"]):
        assert 0 < low < likely < high


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 MB"), (759_000, "0.759 MB"), (76.8e9, "76.8 GB"), (5.2e12, "5.2 TB"), (1e6, "1 MB")]
)
def test_sizes_are_told_in_a_fitting_unit(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        ((0.01, 0.02, 0.0301), "72 s (36 to 108)"),
        ((0.4, 0.5, 0.61), "30 min (24 to 37)"),
        ((9.04, 10, 12.3), "10 h (9 to 12)"),
        ((2100.4, 2500, 3000), "2,500 h (2,100 to 3,000)"),
        ((0.0002, 0.0004, 0.0006), "1.4 s (0.7 to 2.2)"),
    ],
)
def test_durations_are_told_in_a_fitting_unit(hours: tuple[float, float, float], text: str) -> None:
    assert _duration(hours) == text


def test_a_part_without_a_plan_is_one_line(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    assert command(monkeypatch, "label", photos, tmp_path / "store", "--teacher", teacher, "--part", "1/2") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert "depthsieve plan SOURCE STORE --write" in line
    assert command(monkeypatch, "label", photos, tmp_path / "store", "--teacher", teacher, "--part", "2") == 2
