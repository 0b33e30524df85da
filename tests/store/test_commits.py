"""Committing a shard: late duplicates, attempts that race, torn groups; exactly one wins, whole."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from noisestore import commit, content, empty_store, plan, tree

from depthsieve.storage import open_root
from depthsieve.storage.local import LocalRoot
from depthsieve.store import open_store, writer
from depthsieve.store.reader import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return empty_store(tmp_path)


def test_a_late_duplicate_with_other_bits_changes_nothing(store: Store) -> None:
    (shard,) = plan(store, range(2))
    assert commit(store, shard, seed=1)
    before = tree(store.path)
    assert not commit(store, shard, seed=2)
    assert tree(store.path) == before
    expected = content(shard, seed=1).arrays
    found = open_store(store.path).label("default/1.png")
    np.testing.assert_array_equal(found.depth, expected["depth"][1].astype(np.float32))
    np.testing.assert_array_equal(found.reliability, expected["reliability"][1])


def test_two_attempts_that_race_never_share_a_path_and_one_wins(store: Store) -> None:
    (shard,) = plan(store, range(2))
    record = store.path / "commits" / f"{shard.id}.json"
    commit(store, shard, seed=1)
    first = record.read_bytes()
    record.unlink()  # the moment before the record: the first group is an orphan
    assert commit(store, shard, seed=2)
    groups = sorted(path.name for path in (store.path / "labels.zarr" / "shards").glob("0000-*"))
    assert len(groups) == 2 and len(set(groups)) == 2
    winner = json.loads(record.read_bytes())["group"]
    assert winner in groups and winner != json.loads(first)["group"]
    expected = content(shard, seed=2).arrays["depth"][0].astype(np.float32)
    np.testing.assert_array_equal(open_store(store.path).label("default/0.png").depth, expected)


def test_who_is_overtaken_at_the_last_moment_takes_its_group_away(store: Store) -> None:
    (shard,) = plan(store, range(2))
    genuine = LocalRoot.create

    with pytest.MonkeyPatch.context() as patch:

        def overtaken(root: LocalRoot, key: str, data: bytes, lasting: bool = True) -> bool:
            patch.undo()
            assert commit(store, shard, seed=2)  # the worker that everyone thought dead
            return genuine(root, key, data, lasting)

        patch.setattr(LocalRoot, "create", overtaken)
        assert not commit(store, shard, seed=1)
    (group,) = store.path.glob("labels.zarr/shards/0000-*")
    assert store.commit_record(shard.id)["group"] == group.name
    assert list((store.path / "tmp").iterdir()) == []


def test_a_group_torn_by_a_power_cut_is_written_again(store: Store) -> None:
    (shard,) = plan(store, range(2))
    commit(store, shard, seed=1)
    before = tree(store.path)
    record = store.path / "commits" / f"{shard.id}.json"
    group = store.path / "labels.zarr" / "shards" / json.loads(record.read_bytes())["group"]
    record.unlink()
    data = group / "depth" / "c" / "0" / "0" / "0"
    data.write_bytes(data.read_bytes()[:-100])
    assert commit(store, shard, seed=1)
    assert tree(store.path) == before


def test_a_commit_record_lists_every_file_with_its_digest(store: Store) -> None:
    (shard,) = plan(store, range(2))
    commit(store, shard, seed=1)
    record = open_store(store.path).commit_record(shard.id)
    group = store.path / "labels.zarr" / "shards" / record["group"]
    listed = {name: (entry["sha256"], entry["bytes"]) for name, entry in record["files"].items()}
    found = {
        str(path.relative_to(group)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in group.rglob("*")
        if path.is_file()
    }
    assert listed == found and "depth/c/0/0/0" in listed
    arrays = content(shard, seed=1)
    assert record["content_sha256"] == arrays.content_digest() != content(shard, seed=2).content_digest()
    assert record["histogram"] == arrays.arrays["histogram"].sum(axis=0).tolist()
    assert sum(record["histogram"]) == 2 * 14 * 28


def test_a_worker_that_outlived_its_run_cannot_commit_half_a_group(store: Store) -> None:
    (shard,) = plan(store, range(2))
    genuine = writer.list_folder

    def listing_then_cleared(folder: Path) -> dict[str, dict[str, Any]]:
        listed = genuine(folder)
        with pytest.MonkeyPatch.context() as dead:
            dead.setattr("depthsieve.storage.local.is_alive", lambda token: False)
            store.root.clear_scratch()  # the next run begins just now, and takes this process for dead
        return listed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "list_folder", listing_then_cleared)
        with pytest.raises(FileNotFoundError):
            commit(store, shard, seed=1)
    assert list(open_store(store.path).pending()) == [shard.id]
    assert commit(store, shard, seed=1)
    assert len(open_store(store.path)) == 2


@pytest.mark.parametrize("reason", [errno.EPERM, errno.EXDEV])
def test_file_systems_without_hard_links(store: Store, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    (shard,) = plan(store, range(2))
    assert commit(store, shard, seed=1)
    assert not commit(store, shard, seed=2)
    assert len(open_store(store.path)) == 2


def test_exclusive_and_atomic_writes(tmp_path: Path) -> None:
    root = open_root(tmp_path)
    assert root.create("a/record", b"first")
    assert not root.create("a/record", b"second")
    assert root.read("a/record") == b"first"
    root.write("a/record", b"third")
    assert root.read("a/record") == b"third"
    assert list((tmp_path / "tmp").iterdir()) == []
