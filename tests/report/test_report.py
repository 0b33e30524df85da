"""Colours, contact sheets and page parts: what people see is what the store holds."""

import re
from pathlib import Path

import numpy as np
import pytest
from labelled import small_teacher, write_photo
from PIL import Image

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.images import colours
from depthsieve.jobs.label import label
from depthsieve.reliability.masking import threshold_code
from depthsieve.report import contact_sheet, label_panels, page, sheet
from depthsieve.store import Store, open_store

WIDE, TALL = "default/a wide one.png", "default/turned.jpg"


def rgb(table: colours.Rgb) -> list[tuple[int, ...]]:
    return [tuple(colour) for colour in table.tolist()]


def is_check(rgb_HW3: colours.Rgb) -> np.ndarray:
    return np.logical_or(*((rgb_HW3 == grey).all(axis=-1) for grey in colours.CHECKS))


def test_spectral_is_that_of_the_official_script() -> None:
    """Values of matplotlib 3.11: (colormaps["Spectral_r"](i)[:3] * 255).astype(uint8)."""
    known = {0: (94, 79, 162), 1: (92, 81, 163), 127: (254, 254, 190), 128: (254, 254, 189), 255: (158, 1, 66)}
    assert {place: rgb(colours.SPECTRAL_256)[place] for place in known} == known


@pytest.mark.parametrize("table", [colours.VIRIDIS_256, colours.MAGMA_256], ids=["viridis", "magma"])
def test_lightness_rises_with_the_value(table: colours.Rgb) -> None:
    lightness = table @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -0.4).all()  # bytes are truncated: a step back by a third of one is none
    assert lightness[-1] - lightness[0] > 180


def test_viridis_and_magma_end_where_they_should() -> None:
    assert [rgb(colours.VIRIDIS_256)[i] for i in (0, 255)] == [(68, 1, 84), (253, 231, 37)]
    assert [rgb(colours.MAGMA_256)[i] for i in (0, 255)] == [(0, 0, 4), (252, 253, 191)]


def test_depth_is_stretched_over_each_map_and_near_is_red() -> None:
    disparity_HW = np.array([[2.0, 2.5], [3.0, 4.0]])
    expected = colours.SPECTRAL_256[((disparity_HW - 2) / 2 * 255).astype(np.uint8)]
    np.testing.assert_array_equal(colours.depth_colours(disparity_HW), expected)
    np.testing.assert_array_equal(colours.depth_colours(disparity_HW * 7 + 3), expected)
    assert rgb(expected[1])[1] == (158, 1, 66)


def test_metres_look_like_their_disparity() -> None:
    metres_HW = np.array([[1.0, 2.0], [4.0, np.inf]])
    np.testing.assert_array_equal(
        colours.depth_colours(metres_HW, "depth"), colours.depth_colours(np.array([[1.0, 0.5], [0.25, 0.0]]))
    )
    assert is_check(colours.depth_colours(np.array([[0.0, 1.0]]), "depth")).tolist() == [[True, False]]


def test_invalid_depth_is_checked_and_does_not_stretch_the_scale() -> None:
    disparity_HW = np.array([[1.0, 2.0, 3.0, 900.0, np.nan]])
    valid_HW = np.array([[True, True, True, False, True]])
    shown = colours.depth_colours(disparity_HW, valid_HW=valid_HW)
    np.testing.assert_array_equal(shown[:, :3], colours.depth_colours(disparity_HW[:, :3]))
    assert is_check(shown).tolist() == [[False, False, False, True, True]]


def test_a_given_span_is_kept_and_what_exceeds_it_is_clipped() -> None:
    shown = colours.depth_colours(np.array([[-5.0, 0.0, 0.5, 1.0, 9.0]]), span=(0.0, 1.0))
    assert rgb(shown[0]) == [rgb(colours.SPECTRAL_256)[i] for i in (0, 0, 127, 255, 255)]


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan])
def test_a_map_of_one_value_is_far_everywhere(value: float) -> None:
    shown = colours.depth_colours(np.full((4, 4), value))
    if np.isnan(value):
        assert is_check(shown).all()
    else:
        assert set(rgb(shown.reshape(-1, 3))) == {(94, 79, 162)}


def test_reliability_has_one_scale_for_all_images() -> None:
    one = colours.reliability_colours(np.array([[1, 128, 255]], np.uint8))
    other = colours.reliability_colours(np.array([[128, 128, 129]], np.uint8))
    assert rgb(one[0])[0] == (68, 1, 84)
    assert rgb(one[0])[2] == (253, 231, 37)
    assert rgb(other[0])[0] == rgb(one[0])[1] != rgb(one[0])[0]


def test_code_0_is_no_reliability_but_checks() -> None:
    codes_HW = np.zeros((8, 8), np.uint8)
    codes_HW[:, 4:] = 1
    shown = colours.reliability_colours(codes_HW)
    assert is_check(shown)[:, :4].all()
    assert not is_check(shown)[:, 4:].any()
    assert {tuple(c) for c in shown[:, :4].reshape(-1, 3).tolist()} == set(colours.CHECKS)


def test_errors_are_light_from_the_top_on() -> None:
    shown = colours.error_colours(np.array([[0.0, colours.ERROR_TOP, 7.0, np.nan]]))
    assert rgb(shown[0])[:3] == [(0, 0, 4), (252, 253, 191), (252, 253, 191)]
    assert is_check(shown).tolist() == [[False, False, False, True]]


def test_masked_pixels_are_tinted_and_others_are_the_image() -> None:
    rgb_HW3 = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    reliability_HW = np.array([[9, 9, 0, 9], [9, 0, 9, 9]], np.uint8)
    mask_HW = np.array([[True, False, False, True], [True, False, True, False]])
    shown = colours.mask_colours(rgb_HW3, reliability_HW, mask_HW)
    np.testing.assert_array_equal(shown[mask_HW], rgb_HW3[mask_HW])
    assert rgb(shown[~mask_HW & (reliability_HW > 0)]) == [colours.TINT] * 2
    assert is_check(shown[reliability_HW == 0]).all()
    assert rgb_HW3[0, 1].tolist() == [3, 4, 5], "the image itself must stay as it is"


def test_checks_must_fit_the_image() -> None:
    with pytest.raises(UsageError, match=r"\[2, 3\].*\[4, 4, 3\]"):
        colours.with_checks(np.zeros((4, 4, 3), np.uint8), np.ones((2, 3), np.bool_))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two labels: of a wide photo, and of one that lies on its side in its file."""
    folder = tmp_path_factory.mktemp("report")
    write_photo(folder / "photos" / "a wide one.png", 120, 90, seed=1)
    lying = Image.open(write_photo(folder / "lying.png", 120, 90, seed=2))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(folder / "photos" / "turned.jpg", exif=exif, quality=95)
    label(folder / "photos", folder / "labels", teacher=str(small_teacher(folder / "teacher")), progress=False)
    return open_store(folder / "labels")


def panel(path: Path, row_top: int, column: int, size: tuple[int, int]) -> np.ndarray:
    left = sheet.MARGIN + column * (sheet.BOX[0] + sheet.MARGIN)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").crop((left, row_top, left + size[0], row_top + size[1])))


def enlarged(rgb_HW3: colours.Rgb, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb_HW3).resize(size, Image.Resampling.NEAREST))


@pytest.mark.parametrize("drop", [0.1, 0.4])
def test_the_sheet_shows_the_label_and_tints_what_is_masked(store: Store, tmp_path: Path, drop: float) -> None:
    path = contact_sheet(store, [WIDE], tmp_path / "sheet.png", drop)
    held = store.label(WIDE)
    height, width = held.depth.shape
    scale = min(sheet.BOX[0] / width, sheet.BOX[1] / height)
    size, top = (round(width * scale), round(height * scale)), sheet.MARGIN + 2 * sheet.CAPTION
    codes = enlarged(held.reliability, size)
    t = threshold_code(np.bincount(held.reliability.ravel(), minlength=256), drop)
    mask = panel(path, top, 3, size)
    tinted = (mask == colours.TINT).all(axis=-1)
    np.testing.assert_array_equal(tinted, codes < t)
    assert drop / 3 < tinted.mean() <= drop * 1.05
    picture = panel(path, top, 0, size)
    np.testing.assert_array_equal(mask[~tinted], picture[~tinted])
    np.testing.assert_array_equal(panel(path, top, 1, size), enlarged(colours.depth_colours(held.depth), size))
    np.testing.assert_array_equal(panel(path, top, 2, size), colours.reliability_colours(codes))


def test_the_sheet_has_a_row_an_image_as_high_as_its_picture(store: Store, tmp_path: Path) -> None:
    heights = {}
    for ids in ([WIDE], [TALL], [WIDE, TALL], [TALL, WIDE, TALL]):
        with Image.open(contact_sheet(store, ids, tmp_path / "sheet.png")) as image:
            heights[len(ids), ids[0]] = image.height
    extra = sheet.MARGIN + sheet.CAPTION + sheet.FOOT
    assert heights[2, WIDE] == heights[1, WIDE] + heights[1, TALL] - extra
    assert heights[3, TALL] == heights[2, WIDE] + heights[1, TALL] - extra


def test_panels_come_in_the_order_asked_for_and_upright(store: Store) -> None:
    tall, wide = label_panels(store, [TALL, WIDE])
    assert (tall.id, wide.id) == (TALL, WIDE)
    assert tall.image_HW3.shape[0] > tall.image_HW3.shape[1]
    assert wide.image_HW3.shape[0] < wide.image_HW3.shape[1]
    lying = np.asarray(Image.open(Path(store.sources()["default"]) / "turned.jpg"), dtype=np.float64)
    turned = np.asarray(Image.fromarray(np.rot90(lying, -1).astype(np.uint8)).resize(tall.image_HW3.shape[1::-1]))
    assert np.abs(turned - tall.image_HW3.astype(np.float64)).mean() < 12


def test_panels_say_how_much_is_masked_and_how_much_has_no_label(store: Store) -> None:
    (none,) = label_panels(store, [WIDE], drop=0.0)
    (half,) = label_panels(store, [WIDE], drop=0.5)
    assert none.masked == 0
    assert 0.3 < half.masked <= 0.5
    assert half.masked == pytest.approx((half.mask_HW3 == colours.TINT).all(axis=-1).mean())
    assert none.unlabelled == half.unlabelled == 0


def test_holes_of_an_image_are_checked_on_all_maps(tmp_path: Path) -> None:
    rgba = np.asarray(Image.open(write_photo(tmp_path / "opaque.png", 120, 90, seed=3)).convert("RGBA")).copy()
    rgba[:, :30, 3] = 0
    (tmp_path / "photos").mkdir()
    Image.fromarray(rgba).save(tmp_path / "photos" / "hole.png")
    teacher = str(small_teacher(tmp_path / "teacher"))
    label(tmp_path / "photos", tmp_path / "labels", teacher=teacher, progress=False)
    (shown,) = label_panels(tmp_path / "labels", ["default/hole.png"])
    width = shown.image_HW3.shape[1]
    assert 0.24 < shown.unlabelled < 0.27
    for maps in (shown.depth_HW3, shown.reliability_HW3, shown.mask_HW3):
        assert is_check(maps)[:, : width // 4 - 1].all()
        assert not is_check(maps)[:, width // 4 + 2 :].any()
    assert (
        sheet._row(shown)[0] == f"default/hole.png   {shown.masked:.1%} masked, {shown.unlabelled:.1%} without a label"
    )


def test_a_large_label_is_made_smaller_by_averaging() -> None:
    stripes = np.zeros((504, 1000, 3), np.uint8)
    stripes[:, ::2] = 200
    fitted = sheet._fitted(stripes)
    assert fitted.size == (336, 169)
    assert 60 < np.asarray(fitted).min() <= np.asarray(fitted).max() < 140


def test_ids_without_a_label_and_images_that_are_gone_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LoaderError, match=r"default/none\.png"):
        contact_sheet(store, ["default/none.png"], tmp_path / "sheet.png")
    photo = Path(store.sources()["default"]) / "a wide one.png"
    photo.rename(tmp_path / "away.png")
    try:
        with pytest.raises(LoaderError, match=r"default/a wide one\.png: its photo is gone"):
            contact_sheet(store, [TALL, WIDE], tmp_path / "sheet.png")
    finally:
        (tmp_path / "away.png").rename(photo)
    assert not (tmp_path / "sheet.png").exists()


def test_long_titles_lose_their_middle() -> None:
    title = "source/" + "very long folder/" * 60 + "image.png   9.8% masked"
    short = sheet._shortened(title, 500)
    assert sheet._font(14).getlength(short) <= 500 < sheet._font(14).getlength(short) + 20
    assert short.startswith("source/very")
    assert short.endswith("image.png   9.8% masked")
    assert sheet._shortened("short", 500) == "short"


NASTY = "<script>alert(1)</script> & \"quoted\" 'single'"


def test_page_parts_escape_what_they_are_given() -> None:
    pixel = np.zeros((1, 1, 3), np.uint8)
    line = page.Line("method", NASTY, np.array([0.0, 0.5]), np.array([0.2, 0.1]))
    for part in (
        page.page(NASTY, ""),
        page.table([NASTY], [[NASTY]]),
        page.cards([(NASTY, NASTY)]),
        page.image(pixel, NASTY),
        page.panels(NASTY, [(NASTY, pixel)]),
        page.plot([line], NASTY, NASTY, 0.1),
    ):
        assert "<script>" not in part
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quoted&quot; &#x27;single&#x27;" in part


def test_a_page_needs_nothing_from_elsewhere() -> None:
    text = page.page("title", page.image(np.zeros((2, 3, 3), np.uint8), "text"))
    assert re.findall(r'src="([^"]{0,22})', text) == ["data:image/png;base64,"]
    assert not re.search(r"https?:|@import|url\(|<script|<link", text)
    assert "prefers-color-scheme: dark" in text
    assert '<meta name="viewport" content="width=device-width' in text


def test_an_image_in_the_page_keeps_its_pixels() -> None:
    import base64
    import io

    rgb_HW3 = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    text = page.image(rgb_HW3, "noise")
    data = base64.b64decode(re.findall(r"base64,([^\"]+)", text)[0])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), rgb_HW3)
    assert 'width="7" height="5"' in text


def test_plot_draws_each_line_at_its_values() -> None:
    at = np.array([0.0, 0.25, 0.5])
    lines = [
        page.Line("method", "ours", at, np.array([0.3, 0.2, 0.1])),
        page.Line("random", "chance", at, np.array([0.3, 0.3, 0.3])),
    ]
    text = page.plot(lines, "dropped", "error", 0.1)
    drawn = re.findall(r'<polyline class="(\w+)" points="([^"]+)"', text)
    assert [kind for kind, _ in drawn] == ["method", "method", "random", "random"], "each line, then its key"
    ours = np.array([point.split(",") for point in drawn[0][1].split()], dtype=float)
    chance = np.array([point.split(",") for point in drawn[2][1].split()], dtype=float)
    assert ours[0].tolist() == chance[0].tolist()
    assert np.diff(ours[:, 0]).tolist() == pytest.approx([ours[1, 0] - ours[0, 0]] * 2, abs=0.2)
    assert np.diff(ours[:, 1]).min() > 0, "less error is lower on the page"
    assert len(set(chance[:, 1])) == 1
    ticks = {text: float(y) for y, text in re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)<', text)}
    assert ticks["0.3"] - 4 == pytest.approx(ours[0, 1], abs=0.1)
    assert ticks["0.1"] - 4 == pytest.approx(ours[2, 1], abs=0.1)
    assert re.findall(r">(\d+%)<", text) == ["0%", "10%", "20%", "30%", "40%", "50%"]
    for name in ("ours", "chance", "dropped", "error"):
        assert f">{name}</text>" in text


@pytest.mark.parametrize(("top", "step"), [(0.3, 0.05), (0.277, 0.05), (6.0, 1.0), (0.001, 0.0002), (1e9, 1e9)])
def test_grid_lines_stand_at_round_numbers(top: float, step: float) -> None:
    assert page._nice_step(top) == pytest.approx(step)
