"""Accuracy metrics and sparsification, by hand and against the published procedure."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.metrics import (
    ause_aurg,
    depth_metrics,
    pixel_errors,
    predicted_depth,
    sparsification,
    truth_mask,
)

RANGE = (0.1, 100.0)


def random_depth(seed: int, shape: tuple[int, int] = (12, 15)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 20.0, shape)


# Accuracy


def test_metric_depth_by_hand() -> None:
    truth = np.array([[1.0, 2.0, 4.0, 8.0]])
    prediction = np.array([[1.1, 2.5, 3.0, 8.0]])  # ratios 1.1, 1.25, 1.33, 1
    metrics = depth_metrics(prediction, truth, None, "depth", RANGE)
    assert metrics == pytest.approx(
        {
            "abs_rel": (0.1 + 0.25 + 0.25 + 0.0) / 4,
            "rmse": np.sqrt((0.01 + 0.25 + 1.0) / 4),
            "log10": (np.log10(1.1) + np.log10(1.25) + np.log10(4 / 3)) / 4,
            "delta1": 0.5,
            "delta2": 1.0,
            "delta3": 1.0,
            "pixels": 4.0,
        }
    )


def test_disparity_is_aligned_by_scale_and_shift() -> None:
    truth = random_depth(0)
    metrics = depth_metrics(3.0 / truth - 7.0, truth, None, "disparity", RANGE)
    assert metrics["abs_rel"] == pytest.approx(0, abs=1e-9)
    assert metrics["delta1"] == 1.0
    assert depth_metrics(3.0 / truth - 7.0, truth, None, "depth", RANGE)["abs_rel"] > 0.5


def test_alignment_is_least_squares_in_disparity() -> None:
    truth, prediction = random_depth(1), np.random.default_rng(2).random((12, 15))
    columns = np.stack([prediction.ravel(), np.ones(prediction.size)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(columns, 1 / truth.ravel(), rcond=None)
    expected = 1 / np.maximum(scale * prediction + shift, 1 / 100.0)
    mask = truth_mask(truth, None, RANGE)
    np.testing.assert_allclose(predicted_depth(prediction, truth, mask, "disparity", RANGE), expected, rtol=1e-9)


def test_disparity_is_raised_to_that_of_the_farthest_depth() -> None:
    truth = np.array([[1.0, 2.0, 50.0]])
    prediction = np.array([[1.0, 0.5, -0.2]])
    mask = truth_mask(truth, None, (0.1, 50.0))
    depth = predicted_depth(prediction, truth, mask, "disparity", (0.1, 50.0))
    assert depth[0, 2] == 50.0
    assert depth[0, 0] < depth[0, 1] < 50.0


def test_metric_depth_is_clipped_to_the_range() -> None:
    truth = np.array([[1.0, 50.0, 2.0]])
    prediction = np.array([[0.0, 900.0, 2.0]])
    metrics = depth_metrics(prediction, truth, None, "depth", (0.5, 60.0))
    assert metrics["abs_rel"] == pytest.approx((0.5 + 0.2 + 0) / 3)
    assert metrics["rmse"] == pytest.approx(np.sqrt((0.25 + 100) / 3))


def test_only_pixels_with_truth_in_range_and_a_prediction_count() -> None:
    truth = np.array([[2.0, 0.0, np.inf, np.nan, -1.0, 0.05, 300.0, 4.0, 8.0, 3.0]])
    valid = np.ones_like(truth, dtype=bool)
    valid[0, 8] = False
    assert truth_mask(truth, valid, RANGE).tolist() == [[True] + [False] * 6 + [True, False, True]]
    prediction = np.full_like(truth, 2.0)
    prediction[0, 9] = np.nan
    metrics = depth_metrics(prediction, truth, valid, "depth", RANGE)
    assert metrics["pixels"] == 2.0
    assert metrics["abs_rel"] == 0.25
    assert truth_mask(np.array([[0.1, 100.0]]), None, RANGE).all()
    assert truth_mask(np.array([[0.0, 1e-9]]), None, (0.0, 1.0)).tolist() == [[False, True]]


def test_what_does_not_count_does_not_move_the_alignment() -> None:
    truth = random_depth(3)
    prediction = np.float32(1 / truth)
    want = depth_metrics(prediction[:, 1:], truth[:, 1:], None, "disparity", RANGE)
    truth[:6, 0], prediction[6:, 0] = 0.0, np.inf
    assert depth_metrics(prediction, truth, None, "disparity", RANGE) == pytest.approx(want, abs=1e-12)


def test_a_constant_prediction_is_the_mean_disparity() -> None:
    truth, constant = random_depth(9), np.full((12, 15), 0.1)
    truth[0, 0], constant[0, 0] = 0.0, 7.0
    mask = truth_mask(truth, None, RANGE)
    assert constant[mask].mean() != 0.1  # rounding, which must not pass for a slope
    depth = predicted_depth(constant, truth, mask, "disparity", RANGE)
    np.testing.assert_allclose(depth, 1 / (1 / truth[mask]).mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid_HW": np.zeros((12, 15), dtype=bool)}, "no pixel has both"),
        ({"truth_HW": np.zeros((12, 15))}, "no pixel has both"),
        ({"prediction_HW": np.full((12, 15), np.nan)}, "no pixel has both"),
        ({"truth_HW": np.ones((12, 14))}, r"truth has shape \[12, 14\], but \[12, 15\]"),
        ({"valid_HW": np.ones((1, 15), dtype=bool)}, "valid has shape"),
        ({"quantity": "metres"}, "'metres'"),
        ({"depth_range": (10.0, 1.0)}, "not 10.0 and 1.0"),
        ({"depth_range": (-1.0, 1.0)}, "not -1.0 and 1.0"),
        ({"depth_range": (0.0, np.inf)}, "not 0.0 and inf"),
    ],
)
@pytest.mark.parametrize("quantity", ["disparity", "depth"])
def test_what_cannot_be_compared_is_refused(changes: dict, message: str, quantity: str) -> None:
    arguments = {"prediction_HW": random_depth(4), "truth_HW": random_depth(5), "valid_HW": None}
    arguments |= {"quantity": quantity, "depth_range": RANGE} | changes
    with pytest.raises(UsageError, match=message):
        depth_metrics(**arguments)


def test_pixel_errors_by_hand() -> None:
    predicted = np.array([2.0, 1.0, 0.0, 0.8, 1.2, np.nan, 1.0])
    truth = np.array([4.0, 0.8, 1.0, 1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(pixel_errors(predicted, truth, "abs_rel"), [0.5, 0.25, 1, 0.2, 0.2, np.nan, np.nan])
    np.testing.assert_allclose(pixel_errors(predicted, truth, "rmse"), [4.0, 0.04, 1, 0.04, 0.04, np.nan, np.nan])
    np.testing.assert_allclose(pixel_errors(predicted, truth, "delta1"), [1, 1, 1, 1, 0, np.nan, np.nan])
    with pytest.raises(UsageError, match="'mae'"):
        pixel_errors(predicted, truth, "mae")  # type: ignore[arg-type]


# Sparsification


def test_a_curve_by_hand() -> None:
    error = np.array([[4.0, 3.0, 2.0, 1.0]])
    reliability = np.array([[10, 40, 20, 30]], dtype=np.uint8)  # drops 4, 2, 1, then 3
    curve = sparsification(error, reliability, steps=4)
    assert curve.dropped_S.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.method_S.tolist() == [2.5, 2.0, 2.0, 3.0, 0]
    assert curve.oracle_S.tolist() == [2.5, 2.0, 1.5, 1.0, 0]
    assert curve.random_S.tolist() == [2.5] * 5
    ause, aurg = ause_aurg(curve)
    assert ause == pytest.approx((0.5 + 2.0) / 4)
    assert aurg == pytest.approx(2.5 - (1.25 + 2.0 + 2.0 + 3.0) / 4)
    assert curve.kept_error(0.25) == 2.0
    assert curve.kept_error(0.625) == 2.5


def test_rmse_takes_the_root_of_each_mean() -> None:
    squared = np.array([9.0, 4.0, 4.0, 1.0])
    curve = sparsification(squared, np.array([1, 2, 3, 4]), steps=2, metric="rmse")
    assert curve.method_S.tolist() == [np.sqrt(4.5), np.sqrt(2.5), 0]
    assert curve.random_S.tolist() == [np.sqrt(4.5)] * 3


def test_ties_go_in_random_order_on_average() -> None:
    error, reliability = np.array([6.0, 0.0, 3.0, 1.0]), np.array([1, 1, 1, 2], dtype=np.uint8)
    curve = sparsification(error, reliability, steps=4)
    assert curve.method_S.tolist() == [2.5, (6 + 1) / 3, (3 + 1) / 2, 1.0, 0]
    blind = sparsification(error, np.zeros(4, dtype=np.uint8), steps=4)
    assert blind.method_S.tolist() == pytest.approx([2.5] * 4 + [0])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), metric=st.sampled_from(["abs_rel", "rmse", "delta1"]))
def test_the_order_of_the_pixels_does_not_matter(seed: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    error, reliability = rng.random(200), rng.integers(0, 6, 200, dtype=np.uint8)
    shuffled = rng.permutation(200)
    one = sparsification(error, reliability, steps=13, metric=metric)  # type: ignore[arg-type]
    other = sparsification(error[shuffled], reliability[shuffled], steps=13, metric=metric)  # type: ignore[arg-type]
    assert one.method_S.tobytes() == other.method_S.tobytes()
    assert one.oracle_S.tobytes() == other.oracle_S.tobytes()


def published(error: np.ndarray, reliability: np.ndarray, metric: str, steps: int) -> tuple[float, float]:
    """Poggi et al.: threshold the uncertainty at percentiles, keep what reaches it, append 0, trapezoid."""

    def mean(errors: np.ndarray) -> float:
        return float(np.sqrt(errors.mean()) if metric == "rmse" else errors.mean())

    def area(score: np.ndarray) -> float:
        limits = [np.percentile(score, 100 * step / steps) for step in range(steps)]
        values = [mean(error[score >= limit]) for limit in limits] + [0.0]
        return sum((a + b) / 2 / steps for a, b in pairwise(values))

    method = area(reliability)
    return method - area(-error), mean(error) - method


@pytest.mark.parametrize("metric", ["abs_rel", "rmse"])
def test_the_published_procedure_agrees_where_nothing_ties(metric: str) -> None:
    rng = np.random.default_rng(6)
    error = rng.random(20_000) ** 3
    reliability = -error + rng.normal(0, 0.3, error.size)
    curve = sparsification(error, reliability, metric=metric)  # type: ignore[arg-type]
    assert len(curve.dropped_S) == 51
    assert ause_aurg(curve) == pytest.approx(published(error, reliability, metric, 50), abs=2e-4)


def test_a_perfect_map_has_no_ause_and_a_blind_one_no_aurg_but_the_last_step() -> None:
    error = np.random.default_rng(7).random((20, 20))
    ause, aurg = ause_aurg(sparsification(error, -error))
    assert ause == 0.0
    assert aurg > 0.2
    ause, aurg = ause_aurg(sparsification(error, np.ones_like(error)))
    assert ause > 0.2
    assert aurg == pytest.approx(error.mean() / 100)  # the published curve ends at 0, random's does not


def test_only_valid_pixels_with_a_finite_error_count() -> None:
    error = np.array([4.0, 2.0, np.nan, np.inf, 8.0])
    valid = np.array([True, True, True, True, False])
    curve = sparsification(error, np.array([1, 2, 3, 4, 5]), valid, steps=2)
    assert curve.method_S.tolist() == [3.0, 2.0, 0.0]


def test_bad_sparsification_arguments_are_refused() -> None:
    error = np.ones((2, 2))
    with pytest.raises(UsageError, match="one valid pixel"):
        sparsification(error, error, np.zeros((2, 2), dtype=bool))
    with pytest.raises(UsageError, match="one step"):
        sparsification(error, error, steps=0)
    with pytest.raises(UsageError, match="reliability has shape"):
        sparsification(error, np.ones(4))
    with pytest.raises(UsageError, match="valid has shape"):
        sparsification(error, error, np.ones(4, dtype=bool))
