"""What every runner must hold: the same bytes as the local one, and nothing left behind."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from labelled import decided_bytes, write_photos
from patience import PATIENCE_S

SCRIPT = """
import json, sys
import depthsieve
source, store, teacher, options = *sys.argv[1:4], json.loads(sys.argv[4])
options |= {"batch_size": 2, "threads": 1, "shard_size": 3, "progress": False}
summary = depthsieve.label(source, store, teacher=teacher, **options)
print(json.dumps([summary.labelled_now, len(summary.failed), summary.pending, summary.errors, "ray" in sys.modules]))
"""


def label_in_its_own_process(
    source: Path, store: Path, teacher: Path, home: Path, sessions: Path | None = None, **options: object
) -> list[object]:
    home.mkdir(exist_ok=True)
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(sessions or home.parent)}
    arguments = [str(source), str(store), str(teacher), json.dumps(options)]
    # A store's tests must not hang: a cluster that does not start is killed.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, env=environment, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    assert "token" not in done.stderr.lower()
    result: list[object] = json.loads(done.stdout)
    return result


def layers_bytes(store: Path) -> dict[Path, bytes]:
    """What lies in the layers of a store, by its path in them."""
    files = [path for path in sorted((store / "layers").glob("*/shards/**/*")) if path.is_file()]
    return {path.relative_to(store / "layers"): path.read_bytes() for path in files}


def processes_mentioning(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


@pytest.fixture(scope="module")
def teacher(light: str) -> Path:
    return Path(light)


@pytest.fixture
def sessions() -> Iterator[Path]:
    """A temporary folder whose name is short enough for Ray's sockets, so that its sessions lie there."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_ray_gives_the_bytes_of_the_local_runner_and_leaves_nothing(
    tmp_path: Path, teacher: Path, sessions: Path
) -> None:
    photos = write_photos(tmp_path / "photos", 10)
    truncated = (photos / "photo 4.png").read_bytes()[:500]
    (photos / "photo 4.png").write_bytes(truncated)
    both: dict[str, object] = {"store_images": True, "signals": "flip,lowres", "keep_signals": True}
    local = label_in_its_own_process(photos, tmp_path / "local", teacher, tmp_path / "home", runner="local", **both)
    assert local == [9, 1, 0, [], False]
    on_ray = label_in_its_own_process(
        photos, tmp_path / "ray", teacher, tmp_path / "home", runner="ray", workers=2, sessions=sessions, **both
    )
    assert on_ray == [9, 1, 0, [], True]
    assert decided_bytes(tmp_path / "ray") == decided_bytes(tmp_path / "local")
    layers = layers_bytes(tmp_path / "local")
    assert layers_bytes(tmp_path / "ray") == layers
    assert {path.parts[0] for path in layers} == {"features", "images", "signals"}
    assert list((tmp_path / "home").iterdir()) == []
    assert list(sessions.iterdir()) == []
    assert processes_mentioning(str(sessions)) == []


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, teacher: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    command = [sys.executable, "-m", "depthsieve", "label", str(photos), str(tmp_path / "store")]
    options = ["--teacher", str(teacher), "--batch-size", "1", "--address", "nonsense"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "cannot reach Ray at nonsense" in done.stderr
    assert "Traceback" not in done.stderr
