"""Photos beside labels: the source file where its reader shows it the right way up, else one written again; links."""

import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import export, small_store
from labelled import label
from packing import pack_tar
from PIL import Image, ImageOps
from storemaker import SPEC, Picture, made_image, make_store

from depthsieve.core.errors import RunError, UsageError
from depthsieve.export import table
from depthsieve.export.protocol import About, Encoded, Item, Target
from depthsieve.store import Store


class Beside(Target):
    """A target that only puts photos into a folder, for a reader that knows nothing of EXIF."""

    links = True
    applies_exif = False

    def encode(self, item: Item) -> Encoded:
        photo = item.photo.file(applies_exif=self.applies_exif)
        return Encoded({f"{item.path}{photo.suffix}": photo})

    def about(self) -> About:
        return About("photos", "none", "none", "none", "beside", "pass")


class BesideWithExif(Beside):
    """For one that undoes EXIF orientation."""

    applies_exif = True


class Strict(Beside):
    """A target that holds no invalid pixels, at label resolution only."""

    holds_invalid, resolutions, wants = False, ("label",), "metres"


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    rows = {one.__name__: one for one in (Beside, BesideWithExif, Strict)}
    made = {name: table.TargetRow(name, "Tests", "photos", "unused") for name in rows}
    monkeypatch.setattr(table, "TARGETS", {**table.TARGETS, **made})
    whole = table.TargetRow.load
    monkeypatch.setattr(table.TargetRow, "load", lambda row, options: rows.get(row.name) or whole(row, options))
    yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return small_store(tmp_path)


def open_photo(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def test_a_photo_that_its_reader_would_show_turned_is_written_upright(
    store: Store, tmp_path: Path, targets: None
) -> None:
    export(store, tmp_path / "out", "Beside")
    sources = {name: (tmp_path / "images" / name).read_bytes() for name in ("a.jpg", "a.png", "b/turned.jpg")}
    assert (tmp_path / "out" / "default" / "a.jpg.jpg").read_bytes() == sources["a.jpg"]
    assert (tmp_path / "out" / "default" / "a.png.png").read_bytes() == sources["a.png"]
    turned = open_photo(tmp_path / "out" / "default" / "b" / "turned.jpg.jpg")
    with Image.open(io.BytesIO(sources["b/turned.jpg"])) as image:
        upright = np.asarray(ImageOps.exif_transpose(image)).astype(float)
    assert turned.shape == upright.shape == (30, 50, 3)
    assert np.abs(turned - upright).mean() < 6  # turned the other way round: about 85


def test_for_a_reader_that_undoes_exif_it_is_the_file_itself(store: Store, tmp_path: Path, targets: None) -> None:
    export(store, tmp_path / "out", "BesideWithExif")
    written = tmp_path / "out" / "default" / "b" / "turned.jpg.jpg"
    assert written.read_bytes() == (tmp_path / "images" / "b" / "turned.jpg").read_bytes()
    with Image.open(written) as image:
        assert image.size == (30, 50) and ImageOps.exif_transpose(image).size == (50, 30)


@pytest.mark.parametrize("link", ["symlink", "hard"])
def test_what_needs_no_change_is_linked(store: Store, tmp_path: Path, targets: None, link: str) -> None:
    summary = export(store, tmp_path / "out", "Beside", link=link)
    original, written = tmp_path / "images" / "a.jpg", tmp_path / "out" / "default" / "a.jpg.jpg"
    assert written.samefile(original) and written.is_symlink() == (link == "symlink")
    turned = tmp_path / "out" / "default" / "b" / "turned.jpg.jpg"
    assert not turned.samefile(tmp_path / "images" / "b" / "turned.jpg")
    assert (summary.photos_linked, summary.bytes) == (3, turned.stat().st_size)
    assert export(store, tmp_path / "out", "Beside", link=link).images_now == 0


def test_a_link_to_a_photo_that_is_gone_is_told(store: Store, tmp_path: Path, targets: None) -> None:
    export(store, tmp_path / "out", "Beside", link="symlink")
    (tmp_path / "images" / "a.jpg").unlink()
    summary = export(store, tmp_path / "out", "Beside", link="symlink")
    assert [(one.id, one.reason) for one in summary.failed] == [
        ("default/a.jpg", "its photo cannot be read (No such file or directory)")
    ]


def test_photos_within_archives_are_extracted(tmp_path: Path, targets: None) -> None:
    (tmp_path / "source").mkdir()
    source = pack_tar(tmp_path / "source" / "photos.tar", {"a.png": photo_bytes(1)})
    label(source, tmp_path / "labels", "tiny")
    summary = export(tmp_path / "labels", tmp_path / "out", "Beside", link="symlink")
    assert summary.photos_linked == 0
    assert (tmp_path / "out" / "default" / "photos.tar" / "a.png.png").read_bytes() == photo_bytes(1)


def photo_bytes(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(made_image(seed, (90, 120))).save(file, "PNG")
    return file.getvalue()


def test_other_formats_are_written_as_png(tmp_path: Path, targets: None) -> None:
    store = make_store(tmp_path, [Picture("a.webp", (28, 28), (14, 14)), Picture("b.bmp", (28, 28), (14, 14))])
    export(store, tmp_path / "out", "Beside", link="hard")
    assert np.array_equal(open_photo(tmp_path / "out" / "default" / "b.bmp.png"), made_image(1, (28, 28)))
    assert open_photo(tmp_path / "out" / "default" / "a.webp.png").shape == (28, 28, 3)


def test_a_target_is_refused_what_it_cannot_hold(store: Store, tmp_path: Path, targets: None) -> None:
    metric = make_metric(tmp_path / "metric")
    refused: tuple[tuple[Store, dict[str, Any], str], ...] = (
        (store, {}, "relative disparity has no metres"),
        (metric, {"mask": 0.1}, "target Strict cannot hold invalid pixels, so it takes no --mask"),
        (metric, {"resolution": "source"}, "target Strict is written at label resolution only"),
    )
    for one, options, message in refused:
        with pytest.raises(UsageError, match=message):
            export(one, tmp_path / "out", "Strict", **options)
    assert not (tmp_path / "out").exists()
    assert export(metric, tmp_path / "out", "Strict").images == 1


def make_metric(folder: Path) -> Store:
    spec = dataclasses.replace(SPEC, quantity="depth", unit="m")
    return make_store(folder, [Picture("a.png", (28, 28), (14, 14))], spec=spec)


def test_a_hard_link_to_another_disk_is_told(
    store: Store, tmp_path: Path, targets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*places: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(RunError, match=r"cannot be linked .* say --link symlink"):
        export(store, tmp_path / "out", "Beside", link="hard")
