"""Colours: near is red, reliable is light, and each is stretched over what is there."""

import numpy as np
import pytest

from depthsieve.core.errors import UsageError
from depthsieve.images import colours


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


def test_depth_is_stretched_from_the_2nd_to_the_98th_percentile_and_near_is_red() -> None:
    disparity_HW = np.arange(101.0).reshape(1, 101) / 4 + 2
    expected = colours.SPECTRAL_256[(np.clip((np.arange(101.0) - 2) / 96, 0, 1) * 255).astype(np.uint8)][None]
    np.testing.assert_array_equal(colours.depth_colours(disparity_HW), expected)
    np.testing.assert_array_equal(colours.depth_colours(disparity_HW * 8 + 3), expected)
    assert rgb(expected[0])[98:] == [(158, 1, 66)] * 3 != rgb(expected[0])[97:100]
    disparity_HW[0, 100] = 1e6
    np.testing.assert_array_equal(colours.depth_colours(disparity_HW), expected)  # one wild pixel changes nothing


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
def test_a_map_of_one_value_is_in_the_middle_everywhere(value: float) -> None:
    shown = colours.depth_colours(np.full((4, 4), value))
    if np.isnan(value):
        assert is_check(shown).all()
    else:
        assert set(rgb(shown.reshape(-1, 3))) == {(254, 254, 190)}


def test_reliability_is_stretched_over_the_codes_that_are_there() -> None:
    codes_HW = np.arange(40, 91, dtype=np.uint8).reshape(1, 51)
    shown = rgb(colours.reliability_colours(codes_HW)[0])
    assert colours.span_of_codes([codes_HW]) == (41, 89)
    assert shown[0] == shown[1] == (68, 1, 84) != shown[2]
    assert shown[-1] == shown[-2] == (253, 231, 37) != shown[-3]


def test_maps_with_a_common_scale_compare_and_code_0_does_not_count() -> None:
    low_HW, high_HW = np.full((4, 8), 50, np.uint8), np.full((4, 8), 150, np.uint8)
    low_HW[0] = 0
    span = colours.span_of_codes([low_HW, high_HW])
    assert span == (50, 150)
    assert set(rgb(colours.reliability_colours(low_HW, span)[1:].reshape(-1, 3))) == {(68, 1, 84)}
    assert set(rgb(colours.reliability_colours(high_HW, span).reshape(-1, 3))) == {(253, 231, 37)}
    (alone,) = set(rgb(colours.reliability_colours(high_HW).reshape(-1, 3)))
    assert alone == (33, 144, 140), "a map of one code is in the middle, not dark"
    assert colours.span_of_codes([np.zeros((2, 2), np.uint8)]) == (1, 255)


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
