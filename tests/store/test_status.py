"""`depthsieve status`: what it says of a store, beside a run and after it, without touching anything."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commandline import command
from labelled import write_photos
from patience import wait_for
from poison import let_go, poison, poisoned

import depthsieve
from depthsieve.core.errors import StoreNotFound
from depthsieve.core.processes import Process
from depthsieve.storage import open_root
from depthsieve.store import Store
from depthsieve.store.leases import Leases
from depthsieve.store.status import StoreStatus, status
from depthsieve_cli.status import _duration

SETTINGS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 2, "progress": False}


@pytest.fixture(scope="module")
def teacher(light: str) -> str:
    return light


@pytest.fixture
def store(tmp_path: Path, teacher: str) -> Path:
    """Ten photos of one shape in five shards, two of which are labelled; one image of those failed, one was refused."""
    photos = write_photos(tmp_path / "photos", 10)
    for number in (2, 5, 8):
        (photos / f"photo {number}.png").unlink()
    (photos / "photo 0.png").write_bytes((photos / "photo 0.png").read_bytes()[:500])
    (photos / "empty.png").write_bytes(b"")
    depthsieve.plan(photos, tmp_path / "store", write=True, teacher=teacher, **SETTINGS)
    depthsieve.label(photos, tmp_path / "store", teacher=teacher, part="1/2", **SETTINGS)
    return tmp_path / "store"


def test_what_is_done_failed_and_left(store: Path) -> None:
    found = status(store)
    assert (found.labelled, found.pending, found.shards, found.shards_committed) == (3, 3, 4, 2)
    assert [failure.id for failure in found.failed] == ["default/empty.png", "default/photo 0.png"]
    assert found.at_work == () and found.seconds_left is None


def test_the_rate_is_that_of_the_last_ten_minutes_and_the_time_left_follows_from_it(store: Path, teacher: str) -> None:
    depthsieve.label(store.parent / "photos", store, teacher=teacher, part="2/4", **SETTINGS)
    records = sorted(store.glob("commits/0000-*.json"))
    _age(records, 30, 20, 10)
    with Leases(open_root(store)) as leases:
        _at_work_for(store, 1000)
        leases.take("0000-000003")
        found = status(store)
        assert found.at_work == (str(Process.current()),)
        assert (found.labelled, found.pending) == (5, 1)
        assert found.images_per_second == pytest.approx(4 / 20, rel=1e-3)
        assert found.seconds_left == pytest.approx(1 / 0.2, rel=1e-3)
        _age(records, 3000, 3000, 10)
        assert status(store).images_per_second is None


def test_time_between_runs_does_not_count_in_the_rate(store: Path, teacher: str) -> None:
    depthsieve.label(store.parent / "photos", store, teacher=teacher, part="2/4", **SETTINGS)
    _age(sorted(store.glob("commits/0000-*.json")), 500, 20, 10)
    with Leases(open_root(store)) as leases:
        _at_work_for(store, 40)
        leases.take("0000-000003")
        assert status(store).images_per_second == pytest.approx(2 / 10, rel=1e-3)


def test_where_nobody_is_at_work_there_is_no_rate(store: Path, tmp_path: Path) -> None:
    """Least of all in a copy, whose records were all written at once."""
    _age(sorted(store.glob("commits/0000-*.json")), 20, 10)
    assert status(store).images_per_second is None
    shutil.copytree(store, tmp_path / "copy", copy_function=shutil.copyfile)
    assert status(tmp_path / "copy").images_per_second is None


def _age(records: list[Path], *ages: float) -> None:
    """Let commit records have been written so many seconds ago."""
    now = time.time()
    for record, age in zip(records, ages, strict=True):
        os.utime(record, (now - age, now - age))


def _at_work_for(store: Path, seconds: float) -> None:
    """Let this process have begun so many seconds ago."""
    (sign,) = store.glob("leases/alive-*")
    begun = float(sign.read_text())
    assert abs(begun - time.time()) < 60
    sign.write_text(str(begun - seconds))


def test_looking_changes_nothing_and_looking_again_reads_only_what_is_new(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tree() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(store.rglob("*"))}

    before, seen = tree(), {}  # type: ignore[var-annotated]
    first = status(store, seen)
    read: list[str] = []
    kept = Store.commit_record

    def noting(self: Store, shard_id: str) -> dict[str, Any]:
        read.append(shard_id)
        return kept(self, shard_id)

    monkeypatch.setattr(Store, "commit_record", noting)
    assert status(store, seen) == first and read == []
    assert status(store) == first and len(read) == 2
    assert tree() == before


def test_beside_a_run_it_sees_who_works_and_how_far(tmp_path: Path, teacher: str) -> None:
    """A run that stands still half way until it has been looked at."""
    photos, store, bugs = write_photos(tmp_path / "photos", 12), tmp_path / "store", tmp_path / "bugs"
    poison(bugs, photos / "photo 9.png", "wait")
    start = [sys.executable, "-m", "depthsieve", "label", str(photos), str(store), "--teacher", teacher]
    process = subprocess.Popen(
        [*start, "--batch-size", "1", "--threads", "1", "--shard-size", "1"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=poisoned(bugs),
    )
    found: list[StoreStatus] = []

    def half_way() -> bool:
        with contextlib.suppress(StoreNotFound):
            found.append(status(store))
        return bool(found and found[-1].labelled > 2 and found[-1].at_work and found[-1].images_per_second)

    wait_for(half_way, "three images are labelled")
    let_go(bugs)
    while process.poll() is None:
        found.append(status(store))
    assert process.returncode == 0
    labelled = [one.labelled for one in found]
    assert labelled == sorted(labelled)
    assert (status(store).labelled, status(store).pending, status(store).at_work) == (12, 0, ())


def test_the_command(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "status", store) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{store}: 3 of 8 images labelled, 3 left."
    assert lines[1] == "2 of 4 shards committed."
    assert lines[-2].startswith("  failed: default/empty.png: empty file")
    assert command(monkeypatch, "status", store, "--json") == 1
    body = json.loads(capsys.readouterr().out)
    assert (body["labelled"], body["pending"], len(body["failed"])) == (3, 3, 2)
    assert command(monkeypatch, "status", store, "--watch") == 1  # nobody is at work, so it ends
    assert command(monkeypatch, "status", store / "nothing") == 1
    assert "is not a label store" in capsys.readouterr().err


def test_watching_goes_on_until_nobody_works(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("depthsieve_cli.status.EVERY_S", 0.01)
    leases = Leases(open_root(store))
    with leases:
        lease = leases.take("0000-000001")
        looks: list[float] = []

        def sleep(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 3:
                leases.give_back(lease, settled=False)  # type: ignore[arg-type]

        monkeypatch.setattr("depthsieve_cli.status.time.sleep", sleep)
        assert command(monkeypatch, "status", store, "--watch") == 1
    out = capsys.readouterr().out
    assert len(looks) == 3 and out.count("images labelled") == 4 and out.count("At work: process ") == 3


def test_watching_as_json_prints_a_line_each_time(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leases = Leases(open_root(store))
    with leases:
        lease = leases.take("0000-000001")
        monkeypatch.setattr(
            "depthsieve_cli.status.time.sleep",
            lambda seconds: leases.give_back(lease, settled=False),  # type: ignore[arg-type]
        )
        assert command(monkeypatch, "status", store, "--watch", "--json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["labelled"], len(line["at_work"])) for line in lines] == [(3, 1), (3, 0)]


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.4, "3 s"), (99, "99 s"), (600, "10 min"), (5400, "1.5 h"), (3600 * 2000, "2,000.0 h")]
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert _duration(seconds) == words
