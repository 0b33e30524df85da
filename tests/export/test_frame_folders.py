"""Targets of clips on folders of frames (``label --sequence``): which frames, in which order, when, and called what.

Axes: T frame, H row, W column.
"""

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from exported import bytes_of, export
from films import LABEL, film, frames_in
from storemaker import Picture, make_store

from depthsieve.core.errors import UsageError
from depthsieve.export.clip_target import ODD
from depthsieve.store import Store

NESTED = "run 1/é 'left'\n"
RUN = ("frame9.png", "frame10.png", "frame1.png", "frame2.png", "z.png")
IN_TIME = ["frame1.png", "frame2.png", "frame9.png", "frame10.png", "z.png"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A folder with another one in it, whose ids stand among its own; frames in the source's own folder; a video that
    is called like the folder."""
    folder = tmp_path_factory.mktemp("frames")
    pictures = [
        *frames_in("run 1", *RUN, failed=("frame9.png",)),
        *frames_in(NESTED, "10.png", "9.png"),
        *frames_in("", "7.png", "7.jpg"),
        *film(folder, "run 1.mp4", (0, 3)),
    ]
    return make_store(folder, pictures, sequence=True)


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads((out / "clips.json").read_text())["clips"]}


def test_an_array_a_folder_has_its_frames_in_the_order_of_time(store: Store, tmp_path: Path) -> None:
    summary = export(store, tmp_path / "out", "video-depth-anything", threads=2)
    assert (summary.images, summary.failed) == (10, ())
    assert summary.notes[:2] == (
        "3 clips are folders of frames, in the natural order of their names (frame9 before frame10); their times are "
        "not known (--fps says how many are a second)",
        "1 frame of 1 clip without a label (failed, or not labelled yet): their rows of `depths` are NaN, and "
        "`labelled` is False",
    )
    rows = rows_of(tmp_path / "out")
    assert {clip: row["depths"] for clip, row in rows.items()} == {
        "default": "default_depths.npz",
        "default/run 1": "default/run 1_depths.npz",
        "default/run 1/é 'left'%0A": "default/run 1/é 'left'%0A_depths.npz",
        "default/run 1.mp4": rows["default/run 1.mp4"]["depths"],
    }
    assert rows["default/run 1.mp4"]["depths"].startswith("default/run 1_depths~")
    assert rows["default/run 1"]["names"] == IN_TIME and rows["default/run 1"]["without_label"] == [2]
    with np.load(tmp_path / "out" / "default" / "run 1_depths.npz") as arrays:
        assert arrays["frames"].tolist() == [0, 1, 2, 3, 4]
        assert arrays["labelled"].tolist() == [True, True, False, True, True]
        assert np.isnan(arrays["times"]).all() and np.isnan(arrays["fps"])
        for row, name in enumerate(IN_TIME):
            label = store.label(f"default/run 1/{name}") if row != 2 else None
            expected = np.full(LABEL, np.nan) if label is None else np.where(label.reliability, label.depth, np.nan)
            assert np.array_equal(arrays["depths"][row], expected, equal_nan=True)


def test_times_are_those_of_a_rate_that_is_said(store: Store, tmp_path: Path) -> None:
    summary = export(store, tmp_path / "out", "video-depth-anything", options={"fps": 10})
    assert "; 10 a second" in summary.notes[0]
    with np.load(tmp_path / "out" / "default" / "run 1_depths.npz") as arrays:
        assert arrays["times"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4]) and arrays["fps"] == pytest.approx(10)
    with np.load(tmp_path / "out" / rows_of(tmp_path / "out")["default/run 1.mp4"]["depths"]) as arrays:
        assert arrays["times"].tolist() == [0, 0.12]  # its own
    with pytest.raises(UsageError, match=r"fps \(--fps\) must be a number of frames a second above 0, not -1"):
        export(store, tmp_path / "new", "mp4", options={"fps": -1})


def test_chosen_frames_keep_their_numbers(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path, "video-depth-anything", subset=["default/run 1/frame10.png", "default/run 1/frame1.png"])
    with np.load(tmp_path / "default" / "run 1_depths.npz") as arrays:
        assert arrays["frames"].tolist() == [0, 3]


@pytest.mark.parametrize(("fps", "wanted"), [(None, "25 a second; --fps sets another rate"), (5.0, "5 a second")])
def test_a_video_of_a_folder_has_a_rate_and_says_which(
    store: Store, tmp_path: Path, fps: float | None, wanted: str
) -> None:
    summary = export(store, tmp_path, "mp4", options={"fps": fps})
    assert summary.notes[0].endswith(f"; {wanted}")
    with av.open(str(tmp_path / "default" / "run 1_vis.mp4")) as file:
        times = [float(frame.time or 0) for frame in file.decode(video=0)]
        assert file.duration is not None
        assert file.duration / 1e6 == pytest.approx(5 / (fps or 25), abs=1e-3)
    assert times == pytest.approx([number / (fps or 25) for number in (0, 1, 3, 4)], abs=1e-4)


def test_an_image_a_frame_is_called_as_the_frame_is(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "frames", "frames")
    row = rows_of(tmp_path / "frames")["default/run 1"]
    files = [f"default/run 1/{Path(name).stem}.png" for name in IN_TIME if name != "frame9.png"]
    assert [one["file"] for one in row["images"]] == files and [one["frame"] for one in row["images"]] == [0, 1, 3, 4]
    label = store.label("default/run 1/frame10.png")
    codes_HW = cv2.imread(str(tmp_path / "frames" / files[2]), cv2.IMREAD_UNCHANGED)
    off_HW = np.abs(row["offset"] + row["scale"] * codes_HW - label.depth)
    assert off_HW[label.reliability > 0].max() <= 0.51 * row["scale"]
    own = {one["file"] for one in rows_of(tmp_path / "frames")["default"]["images"]}
    assert len(own) == 2 and "default/7.png" in own  # of 7.png and 7.jpg
    export(store, tmp_path / "exr", "video-depth-anything", options={"depths": "exr", "fps": 2})
    index = {one["id"]: one for one in json.loads((tmp_path / "exr" / "index.json").read_text())["images"]}
    last = index["default/run 1/z.png"]
    assert (last["channels"], last["frame"], last["time"]) == ("default/run 1_depths_exr/z.exr", 4, 2.0)
    assert "seconds" not in last and (tmp_path / "exr" / last["channels"]).is_file()


@pytest.mark.parametrize(
    ("target", "options"), [("frames", {}), ("mp4", {}), ("video-depth-anything", {"depths": "exr", "fps": 4})]
)
def test_a_frame_in_between_moves_none_and_ends_as_a_fresh_export(
    target: str, options: dict[str, Any], tmp_path: Path
) -> None:
    make_store(tmp_path, frames_in("a", "1.png", "10.png"), sequence=True)
    export(tmp_path / "labels", tmp_path / "out", target, options=options)
    before = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out" / "default").rglob("*.*")}
    grown = make_store(tmp_path, frames_in("a", "2.png") + frames_in("a/deeper", "2.png"))
    export(grown, tmp_path / "out", target, options=options)
    export(grown, tmp_path / "fresh", target, options=options)
    fresh = {name: one for name, one in bytes_of(tmp_path / "fresh").items() if not name.startswith(".depthsieve")}
    assert {name: one for name, one in bytes_of(tmp_path / "out").items() if name in fresh} == fresh
    assert all((tmp_path / "out" / path).exists() for path in before)


def test_frames_of_another_size_than_most_are_left_out_and_counted(tmp_path: Path) -> None:
    odd = [Picture("a/3.png", (24, 80), (8, 24)), Picture("a/5.png", (24, 80), (8, 24))]
    store = make_store(tmp_path, [*frames_in("a", "1.png", "2.png", "4.png"), *odd], sequence=True)
    for target in ("video-depth-anything", "mp4"):
        summary = export(store, tmp_path / target, target)
        assert summary.images == 3 and summary.left_out == {ODD: 2}
    with np.load(tmp_path / "video-depth-anything" / "default" / "a_depths.npz") as arrays:
        assert arrays["frames"].tolist() == [0, 1, 3]
    assert export(store, tmp_path / "frames", "frames").images == 5
