"""``export --for mp4``: photo and depth side by side, at the times of the video, over one range a clip.

Axes: T frames, H row, W column, 3 red, green, blue.
"""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from exported import bytes_of, export
from films import LABEL, film, film_store
from videos import UNEVEN

from depthsieve.core.errors import UsageError
from depthsieve.export.side_by_side import GAP, LINE, Panel, side_by_side
from depthsieve.images import colours
from depthsieve.store import Store

A, B, SOME = "a.mp4", "b 'é\".mkv", (0, 1, 5, 9)
WIDTH = LABEL[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("films")
    ramp_HW = np.linspace(1, 2, LABEL[0] * LABEL[1]).reshape(LABEL)
    pictures = film(folder, A, range(0, 12, 2), failed=(4,))
    for number, picture in enumerate(pictures):
        object.__setattr__(picture, "depth_HW", ramp_HW + number)
        object.__setattr__(picture, "reliability_HW", np.full(LABEL, 100 + number, np.uint8))
    return film_store(folder, pictures, film(folder, B, SOME, times=UNEVEN[:24]))


def decoded(path: Path) -> tuple[np.ndarray, list[float], float]:
    """Pictures [T,H,W,3], the times they are shown at, and how long all is, in seconds."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        assert file.duration is not None
        return (
            np.stack([frame.to_ndarray(format="rgb24") for frame in frames]),
            [float(frame.time or 0) for frame in frames],
            file.duration / 1e6,
        )


def test_frames_are_shown_side_by_side_at_their_times_over_one_range(store: Store, tmp_path: Path) -> None:
    summary = export(store, tmp_path, "mp4", threads=2)
    assert summary.images == 9 and summary.failed == ()
    assert summary.notes[0].endswith("(failed, or not labelled yet): the frame before each stays on the screen")
    rows = {row["id"]: row for row in json.loads((tmp_path / "clips.json").read_text())["clips"]}
    pictures_THW3, times, lasts = decoded(tmp_path / rows["default/a.mp4"]["video"])
    assert np.allclose(times, [0, 0.08, 0.24, 0.32, 0.4], atol=1e-4) and abs(lasts - 0.48) < 1e-3
    assert pictures_THW3.shape[1:] == (LABEL[0], 2 * WIDTH + GAP, 3)
    far, near = rows["default/a.mp4"]["far"], rows["default/a.mp4"]["near"]
    assert 1 < far < 1.3 and 6.7 < near < 7  # of all frames, the failed one aside
    for picture_HW3, number in zip(pictures_THW3, (0, 2, 6, 8, 10), strict=True):
        label = store.label(f"default/{A}::{number:06d}")
        wanted_HW3 = colours.depth_colours(label.depth, "disparity", span=(far, near))
        assert np.abs(picture_HW3[:, WIDTH + GAP :].astype(float) - wanted_HW3).mean() < 12
        assert np.abs(picture_HW3[:, :WIDTH].astype(float) - label.image()).mean() < 12
    _, times, lasts = decoded(tmp_path / rows[f"default/{B}"]["video"])
    assert np.allclose(times, [UNEVEN[number] / 1000 for number in SOME], atol=1e-4) and lasts > times[-1]


def test_reliability_is_a_third_picture(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path, "mp4", options={"with_reliability": True})
    pictures_THW3, _, _ = decoded(tmp_path / "default" / "a_vis.mp4")
    assert pictures_THW3.shape[2] == 3 * WIDTH + 2 * GAP
    row = json.loads((tmp_path / "clips.json").read_text())["clips"][0]
    assert (row["doubtful"], row["reliable"]) == (100, 105)  # of codes 100 to 105 but one
    darker, lighter = (pictures_THW3[at, :, -WIDTH:].mean() for at in (0, -1))
    assert lighter > darker + 40


def test_two_exports_are_of_the_same_bytes(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "one", "mp4")
    export(store, tmp_path / "two", "mp4", threads=3)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    told = export(store, tmp_path / "three", "mp4", dry_run=True)
    assert told.bytes > 0 and export(store, tmp_path / "one", "mp4").images_now == 0


def test_the_code_in_the_readme_reads_it(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path, "mp4")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    ran = [sys.executable, "-c", code + "\nprint(round(seconds, 2), picture.shape)"]
    told = subprocess.run(ran, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert told == f"0.4 ({LABEL[0]}, {2 * WIDTH + GAP}, 3)\n"


def test_a_video_that_is_gone_fails_each_of_its_frames(tmp_path: Path) -> None:
    gone = film_store(tmp_path, film(tmp_path, A, (0, 2)), film(tmp_path, "c.mp4", (3,)))
    (tmp_path / "images" / A).unlink()
    summary = export(gone, tmp_path / "out", "mp4")
    assert [one.id for one in summary.failed] == [f"default/{A}::000000", f"default/{A}::000002"]
    assert [path.name for path in (tmp_path / "out").rglob("*.mp4")] == ["c_vis.mp4"]


def test_without_pyav_it_names_the_extra(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "av" else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(UsageError, match=r"pip install 'depthsieve\[video\]'"):
        export(store, tmp_path / "out", "mp4")


def test_a_line_below_says_what_it_is_and_sides_are_even() -> None:
    wide = Panel(np.full((51, 181, 3), 200, np.uint8), "000120   4.800 s")
    scale = Panel(wide.rgb_HW3, "", colours.SPECTRAL_256, "far 0.1", "2 near")
    whole_HW3 = side_by_side([wide, scale])
    assert whole_HW3.shape == (80, 366, 3) and LINE == 28
    assert (whole_HW3[:51, :181] == 200).all() and whole_HW3[52:78, :181].std() > 5
    assert len(np.unique(whole_HW3[62, 185:].reshape(-1, 3), axis=0)) > 60  # the key has its colours
    assert side_by_side([Panel(wide.rgb_HW3[:, :21])]).shape == (52, 22, 3)
