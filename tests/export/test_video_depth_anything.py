"""``export --for video-depth-anything``: clips as its run.py writes them, streamed, with gaps told.

Axes: T frame, H row, W column.
"""

import dataclasses
import json
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from exported import bytes_of, export, small_store
from films import LABEL, film, film_store
from storemaker import SPEC
from videos import UNEVEN

import depthsieve
from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.export.clip_target import NO_FRAME, ClipVolume
from depthsieve.store import Store

TARGET = "video-depth-anything"
A, B = "a.mp4", "sub dir/b 'é\"\n.mkv"
EVEN, SOME = range(0, 24, 2), (0, 1, 5, 7)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("films")
    return film_store(folder, film(folder, A, EVEN, failed=(4, 6)), film(folder, B, SOME, times=UNEVEN[:24]))


def clips(out: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads((out / "clips.json").read_text())["clips"]}


def expected(store: Store, clip: str, number: int) -> np.ndarray:
    label = store.label(f"default/{clip}::{number:06d}")
    return np.where(label.reliability > 0, label.depth, np.nan)


def test_an_array_a_clip_has_all_its_frames_in_order(store: Store, tmp_path: Path) -> None:
    summary = export(store, tmp_path / "out", TARGET, threads=3)
    assert (summary.images, summary.left_out, summary.failed) == (14, {"failed": 2}, ())
    assert summary.notes == (
        "2 frames of 1 clip without a label (failed, or not labelled yet): their rows of `depths` are NaN, and "
        "`labelled` is False",
    )
    rows = clips(tmp_path / "out")
    assert {row["depths"] for row in rows.values()} == {
        "default/a_depths.npz",
        "default/sub dir/b 'é%22%0A_depths.npz",
    }
    assert rows["default/a.mp4"]["without_label"] == [4, 6]
    with np.load(tmp_path / "out" / "default" / "a_depths.npz") as arrays:
        assert [*arrays] == ["depths", "reliability", "frames", "times", "fps", "labelled"]
        depths_THW, codes_THW = arrays["depths"], arrays["reliability"]
        assert depths_THW.dtype == np.float32 and depths_THW.shape == (12, *LABEL)
        assert arrays["frames"].tolist() == [*EVEN] and arrays["fps"] == 12.5
        assert np.allclose(arrays["times"], [number / 25 for number in EVEN])
        assert arrays["labelled"].tolist() == [number not in (4, 6) for number in EVEN]
    assert np.isnan(depths_THW[2:4]).all() and not codes_THW[2:4].any()
    for row, number in enumerate(EVEN):
        if number not in (4, 6):
            assert np.array_equal(depths_THW[row], expected(store, A, number), equal_nan=True)
            assert np.array_equal(codes_THW[row], store.label(f"default/{A}::{number:06d}").reliability)
    with np.load(tmp_path / "out" / rows["default/sub dir/b 'é\"%0A.mkv"]["depths"]) as arrays:
        assert np.allclose(arrays["times"], [UNEVEN[number] / 1000 for number in SOME])
        assert arrays["frames"].tolist() == [*SOME]


def test_a_frame_is_an_image_under_its_number(store: Store, tmp_path: Path) -> None:
    assert export(store, tmp_path / "out", TARGET, options={"depths": "exr"}).images == 14
    rows = {row["id"]: row for row in json.loads((tmp_path / "out" / "index.json").read_text())["images"]}
    row = rows["default/a.mp4::000010"]
    assert row["channels"] == "default/a_depths_exr/frame_00010.exr" and (row["frame"], row["time"]) == (10, 0.4)
    assert not (tmp_path / "out" / "default" / "a_depths_exr" / "frame_00004.exr").exists()
    with OpenEXR.File(str(tmp_path / "out" / row["channels"]), separate_channels=True) as file:
        assert file.channels()["Z"].pixels.dtype == np.float32
        assert np.array_equal(file.channels()["Z"].pixels, expected(store, A, 10), equal_nan=True)


@pytest.mark.parametrize("depths", ["npz", "exr"])
def test_the_code_in_the_readme_reads_it(depths: str, store: Store, tmp_path: Path) -> None:
    export(store, tmp_path, TARGET, options={"depths": depths})
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    shown = "depths[0], reliability[0]" if depths == "npz" else "depth, reliability"
    save = f"\nimport numpy\nnumpy.save('read.npy', numpy.stack([{shown}]))"
    subprocess.run([sys.executable, "-c", code + save], cwd=tmp_path, check=True, capture_output=True)
    depth_HW, codes_HW = np.load(tmp_path / "read.npy")
    assert np.array_equal(depth_HW, expected(store, A, 0), equal_nan=True)
    assert np.array_equal(codes_HW, store.label(f"default/{A}::000000").reliability)


def test_a_clip_that_has_grown_is_written_again_whole_and_others_stay(tmp_path: Path) -> None:
    film_store(tmp_path, film(tmp_path, A, range(0, 8, 2), pending=(6,)), film(tmp_path, "c.mp4", (0, 3)), shard_size=1)
    labels, out = tmp_path / "labels", tmp_path / "out"
    export(labels, out, TARGET)
    other = (out / "default" / "c_depths.npz").stat()
    grown = film_store(tmp_path, film(tmp_path, A, range(1, 8, 2)), film(tmp_path, "a.mkv", (2,)))
    summary = export(grown, out, TARGET)
    assert "5 images added to the " in summary.notes[-1]
    export(grown, tmp_path / "fresh", TARGET)
    assert clips(out)["default/a.mp4"]["depths"] == "default/a_depths.npz"
    for clip, row in clips(tmp_path / "fresh").items():
        written = out / clips(out)[clip]["depths"]
        assert written.read_bytes() == (tmp_path / "fresh" / row["depths"]).read_bytes()
    assert (out / "default" / "c_depths.npz").stat().st_mtime_ns == other.st_mtime_ns
    late = clips(out)["default/a.mkv"]["depths"]  # which has the name of another clip
    assert late != "default/a_depths.npz" and np.load(out / late)["frames"].tolist() == [2]
    assert [row["frames"] for row in clips(out).values()] == [1, 8, 2]
    assert export(grown, out, TARGET).images_now == 0


def test_stopped_in_a_clip_it_resumes_to_the_same_bytes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(store, tmp_path / "undisturbed", TARGET)
    whole, rows = ClipVolume.rows, 0

    def breaks(self: ClipVolume, samples: Any) -> Any:
        nonlocal rows
        for row in whole(self, samples):
            rows += 1
            if rows == 14:
                raise KeyboardInterrupt
            yield row

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ClipVolume, "rows", breaks)
        export(store, tmp_path / "out", TARGET)
    assert [path.name for path in (tmp_path / "out").rglob("*.npz")] == ["a_depths.npz"]
    assert export(store, tmp_path / "out", TARGET).images_now == 4
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "undisturbed")


def test_memory_does_not_grow_with_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """72 frames more of 160 pixels side are 9 MB."""
    shape, peaks = (160, 160), []
    whole = ClipVolume.rows

    def measured(self: ClipVolume, samples: Any) -> Any:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield from whole(self, samples)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)

    monkeypatch.setattr(ClipVolume, "rows", measured)
    for count in (24, 96):
        folder = tmp_path / str(count)
        pictures = [dataclasses.replace(one, label=shape) for one in film(folder, A, range(count), frames=count)]
        store = film_store(folder, pictures, shard_size=8)
        tracemalloc.start()
        export(store, folder / "out", TARGET)
        tracemalloc.stop()
        with zipfile.ZipFile(folder / "out" / "default" / "a_depths.npz") as archive:
            assert archive.getinfo("depths.npy").file_size == count * shape[0] * shape[1] * 4 + 128
    assert peaks[1] < 3e6


def test_times_are_not_known_once_the_video_is_gone(tmp_path: Path) -> None:
    store = film_store(tmp_path, film(tmp_path, A, (0, 2)))
    (tmp_path / "images" / A).unlink()
    summary = export(store, tmp_path / "out", TARGET)
    assert summary.notes == ("the times of 1 clip are not known, as its video is gone or has changed: default/a.mp4",)
    with np.load(tmp_path / "out" / "default" / "a_depths.npz") as arrays:
        assert np.isnan(arrays["times"]).all() and np.isnan(arrays["fps"]) and np.isfinite(arrays["depths"]).any()


def test_chosen_frames_come_alone(store: Store, tmp_path: Path) -> None:
    chosen = [f"default/{A}::{number:06d}" for number in (2, 8)]
    assert export(store, tmp_path, TARGET, subset=chosen).notes == ()
    with np.load(tmp_path / "default" / "a_depths.npz") as arrays:
        assert arrays["frames"].tolist() == [2, 8] and arrays["labelled"].all()


def test_what_it_refuses_and_leaves_out(store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        LoaderError, match=r"is for clips, and none of 4 images is in one: label videos, or say .* --sequence`"
    ):
        export(small_store(tmp_path), tmp_path / "out", TARGET)
    with pytest.raises(UsageError, match="relative disparity has no metres"):
        export(store, tmp_path / "out", TARGET, options={"metric": True})
    mixed = film_store(tmp_path, film(tmp_path, A, (0, 2)))
    summary = export(mixed, tmp_path / "out", TARGET)
    assert summary.images == 2 and summary.left_out[NO_FRAME] == 4


def test_metres_are_asked_for(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, quantity="depth", unit="m")
    store = film_store(tmp_path, film(tmp_path, A, (0,)), spec=spec)
    export(store, tmp_path / "out", TARGET, options={"metric": True})
    assert json.loads((tmp_path / "out" / "clips.json").read_text())["unit"] == "m"


def test_frames_are_written_as_they_were_aligned_and_it_is_told(tmp_path: Path) -> None:
    pictures = film(tmp_path, A, (0, 1, 2))
    ramp_HW = np.linspace(1, 4, LABEL[0] * LABEL[1]).reshape(LABEL)
    for number, picture in enumerate(pictures):
        object.__setattr__(picture, "depth_HW", ramp_HW * (1 + 0.2 * number))
        object.__setattr__(picture, "reliability_HW", np.full(LABEL, 200, np.uint8))
    store = film_store(tmp_path, pictures)
    export(store, tmp_path / "out", TARGET)
    assert "align-clips" not in (tmp_path / "out" / "README.md").read_text()
    depthsieve.align_clips(store.location, progress=False)
    aligned = depthsieve.open_store(store.location)
    assert aligned[2].clip.scale < 0.9
    summary = export(aligned, tmp_path / "out", TARGET)
    assert summary.images_now == 3
    assert summary.notes == ("3 of 3 frames are written as align-clips brought them to one scale a clip",)
    with np.load(tmp_path / "out" / "default" / "a_depths.npz") as arrays:
        assert np.array_equal(arrays["depths"][2], aligned[2].aligned)
    assert "`depthsieve align-clips` brought 3 of 3 frames" in (tmp_path / "out" / "README.md").read_text()
