"""The arrays of a shard: read into buffers, damage told by name, threads, forks and other processes."""

import gc
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from storemaker import Picture, made_label, make_store

from depthsieve.core.errors import StoreDamaged, UsageError
from depthsieve.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path, [Picture(f"{n}.png", (56, 84), (28, 42)) for n in range(7)])


def test_labels_are_decoded_into_the_callers_buffer(store: Store) -> None:
    depth, reliability = np.empty((2, 28, 42), np.float16), np.empty((2, 28, 42), np.uint8)
    reader = store.reader("0000-000001")
    for place, row in enumerate((2, 0)):
        reader.read_into("depth", row, depth[place])
        reader.read_into("reliability", row, reliability[place])
    for place, number in enumerate((5, 3)):
        expected = made_label(number, (28, 42))
        assert (depth[place] == expected[0]).all() and (reliability[place] == expected[1]).all()
    assert reader.depth(1).dtype == np.float32 and (reader.depth(1) == made_label(4, (28, 42))[0]).all()
    assert reader.shape("depth") == (3, 28, 42)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((28, 42), np.float32),
        np.empty((28, 41), np.float16),
        np.empty((28, 84), np.float16)[:, ::2],
        np.empty((42, 28), np.float16).T,
        np.broadcast_to(np.float16(0), (28, 42)),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(store: Store, out: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UsageError, match="depth needs a writeable, C-contiguous"):
        store.reader("0000-000000").read_into("depth", 0, out)


def test_ranges_of_rows_are_read_alone(store: Store) -> None:
    reader = store.reader("0000-000000")
    whole = reader.column("histogram")
    assert (reader.read_range("histogram", 1, 3) == whole[1:3]).all() and whole.sum() == 3 * 28 * 42
    assert reader.read_range("id", 0, 1).tolist() == ["default/0.png"]  # of a layout that zarr-python reads


def test_a_store_is_read_directly_and_not_by_zarr(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("zarr-python was asked")

    monkeypatch.setattr(zarr, "open_array", refuse)
    assert (store.reader("0000-000002").reliability(0) == made_label(6, (28, 42))[1]).all()
    assert store.reader("0000-000002").column("histogram").shape == (1, 256)
    assert store.reader("0000-000002").column("status").tolist() == [0]


def test_damage_names_the_array_and_the_remedy(store: Store) -> None:
    (file,) = store.path.glob("labels.zarr/shards/0000-000001-*/depth/c/0/0/0")
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.write_bytes(data)
    array = file.parents[3]
    with pytest.raises(StoreDamaged) as caught:
        open_store(store.path).reader("0000-000001").depth(0)
    assert str(caught.value) == (
        f"{array} cannot be read: a checksum does not fit; `depthsieve verify --repair` mends it"
    )
    assert open_store(store.path).reader("0000-000001").depth(1).any()


def test_a_flip_of_any_bit_of_a_document_is_told(tmp_path: Path) -> None:
    """Where it is still JSON, and one of another layout even."""
    store = make_store(tmp_path, [Picture("a.png", (56, 84), (28, 42))])
    (file,) = store.path.glob("labels.zarr/shards/*/depth/zarr.json")
    intact = file.read_bytes()
    for bit in range(0, 8 * len(intact), 7):
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with pytest.raises(StoreDamaged, match=r"depth/zarr.json does not fit its digest; .*mends it"):
            store.with_layer(None).reader("0000-000000").depth(0)
    file.write_bytes(intact + b" ")
    with pytest.raises(StoreDamaged, match=f"depth/zarr.json has {len(intact) + 1} bytes instead of {len(intact)}"):
        store.with_layer(None).reader("0000-000000").depth(0)
    assert store.with_layer(None).reader("0000-000000").reliability(0).any()


def test_files_of_other_shards_are_told(store: Store) -> None:
    """They are of another size."""
    first, second = (next(store.path.glob(f"labels.zarr/shards/0000-00000{n}-*/depth/c/0/0/0")) for n in range(2))
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    assert len(data[0]) != len(data[1])
    for shard in range(2):
        with pytest.raises(StoreDamaged, match=r"depth/c/0/0/0 has \d+ bytes instead of \d+; .*mends it"):
            open_store(store.path).reader(f"0000-00000{shard}").depth(0)


def test_a_store_forgets_the_shards_it_used_longest_ago(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthsieve.store.reader.KEPT_READERS", 2)
    opened = open_store(store.path)
    readers = [opened.reader(f"0000-00000{shard}") for shard in (0, 1, 0, 2)]
    assert readers[2] is readers[0] and len(opened._readers) == 2
    assert opened.reader("0000-000000") is readers[0]
    assert opened.reader("0000-000001") is not readers[1]


# --- threads and processes


def read_all(store: Store, times: int, wrong: list[Any]) -> None:
    depth, reliability = np.empty((28, 42), np.float16), np.empty((28, 42), np.uint8)
    for _ in range(times):
        for number in range(7):
            reader = store.reader(f"0000-{number // 3:06d}")
            reader.read_into("depth", number % 3, depth)
            reader.read_into("reliability", number % 3, reliability)
            expected = made_label(number, (28, 42))
            if not ((depth == expected[0]).all() and (reliability == expected[1]).all()):
                wrong.append(number)


def in_child(store: Store) -> None:
    wrong: list[Any] = []
    read_all(store, 2, wrong)
    os._exit(len(wrong))


def test_forks_while_threads_read(store: Store) -> None:
    """Neither a lock nor a descriptor comes along: every child reads, of the store object of its parent."""
    wrong: list[Any] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            read_all(store, 1, wrong)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=in_child, args=(store,)) for _ in range(8)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0] * 8
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_processes_get_the_path(store: Store, method: str) -> None:
    read_all(store, 1, [])
    child = multiprocessing.get_context(method).Process(target=in_child, args=(store,))
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_no_descriptor_stays_open(store: Store) -> None:
    descriptors = Path("/dev/fd")
    gc.collect()
    before = len(list(descriptors.iterdir()))
    read_all(store, 2, [])
    assert len(list(descriptors.iterdir())) <= before
