"""Runs that are killed, interrupted or cannot write end with the same bytes later."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from labelled import decided_bytes, label, write_photo, write_photos
from patience import PATIENCE_S, wait_for
from poison import let_go, met, poison, poisoned

from depthsieve.store import open_store


@pytest.fixture(scope="module")
def teacher(light: str) -> str:
    return light


def command(source: Path, store: Path, teacher: str, *options: str) -> list[str]:
    start = [sys.executable, "-m", "depthsieve", "label", str(source), str(store)]
    return [*start, "--teacher", teacher, "--batch-size", "2", "--threads", "1", *options]


def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 30)
    label(photos, tmp_path / "undisturbed", teacher, shard_size=3)
    store = tmp_path / "store"
    poison(tmp_path / "bugs", photos / "photo 29.png", "wait")
    whole = command(photos, store, teacher, "--shard-size", "3")
    process = subprocess.Popen(whole, stderr=subprocess.DEVNULL, env=poisoned(tmp_path / "bugs"))
    wait_for(lambda: len(list(store.glob("commits/0000-*.json"))) >= 2, "two shards are committed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    committed = len(list(store.glob("commits/0000-*.json")))
    assert 2 <= committed < 10
    summary = label(photos, store, teacher, shard_size=50)
    assert 0 < summary.labelled_now < 30
    assert decided_bytes(store) == decided_bytes(tmp_path / "undisturbed")
    assert not list((store / "tmp").iterdir())


def test_a_store_that_cannot_be_written_ends_in_one_line_and_goes_on_later(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 4)
    for number in range(4):
        write_photo(photos / f"photo {number}.png", 900, 90, seed=number)  # labels above the limit, plan below it
    store = tmp_path / "store"
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *command(photos, store, teacher, "--signals", "flip")]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert "cannot write to" in line and line.endswith("again to resume")
    assert not list(store.glob("commits/0000-*.json"))
    assert label(photos, store, teacher).labelled == 4


def test_an_interrupted_command_exits_with_4_and_can_go_on(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 30), tmp_path / "store"
    poison(tmp_path / "bugs", photos / "photo 15.png", "wait")
    whole = command(photos, store, teacher, "--shard-size", "3")
    process = subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, env=poisoned(tmp_path / "bugs"))
    assert process.stderr
    wait_for(lambda: met(tmp_path / "bugs", photos / "photo 15.png"), "the run is at the photo")
    process.send_signal(signal.SIGTERM)
    while "Interrupted: finishing" not in (line := process.stderr.readline()):
        assert line, "it ended before it was interrupted"
    let_go(tmp_path / "bugs")
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 4
    assert "run the same command again to resume" in stderr and "Traceback" not in stderr
    assert label(photos, store, teacher).labelled == 30


@pytest.mark.slow
def test_images_that_kill_the_command_are_named_and_cost_the_others_nothing(tmp_path: Path, teacher: str) -> None:
    photos, store, bugs = write_photos(tmp_path / "photos", 9), tmp_path / "store", tmp_path / "bugs"
    label(photos, tmp_path / "undisturbed", teacher)
    poison(bugs, photos / "photo 1.png", "SIGSEGV")
    poison(bugs, photos / "photo 4.png", "SIGABRT")
    done = subprocess.run(
        command(photos, store, teacher), env=poisoned(bugs), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 3, done.stderr
    assert "  failed: default/photo 1.png: ends the process that decodes it (signal 11, SIGSEGV)\n" in done.stdout
    assert "  failed: default/photo 4.png: ends the process that decodes it (signal 6, SIGABRT)\n" in done.stdout
    assert done.stderr.count("Warning: the labelling process died (signal 11, SIGSEGV); restarting it") == 2
    found, expected = open_store(store), open_store(tmp_path / "undisturbed")
    assert found.images == [image for image in expected.images if "photo 1" not in image and "photo 4" not in image]
    for image in found.images:
        np.testing.assert_array_equal(found.label(image).depth, expected.label(image).depth)
    assert label(photos, store, teacher, retry_failed=True).labelled == 9
