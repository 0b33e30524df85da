"""What a run would take, judged by a sample: which images are tried, and what follows from them."""

from pathlib import Path

import numpy as np
import pytest
from labelled import small_teacher, write_photo, write_photos

import depthsieve
from depthsieve.core.errors import RunError
from depthsieve.planning.draft import draft_batches
from depthsieve.planning.forecast import MARGIN, Trial, draw_samples
from depthsieve.sources import open_source
from depthsieve.sources.scan import scan_to
from depthsieve.store import open_store
from depthsieve.store.pending import Pending
from depthsieve.teachers import load_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


def trial(seconds: list[float], images: list[int]) -> Trial:
    return Trial(sum(images), np.array(images), np.array(images) * 100, np.array(seconds), np.array(images) * 150)


def test_a_steady_trial_gives_a_range_of_the_margin_alone() -> None:
    low, likely, high = trial([1.0, 2.0, 1.0], [10, 20, 10]).seconds_an_image()
    assert likely == pytest.approx(0.1)
    assert (low, high) == pytest.approx((0.1 * (1 - MARGIN), 0.1 * (1 + MARGIN)))
    assert trial([1.0], [10]).bytes_a_pixel()[1] == 1.5


def test_a_restless_trial_gives_a_wider_range_and_more_rounds_a_narrower_one() -> None:
    few, many = trial([1.0, 3.0] * 3, [10] * 6), trial([1.0, 3.0] * 12, [10] * 24)
    widths = [high - low for low, _, high in (few.seconds_an_image(), many.seconds_an_image())]
    assert widths[0] > widths[1] > 2 * MARGIN * 0.2
    assert few.seconds_an_image()[1] == many.seconds_an_image()[1] == pytest.approx(0.2)


def test_samples_are_of_one_shape_each_drawn_as_often_as_there_are_images(tmp_path: Path, teacher: str) -> None:
    for number in range(60):
        write_photo(tmp_path / "photos" / f"{number:02d}.png", *((120, 90) if number % 4 else (90, 120)), seed=number)
    source = open_source(tmp_path / "photos", "default")
    scan = scan_to(tmp_path / "scan", [source])
    model = load_teacher(teacher)
    with draft_batches(scan.images(), scan.rejected(), model.label_shape, tmp_path / "scratch") as draft:
        samples = [list(draw_samples(draft, None, Pending({}, {}), 2)) for _ in range(2)]
    assert samples[0] == samples[1]
    assert len(samples[0]) == 24
    seen = [(shape, image) for shape, images in samples[0] for image in images]
    assert len(set(seen)) == len(seen) == 48
    for shape, image in seen:
        assert shape == ((98, 70) if image.height == 120 else (70, 98))
    assert 0.1 < np.mean([shape == (98, 70) for shape, _ in seen]) < 0.4


def test_of_a_written_plan_only_what_is_left_is_tried(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 9), tmp_path / "store"
    settings = {"teacher": teacher, "batch_size": 2, "threads": 1, "shard_size": 2, "progress": False}
    written = depthsieve.plan(photos, store, write=True, **settings)
    assert written.written and written.images == 9 and written.tried > 0 and written.hours is not None
    opened = open_store(store)
    drawn = [image.id for _, images in draw_samples(None, opened, opened.pending(), 2) for image in images]
    assert len(set(drawn)) < len(drawn)
    assert depthsieve.plan(photos, store, **settings).tried == len(set(drawn))
    depthsieve.label(photos, store, part="1/2", **settings)
    opened = open_store(store)
    left = {image.id for shard in opened.pending() for image in opened.planned_shard(shard).images}
    tried = [image.id for _, images in draw_samples(None, opened, opened.pending(), 2) for image in images]
    assert tried and set(tried) <= left
    depthsieve.label(photos, store, part="2/2", **settings)
    done = depthsieve.plan(photos, store, **settings)
    assert (done.images, done.tried, done.hours, done.bytes) == (0, 0, None, 0)


def test_the_forecast_is_about_what_the_run_takes_and_leaves_nothing(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    photos, store = write_photos(tmp_path / "photos", 12), tmp_path / "store"
    (photos / "photo 3.png").write_bytes((photos / "photo 3.png").read_bytes()[:400])  # it is tried like the others
    planned = depthsieve.plan(photos, store, teacher=teacher, progress=False, workers=1)
    assert list((tmp_path / "scratch").iterdir()) == [] and not store.exists()
    depthsieve.label(photos, store, teacher=teacher, progress=False)
    stored = sum(path.stat().st_size for path in (store / "labels.zarr" / "shards").rglob("*") if path.is_file())
    assert planned.bytes_range is not None
    assert 0.5 * stored < planned.bytes < 2 * stored  # of small maps the documents beside them take as much


def test_two_workers_take_half_the_hours(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 4)
    planned = depthsieve.plan(
        photos, tmp_path / "store", teacher=teacher, progress=False, workers=2, threads=1, runner="ray"
    )
    assert planned.worker_hours is not None and planned.hours is not None
    assert planned.hours == pytest.approx(tuple(value / 2 for value in planned.worker_hours))
    assert planned.workers == 2 and planned.gpu_hours is None


def test_a_trial_that_fails_is_one_line(tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, image_BCHW: object) -> object:
        raise RuntimeError("device lost\nand more")

    monkeypatch.setattr("depthsieve.teachers.huggingface.HuggingFaceTeacher.predict", broken)
    photos = write_photos(tmp_path / "photos", 2)
    with pytest.raises(RunError, match=r"^the trial failed: device lost; --no-trial plans without one$"):
        depthsieve.plan(photos, tmp_path / "store", teacher=teacher, progress=False)
    planned = depthsieve.plan(photos, tmp_path / "store", teacher=teacher, trial=False, progress=False)
    assert planned.images == 2 and planned.hours is None
