"""Point clouds: read back by plyfile, where they should be in space."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from labelled import label as label_photos
from PIL import Image
from plyfile import PlyData
from storemaker import SPEC, Picture, make_store

import depthsieve
from depthsieve.core.errors import StoreError, UsageError
from depthsieve.images.exif import FULL_FRAME_DIAGONAL_MM
from depthsieve.report.cloud import cloud_of
from depthsieve.store import Label

METRIC = dataclasses.replace(SPEC, quantity="depth", unit="m")


@pytest.fixture(params=["depth", "disparity"])
def label(request: pytest.FixtureRequest, tmp_path: Path) -> Label:
    spec = METRIC if request.param == "depth" else SPEC
    return make_store(tmp_path, [Picture("a.png", (28, 42), (14, 21))], spec=spec)[0]


def saved(label: Label, tmp_path: Path, **options: float) -> tuple[np.ndarray, list[str]]:
    depthsieve.view(label.store, [label.id]).save_cloud(tmp_path / "a.ply", **options)
    ply = PlyData.read(tmp_path / "a.ply")
    assert not ply.text and ply.byte_order == "<"
    return ply["vertex"].data, ply.comments


def test_every_kept_pixel_is_a_point_where_a_pinhole_camera_sees_it(label: Label, tmp_path: Path) -> None:
    vertices, comments = saved(label, tmp_path, drop=0.2, focal=50)
    keep_HW = label.mask(0.2)
    assert len(vertices) == keep_HW.sum() < keep_HW.size
    v, u = np.nonzero(keep_HW)
    z = -vertices["z"]
    # 50 px of a photo of 42 x 28 are 25 px of a label of 21 x 14; x to the right, y up
    np.testing.assert_allclose(vertices["x"], (u + 0.5 - 10.5) / 25 * z, rtol=1e-5)
    np.testing.assert_allclose(vertices["y"], (6.5 - v) / 25 * z, rtol=1e-5)
    colours = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)
    np.testing.assert_array_equal(colours, label.image()[keep_HW])
    shown = label.depth[keep_HW]
    if label.quantity == "depth":
        np.testing.assert_allclose(z, shown, rtol=1e-6)
        assert comments == ["made by depthsieve", "focal length 50.0 px of the photo, from --focal or --fov"]
    else:
        low, high = np.percentile(shown, (2, 98))
        expected = 1 / (0.1 + 0.9 * np.maximum((shown - low) / (high - low), 0))
        np.testing.assert_allclose(z, expected, rtol=1e-5)
        assert z.max() == 10 and "up to scale and shift; assumed: its 98th percentile is at distance 1" in comments[2]


def test_the_field_of_view_is_across_the_width(label: Label) -> None:
    by_fov, by_focal = (cloud_of(label, **one) for one in ({"fov": 90.0}, {"focal": 21.0}))
    np.testing.assert_array_equal(by_fov.vertices_N, by_focal.vertices_N)
    assumed = cloud_of(label)
    assert "no focal length is known; assumed: 60 degrees across the longer side (36 px)" in assumed.notes[0]
    assert all("focal" not in note for note in by_fov.notes)
    np.testing.assert_array_equal(assumed.vertices_N, cloud_of(label, fov=60).vertices_N)


@pytest.mark.parametrize("options", [{"fov": 60, "focal": 30}, {"fov": 180}, {"focal": 0}, {"focal": float("nan")}])
def test_lenses_that_are_none_are_refused(label: Label, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"focal|fov"):
        cloud_of(label, **options)


def test_points_have_the_colours_of_depth_where_the_photo_is_gone(label: Label) -> None:
    Path(label.store.sources()["default"], "a.png").unlink()
    made = cloud_of(label)
    kept_N3 = label.panels().depth_HW3[label.mask()]
    np.testing.assert_array_equal(made.vertices_N["red"], kept_N3[:, 0])
    assert made.notes[-1] == "the photo cannot be read, so points have the colours of their depth"
    assert made.left_out == (~label.mask()).sum()


def test_a_known_focal_length_is_used_and_other_files_are_kept(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo = Image.effect_noise((120, 90), 50).convert("RGB")
    exif = photo.getexif()
    exif.get_ifd(0x8769)[0xA405] = 28  # focal length in 35 mm film
    photo.save(photos / "a.jpg", exif=exif)
    label_photos(photos, tmp_path / "labels", "tiny", signals="none")
    label = depthsieve.open_store(tmp_path / "labels")[0]
    focal = 28 / FULL_FRAME_DIAGONAL_MM * 150
    found = cloud_of(label)
    np.testing.assert_allclose(found.vertices_N["x"], cloud_of(label, focal=focal).vertices_N["x"], rtol=1e-5)
    assert found.focal_px == pytest.approx(focal) and found.focal_from == "exif-35mm"
    assert found.lens == f"focal length {focal:.1f} px of the photo, from EXIF (35 mm equivalent)"
    assert len(found.notes) == 1, "nothing is assumed but scale and shift"
    seen = depthsieve.view(label.store, [label.id])
    target = tmp_path / "a.ply"
    seen.save_cloud(target)
    seen.save_cloud(target)
    target.write_bytes(b"ply\nformat ascii 1.0\n")
    with pytest.raises(UsageError, match="was not written by depthsieve"):
        seen.save_cloud(target)
    with pytest.raises(UsageError, match=r"ends in \.ply"):
        seen.save_cloud(tmp_path / "a.png")


def test_a_label_without_valid_pixels_has_no_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(number: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(shape, np.float32), np.zeros(shape, np.uint8)

    monkeypatch.setattr("storemaker.made_label", nothing)
    store = make_store(tmp_path, [Picture("a.png", (28, 42), (14, 21))])
    with pytest.raises(StoreError, match=r"default/a\.png has no pixel that is valid and not masked"):
        cloud_of(store[0])
    assert depthsieve.view(store).ids == ("default/a.png",)
