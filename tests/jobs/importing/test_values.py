"""From the numbers in the files to depth and codes: units, invalid values, directions of confidence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from storemaker import Picture, make_store

import depthsieve
from depthsieve.core.errors import ImageRejected, SourceError, UsageError
from depthsieve.jobs.importing.draft import check_aspect
from depthsieve.jobs.importing.settings import ValueSettings, imported_spec, settings_in
from depthsieve.jobs.importing.values import RawMap, to_label


def label_of(values: Any, quantity: Any = "depth", confidence: Any = None, **settings: Any) -> tuple[Any, Any]:
    """Depth and codes of a map of one row."""
    values_HW = np.atleast_2d(values)
    confidence_HW = None if confidence is None else np.atleast_2d(confidence)
    made = to_label(RawMap(values_HW, confidence_HW, ""), quantity, ValueSettings(**settings))
    return made.depth_HW[0].tolist(), made.code_HW[0].tolist()


def test_depth_in_other_units_and_what_marks_none() -> None:
    whole = np.array([0, 500, 2000, 65535, 4000], np.uint16)
    assert label_of(whole, scale=1000) == (pytest.approx([0, 0.5, 2, 0, 4]), [0, 255, 255, 0, 255])
    assert label_of(whole, scale=1000, invalid=(0.0,))[0] == pytest.approx([0, 0.5, 2, 65.535, 4])
    assert label_of(whole.astype(np.float32), scale=1000)[0] == pytest.approx([0, 0.5, 2, 65.535, 4])
    depth, code = label_of(whole, scale=1000, invalid=(65535.0, 500.0))
    assert (depth, code) == ([0, 0, 2, 0, 4], [0, 0, 255, 0, 255])
    depth, code = label_of([np.nan, np.inf, -1.0, 3.0, 7.5, 9.0], max_value=8)
    assert (depth, code) == ([0, 0, 0, 3, 7.5, 0], [0, 0, 0, 255, 255, 0])


def test_distance_becomes_depth_along_the_axis() -> None:
    """Of a camera of square pixels that looks at the middle of the map."""
    depth_HW = np.linspace(1, 5, 24 * 32).reshape(24, 32)
    x_W, y_H = np.arange(32) - 15.5, np.arange(24) - 11.5
    distance_HW = depth_HW * np.sqrt(1 + (x_W[None] ** 2 + y_H[:, None] ** 2) / 27.7**2)
    settings = ValueSettings(scale=1000, distance_to_depth=27.7, max_value=5)
    made = to_label(RawMap(distance_HW * 1000, None, ""), "depth", settings)
    np.testing.assert_allclose(made.depth_HW.ravel()[:-1], depth_HW.ravel()[:-1], rtol=1e-6)
    spec = imported_spec("depth", settings, "files")
    assert settings_in(spec) == (settings, "files")


def test_disparity_may_be_0_or_less_and_whole_numbers_need_no_scale() -> None:
    assert label_of([-0.5, 0.0, 2.0, np.nan], "disparity") == ([-0.5, 0, 2, 0], [255, 255, 255, 0])
    depth, code = label_of(np.array([0, 13107, 65535], np.uint16), "disparity", invalid=(0.0,))
    assert (depth, code) == (pytest.approx([0, 0.2, 1]), [0, 255, 255])
    raw = RawMap(np.array([[0.0, 1.0, 2.0]]), None, "")
    assert to_label(raw, "disparity", ValueSettings()).zeros == 1
    assert to_label(raw, "disparity", ValueSettings(invalid=(0.0,))).zeros == 0


def test_confidence_has_the_direction_that_is_told() -> None:
    values, sure = [1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 0.25, 0.5, 1.0, np.nan]
    assert label_of(values, confidence=sure, confidence_means="higher-is-better")[1] == [1, 65, 128, 255, 0]
    assert label_of(values, confidence=sure, confidence_means="lower-is-better")[1] == [255, 191, 128, 1, 0]
    more = {"confidence_means": "higher-is-better", "confidence_range": (1, 3)}
    assert label_of([1.0, 2.0, 3.0], confidence=[1.0, 2.0, 3.0], **more)[1] == [1, 128, 255]
    bytes_ = np.array([0, 128, 255], np.uint8)
    assert label_of([1.0, 2.0, 3.0], confidence=bytes_, confidence_means="higher-is-better")[1] == [1, 128, 255]
    assert label_of([1.0, 2.0, 3.0], confidence=bytes_, confidence_means="code")[1] == [0, 128, 255]
    errors = [1.0, 0.5, 0.01, 1e-4, np.nan]
    assert label_of(values, confidence=errors, confidence_means="error")[1] == [1, 15, 246, 255, 0]


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ([0.0, np.nan], {}, "its map has no valid pixel"),
        ([3.0, 3.0, 0.0], {}, "its map is 3 at every valid pixel"),
        ([3.0, 65600.0], {}, "reaches 65600, more than float16 holds; say its unit with --scale, or --max"),
        (
            [1.0, 2.0],
            {"confidence": [0.2, 1.2]},
            r"holds 1\.2, outside of 0 to 1; say its range with --confidence-range",
        ),
        ([1.0, 2.0], {"confidence": [0.2, -1], "confidence_means": "error"}, "holds negative numbers"),
        ([1.0, 2.0], {"confidence": [1, 2], "confidence_means": "error"}, "relative errors are fractions"),
        ([1.0, 2.0], {"confidence": [0.5, 1.0], "confidence_means": "code"}, "codes are whole numbers of 8 bits"),
    ],
)
def test_maps_that_are_no_labels_say_why(values: Any, settings: Any, message: str) -> None:
    if "confidence" in settings:
        settings = {"confidence_means": "higher-is-better"} | settings
    with pytest.raises(ImageRejected, match=message):
        label_of(values, **settings)


@pytest.mark.parametrize(
    ("shape", "photo", "fits"),
    [
        ((518, 784), (1362, 2048), True),  # sides are multiples of a patch
        ((126, 196), (1362, 2048), True),
        ((384, 384), (1080, 1920), False),
        ((480, 640), (640, 480), False),
        ((480, 640), (1080, 1920), False),
        ((480, 640), (2000, 3000), False),
        ((1, 640), (2, 1280), True),
        ((2, 3), (400, 600), True),
    ],
)
def test_a_map_must_have_the_aspect_of_its_photo(shape: Any, photo: Any, fits: bool) -> None:
    if fits:
        check_aspect(shape, photo)
        return
    with pytest.raises(ImageRejected, match=f"{shape[1]}x{shape[0]} and its photo {photo[1]}x{photo[0]}") as raised:
        check_aspect(shape, photo)
    assert ("on its side" in str(raised.value)) == (shape == photo[::-1])


def test_settings_come_back_from_the_label_spec() -> None:
    values = ValueSettings(
        scale=1000.0,
        invalid=(65535.0,),
        confidence_means="lower-is-better",
        confidence_range=(0.0, 5.0),
        made_by="depth pro, 1536",
    )
    spec = imported_spec("depth", values, "files")
    assert settings_in(spec) == (values, "files")
    assert imported_spec("depth", ValueSettings(), "files").fingerprint != spec.fingerprint


@pytest.mark.parametrize("target", ["png", "npy", "npz", "hdf5", "exr"])
def test_an_export_comes_back_as_it_was(tmp_path: Path, target: str) -> None:
    """Ids, reliability, and depth within the stated precision; hostile names too."""
    names = ["a.png", "a.jpg", "folder/b c.png", "<img src=x onerror=alert(1)>.png", "é.png", "x::y.png"]
    pictures = [Picture(name, (28, 42), (14, 21)) for name in names[:-1]] + [Picture("t.png", (40, 30), (20, 15))]
    store = make_store(tmp_path, pictures)
    out = tmp_path / "out"
    depthsieve.export_labels(store.location, out, target=target, progress=False)
    summary = depthsieve.import_labels(out, tmp_path / "back", images=tmp_path / "images", threads=1, progress=False)
    assert (summary.failed, summary.without_map, summary.without_image) == ((), 0, 0)
    back = depthsieve.open_store(tmp_path / "back")
    assert list(back) == list(store) and back.spec.quantity == store.spec.quantity
    for image in store:
        before, after = store[image], back[image]
        valid_HW = before.reliability > 0
        np.testing.assert_array_equal(after.reliability, before.reliability)
        allowed = np.ptp(before.depth[valid_HW]) / 131068 + np.abs(before.depth) * 2**-11 if target == "png" else 0
        assert (
            np.abs(after.depth - before.depth)[valid_HW] <= np.broadcast_to(allowed, valid_HW.shape)[valid_HW]
        ).all()
        assert after.source_shape == before.source_shape
    assert depthsieve.verify(tmp_path / "back", progress=False).sound
    with pytest.raises(UsageError, match=r"is an export of depthsieve, which says itself .* leave out --scale"):
        depthsieve.import_labels(out, tmp_path / "other", images=tmp_path / "images", scale=10, progress=False)


def test_an_export_that_cannot_be_imported_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture("a.png", (28, 42), (14, 21))])
    told: dict[str, Any] = {"images": tmp_path / "images", "progress": False}
    depthsieve.export_labels(store.location, tmp_path / "3dgs", target="3dgs", progress=False)
    with pytest.raises(
        SourceError, match="for 3dgs, which cannot be imported; exports for png, npy, npz, hdf5, exr can"
    ):
        depthsieve.import_labels(tmp_path / "3dgs", tmp_path / "back", **told)
    depthsieve.export_labels(store.location, tmp_path / "npy", target="npy", progress=False)
    (tmp_path / "npy" / "index.json").unlink()
    with pytest.raises(SourceError, match=r"for npy that is not finished: it has no depth\.json or index\.json; run"):
        depthsieve.import_labels(tmp_path / "npy", tmp_path / "back", **told)
    (tmp_path / "npy" / ".depthsieve" / "export.json").write_text("[")
    with pytest.raises(UsageError, match="say what the maps hold with --quantity"):
        depthsieve.import_labels(tmp_path / "npy", tmp_path / "back", **told)


def test_an_index_that_is_not_as_it_was_written_leads_nowhere(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture(f"{n}.png", (28, 42), (14, 21)) for n in range(5)])
    depthsieve.export_labels(store.location, tmp_path / "out", target="npy", progress=False)
    (tmp_path / "secret.npy").write_bytes((tmp_path / "out/depth/default/0.png.npy").read_bytes())
    index = json.loads((tmp_path / "out/index.json").read_text())
    rows = {row["id"]: row for row in index["images"]}
    rows["default/0.png"]["depth"] = "../secret.npy"
    rows["default/1.png"]["depth"] = 7
    del rows["default/2.png"]["reliability"]
    rows["default/3.png"]["group"] = ["no", "text"]
    index["images"] += ["no row", {"id": 3}, {}]
    (tmp_path / "out/index.json").write_text(json.dumps(index))
    told: dict[str, Any] = {"images": tmp_path / "images", "threads": 1, "progress": False}
    failed = {
        one.id: one.reason for one in depthsieve.import_labels(tmp_path / "out", tmp_path / "back", **told).failed
    }
    assert set(failed) == {f"default/{n}.png" for n in range(4)}
    assert "would leave the root" in failed["default/0.png"]
    (tmp_path / "out/index.json").write_text(json.dumps(index)[:-9])
    with pytest.raises(SourceError, match=r"index\.json is not whole, so this is no export to import"):
        depthsieve.import_labels(tmp_path / "out", tmp_path / "back", **told)
