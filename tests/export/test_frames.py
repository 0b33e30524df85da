"""``export --for frames``: a 16-bit PNG a frame over one range a clip."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from exported import bytes_of, export
from films import film, film_store


def test_codes_mean_the_same_in_all_frames_and_a_clip_that_grows_is_written_again(tmp_path: Path) -> None:
    pictures = film(tmp_path, "a.mp4", (0, 2, 4), failed=(2,))
    for number, picture in enumerate(pictures):
        object.__setattr__(picture, "depth_HW", np.linspace(number, number + 1, 192).reshape(12, 16))
    store = film_store(tmp_path, pictures)
    summary = export(store, tmp_path / "out", "frames")
    assert summary.images == 2 and summary.notes[0].endswith("(failed, or not labelled yet): there is no file of them")
    (row,) = json.loads((tmp_path / "out" / "clips.json").read_text())["clips"]
    assert row["images"] == [
        {"file": "default/a/frame_00000.png", "frame": 0, "time": 0.0},
        {"file": "default/a/frame_00004.png", "frame": 4, "time": 0.16},
    ]
    assert (row["frames"], row["without_label"]) == (3, [2])
    for number in (0, 4):
        label = store.label(f"default/a.mp4::{number:06d}")
        codes_HW = cv2.imread(str(tmp_path / "out" / "default" / "a" / f"frame_{number:05d}.png"), cv2.IMREAD_UNCHANGED)
        assert codes_HW.dtype == np.uint16 and np.array_equal(codes_HW == 0, label.reliability == 0)
        off_HW = np.abs(row["offset"] + row["scale"] * codes_HW - label.depth)
        assert off_HW[codes_HW > 0].max() <= 0.51 * row["scale"] and row["scale"] < 3.01 / 65534
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)
    ran = [sys.executable, "-c", code + "\nprint(round(float(numpy.nanmax(depth)), 3))".replace("numpy", "np")]
    told = subprocess.run(ran, cwd=tmp_path / "out", check=True, capture_output=True, text=True).stdout
    label = store.label("default/a.mp4::000004")
    assert abs(float(told) - label.depth[label.reliability > 0].max()) < 2e-3
    (more,) = film(tmp_path, "a.mp4", (6,))
    object.__setattr__(more, "depth_HW", np.full((12, 16), 9.0))
    grown = film_store(tmp_path, [more])
    assert export(grown, tmp_path / "out", "frames").images_now == 3
    export(grown, tmp_path / "fresh", "frames", threads=2)
    files = {name: digest for name, digest in bytes_of(tmp_path / "out").items() if name.startswith("default/")}
    fresh = bytes_of(tmp_path / "fresh")
    assert len(files) == 3 and all(fresh[name] == digest for name, digest in files.items())
