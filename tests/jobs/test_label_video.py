"""Frames of videos are labelled like images: resumed to the same bytes, repaired, and chosen as the store remembers."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from labelled import decided_bytes, label, unlabelled_copy
from patience import wait_for
from poison import poison, poisoned
from videos import number_of, write_all

import depthsieve
from depthsieve.core.errors import UsageError
from depthsieve.planning import workforce
from depthsieve.sources import open_source
from depthsieve.store import open_store

FAILED = ["default/cut.mp4", "default/empty.mp4", "default/liar.mp4"]


@pytest.fixture(scope="module")
def teacher(light: str) -> str:
    return light


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos") / "films"
    write_all(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(films: Path, teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    summary = label(films, store, teacher, shard_size=16, every=2)
    assert (summary.labelled, summary.pending) == (150, 0)
    assert [one.id for one in summary.failed] == FAILED
    assert "8 videos with 300 frames, of which --every 2 takes 150" in summary.notes
    return store


def test_shards_hold_neighbours_in_time_and_the_profile_says_what_decoded_them(undisturbed: Path) -> None:
    store = open_store(undisturbed)
    shards = [[image.id for image in store.planned_shard(name).images] for name in sorted(store.committed())]
    for ids in shards:
        assert ids == sorted(ids)
    numbers = [int(one[-6:]) for ids in shards for one in ids if "old.avi" in one]
    assert numbers == list(range(0, 40, 2))
    (generation,) = store.generations()
    assert generation.frames == {"default": "every 2"}
    assert {"ffmpeg", "pyav"} <= set(generation.profile.versions)


def test_a_label_has_its_frame(undisturbed: Path, films: Path) -> None:
    store = open_store(undisturbed)
    for number in (0, 14, 38):
        one = store[f"default/b frames.mp4::{number:06d}"]
        assert number_of(cv2.resize(one.image(), (64, 48))) == number
        assert one.depth.shape == (70, 93)
    turned = store["default/turned.mov::000004"]
    assert turned.depth.shape == (93, 70) and turned.image().shape == (93, 70, 3)
    seen = depthsieve.view(undisturbed, "default/vp9.webm::000010", progress=False)
    assert seen.save(undisturbed.parent / "seen.png").stat().st_size > 1000


def test_killed_and_resumed_it_ends_with_the_same_bytes(
    films: Path, undisturbed: Path, tmp_path: Path, teacher: str
) -> None:
    store, frame = tmp_path / "store", tmp_path / "frame.ppm"
    frame.write_bytes(open_source(films).read("default/old.avi::000020"))
    poison(tmp_path / "bugs", frame, "wait")
    start = [sys.executable, "-m", "depthsieve", "label", str(films), str(store), "--every", "2"]
    options = ["--teacher", teacher, "--batch-size", "2", "--threads", "1", "--shard-size", "16"]
    process = subprocess.Popen([*start, *options], stderr=subprocess.DEVNULL, env=poisoned(tmp_path / "bugs"))
    wait_for(lambda: len(list(store.glob("commits/0000-*.json"))) >= 2, "two shards are committed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    summary = label(films, store, teacher)  # which remembers every frame but one
    assert 0 < summary.labelled_now < 150 and summary.labelled == 150
    assert decided_bytes(store) == decided_bytes(undisturbed)


@pytest.mark.slow
def test_workers_on_ray_give_the_same_bytes(films: Path, tmp_path: Path, teacher: str) -> None:
    few, store = tmp_path / "few", tmp_path / "store"
    few.mkdir()
    for name in ("b frames.mp4", "turned.mov"):
        shutil.copy2(films / name, few)
    assert label(few, tmp_path / "local", teacher, shard_size=4, every=5).labelled == 16
    unlabelled_copy(tmp_path / "local", store)
    script = (
        "import sys, depthsieve; source, store, teacher = sys.argv[1:]\n"
        "summary = depthsieve.label(source, store, teacher=teacher, runner='ray', workers=2, progress=False)\n"
        "assert summary.labelled == 16, summary"
    )
    subprocess.run([sys.executable, "-c", script, few, store, teacher], check=True, capture_output=True)
    assert decided_bytes(store) == decided_bytes(tmp_path / "local")


def test_a_repair_decodes_just_what_is_broken(films: Path, undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    broken = next((store / "labels.zarr" / "shards").glob("0000-000003*/depth/c/0/0/0"))
    broken.write_bytes(broken.read_bytes()[:-9] + b"no labels")
    assert not depthsieve.verify(store, progress=False).sound
    assert depthsieve.verify(store, repair=True, progress=False).sound
    assert decided_bytes(store) == decided_bytes(undisturbed)


def test_a_store_takes_more_frames_and_never_fewer(films: Path, tmp_path: Path, teacher: str) -> None:
    store = tmp_path / "store"
    film = films / "vp9.webm"
    assert label(film, store, teacher, every=20).labelled == 2
    with pytest.raises(UsageError, match=r"that --every 20 takes, and --every 30 leaves some of them out: say"):
        label(film, store, teacher, every=30)
    with pytest.raises(UsageError, match="and --fps 2 leaves some of them out"):
        label(film, store, teacher, fps=2)
    before = decided_bytes(store)
    assert label(film, store, teacher).labelled_now == 0
    summary = label(film, store, teacher, every=10)
    assert (summary.labelled_now, summary.labelled) == (2, 4)
    assert before.items() <= decided_bytes(store).items() and open_store(store).frames() == {"default": "every 10"}
    with pytest.raises(UsageError, match="and --every 20 leaves"):
        label(film, store, teacher, every=20)
    with pytest.raises(UsageError, match="do not go together"):
        label(film, store, teacher, every=1, fps=2)


def test_photos_and_videos_lie_together_and_photos_alone_have_no_decoder_of_videos(
    films: Path, tmp_path: Path, teacher: str
) -> None:
    from PIL import Image

    both = tmp_path / "both"
    both.mkdir()
    Image.fromarray(np.full((48, 64, 3), 99, np.uint8)).save(both / "photo.png")
    assert label(both, tmp_path / "store", teacher, every=20).labelled == 1
    assert "pyav" not in open_store(tmp_path / "store").generations()[0].profile.versions
    assert open_store(tmp_path / "store").frames() == {}
    shutil.copy(films / "vp9.webm", both)
    assert label(both, tmp_path / "store", teacher, every=20).labelled == 3
    assert "pyav" in open_store(tmp_path / "store").generations()[1].profile.versions


def test_another_version_of_the_decoder_is_told_of(
    undisturbed: Path, films: Path, tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = unlabelled_copy(undisturbed, tmp_path / "store")
    from depthsieve.labelling import numerics

    monkeypatch.setattr(numerics, "video_versions", lambda: {"ffmpeg": "9.9", "pyav": "18"})
    notes = label(films, store, teacher, batch_size=None, threads=None).notes
    assert any("generation 0 was planned with ffmpeg" in note and "this is 9.9" in note for note in notes), notes
    assert workforce.make_profile is numerics.make_profile


def test_a_manifest_lists_frames_and_remembers_which(films: Path, tmp_path: Path, teacher: str) -> None:
    manifest = tmp_path / "m.parquet"
    found = depthsieve.scan(films, manifest, every=20, progress=False)
    assert (found.images, found.rejected) == (15, 3)
    assert "8 videos with 300 frames, of which --every 20 takes 15" in found.notes
    again = depthsieve.scan(films, manifest, progress=False)
    assert (again.images, again.opened) == (15, 0)
    assert json.loads(pq.read_schema(manifest).metadata[b"depthsieve_manifest"])["frames"] == "every 20"
    with pytest.raises(UsageError, match="say --every 2 to `depthsieve scan`"):
        label(manifest, tmp_path / "store", teacher, every=2)
    assert label(manifest, tmp_path / "store", teacher).labelled == 15
    assert open_store(tmp_path / "store").frames() == {"default": "every 20"}
    assert depthsieve.scan(films, manifest, every=40, progress=False).images == 8
