"""The layer of clips: a known wobble of scale and shift is taken out again, whatever shards its frames are in."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commandline import command
from labelled import decided_bytes, label
from wobble import SCALES, SHIFTS, installed, static_frame, write_frame

import depthsieve
from depthsieve.core.errors import NotAligned, StoreError, StoreMismatch
from depthsieve.jobs.layers import clips
from depthsieve.store import Label, open_store

FRAMES = 12


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with installed(tmp_path_factory.mktemp("wobble") / "site") as name:
        yield name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> Path:
    """Photos and a store: two clips over three shards, one of them with a cut, and a still image."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(FRAMES):
        write_frame(folder / "photos" / "run" / f"{number}.png", static_frame(number))
    for number in range(4):
        write_frame(folder / "photos" / "cut" / f"{number}.png", static_frame(number, seed=1 + number // 2))
    settings = {"shard_size": 6, "signals": "none"}
    label(folder / "photos", folder / "store", teacher, sequence=True, **settings)
    write_frame(folder / "still" / "one.png", static_frame(0, seed=9))
    label(folder / "still", folder / "store", teacher, name="still", **settings)
    depthsieve.align_clips(folder / "store", progress=False)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "store", tmp_path / "store")
    return tmp_path / "store"


def frames_of(store: Path, clip: str) -> list[Label]:
    opened = open_store(store)
    return [opened[one] for one in opened.clips()[clip]]


def test_the_wobble_is_taken_out(made: Path) -> None:
    frames = frames_of(made / "store", "default/run")
    assert [one.id for one in frames] == [f"default/run/{number}.png" for number in range(FRAMES)]
    assert len({one.shard for one in frames}) == 3
    # scale * (SCALES * d + SHIFTS) + shift is the same line of d in all frames
    slopes = [one.clip.scale * SCALES[number % 5] for number, one in enumerate(frames)]
    starts = [one.clip.scale * SHIFTS[number % 5] + one.clip.shift for number, one in enumerate(frames)]
    np.testing.assert_allclose(slopes, slopes[0], rtol=0.01)
    np.testing.assert_allclose(starts, starts[0], atol=0.01 * np.ptp(frames[0].depth))
    assert np.mean(np.log([one.clip.scale for one in frames])) == pytest.approx(0, abs=1e-9)
    still = np.s_[60:, :]  # where nothing moves
    np.testing.assert_allclose(frames[1].aligned[still], frames[7].aligned[still], rtol=0.01)
    assert not np.allclose(frames[1].depth[still], frames[7].depth[still], rtol=0.1)


def test_change_from_frame_to_frame_falls_and_is_in_the_index(made: Path) -> None:
    rows = {row["id"]: row for row in open_store(made / "store").index().to_pylist()}
    first, second = rows["default/run/0.png"], rows["default/run/1.png"]
    assert first["clip_change"] is None and first["clip_segment"] == 0
    assert second["clip_change"] > 0.1 and second["clip_change_aligned"] < 0.01 and second["clip_pixels"] > 0.7
    assert rows["still/one.png"]["clip_scale"] is None
    fit = open_store(made / "store")["default/run/1.png"].clip
    assert fit._asdict() == {name: second[f"clip_{name}"] for name in fit._fields}


def test_a_cut_begins_a_segment(made: Path) -> None:
    assert [one.clip.segment for one in frames_of(made / "store", "default/cut")] == [0, 0, 1, 1]


def test_an_image_of_no_clip_says_so(made: Path) -> None:
    with pytest.raises(NotAligned, match=r"still/one\.png was not aligned .* `depthsieve align-clips "):
        _ = open_store(made / "store")["still/one.png"].aligned


def test_again_it_does_nothing_and_a_new_frame_aligns_its_clip_again(made: Path, copy: Path, teacher: str) -> None:
    before = decided_bytes(copy)
    assert depthsieve.align_clips(copy, progress=False).images_now == 0
    assert decided_bytes(copy) == before
    photos = copy.parent / "photos"
    shutil.copytree(made / "photos", photos)
    write_frame(photos / "cut" / "4.png", static_frame(4, seed=2))
    label(photos, copy, teacher, moved=True)
    assert {name: body for name, body in decided_bytes(copy).items() if name in before} == before
    summary = depthsieve.align_clips(copy, progress=False)
    assert [one.frames for one in summary.clips] == [5, FRAMES]
    assert [one.clip.segment for one in frames_of(copy, "default/cut")] == [0, 0, 1, 1, 1]
    assert summary.images_now < 5 + FRAMES  # shards without frames of that clip stay as they are
    labels = {name for name in before if not name.startswith("layers/clips")}
    assert {name: decided_bytes(copy)[name] for name in labels} == {name: before[name] for name in labels}


def test_what_a_repair_takes_out_is_aligned_again_to_the_same_bytes(copy: Path) -> None:
    before = decided_bytes(copy)
    (damaged, *_) = sorted((copy / "layers" / "clips" / "shards").glob("[0-9]*/fit/c/0/0"))
    damaged.write_bytes(b"damaged")
    report = depthsieve.verify(copy, repair=True, progress=False)
    assert "depthsieve align-clips" in str(report)
    assert depthsieve.align_clips(copy, progress=False).shards_now == 1
    assert decided_bytes(copy) == before and depthsieve.verify(copy, progress=False).sound


def test_a_frame_without_its_photo_is_aligned_without_it_and_again_once_it_is_back(made: Path, copy: Path) -> None:
    shutil.rmtree(copy / "layers")
    shutil.rmtree(copy / "copies" / "layers")
    gone = made / "photos" / "run" / "3.png"
    away = gone.rename(made / "away.png")
    try:
        summary = depthsieve.align_clips(copy, progress=False)
    finally:
        away.rename(gone)
    assert [one.id for one in summary.without_photo] == ["default/run/3.png"]
    frames = frames_of(copy, "default/run")
    assert [number for number, one in enumerate(frames) if np.isnan(one.clip.change)] == [0, 3, 4]
    assert frames[3].clip.scale * SCALES[3] == pytest.approx(frames[2].clip.scale * SCALES[2], rel=0.02)
    assert depthsieve.align_clips(copy, progress=False).without_photo == ()
    assert [number for number, one in enumerate(frames_of(copy, "default/run")) if np.isnan(one.clip.change)] == [0]


def test_a_layer_of_an_earlier_recipe_is_refused_with_what_to_do(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = decided_bytes(copy)
    with monkeypatch.context() as patch:
        patch.setattr(clips, "METHOD", "another-1")
        with pytest.raises(StoreMismatch, match="remove layers/clips and copies/layers/clips there to make it again"):
            depthsieve.align_clips(copy, progress=False)
    assert decided_bytes(copy) == before
    for folder in ("layers/clips", "copies/layers/clips"):
        shutil.rmtree(copy / folder)
    depthsieve.align_clips(copy, progress=False)
    assert decided_bytes(copy) == before and depthsieve.verify(copy, progress=False).sound


def test_evaluate_shows_how_steady_aligned_clips_are(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "truth" / "run"
    truth.mkdir(parents=True)
    np.save(truth / "0.npy", 1 / frames_of(made / "store", "default/run")[0].depth)
    assert command(monkeypatch, "evaluate", made / "store", "--ground-truth", tmp_path / "truth") == 0
    lines = capsys.readouterr().out.splitlines()
    (shown,) = (line.split() for line in lines if line.startswith("default/run "))
    assert shown[1:3] == ["12", "1"] and float(shown[3].rstrip("%")) > 10 * float(shown[4].rstrip("%"))
    steady = depthsieve.evaluate_labels(made / "store", tmp_path / "truth", progress=False).as_json()["stability"]
    assert [one["clip"] for one in steady["clips"]] == ["default/cut", "default/run"] and steady["change"] > 0.1


def test_the_command_shows_each_clip_and_says_what_to_do_where_there_is_none(
    copy: Path,
    tmp_path: Path,
    made: Path,
    teacher: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(monkeypatch, "align-clips", copy) == 0
    done, _, *lines = capsys.readouterr().out.splitlines()
    assert done == "0 images to do."
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["default/run"][:2] == ["12", "1"] and rows["default/cut"][:2] == ["4", "2"]
    before, after = (float(share.rstrip("%")) for share in rows["default/run"][2:])
    assert before > 10 * after
    assert command(monkeypatch, "align-clips", copy, "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert body["clips"][1]["clip"] == "default/run" and 100 * body["clips"][1]["change"] == pytest.approx(
        before, abs=0.01
    )
    label(made / "still", tmp_path / "none", teacher, signals="none")
    with pytest.raises(StoreError, match=r"has no clips: label videos, or say .* --sequence`"):
        depthsieve.align_clips(tmp_path / "none", progress=False)
