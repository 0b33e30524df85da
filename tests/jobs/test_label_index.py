"""The index is right after every way of labelling: whole, in parts, side by side, and interrupted."""

import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from labelled import small_teacher, write_photos

import depthsieve
from depthsieve.jobs import label as run
from depthsieve.storage import open_root
from depthsieve.store import open_store
from depthsieve.store.create import index_fault
from depthsieve.store.leases import INDEX, Lease, Leases

SETTINGS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 2, "progress": False}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


@pytest.fixture
def planned(tmp_path: Path, teacher: str) -> Path:
    """A store whose plan of eight images is written, beside its photos."""
    photos = write_photos(tmp_path / "photos", 8)
    depthsieve.plan(photos, tmp_path / "store", teacher=teacher, write=True, trial=False, **SETTINGS)
    assert statuses(tmp_path / "store") == {"pending": 8}
    return tmp_path / "store"


def statuses(store: Path) -> dict[str, int]:
    """How many images the index file has of each status, once it was seen to fit the store."""
    assert index_fault(open_store(store)) == (None, False)
    found = pq.read_table(store / "index.parquet")["status"].to_pylist()
    return {status: found.count(status) for status in sorted({*found})}


def part(store: Path, which: str, **more: Any) -> depthsieve.LabelSummary:
    return depthsieve.label(store.parent / "photos", store, part=which, **SETTINGS | more)


def test_each_part_leaves_it_right(planned: Path) -> None:
    labelled = 0
    for which in ("1/3", "2/3", "3/3"):
        labelled += part(planned, which).labelled_now
        left = {"pending": 8 - labelled} if labelled < 8 else {}
        assert statuses(planned) == {"labelled": labelled, **left}


def test_the_last_of_parts_side_by_side_leaves_it_right(planned: Path) -> None:
    threads = [threading.Thread(target=part, args=(planned, f"{number}/4")) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses(planned) == {"labelled": 8}
    assert not list((planned / "leases").iterdir())


def test_while_others_have_shards_in_flight_it_is_left_to_them(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    monkeypatch.setattr(run, "write_index", written.append)
    with Leases(open_root(planned)) as others:
        lease = others.take(next(iter(open_store(planned).pending((2, 2)))))
        assert isinstance(lease, Lease)
        part(planned, "1/2")
        assert written == []
        others.give_back(lease, settled=False)
    part(planned, "1/2")
    assert len(written) == 1


def test_one_process_at_a_time_writes_it(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "INDEX_POLL_S", 0.01)
    done = threading.Event()

    def label() -> None:
        part(planned, "1/1")
        done.set()

    with Leases(open_root(planned)) as others:
        lease = others.take(INDEX)
        assert isinstance(lease, Lease)
        thread = threading.Thread(target=label)
        thread.start()
        while open_store(planned).pending().images:
            assert not done.wait(0.01)
        assert pq.read_table(planned / "index.parquet")["status"].to_pylist() == ["pending"] * 8
        others.give_back(lease, settled=True)
        thread.join()
    assert statuses(planned) == {"labelled": 8}


def test_an_interrupted_run_leaves_it_right(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = depthsieve.Stop(grace_s=600)
    committed = run.dispatch

    def stopped_after(*arguments: Any) -> Any:
        outcome = committed(*arguments)
        stop.request()
        return outcome

    monkeypatch.setattr(run, "dispatch", stopped_after)
    summary = part(planned, "1/2", stop=stop)
    assert summary.interrupted is False and summary.labelled_now > 0
    assert statuses(planned)["labelled"] == summary.labelled_now
