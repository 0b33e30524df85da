"""Clips that are aligned in runs that are killed, in a folder and in a bucket: the same bytes as undisturbed."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import LABEL, frames_in
from labelled import decided_bytes, decided_objects
from s3server import S3Server, some_calls
from storemaker import make_store

import depthsieve
from depthsieve.storage import open_root
from depthsieve.storage.local import LocalRoot
from depthsieve.store import open_store

CHANGES = ("write", "create", "publish", "remove", "remove_folder")
"""The ways in which any file of a store comes, changes or goes."""

KILLED = f"""
import json, os, signal, sys
from depthsieve.jobs.layers.clips import align_clips
from depthsieve.storage import open_root

def killed_before(store, count):
    kind = type(open_root(store))

    def counted(change):
        def called(*arguments, **options):
            nonlocal count
            count -= not any(str(one).startswith("leases/") for one in arguments)
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)
        return called

    for name in {CHANGES}:
        setattr(kind, name, counted(getattr(kind, name)))
    align_clips(store, progress=False)

ends = []
for store, count in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        killed_before(store, count)
        os._exit(0)
    ends.append(os.waitpid(child, 0)[1])
print(json.dumps(ends))
"""
"""A process for each store and count, which is killed before that change to the store, leases aside."""


def killed(*stores: tuple[str, int]) -> list[int]:
    """Align the clips of each store in a process that is killed before that change; how each ended."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED, json.dumps(stores)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ends: list[int] = json.loads(done.stdout)
    return ends


def frames(folder: Path, *, failed: bool = True) -> Path:
    """A store of two clips whose labels have a scale of their own in each frame, over three shards."""
    random = np.random.default_rng(0)
    pictures = [
        *frames_in("a", "1.png", "2.png", "10.png", "11.png", "9.png", failed=("9.png",) if failed else ()),
        *frames_in("a/b", "1.png", "2.png", "3.png"),
    ]
    for number, picture in enumerate(pictures):
        depth_HW = np.linspace(1, 3, LABEL[0] * LABEL[1]).reshape(LABEL) * (1 + 0.2 * number)
        object.__setattr__(picture, "depth_HW", depth_HW + random.normal(0, 0.01, LABEL))
        object.__setattr__(picture, "reliability_HW", np.full(LABEL, 200, np.uint8))
    return Path(make_store(folder, pictures, sequence=True).location)


def test_killed_before_any_change_it_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, changes = frames(tmp_path), 0
    undisturbed = shutil.copytree(store, tmp_path / "undisturbed")

    def counted(change: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal changes
            changes += not any(str(one).startswith("leases/") for one in arguments)
            return change(*arguments, **options)

        return called

    with monkeypatch.context() as patch:
        for name in CHANGES:
            patch.setattr(LocalRoot, name, counted(getattr(LocalRoot, name)))
        depthsieve.align_clips(undisturbed, progress=False)
    expected, index = decided_bytes(undisturbed), (undisturbed / "index.parquet").read_bytes()
    assert sum(name.startswith("layers/clips/commits/") for name in expected) == 3 and changes > 10
    copies = [(shutil.copytree(store, tmp_path / str(count)), count) for count in range(1, changes + 1)]
    assert set(killed(*((str(copy), count) for copy, count in copies))) == {signal.SIGKILL}
    already = [sum(name.startswith("layers/clips/commits/") for name in decided_bytes(copy)) for copy, _ in copies]
    assert already == sorted(already) and {*already} == {0, 1, 2, 3}
    for (copy, count), shards in zip(copies, already, strict=True):
        assert depthsieve.align_clips(copy, progress=False).shards_now == 3 - shards, count
        assert decided_bytes(copy) == expected, count
        if count % 4 == 0:  # the bytes are the same in all
            assert depthsieve.verify(copy, progress=False).sound, count
        assert (copy / "index.json").exists() and (copy / "index.parquet").read_bytes() == index, count


def test_in_a_bucket_it_is_the_same_through_a_kill_and_faults(s3: S3Server, tmp_path: Path) -> None:
    store, url = frames(tmp_path), f"s3://{s3.new_bucket()}/a b/labels"
    root = open_root(url)
    for path in (one for one in store.rglob("*") if one.is_file()):
        root.write(path.relative_to(store).as_posix(), path.read_bytes())
    depthsieve.align_clips(store, progress=False)
    assert killed((url, 9)) == [signal.SIGKILL]
    assert sum(name.startswith("layers/clips/commits/") for name in decided_objects(url)) == 1
    with s3.failing(some_calls(0.05, seed=1)):
        assert depthsieve.align_clips(url, progress=False).shards_now == 2
    assert decided_objects(url) == decided_bytes(store) and depthsieve.verify(url, progress=False).sound
    assert open_store(url)["default/a/2.png"].clip[:3] == open_store(store)["default/a/2.png"].clip[:3]
