"""The cache of remote shards: what it keeps and for how long, and that nothing wrong is ever read from it."""

import gc
import hashlib
import math
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import PATIENCE_S, wait_for
from s3server import S3Server
from storemaker import made_label, make_store, pictures

from depthsieve.core.errors import StoreDamaged, StoreError, UsageError
from depthsieve.core.processes import Process
from depthsieve.storage.local import LocalRoot
from depthsieve.store import Store, open_store
from depthsieve.store.cache import RemoteArray, ShardCache
from depthsieve.training import PseudoLabelDataset
from depthsieve.training.prefetch import Foresight

SIZE = 1000


def remote(folder: Path, number: int, size: int = SIZE) -> RemoteArray:
    """A made-up array of two files, as one that lies elsewhere."""
    key = f"shards/{number}/depth"
    data = {"zarr.json": b"{}", "c/0/0/0": np.random.default_rng(number).bytes(size - 2)}
    for name, content in data.items():
        path = folder / key / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    files = {name: (len(content), hashlib.sha256(content).digest()) for name, content in data.items()}
    return RemoteArray(LocalRoot(folder), key, files)


def entries(cache: ShardCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if path.is_dir()}


def taken(cache: ShardCache) -> int:
    return sum(int(name.partition("-")[2].partition(".")[0]) for name in entries(cache))


@pytest.fixture
def far(tmp_path: Path) -> Path:
    return tmp_path / "far"


# --- what is kept


def test_an_array_comes_whole_and_once(far: Path, tmp_path: Path) -> None:
    cache, array = ShardCache(tmp_path / "a" / "cache", 10 * SIZE), remote(far, 1)
    place = cache.get(array)
    assert place is not None and place.parent == cache.folder
    for name in array.files:
        assert (place / name).read_bytes() == (far / array.key / name).read_bytes()
    shutil.rmtree(far)
    assert cache.get(array) == place
    assert entries(cache) == {array.entry} and array.entry.endswith(f"-{SIZE}")


@settings(max_examples=40, deadline=None)
@given(uses=st.lists(st.integers(0, 5), min_size=1, max_size=40), room=st.integers(1, 4))
def test_what_is_needed_farthest_in_the_future_goes_first(
    tmp_path_factory: pytest.TempPathFactory, uses: list[int], room: int
) -> None:
    """The fetches are as few as Belady's rule makes them, which are the fewest there can be."""
    folder = tmp_path_factory.mktemp("cache")
    arrays = [remote(folder / "far", number) for number in range(6)]
    number_of = {array.entry: number for number, array in enumerate(arrays)}
    cache, foresight = ShardCache(folder / "cache", room * SIZE), Foresight(np.array(uses))
    cache.next_use = lambda entry: foresight.next_use(number_of[entry])
    fetches, fewest, held = 0, 0, set()
    for now, number in enumerate(uses):
        if number not in held:
            fewest += 1
            if len(held) == room:
                rest = uses[now:]
                held.remove(max(held, key=lambda one: rest.index(one) if one in rest else math.inf))
            held.add(number)
        foresight.now = now
        fetches += not (cache.folder / arrays[number].entry).exists()
        assert cache.get(arrays[number]) is not None
        assert taken(cache) <= room * SIZE
    assert fetches == fewest


@settings(max_examples=60, deadline=None)
@given(uses=st.lists(st.integers(0, 5), max_size=40))
def test_foresight_tells_when_each_is_used_next(uses: list[int]) -> None:
    foresight = Foresight(np.array(uses, np.int32))
    for now in range(len(uses) + 1):
        foresight.now = now
        for shard in range(max(uses, default=-1) + 1):
            rest = uses[now:]
            assert foresight.next_use(shard) == (rest.index(shard) if shard in rest else None)


def test_what_is_fetched_ahead_takes_no_room_of_what_is_needed_sooner(far: Path, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    one, two, three = (remote(far, number) for number in range(3))
    needed = {one.entry: 2, two.entry: 9}
    cache.next_use = needed.get
    assert cache.get(one) and cache.get(two)
    assert cache.get(three, uses_ahead=9) is None and entries(cache) == {one.entry, two.entry}
    assert cache.get(three, uses_ahead=8) and entries(cache) == {one.entry, three.entry}


def test_of_what_nobody_foresees_the_least_recently_used_goes(far: Path, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    arrays = [remote(far, number) for number in range(4)]
    for age, array in enumerate(arrays[:3]):
        place = cache.get(array)
        assert place is not None
        os.utime(place, (1000 + age, 1000 + age))
    cache.get(arrays[0])  # used again
    cache.get(arrays[3])
    assert entries(cache) == {arrays[number].entry for number in (0, 2, 3)}


def test_what_another_process_needs_soon_stays(far: Path, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    one, two, three = (remote(far, number) for number in range(3))
    cache.next_use = {one.entry: 50, two.entry: 40}.get
    assert cache.get(one) and cache.get(two)
    parent = os.getppid()
    from depthsieve.core.processes import started_at

    token = f"{Process.current().machine}-{parent}-{started_at(parent)}"
    (cache.folder / f"order.{token}").write_text(f"{one.entry} 3\n")
    assert cache.get(three) and entries(cache) == {one.entry, three.entry}
    dead = cache.folder / f"order.{Process.current().machine}-{parent}-1"
    dead.write_text(f"{three.entry} 1\n")
    cache.next_use = {one.entry: 50}.get
    assert cache.get(two) and entries(cache) == {one.entry, two.entry}
    assert not dead.exists()


def test_what_is_larger_than_the_cache_is_left_where_it_is(far: Path, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", SIZE - 1)
    assert cache.get(remote(far, 1)) is None and entries(cache) == set()


# --- what goes wrong


def test_what_is_not_as_recorded_is_not_kept(far: Path, tmp_path: Path) -> None:
    cache, array = ShardCache(tmp_path / "cache", 10 * SIZE), remote(far, 1)
    file = far / array.key / "c/0/0/0"
    data = file.read_bytes()
    for wrong in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b""):
        file.write_bytes(wrong)
        with pytest.raises(StoreDamaged, match=r"shards/1/depth/c/0/0/0 does not fit its digest; .*mends it"):
            cache.get(array)
        assert entries(cache) == set()
    file.unlink()
    with pytest.raises(StoreDamaged, match=r"depth/c/0/0/0 is missing; .*mends it"):
        cache.get(array)
    file.write_bytes(data)
    assert cache.get(array)


def test_a_cache_that_cannot_be_written_says_so(far: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError, match=r"cannot write to the cache .*file/cache \(Not a directory\); name another by"
    ):
        ShardCache(tmp_path / "file" / "cache", SIZE).get(remote(far, 1))


def test_the_environment_names_folder_and_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("DEPTHSIEVE_CACHE", "DEPTHSIEVE_CACHE_BYTES"):
        monkeypatch.delenv(name, raising=False)
    assert ShardCache.of_environment().folder == tmp_path / "depthsieve" / "shards"
    assert ShardCache.of_environment().most == 32 * 10**9
    monkeypatch.setenv("DEPTHSIEVE_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("DEPTHSIEVE_CACHE_BYTES", "2e10")
    cache = ShardCache.of_environment()
    assert (cache.folder, cache.most) == (tmp_path / "other", 2 * 10**10)
    for wrong in ("much", "nan", "inf"):
        monkeypatch.setenv("DEPTHSIEVE_CACHE_BYTES", wrong)
        with pytest.raises(UsageError, match="DEPTHSIEVE_CACHE_BYTES must be a number of bytes"):
            ShardCache.of_environment()


class SlowRoot(LocalRoot):
    """Each read takes its time, and is noted in a file."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        with (Path(self.location).parent / "reads").open("a") as file:
            file.write(f"{key}\n")
        time.sleep(0.02)
        return super().read_range(key, start, length)


def slow(array: RemoteArray, folder: Path) -> RemoteArray:
    return RemoteArray(SlowRoot(folder), array.key, array.files)


def use_at_random(folder: Path, far: Path, seed: int, times: int) -> None:
    cache = ShardCache(folder, 3 * SIZE)
    random = np.random.default_rng(seed)
    for number in random.integers(0, 6, times).tolist():
        array = remote(far, number)
        place = cache.get(slow(array, far))
        if place is not None:
            try:
                assert (place / "c/0/0/0").read_bytes() == (far / array.key / "c/0/0/0").read_bytes()
            except FileNotFoundError:
                continue  # the other one was faster
    os._exit(0)


def test_two_processes_keep_the_bound_together(far: Path, tmp_path: Path) -> None:
    for number in range(6):
        remote(far, number)
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    cache.folder.mkdir()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=use_at_random, args=(cache.folder, far, seed, 25)) for seed in (1, 2)]
    for child in children:
        child.start()
    most = 0
    while any(child.is_alive() for child in children):
        most = max(most, taken(cache))
        time.sleep(0.001)
    most = max(most, taken(cache))
    assert [child.exitcode for child in children] == [0, 0]
    assert 2 * SIZE <= most <= 4 * SIZE  # what is being removed still has its name for a moment
    assert taken(cache) <= 3 * SIZE and all("." not in name for name in entries(cache))


def fetch_one(folder: Path, far: Path) -> None:
    assert ShardCache(folder, 3 * SIZE).get(slow(remote(far, 1), far))
    os._exit(0)


def test_two_processes_and_threads_fetch_an_array_once(far: Path, tmp_path: Path) -> None:
    array = remote(far, 1)
    cache = ShardCache(tmp_path / "cache", 3 * SIZE)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fetch_one, args=(cache.folder, far)) for _ in range(2)]
    workers += [threading.Thread(target=cache.get, args=(slow(array, far),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_S)
    assert (tmp_path / "reads").read_text().splitlines() == [f"{array.key}/{name}" for name in array.files]


class StuckRoot(LocalRoot):
    def read_range(self, key: str, start: int, length: int) -> bytes:
        (Path(self.location).parent / "begun").touch()
        time.sleep(3600)
        raise AssertionError


def be_killed(folder: Path, far: Path) -> None:
    ShardCache(folder, 2 * SIZE).get(RemoteArray(StuckRoot(far), remote(far, 1).key, remote(far, 1).files))


def test_what_a_killed_process_was_fetching_is_removed(far: Path, tmp_path: Path) -> None:
    one, two = remote(far, 1), remote(far, 2)
    cache = ShardCache(tmp_path / "cache", 2 * SIZE)
    child = multiprocessing.get_context("fork").Process(target=be_killed, args=(cache.folder, far))
    child.start()
    wait_for((tmp_path / "begun").exists)
    assert len(entries(cache)) == 1 and taken(cache) == SIZE
    assert cache.get(two) and cache.get(remote(far, 3)) is not None  # the bytes under way count: the second evicts
    assert taken(cache) == 2 * SIZE
    child.kill()
    child.join()
    assert cache.get(one)  # and its lock is free
    assert cache.get(two)
    assert taken(cache) <= 2 * SIZE and all("." not in name for name in entries(cache))


# --- a store in a bucket


@pytest.fixture
def bucket_store(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, str]]:
    """A store on the disk, and the URL of its copy."""
    local = make_store(tmp_path, pictures({(28, 28): 5, (28, 42): 4}))
    bucket = s3.new_bucket()
    for path in local.path.rglob("*"):
        if path.is_file():
            s3.put(bucket, f"labels/{path.relative_to(local.path).as_posix()}", path.read_bytes())
    monkeypatch.setenv("DEPTHSIEVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DEPTHSIEVE_CACHE_BYTES", raising=False)
    yield local, f"s3://{bucket}/labels"


def fetched(s3: S3Server) -> list[str]:
    return [path for method, path in s3.calls if method == "GET" and path.endswith("/depth/c/0/0/0")]


def test_training_reads_each_shard_of_a_bucket_once(s3: S3Server, bucket_store: tuple[Store, str]) -> None:
    local, url = bucket_store
    expected = PseudoLabelDataset(local, images=False, crop=20, seed=3).loader(3)
    loader = PseudoLabelDataset(url, images=False, crop=20, seed=3).loader(3)
    for _ in range(2):
        for ours, theirs in zip(loader, expected, strict=True):
            assert ours["id"] == theirs["id"] and (ours["depth"] == theirs["depth"]).all()
            assert (ours["mask"] == theirs["mask"]).all()
    assert len(fetched(s3)) == len(set(fetched(s3))) == 4
    del loader, expected
    gc.collect()
    assert not [thread for thread in threading.enumerate() if "prefetch" in thread.name]
    s3.calls.clear()
    next(iter(PseudoLabelDataset(url, images=False, crop=20).loader(3)))  # another day
    assert fetched(s3) == []


@pytest.mark.parametrize("most", [1, 9000, 20000])
def test_a_cache_that_is_too_small_changes_no_sample(
    s3: S3Server, bucket_store: tuple[Store, str], tmp_path: Path, most: int
) -> None:
    local, url = bucket_store
    dataset = PseudoLabelDataset(open_store(url).with_cache(ShardCache(tmp_path / "small", most)), images=False)
    expected = PseudoLabelDataset(local, images=False)
    for ours, theirs in zip(dataset, expected, strict=True):
        assert ours["id"] == theirs["id"] and (ours["depth"] == theirs["depth"]).all()
    for ours, theirs in zip(dataset.loader(2), expected.loader(2), strict=True):
        assert (ours["reliability"] == theirs["reliability"]).all()


def test_a_store_that_does_not_fit_is_read_where_it_is(
    s3: S3Server, bucket_store: tuple[Store, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A shard would go again before its next image is due, and each image cost a whole shard."""
    _, url = bucket_store
    needed = int((5 * 28 * 28 + 4 * 28 * 42) * 2.2)
    for most, cached in ((needed - 1, False), (needed, True)):
        monkeypatch.setenv("DEPTHSIEVE_CACHE_BYTES", str(most))
        dataset = PseudoLabelDataset(url, images=False)
        assert dataset[0]["depth"].any()
        assert (tmp_path / "cache").exists() == cached


def test_a_damaged_or_lost_copy_is_fetched_again(s3: S3Server, bucket_store: tuple[Store, str], tmp_path: Path) -> None:
    local, url = bucket_store
    cache = ShardCache(tmp_path / "cache", 10**9)
    depth = made_label(0, (28, 28))[0]
    reader = open_store(url).with_cache(cache).reader("0000-000000")
    assert (reader.depth(0) == depth).all()
    (copy,) = cache.folder.glob("*-*/c/0/0/0")
    data = bytearray(copy.read_bytes())
    data[30] ^= 1
    copy.write_bytes(data)
    assert (reader.depth(0) == depth).all()
    cache.drop(reader.remote_array("depth"))
    assert (reader.depth(0) == depth).all()
    assert len(fetched(s3)) == 3
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    (file,) = local.path.glob("labels.zarr/shards/0000-000000-*/reliability/c/0/0/0")
    s3.put(bucket, f"{prefix}/{file.relative_to(local.path).as_posix()}", b"other")
    with pytest.raises(StoreDamaged, match=r"reliability/c/0/0/0"):
        reader.reliability(0)


def test_workers_share_the_cache(s3: S3Server, bucket_store: tuple[Store, str]) -> None:
    local, url = bucket_store
    dataset = PseudoLabelDataset(url, images=False, crop=20)
    found = list(dataset.loader(3, num_workers=2))
    expected = list(PseudoLabelDataset(local, images=False, crop=20).loader(3))
    assert [batch["id"] for batch in found] == [batch["id"] for batch in expected]
    assert all((a["depth"] == b["depth"]).all() for a, b in zip(found, expected, strict=True))
    assert len(fetched(s3)) == 4
