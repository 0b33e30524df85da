"""Metres for relative labels: ``label --metric-from``, while labelling and later, and what a store then says."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import plug_in
import pyarrow.parquet as pq
import pytest
from commandline import command
from labelled import decided_bytes
from PIL import Image

import depthsieve
from depthsieve.core.errors import NoMetres, TeacherNotFound, UsageError
from depthsieve.export.items import ItemReader
from depthsieve.report.cloud import cloud_of
from depthsieve.store import open_store

RULER = '''
import hashlib

import numpy as np
import torch

from depthsieve.teachers import Batch, Prediction, Teacher


class Ruler(Teacher):
    """Metres: 1 / (0.002 * brightness + 0.1), at the shape of its input; where nothing is blue, of the darkness."""

    name = "ruler"
    weights_digest = hashlib.sha256(b"ruler").hexdigest()
    quantity = "depth"
    unit = "m"
    dtype = "float32"
    preprocessing = {"rule": "as it is"}

    def __init__(self, request):
        self.device = torch.device("cpu")

    def label_shape(self, height, width):
        return height, width

    def prepare(self, rgb_HW3, shape):
        return np.ascontiguousarray(rgb_HW3.transpose(2, 0, 1), dtype=np.float32)

    def predict(self, batch):
        bright = batch.image.mean(1)
        dark = (batch.image[:, 2].amax((1, 2)) == 0)[:, None, None]
        return Prediction(1 / (0.002 * torch.where(dark, 255 - bright, bright) + 0.1))


def load(request):
    return Ruler(request)
'''
OPTIONS: dict[str, Any] = {"teacher": "brightness", "batch_size": 2, "threads": 1, "shard_size": 2, "progress": False}


def write(folder: Path, names: list[str]) -> Path:
    """Pictures of blocks of two pixels, so that they are the same at half the size."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        blocks_hw3 = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(np.kron(blocks_hw3, np.ones((2, 2, 1), np.uint8))).save(folder / name)
    return folder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five photos, and two teachers: of brightness, and a ruler that measures it."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    for module in ("acme", "tools_of_measure"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    plug_in.install(tmp_path / "site")
    plug_in.install(tmp_path / "site", "ruler", "tools_of_measure", RULER)
    return write(tmp_path / "photos", [f"{letter}.png" for letter in "abcde"])


def test_labels_get_a_scale_and_shift_that_make_metres(tmp_path: Path, photos: Path) -> None:
    summary = depthsieve.label(photos, tmp_path / "store", metric_from="ruler", **OPTIONS)
    assert (summary.labelled, summary.scaled_now) == (5, 0) and not [note for note in summary.notes if "metres" in note]
    store = open_store(tmp_path / "store")
    label = store["default/b.png"]
    assert label.quantity == "disparity" and label.metric.scale == pytest.approx(0.002, rel=1e-3)
    bright_HW = np.asarray(Image.open(photos / "b.png"), np.float32)[::2, ::2].mean(2)
    np.testing.assert_allclose(label.metres, 1 / (0.002 * bright_HW + 0.1), rtol=1e-3)
    index = pq.read_table(tmp_path / "store" / "index.parquet").to_pylist()
    assert [row["metric_scale"] for row in index] == [store[row["id"]].metric.scale for row in index]
    assert all(row["metric_inliers"] == 1 and row["metric_residual"] < 1e-3 for row in index)
    assert depthsieve.verify(tmp_path / "store").sound


def test_fitted_later_or_at_once_are_the_same_bytes(tmp_path: Path, photos: Path) -> None:
    Image.new("RGB", (48, 40), (9, 9, 9)).save(photos / "bb.png")  # of one brightness: it fails
    depthsieve.label(photos, tmp_path / "at once", metric_from="ruler", **OPTIONS)
    depthsieve.label(photos, tmp_path / "later", **OPTIONS)
    with pytest.raises(NoMetres, match=r"default/a.png has no metres: .* relative.*--metric-from TEACHER` adds one"):
        open_store(tmp_path / "later")["default/a.png"].metres  # noqa: B018
    again = depthsieve.label(photos, tmp_path / "later", metric_from="ruler", **OPTIONS)
    assert (again.labelled_now, again.scaled_now) == (0, 5)
    assert decided_bytes(tmp_path / "later") == decided_bytes(tmp_path / "at once")
    assert pq.read_table(tmp_path / "later" / "index.parquet").equals(
        pq.read_table(tmp_path / "at once" / "index.parquet")
    )
    assert depthsieve.label(photos, tmp_path / "later", metric_from="ruler", **OPTIONS).scaled_now == 0


def test_a_store_goes_on_as_it_began_and_none_stops_it(tmp_path: Path, photos: Path) -> None:
    store = tmp_path / "store"
    depthsieve.label(photos, store, metric_from="ruler", **OPTIONS)
    Image.open(photos / "a.png").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(photos / "f.png")
    options = {name: value for name, value in OPTIONS.items() if name != "teacher"}
    grown = depthsieve.label(photos, store, **options)
    assert any("--metric-from ruler" in note for note in grown.notes)
    assert open_store(store)["default/f.png"].metres.min() > 0
    Image.open(photos / "a.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos / "h.png")
    depthsieve.label(photos, store, metric_from="none", **options)
    with pytest.raises(NoMetres):
        open_store(store)["default/h.png"].metres  # noqa: B018
    later = depthsieve.label(photos, store, **options)
    assert any("1 of the committed shards have no scale to metres" in note for note in later.notes)


def test_teachers_that_make_no_metres_are_refused(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(UsageError, match="needs a teacher that predicts metres, and 'brightness' predicts disparity"):
        depthsieve.label(photos, tmp_path / "store", metric_from="brightness", **OPTIONS)
    with pytest.raises(UsageError, match="is for relative labels, and teacher 'ruler' predicts metres already"):
        depthsieve.label(photos, tmp_path / "store", metric_from="ruler", **OPTIONS | {"teacher": "ruler"})
    with pytest.raises(TeacherNotFound, match="no-such"):
        depthsieve.label(photos, tmp_path / "store", metric_from="./no-such", **OPTIONS)
    assert not (tmp_path / "store").exists()


def test_metres_of_another_teacher_are_refused_before_anything_is_written(tmp_path: Path, photos: Path) -> None:
    plug_in.install(tmp_path / "site", "yard", "yards", RULER.replace('b"ruler"', 'b"yard"'))
    depthsieve.label(photos, tmp_path / "store", metric_from="ruler", **OPTIONS)
    before = decided_bytes(tmp_path / "store")
    with pytest.raises(UsageError, match="have their metres from teacher 'ruler', with other weights"):
        depthsieve.label(photos, tmp_path / "store", metric_from="yard", **OPTIONS)
    assert decided_bytes(tmp_path / "store") == before
    shutil.rmtree(tmp_path / "site" / "tools_of_measure-1.2.dist-info")
    with pytest.raises(TeacherNotFound, match=r"ruler.*metres from it: name where it is now, --metric-from"):
        depthsieve.label(photos, tmp_path / "store", **OPTIONS)


def test_a_label_that_nothing_fits_is_told_of_and_stays_relative(tmp_path: Path, photos: Path) -> None:
    rgb_HW3 = np.asarray(Image.open(photos / "c.png")).copy()
    rgb_HW3[:, :, 2] = 0
    Image.fromarray(rgb_HW3).save(photos / "c.png")
    for store in ("at once", "later"):
        if store == "later":
            depthsieve.label(photos, tmp_path / store, **OPTIONS)
        summary = depthsieve.label(photos, tmp_path / store, metric_from="ruler", **OPTIONS)
        (told,) = [note for note in summary.notes if "without a scale to metres" in note]
        assert told.startswith("1 image without") and "default/c.png" in told
        label = open_store(tmp_path / store)["default/c.png"]
        with pytest.raises(NoMetres, match=r"no scale fits its label .*\d\.\d% of its pixels could be compared"):
            label.metres  # noqa: B018
        assert label.metric.pixels > 0.5


def test_a_photo_that_is_gone_costs_no_other_its_metres_and_is_retried(tmp_path: Path, photos: Path) -> None:
    store = tmp_path / "store"
    depthsieve.label(photos, store, **OPTIONS)
    (photos / "b.png").rename(tmp_path / "b.png")
    summary = depthsieve.label(photos, store, metric_from="ruler", **OPTIONS)
    assert summary.scaled_now == 4
    assert [(one.id, one.reason) for one in summary.not_scaled] == [
        ("default/b.png", "cannot be read any more: no such file or directory")
    ]
    (tmp_path / "b.png").rename(photos / "b.png")
    again = depthsieve.label(photos, store, metric_from="ruler", retry_failed=True, **OPTIONS)
    assert again.not_scaled == () and open_store(store)["default/b.png"].metric.scale > 0


def test_a_damaged_file_is_found_and_the_shard_fitted_again(tmp_path: Path, photos: Path) -> None:
    store = tmp_path / "store"
    depthsieve.label(photos, store, metric_from="ruler", **OPTIONS)
    before = decided_bytes(store)
    (chunk, *_) = [
        path
        for path in sorted((store / "layers" / "metric" / "shards").rglob("*"))
        if path.is_file() and "/c/" in str(path)
    ]
    chunk.write_bytes(b"")
    damaged = depthsieve.verify(store)
    (finding,) = damaged.findings
    assert not damaged.sound and finding.add_again == f"depthsieve label SOURCE {store} --metric-from TEACHER"
    depthsieve.verify(store, repair=True)
    depthsieve.label(photos, store, metric_from="ruler", **OPTIONS)
    assert depthsieve.verify(store).sound and decided_bytes(store) == before


def test_labels_that_a_repair_makes_otherwise_have_metres_too(tmp_path: Path, photos: Path) -> None:
    store = tmp_path / "store"
    depthsieve.label(photos, store, metric_from="ruler", **OPTIONS)
    before = open_store(store)["default/a.png"].metric
    with Image.open(photos / "a.png") as opened:
        Image.fromarray(np.asarray(opened) // 2 + 90).save(photos / "a.png")
    (chunk, *_) = [path for path in sorted((store / "labels.zarr").rglob("*")) if "0000-000000" in str(path)][-1:]
    chunk.write_bytes(b"")
    depthsieve.verify(store, repair=True)
    label = open_store(store)["default/a.png"]
    assert label.shard.startswith("0001-") and label.metric.scale == pytest.approx(before.scale, rel=1e-2)
    assert depthsieve.verify(store).sound


def test_exports_in_metres_and_clouds_take_them(tmp_path: Path, photos: Path) -> None:
    rgb_HW3 = np.asarray(Image.open(photos / "c.png")).copy()
    rgb_HW3[:, :, 2] = 0  # nothing fits
    Image.fromarray(rgb_HW3).save(photos / "c.png")
    depthsieve.label(photos, tmp_path / "store", metric_from="ruler", **OPTIONS)
    done = depthsieve.export_labels(tmp_path / "store", tmp_path / "out", target="kitti", progress=False)
    assert (done.images_now, dict(done.left_out)) == (4, {"relative, and without a scale to metres": 1})
    label = open_store(tmp_path / "store")["default/b.png"]
    (png,) = [path for path in (tmp_path / "out").rglob("*b.png") if "depth" in str(path)]
    written_HW = np.asarray(Image.open(png)) / 256
    assert np.median(written_HW) == pytest.approx(np.median(label.metres), rel=0.1)  # drawn out to the photo's shape
    item = ItemReader(open_store(tmp_path / "store"), "metres", "label", None).read(label, "b")
    np.testing.assert_array_equal(item.depth_HW, label.metres)
    cloud = cloud_of(label, drop=0.0, fov=60)
    np.testing.assert_allclose(np.sort(-cloud.vertices_N["z"]), np.sort(label.metres[label.mask(0.0)]), rtol=1e-6)
    assert not [note for note in cloud.notes if "relative" in note]


def test_the_command_says_what_it_fitted(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    options = ["--teacher", "brightness", "--batch-size", "2", "--threads", "1", "--quiet"]
    assert command(monkeypatch, "label", photos, store, *options) == 0
    capsys.readouterr()
    assert command(monkeypatch, "label", photos, store, "--metric-from", "ruler") == 0
    assert "Fitted 5 labels from before to metres." in capsys.readouterr().out
    (photos / "a.png").unlink()
    shutil.rmtree(store / "layers" / "metric")
    assert command(monkeypatch, "label", photos, store, "--metric-from", "ruler", "--json") == 3
    body = json.loads(capsys.readouterr().out)
    assert body["scaled_now"] == 4 and body["not_scaled"][0]["id"] == "default/a.png"
