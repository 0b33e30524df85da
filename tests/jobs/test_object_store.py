"""Labelling from and into an object store, end to end: the same bytes as in a folder, whatever the server does."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import decided_bytes, decided_objects, write_photos
from patience import PATIENCE_S, wait_for
from poison import poison, poisoned
from s3server import KEY_ID, SECRET, S3Server, some_calls

import depthsieve
from depthsieve.core.errors import LoaderError, RunError, StoreError, UsageError
from depthsieve.core.records import Shard
from depthsieve.storage import open_root
from depthsieve.store import open_store, schema
from depthsieve.store.writer import CommitContext, ShardArrays, commit_shard
from depthsieve.training import PseudoLabelDataset

IMAGES = 12
SETTINGS = {"batch_size": 2, "threads": 1, "shard_size": 3}


@dataclass(frozen=True)
class Photos:
    """The same photos in a folder and in a bucket, and what labelling them from either place gives in a folder."""

    teacher: str
    folder: Path
    url: str
    from_folder: Path
    from_url: Path


@pytest.fixture(scope="module")
def photos(s3_server: S3Server, light: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Photos]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_server.environment().items():
            environment.setenv(name, value)
        here = tmp_path_factory.mktemp("photos")
        folder, bucket = write_photos(here / "photos", IMAGES), s3_server.new_bucket()
        (folder / "torn.png").write_bytes((folder / "photo 0.png").read_bytes()[:3000])  # fails when it is decoded
        (folder / "words.jpg").write_bytes(b"words")  # fails when it is scanned
        for path in folder.iterdir():
            s3_server.put(bucket, f"my photos/{path.name}", path.read_bytes())
        url = f"s3://{bucket}/my photos"
        made = Photos(light, folder, url, here / "from folder", here / "from url")
        for source, store in ((folder, made.from_folder), (url, made.from_url)):
            summary = label(source, store, made)
            assert (summary.labelled, len(summary.failed)) == (IMAGES, 2)
        yield made


@pytest.fixture
def store(s3: S3Server) -> str:
    return f"s3://{s3.new_bucket()}/a b/labels"


def label(source: Path | str, store: Path | str, photos: Photos, **options: object) -> depthsieve.LabelSummary:
    return depthsieve.label(source, store, teacher=photos.teacher, progress=False, **(SETTINGS | options))


def command(source: Path | str, store: str, photos: Photos, *more: str) -> list[str]:
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    return [
        sys.executable,
        "-m",
        "depthsieve",
        "label",
        str(source),
        store,
        "--teacher",
        photos.teacher,
        *settings,
        *more,
    ]


def test_a_full_disk_of_this_machine_is_not_said_of_the_bucket(
    s3: S3Server, store: str, photos: Photos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("depthsieve.labelling.shard.pack_group", no_room)
    with pytest.raises(RunError, match=f"cannot write to {store}: no room in .* on {socket.gethostname()}, where"):
        label(photos.folder, store, photos)
    with pytest.raises(RunError, match="labels: No space left on device; what is"):
        label(photos.folder, tmp_path / "labels", photos)


def test_from_a_bucket_into_a_bucket_gives_a_folders_bytes(photos: Photos, store: str) -> None:
    summary = label(photos.url, store, photos)
    assert (summary.store, summary.labelled, summary.pending) == (store, IMAGES, 0)
    reasons = {failure.id: failure.reason for failure in summary.failed}
    assert reasons["default/words.jpg"] == "not an image but text"
    assert "truncated PNG" in reasons["default/torn.png"]
    assert decided_objects(store) == decided_bytes(photos.from_url)
    assert open_store(store).sources() == {"default": photos.url}
    again = label(photos.url, store, photos)
    assert (again.labelled_now, again.planned_now) == (0, 0)


def test_from_a_folder_into_a_bucket_gives_a_folders_bytes(photos: Photos, store: str) -> None:
    label(photos.folder, store, photos)
    assert decided_objects(store) == decided_bytes(photos.from_folder)
    assert not open_root(store).names("tmp") and not open_root(store).names("leases")


def test_where_images_come_from_does_not_show_in_their_labels(photos: Photos) -> None:
    """Only the plan differs, in the files' times and the recorded root."""
    found, expected = decided_bytes(photos.from_url), decided_bytes(photos.from_folder)
    different = {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
    assert different and all(name.startswith(("plan/", "commits/generation-")) for name in different)


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_with_the_same_bytes(
    s3: S3Server, photos: Photos, store: str, tmp_path: Path
) -> None:
    poison(tmp_path / "bugs", photos.folder / "photo 9.png", "wait")
    process = subprocess.Popen(
        command(photos.url, store, photos),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=poisoned(tmp_path / "bugs"),
    )
    root = open_root(store)
    try:
        wait_for(lambda: sum(name.startswith("0000-") for name in root.names("commits")) >= 2, "two commits")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    committed = sum(name.startswith("0000-") for name in root.names("commits"))
    assert 2 <= committed < 5
    summary = label(photos.url, store, photos)
    assert 0 < summary.labelled_now < IMAGES
    assert decided_objects(store) == decided_bytes(photos.from_url)


def test_a_server_that_fails_one_call_in_twenty_changes_no_byte(s3: S3Server, photos: Photos, store: str) -> None:
    with s3.failing(some_calls(0.05, seed=0)):
        summary = label(photos.url, store, photos)
    assert len(s3.calls) > 100
    assert (summary.labelled, summary.errors) == (IMAGES, ())
    assert decided_objects(store) == decided_bytes(photos.from_url)


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_changes_no_byte(s3: S3Server, photos: Photos, store: str) -> None:
    reached = threading.Event()
    died: list[int] = []

    def third_commit(environ: dict[str, Any]) -> str | None:
        if reached.is_set() or environ["REQUEST_METHOD"] != "PUT" or "/commits/0000-000002" not in environ["PATH_INFO"]:
            return None
        reached.set()
        wait_for(lambda: died, "the server dies")
        return "reset"

    def die() -> None:
        if reached.wait(PATIENCE_S):
            s3.stop()
            died.append(len(s3.calls))
            time.sleep(10)
            s3.start()

    saboteur = threading.Thread(target=die)
    saboteur.start()
    try:
        with s3.failing(third_commit):
            summary = label(photos.url, store, photos)
    finally:
        saboteur.join()
    assert died and len(s3.calls) > died[0]
    assert (summary.labelled, summary.errors) == (IMAGES, ())
    assert decided_objects(store) == decided_bytes(photos.from_url)


def test_of_two_attempts_at_a_shard_one_wins_and_the_other_leaves_nothing(photos: Photos, store: str) -> None:
    """Two workers that both believe a shard is theirs, with other bits, as of two kinds of GPU."""
    label(photos.folder, store, photos)
    root = open_root(store)
    opened = open_store(root)
    shard: Shard = opened.planned_shard("0000-000000")
    reader = opened.reader(shard.id)
    names = [spec.name for spec in (*schema.MAPS, *schema.ROWS)]
    arrays = {name: reader.column(name) for name in names}
    arrays |= {name: array.astype(object) for name, array in arrays.items() if array.dtype.kind in "OUT"}
    context = CommitContext(opened.fingerprint, "disparity", "1", "0" * 64)
    before = set(root.names(schema.SHARDS))
    old = opened.commit_record(shard.id)["group"]
    root.remove(schema.commit_key(shard.id))
    root.remove_folder(schema.group_key(old))
    gate = threading.Barrier(4)

    def attempt(number: int) -> bool:
        depth_NHW = np.where(arrays["depth"] > 0, arrays["depth"] + np.float16(number), np.float16(0))
        gate.wait()
        return commit_shard(root, shard, ShardArrays(arrays | {"depth": depth_NHW}), context)

    with ThreadPoolExecutor(4) as threads:
        won = list(threads.map(attempt, range(1, 5)))
    assert sum(won) == 1
    group = opened.commit_record(shard.id)["group"]
    assert set(root.names(schema.SHARDS)) == before - {old} | {group}
    winner = won.index(True) + 1
    found = open_store(root).reader(shard.id).depth(0)
    np.testing.assert_array_equal(found, (arrays["depth"][0] + np.float16(winner)).astype(np.float32))


@pytest.mark.slow
def test_a_student_trains_from_a_bucket(s3: S3Server, photos: Photos, store: str) -> None:
    label(photos.url, store, photos)
    local = PseudoLabelDataset(photos.from_url, images=photos.folder, seed=3)
    dataset = PseudoLabelDataset(store, seed=3)
    assert dataset.ids == local.ids and len(dataset) == IMAGES
    for workers in (0, 2):
        expected, found = list(local.loader(2)), list(dataset.loader(2, num_workers=workers))
        assert len(found) == len(expected) > 4
        for one, other in zip(found, expected, strict=True):
            assert one["id"] == other["id"]
            for name in ("image", "depth", "reliability", "mask"):
                assert one[name].shape == other[name].shape and bool((one[name] == other[name]).all())


def test_images_that_moved_into_a_bucket_are_found_there(s3: S3Server, photos: Photos) -> None:
    dataset = PseudoLabelDataset(photos.from_folder, images=photos.url, seed=3)
    expected = PseudoLabelDataset(photos.from_folder, seed=3)
    assert bool((dataset[0]["image"] == expected[0]["image"]).all())
    with pytest.raises(LoaderError, match="are not at s3://"):
        PseudoLabelDataset(photos.from_folder, images=f"{photos.url}/nowhere")


@pytest.mark.slow
def test_credentials_are_nowhere_to_be_seen(s3: S3Server, photos: Photos, store: str, tmp_path: Path) -> None:
    """Not in a run's output, nor in its store; also where the server refuses."""
    done = subprocess.run(
        command(photos.url, store, photos, "--json"), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 3, done.stderr
    told = done.stdout + done.stderr
    refuse_writes = lambda environ: "403" if environ["REQUEST_METHOD"] == "PUT" else None  # noqa: E731
    with s3.failing(refuse_writes), pytest.raises(StoreError, match=r"cannot write to s3://.*access denied") as refused:
        label(photos.folder, f"{store}2", photos)
    told += "".join(traceback.format_exception(refused.value))
    root = open_root(store)
    for data in (told.encode(), *(root.read(entry.key) for entry in root.entries(""))):
        assert SECRET.encode() not in data and KEY_ID.encode() not in data


def test_what_cannot_be_a_store_is_refused_before_anything_is_written(s3: S3Server, photos: Photos) -> None:
    bucket = photos.url.split("/")[2]
    for store, words in (
        (f"s3://{bucket}/my photos/labels", "may not lie inside each other"),
        (f"s3://{bucket}", "may not lie inside each other|not empty"),
        ("s3://", "names no bucket"),
        ("s3://no-such-bucket/labels", "there is no bucket 'no-such-bucket'"),
    ):
        with pytest.raises((StoreError, UsageError), match=words):
            label(photos.url, store, photos)
    assert {method for method, _ in s3.calls} <= {"GET", "HEAD"}


def test_a_store_in_a_bucket_is_verified_mended_and_watched(photos: Photos, store: str, s3: S3Server) -> None:
    label(photos.folder, store, photos)
    report = depthsieve.verify(store, progress=False)
    assert report.sound and report.findings == () and report.images == IMAGES + 1
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    expected = decided_objects(store)
    keys = sorted(expected)
    hurt = [
        next(key for key in keys if "/depth/c/" in key),
        next(key for key in keys if key.startswith("commits/0000-000001")),
        "commits/generation-0000.json",
        "plan/generation-0000.00000.parquet",
        "labels.zarr/zarr.json",
    ]
    for key in hurt:
        data = bytearray(s3.get(bucket, f"{prefix}/{key}"))
        data[len(data) // 2] ^= 1
        s3.put(bucket, f"{prefix}/{key}", bytes(data))
    found = depthsieve.verify(store, progress=False)
    assert not found.sound and set(hurt) <= {finding.key for finding in found.findings}
    mended = depthsieve.verify(store, repair=True, progress=False)
    assert mended.sound and mended.left == ()
    assert decided_objects(store) == expected
    stands = depthsieve.status(store)
    assert (stands.labelled, stands.pending, len(stands.failed), stands.at_work) == (IMAGES, 0, 2, ())


def test_parts_share_a_plan_in_a_bucket(photos: Photos, store: str) -> None:
    depthsieve.plan(photos.folder, store, write=True, teacher=photos.teacher, progress=False, **SETTINGS)
    for part in ("1/2", "2/2"):
        assert label(photos.folder, store, photos, part=part).errors == ()
    assert decided_objects(store) == decided_bytes(photos.from_folder)
    assert not open_root(store).names("leases")
