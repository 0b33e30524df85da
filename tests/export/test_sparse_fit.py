"""Scale and offset from a label to the inverse depth of a sparse model.

Axes: H, W the label; P points.
"""

import numpy as np
import pytest
import torch
from colmap_models import shoot
from numpy.typing import NDArray

from depthsieve.export.sparse_fit import MIN_POINTS, fit_sparse, sample_map, weight_of
from depthsieve.reliability.code import decode_error, encode_error
from depthsieve.scenes import render_scene

Points = NDArray[np.float64]


def upstream(value_P: Points, inverse_depth_P: Points) -> tuple[float, float]:
    """What gaussian-splatting's own script computes: both sides' median, and mean absolute distance to it."""
    middle, target = np.median(value_P), np.median(inverse_depth_P)
    scale = np.abs(inverse_depth_P - target).mean() / np.abs(value_P - middle).mean()
    return float(scale), float(target - middle * scale)


def worst(line: tuple[float, float], value_P: Points, truth_P: Points) -> float:
    return float(np.abs(line[0] * value_P + line[1] - truth_P).max() / np.median(truth_P))


def test_points_that_lie_on_a_line_give_that_line() -> None:
    value_P = np.linspace(0.0, 1.0, 50)
    fit = fit_sparse(value_P, 0.3 * value_P + 0.05, np.ones(50))
    assert (fit.scale, fit.offset) == (pytest.approx(0.3, rel=1e-9), pytest.approx(0.05, rel=1e-9))
    assert (fit.points, fit.inliers, fit.reason) == (50, 50, "")
    assert fit.residual < 1e-9


@pytest.mark.parametrize("wild", [0.2, 0.4])
def test_wild_points_have_no_say_while_upstreams_median_is_led_astray(wild: float) -> None:
    random = np.random.default_rng(1)
    value_P = random.random(400)
    truth_P = 0.3 * value_P + 0.05
    seen_P = truth_P * (1 + 0.01 * random.standard_normal(400))
    seen_P[: int(400 * wild)] = random.uniform(0, 5, int(400 * wild))  # points far too near, as wrong matches are
    fit = fit_sparse(value_P, seen_P, np.ones(400))
    assert worst((fit.scale, fit.offset), value_P, truth_P) < 0.02
    assert worst(upstream(value_P, seen_P), value_P, truth_P) > 0.5
    assert 400 * (1 - wild) * 0.97 <= fit.inliers <= 400 * (1 - wild) + 25


def test_reliability_decides_where_most_points_lie_on_a_wrong_surface() -> None:
    """A poster, or the sky: a majority of points where the label is wrong, and says so."""
    random = np.random.default_rng(2)
    value_P = random.random(300)
    truth_P = 0.3 * value_P + 0.05
    wrong = np.arange(300) < 190
    value_P[wrong] = 0.9 - 0.4 * value_P[wrong]  # a surface that the label takes for another
    error_P = np.where(wrong, 0.25, 0.03)
    codes_P = encode_error(torch.from_numpy(error_P), version=1)
    weight_P = weight_of(decode_error(codes_P, version=1).numpy())
    fit = fit_sparse(value_P, truth_P, weight_P)
    assert (fit.scale, fit.offset) == (pytest.approx(0.3, rel=0.01), pytest.approx(0.05, rel=0.01))
    blind = fit_sparse(value_P, truth_P, np.ones(300))
    assert abs(blind.scale - 0.3) > 0.05 or blind.scale == 0
    assert abs(upstream(value_P, truth_P)[0] - 0.3) > 0.05


def test_weights_are_the_inverse_of_the_expected_error_squared_with_a_floor() -> None:
    weight_P = weight_of(np.array([1.0, 0.1, 1e-4, np.nan]))
    np.testing.assert_allclose(weight_P, [1 / 1.0001, 1 / 0.0101, 1 / 1.0001e-4, 0], rtol=1e-6)


def test_what_cannot_be_fitted_has_scale_zero_and_a_reason() -> None:
    value_P = np.linspace(0, 1, 40)
    few = fit_sparse(value_P[: MIN_POINTS - 1], value_P[: MIN_POINTS - 1], np.ones(MIN_POINTS - 1))
    assert (few.scale, few.offset, few.reason) == (0, 0, "10 points, of 11 at least")
    assert fit_sparse(np.full(40, 0.5), value_P, np.ones(40)).reason == "the label is the same at all points"
    assert fit_sparse(1 - value_P, value_P, np.ones(40)).reason == "nearer points have lower values"
    unusable_P = np.where(np.arange(40) < 30, np.nan, value_P)
    assert fit_sparse(unusable_P, value_P, np.ones(40)).points == 10
    assert fit_sparse(value_P, value_P, np.zeros(40)).points == 0


def test_the_same_points_give_the_same_bits_and_many_points_are_no_trouble() -> None:
    random = np.random.default_rng(3)
    value_P = random.random(20_000)
    seen_P = 0.3 * value_P + 0.05 + 0.002 * random.standard_normal(20_000)
    first, second = (fit_sparse(value_P, seen_P, random.random(20_000) * 0 + 1) for _ in range(2))
    assert first == second
    assert first.scale == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize("factor", [1, 2, 0.5])
def test_a_map_is_sampled_at_the_centres_of_the_photos_pixels(factor: float) -> None:
    """A ramp over the photo, seen at another resolution, has the same value at the same place of the photo."""
    photo = (40, 60)
    height, width = (int(side * factor) for side in photo)
    x_W, y_H = (np.arange(width) + 0.5) / factor, (np.arange(height) + 0.5) / factor
    ramp_HW = 3 * x_W[None, :] + 7 * y_H[:, None]
    random = np.random.default_rng(4)
    xy_P2 = random.uniform(2, 38, (100, 2))
    value_P, usable_P, _ = sample_map(ramp_HW, np.ones(ramp_HW.shape, bool), xy_P2, photo)
    assert usable_P.all()
    np.testing.assert_allclose(value_P, 3 * xy_P2[:, 0] + 7 * xy_P2[:, 1], rtol=1e-9)


def test_places_outside_and_beside_invalid_pixels_are_not_usable() -> None:
    map_HW = np.arange(12.0).reshape(3, 4)
    map_HW[1, 2] = np.nan
    valid_HW = np.isfinite(map_HW)
    xy_P2 = np.array([[-0.1, 1], [4.1, 1], [1, 3.2], [0, 0], [4, 3], [2.0, 1.0], [0.5, 2.5]])
    value_P, usable_P, nearest_P = sample_map(map_HW, valid_HW, xy_P2, (3, 4))
    np.testing.assert_array_equal(usable_P, [False, False, False, True, True, False, True])
    np.testing.assert_array_equal(value_P[[3, 4, 6]], [0, 11, 8])
    np.testing.assert_array_equal(nearest_P[[3, 4, 6]], [0, 11, 8])


def test_a_rendered_scene_and_its_points_fit_exactly() -> None:
    scene = render_scene(5, 60, 80)
    shot = shoot("a.jpg", scene.depth_HW, scene.focal_px, 300, unit=4.0)
    value_P, usable_P, _ = sample_map(scene.disparity_HW, scene.disparity_HW > 0, shot.xy_P2, (60, 80))
    fit = fit_sparse(value_P[usable_P], 1 / shot.z_P[usable_P], np.ones(int(usable_P.sum())))
    assert fit.scale == pytest.approx(4.0, rel=1e-5)
    assert abs(fit.offset) < 1e-6
