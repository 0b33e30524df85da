"""The contact sheet: a row a label, whose pictures are those of the label, and what its title says."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from storemaker import SPEC, Picture, make_store

from depthsieve.images import colours, sheet
from depthsieve.images.panels import Panels, panels_of, with_common_codes
from depthsieve.reliability.masking import threshold_code
from depthsieve.store import Store

WIDE, TALL = "default/a wide one.png", "default/tall.png"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A wide and a tall label, of which the second is the more reliable."""
    folder = tmp_path_factory.mktemp("sheet")
    return make_store(folder, [Picture("a wide one.png", (28, 42), (14, 21)), Picture("tall.png", (42, 28), (21, 14))])


def parts(picture: Image.Image, sizes: list[tuple[int, int]], tops: list[int]) -> list[list[np.ndarray]]:
    """The four pictures of each row, of these (width, height), whose upper edges are at these places."""
    pixels = np.asarray(picture)
    step = max(sheet.LEAST_COLUMN, *(width for width, _ in sizes)) + sheet.MARGIN
    lefts = [sheet.MARGIN + column * step for column in range(4)]
    return [
        [pixels[top : top + height, left : left + width] for left in lefts]
        for (width, height), top in zip(sizes, tops, strict=True)
    ]


def enlarged(rgb_HW3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb_HW3).resize(size, Image.Resampling.NEAREST))


@pytest.mark.parametrize("drop", [0.1, 0.4])
def test_a_row_shows_the_label_and_tints_what_is_masked(store: Store, drop: float) -> None:
    label = store[WIDE]
    size, top = (336, 224), sheet.MARGIN + sheet.HEAD + sheet.CAPTION
    ((photo, depth, reliability, mask),) = parts(sheet.draw_sheet([label.panels(drop)], drop), [size], [top])
    codes = enlarged(label.reliability, size)
    t = threshold_code(np.bincount(label.reliability.ravel(), minlength=256), drop)
    tinted = (mask == colours.TINT).all(axis=-1)
    np.testing.assert_array_equal(tinted, (codes < t) & (codes > 0))
    assert drop / 2 < tinted.sum() / (codes > 0).sum() <= drop
    np.testing.assert_array_equal(photo, enlarged(label.image(), size))
    np.testing.assert_array_equal(mask[~tinted & (codes > 0)], photo[~tinted & (codes > 0)])
    valid_HW = label.reliability > 0
    np.testing.assert_array_equal(depth, enlarged(colours.depth_colours(label.depth, "disparity", valid_HW), size))
    np.testing.assert_array_equal(reliability, enlarged(colours.reliability_colours(label.reliability), size))
    for picture in (depth, reliability, mask):
        assert {tuple(one) for one in picture[codes == 0]} == set(colours.CHECKS)


def test_rows_are_as_high_as_their_pictures_and_share_one_scale_of_reliability(store: Store) -> None:
    labels = [store[WIDE].panels(), store[TALL].panels()]
    start = sheet.MARGIN + sheet.HEAD + sheet.CAPTION
    wide, tall = parts(
        sheet.draw_sheet(labels, 0.1), [(336, 224), (168, 252)], [start, start + 224 + sheet.MARGIN + sheet.CAPTION]
    )
    span = colours.span_of_codes([store[WIDE].reliability, store[TALL].reliability])
    for label, row in ((store[WIDE], wide), (store[TALL], tall)):
        height, width = row[0].shape[:2]
        expected = enlarged(colours.reliability_colours(label.reliability, span), (width, height))
        np.testing.assert_array_equal(row[2], expected)
        np.testing.assert_array_equal(row[0], enlarged(label.image(), (width, height)))
    assert [one.codes for one in with_common_codes(labels)] == [span] * 2 != [one.codes for one in labels]
    assert wide[2].mean() + 20 < tall[2].mean(), "the less reliable label is the darker one"


def test_one_label_is_drawn_large_in_two_rows(store: Store) -> None:
    picture = sheet.draw_sheet([store[WIDE].panels()], 0.1, large=True)
    width, height = 720, 480
    assert picture.size == (2 * (width + sheet.MARGIN) + sheet.MARGIN, picture.height)
    first = sheet.MARGIN + sheet.CAPTION + sheet.HEAD
    second = first + height + sheet.MARGIN + sheet.HEAD
    pixels = np.asarray(picture)
    right = 2 * sheet.MARGIN + width
    np.testing.assert_array_equal(
        pixels[first : first + height, sheet.MARGIN : sheet.MARGIN + width],
        enlarged(store[WIDE].image(), (width, height)),
    )
    mask = pixels[second : second + height, right : right + width]
    np.testing.assert_array_equal(mask, enlarged(store[WIDE].panels().mask_HW3, (width, height)))
    assert picture.height == second + height + sheet.MARGIN


def made(shape: tuple[int, int], **other: object) -> Panels:
    """A label of a ramp, half of it without a label."""
    depth_HW = np.linspace(1, 9, shape[0] * shape[1]).reshape(shape)
    reliability_HW = np.where(depth_HW < 5, 0, 70).astype(np.uint8)
    photo_HW3 = np.full((*shape, 3), 200, np.uint8)
    panels = panels_of("default/made.png", photo_HW3, depth_HW, reliability_HW, reliability_HW > 0, "depth")
    return dataclasses.replace(panels, **other)  # type: ignore[arg-type]


def test_a_title_says_what_the_numbers_are() -> None:
    label = made((10, 20), masked=0.25, no_photo="gone")
    assert sheet._title(label) == (
        "default/made.png   20x10, 5.1 to 8.92 m, mean reliability 70.0, 25.0% masked, 50.0% without a label, photo "
        "cannot be read"
    )
    empty_HW = np.zeros((2, 2), np.uint8)
    nothing = panels_of("a/b\n\udcff.png", None, empty_HW, empty_HW, empty_HW > 0, "depth")
    assert sheet._title(nothing) == "a/b\n\udcff.png   2x2, 0.0% masked, 100.0% without a label"


@pytest.mark.parametrize("shape", [(1, 640), (640, 1), (1, 1), (50, 1200), (300, 200)])
def test_pictures_of_any_shape_are_seen_and_not_dark(shape: tuple[int, int]) -> None:
    for large in (False, True):
        picture = np.asarray(sheet.draw_sheet([made(shape)], 0.1, large))
        assert (np.ptp(picture, axis=-1) > 40).sum() > 200, "depth and reliability have colours"
        assert (picture.max(axis=-1) < 60).mean() < 0.02
    fitted = sheet._fitted(np.zeros((*shape, 3), np.uint8), sheet.BOX)
    assert min(fitted.size) >= sheet.LEAST_SIDE
    assert fitted.width <= sheet.BOX[0] and fitted.height <= sheet.BOX[1]


def test_a_large_label_is_reduced_by_averaging() -> None:
    stripes = np.zeros((504, 1000, 3), np.uint8)
    stripes[:, ::2] = 200
    fitted = sheet._fitted(stripes, sheet.BOX)
    assert fitted.size == (336, 169)
    assert 60 < np.asarray(fitted).min() <= np.asarray(fitted).max() < 140


def test_metres_are_named_as_such(tmp_path: Path) -> None:
    metric = dataclasses.replace(SPEC, quantity="depth", unit="m")
    store = make_store(tmp_path, [Picture("a.png", (28, 42), (14, 21))], spec=metric)
    label = store[0]
    low, high = np.percentile(label.depth[label.reliability > 0], (2, 98))
    assert f"{low:.3g} to {high:.3g} m" in sheet._title(label.panels())
