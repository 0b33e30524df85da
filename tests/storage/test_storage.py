"""What a store asks of the place that its files lie in: one suite for a folder and for an object store."""

import errno
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr
from s3server import S3Server

from depthsieve.core.processes import Process
from depthsieve.storage import Entry, Root, open_root
from depthsieve.storage.local import list_folder
from depthsieve.storage.together import together

DEAD = f"{Process.current().machine}-{2**22 + 1}-1"  # above the largest process id


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Root:
    if request.param == "folder":
        return open_root(tmp_path / "labels")
    server: S3Server = request.getfixturevalue("s3")
    return open_root(f"s3://{server.new_bucket()}/a b/50%20/labels")


def make_group(folder: Path, large: int = 1000) -> Path:
    (folder / "depth" / "c").mkdir(parents=True)
    (folder / "zarr.json").write_bytes(b"{}")
    (folder / "depth" / "c" / "0").write_bytes(np.random.default_rng(0).bytes(large))
    (folder / "depth" / "zarr.json").write_bytes(b"")
    return folder


class TestContract:
    """Whatever holds of every root."""

    def test_what_is_written_is_read_and_replaced(self, root: Root) -> None:
        root.prepare()
        root.write("plan/a.parquet", b"first")
        root.write("plan/a.parquet", b"second")
        root.write("empty", b"")
        assert root.read("plan/a.parquet") == b"second"
        assert root.read("empty") == b""

    def test_what_is_not_there_is_a_file_not_found(self, root: Root) -> None:
        root.prepare()
        for key in ("nothing", "no/thing"):
            with pytest.raises(FileNotFoundError) as caught:
                root.read(key)
            assert caught.value.errno == errno.ENOENT
            assert root.entry(key) is None
            root.remove(key)
        assert root.names("no") == []
        assert list(root.entries("no")) == []
        root.remove_folder("no")

    def test_a_file_is_created_once(self, root: Root) -> None:
        assert root.create("commits/0000-000000.json", b"winner") is True
        assert root.create("commits/0000-000000.json", b"loser") is False
        assert root.create("commits/0000-000000.json", b"winner") is False
        assert root.read("commits/0000-000000.json") == b"winner"
        assert [entry.key for entry in root.entries("")] == ["commits/0000-000000.json"]

    def test_of_many_that_create_at_once_one_wins(self, root: Root) -> None:
        root.prepare()
        for key in ("a", "commits/b"):
            with ThreadPoolExecutor(8) as threads:
                won = list(threads.map(lambda number, key=key: root.create(key, b"%d" % number), range(16)))
            assert sum(won) == 1
            assert root.read(key) == b"%d" % won.index(True)

    def test_names_and_entries(self, root: Root) -> None:
        for key in ("commits/b.json", "commits/a.json", "commits/c/d.json", "commits.txt", "commitsx/e"):
            root.write(key, key.encode())
        assert root.names("commits") == ["a.json", "b.json", "c"]
        assert root.names("commits/c") == ["d.json"]
        assert set(root.names("")) >= {"commits", "commits.txt", "commitsx"}
        below = {entry.key: entry for entry in root.entries("commits")}
        assert sorted(below) == ["commits/a.json", "commits/b.json", "commits/c/d.json"]
        assert {entry.key for entry in root.entries("") if not entry.key.startswith("tmp/")} == {
            "commits/a.json", "commits/b.json", "commits/c/d.json", "commits.txt", "commitsx/e",
        }  # fmt: skip
        entry = root.entry("commits/c/d.json")
        assert entry == below["commits/c/d.json"] == Entry("commits/c/d.json", 16, below["commits/c/d.json"].modified)
        assert abs(entry.modified - time.time()) < 600

    def test_more_names_than_a_page_holds(self, root: Root) -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: root.write(f"commits/{number:04d}.json", b"{}"), range(1203)))
        assert root.names("commits") == [f"{number:04d}.json" for number in range(1203)]
        assert len({entry.key for entry in root.entries("")}) == 1203
        root.remove_folder("commits")
        assert root.names("commits") == []

    def test_a_folder_is_published_as_it_is(self, root: Root) -> None:
        root.prepare()
        with root.scratch("0000-000000") as attempt:
            assert not attempt.exists()
            listed = list_folder(make_group(attempt, large=33 * 2**20))
            wanted = {key: (attempt / key).read_bytes() for key in listed}
            root.publish(attempt, "labels.zarr/shards/0000-000000-abc", listed)
        assert not attempt.exists()
        for key, data in wanted.items():
            assert root.read(f"labels.zarr/shards/0000-000000-abc/{key}") == data
        assert root.names("labels.zarr/shards") == ["0000-000000-abc"]

    @pytest.mark.parametrize("damage", ["none", "missing", "short"])
    def test_what_is_published_again_is_made_whole(self, root: Root, damage: str) -> None:
        for time_ in (1, 2):
            with root.scratch("shard") as attempt:
                listed = list_folder(make_group(attempt))
                wanted = {key: (attempt / key).read_bytes() for key in listed}
                if time_ == 2 and damage == "missing":
                    root.remove("groups/one/depth/c/0")
                elif time_ == 2 and damage == "short":
                    root.write("groups/one/depth/c/0", b"torn")
                root.publish(attempt, "groups/one", listed)
        assert {key: root.read(f"groups/one/{key}") for key in wanted} == wanted

    def test_removing_takes_nothing_else(self, root: Root) -> None:
        for key in ("a/b/one", "a/b/two", "a/bc", "a/other"):
            root.write(key, b"x")
        root.remove_folder("a/b")
        root.remove("a/other")
        assert [entry.key for entry in root.entries("a")] == ["a/bc"]

    def test_preparing_leaves_nothing_and_may_be_repeated(self, root: Root) -> None:
        root.prepare()
        root.prepare()
        assert list(root.entries("")) == []

    def test_scratch_of_the_dead_goes_and_of_the_living_stays(self, root: Root) -> None:
        root.prepare()
        with root.scratch("shard") as attempt:
            attempt.mkdir()
            living = attempt if root.path else attempt.parent
            dead = living.with_name(living.name.replace(Process.current().token, DEAD))
            elsewhere = living.with_name(living.name.replace(Process.current().token, "0123456789ab-1-1"))
            for folder in (dead, elsewhere):
                folder.mkdir()
            root.write(f"tmp/probe-1.{DEAD}", b"")
            root.write(f"tmp/probe-2.{Process.current().token}", b"")
            root.clear_scratch()
            assert [folder.exists() for folder in (attempt, elsewhere, dead)] == [True, True, False]
            assert root.entry(f"tmp/probe-1.{DEAD}") is None
            assert root.entry(f"tmp/probe-2.{Process.current().token}") is not None
            elsewhere.rmdir()

    def test_zarr_reads_what_was_published(self, root: Root) -> None:
        values = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
        with root.scratch("shard") as attempt:
            array = zarr.create_array(
                attempt / "depth", shape=(2, 3, 4), chunks=(1, 3, 4), shards=(2, 3, 4), dtype="f2"
            )
            array[...] = values
            root.publish(attempt, "labels.zarr/shards/one", list_folder(attempt))
        found = zarr.open_array(root.zarr("labels.zarr/shards/one/depth"), mode="r")
        assert np.array_equal(found[...], values) and np.array_equal(found[1], values[1])
        with pytest.raises(FileNotFoundError):
            zarr.open_array(root.zarr("labels.zarr/shards/two/depth"), mode="r")

    def test_a_root_travels_to_another_process(self, root: Root) -> None:
        root.write("a", b"data")
        script = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read('a'))"
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, input=pickle.dumps(root), capture_output=True, check=True, timeout=120)
        assert done.stdout.strip() == b"b'data'"

    def test_names_after_one(self, root: Root) -> None:
        for name in ("0000-000001.json", "0000-000002.json", "generation-0000.json", "generation-0001.json"):
            root.write(f"commits/{name}", b"{}")
        assert root.names("commits", after="generation") == ["generation-0000.json", "generation-0001.json"]
        assert root.names("commits", after="0000-000002.json") == ["generation-0000.json", "generation-0001.json"]
        assert root.names("commits", after="z") == [] == root.names("no", after="a")

    def test_calls_made_together_all_end_and_come_back_in_order(self, root: Root) -> None:
        root.prepare()
        calls = [partial(root.write, f"many/{number:02d}", b"%d" % number) for number in range(20)]
        together(root, calls)
        reads = [partial(root.read, f"many/{number:02d}") for number in range(20)]
        assert together(root, reads) == [b"%d" % number for number in range(20)]
        ended: list[int] = []
        missing = partial(root.read, "many/none")
        with pytest.raises(FileNotFoundError):
            together(root, [lambda: ended.append(0), missing])
        assert ended == [0]

    def test_what_it_is_called(self, root: Root) -> None:
        assert root.location.endswith("/labels") and root.location in repr(root)
        assert root.path is None or root.path.is_absolute()
        assert root.free_bytes() is None if root.path is None else root.free_bytes() > 0


def test_a_link_whose_answer_is_lost_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An NFS client that gets no answer sends the call again, and the server answers that the name is taken."""
    root, link = open_root(tmp_path / "labels"), Path.hardlink_to

    def answered_late(self: Path, target: Path) -> None:
        link(self, target)
        raise FileExistsError(errno.EEXIST, "File exists", str(self))

    monkeypatch.setattr(Path, "hardlink_to", answered_late)
    assert root.create("commits/0000-000000.json", b"mine") is True
    assert root.create("commits/0000-000000.json", b"theirs") is False
    assert root.read("commits/0000-000000.json") == b"mine"
    assert root.names("tmp") == []
