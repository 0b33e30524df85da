"""What is asked of the reliability map: rank correlation, calibration; by hand and by other formulations."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.metrics import (
    CodeErrors,
    Comparison,
    CurveMean,
    Sparsification,
    actual_code_errors,
    ause_aurg,
    average_ranks,
    beats_chance,
    code_denominator,
    compare,
    kept_errors,
    label_at_shape,
    pixel_errors,
    sparsification,
    spearman,
)
from depthsieve.reliability.alignment import align_scale_shift, apply_scale_shift
from depthsieve.reliability.code import decode_error, encode_error
from depthsieve.reliability.fusion import relative_error

RANGE = (0.1, 100.0)

# Rank correlation


def test_ranks_of_ties_are_shared_by_hand() -> None:
    assert average_ranks(np.array([10, 20, 10, 5, 10])).tolist() == [3.0, 5.0, 3.0, 1.0, 3.0]


def test_spearman_by_hand() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 4, 3, 1.5, 1.5: sums of products -3.75, 4.5 and 4.5 about the means.
    assert spearman(np.array([1, 5, 5, 9]), np.array([8.0, 7.0, 2.0, 2.0])) == pytest.approx(-3.75 / 4.5)
    assert spearman(np.array([1, 2, 3]), np.array([1.0, 10.0, 100.0])) == 1.0
    assert spearman(np.array([1, 2, 3]), np.array([3.0, 2.0, 1.0])) == -1.0


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.uint8, st.integers(2, 25), elements=st.integers(0, 4)), st.integers(0, 10_000))
def test_spearman_is_pearson_of_ranks_counted_one_by_one(codes: np.ndarray, seed: int) -> None:
    errors = np.random.default_rng(seed).integers(0, 6, codes.size) / 7

    def rank(values: np.ndarray) -> list[float]:  # how many are below, and half of those that are equal
        return [
            sum(other < value for other in values) + sum(other == value for other in values) / 2 for value in values
        ]

    found = spearman(codes, errors)
    if len(set(codes.tolist())) == 1 or len(set(errors.tolist())) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(rank(codes), rank(errors))[0, 1], abs=1e-12)


def test_spearman_needs_two_values_and_one_shape() -> None:
    assert math.isnan(spearman(np.array([1]), np.array([2])))
    with pytest.raises(UsageError, match="second has shape"):
        spearman(np.ones(2), np.ones(3))


# AUSE and AURG: what must not move them, and what must


def areas(error: np.ndarray, reliability: np.ndarray, valid: np.ndarray | None = None) -> tuple[float, float]:
    return ause_aurg(sparsification(error, reliability, valid))


ERRORS = hnp.arrays(np.float64, st.integers(2, 120), elements=st.just(0.0) | st.floats(1e-300, 1e6))
"""Far enough from the smallest numbers that a millionth of them still has all its digits."""


@settings(deadline=None, max_examples=60)
@given(error=ERRORS, seed=st.integers(0, 10_000), factor=st.floats(1e-6, 1e6))
def test_areas_scale_with_the_error_and_only_the_order_of_reliability_counts(
    error: np.ndarray, seed: int, factor: float
) -> None:
    reliability = np.random.default_rng(seed).integers(1, 256, error.size)
    ause, aurg = areas(error, reliability)
    size = error.max()
    assert ause >= -1e-9 * size
    assert aurg <= error.mean() * (1 + 1e-9)
    assert areas(error * factor, reliability) == pytest.approx((ause * factor, aurg * factor), abs=1e-9 * size * factor)
    assert areas(error, reliability * 7 - 1000) == (ause, aurg)
    assert areas(error, np.exp(reliability / 50.0)) == (ause, aurg)
    shuffled = np.random.default_rng(seed + 1).permutation(error.size)
    assert areas(error[shuffled], reliability[shuffled]) == (ause, aurg)


@settings(deadline=None, max_examples=40)
@given(error=ERRORS, seed=st.integers(0, 10_000))
def test_masked_pixels_are_as_if_they_were_not_there(error: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reliability, valid = rng.integers(1, 256, error.size), rng.random(error.size) < 0.6
    valid[0] = True
    spoiled = np.where(valid, error, rng.choice([np.nan, np.inf, 1e300, 0.0], error.size))
    assert areas(spoiled, reliability, valid) == areas(error[valid], reliability[valid])


@settings(deadline=None, max_examples=40)
@given(error=ERRORS, seed=st.integers(0, 10_000))
def test_no_order_beats_the_oracle_and_none_is_worse_than_its_reverse(error: np.ndarray, seed: int) -> None:
    reliability = np.random.default_rng(seed).permutation(error.size)
    curve, best, worst = (sparsification(error, order) for order in (reliability, -error, error))
    slack = 1e-9 * error.max()
    assert (curve.oracle_S <= curve.method_S + slack).all()
    assert (curve.method_S <= worst.method_S + slack).all()
    np.testing.assert_allclose(best.method_S, curve.oracle_S, rtol=0, atol=slack)


@pytest.mark.parametrize("extreme", [5e-324, 1e-300, 1e150])
def test_extreme_errors_stay_finite_and_ordered(extreme: float) -> None:
    ause, aurg = areas(np.array([0.0, 0.0, extreme, extreme]), np.array([4, 3, 2, 1]))
    assert ause == 0.0
    assert aurg >= 0.0
    assert np.isfinite(aurg)


def test_one_pixel_has_no_area_between() -> None:
    assert areas(np.array([3.0]), np.array([7])) == (0.0, pytest.approx(3.0 / 100))


def test_delta1_areas_are_those_of_ordering_by_the_ratio() -> None:
    """The published code orders the oracle by max(p/t, t/p), ours by whether that reaches 1.25: the same curve."""
    rng = np.random.default_rng(3)
    truth, predicted = rng.uniform(1, 10, 500), rng.uniform(1, 10, 500)
    wrong, ratio = pixel_errors(predicted, truth, "delta1"), np.maximum(predicted / truth, truth / predicted)
    by_ratio = sparsification(wrong, -ratio, metric="delta1")
    np.testing.assert_allclose(by_ratio.method_S, by_ratio.oracle_S, atol=1e-12)


def test_a_map_that_says_nothing_does_not_beat_chance() -> None:
    error = np.random.default_rng(7).random(1000)
    blind = sparsification(error, np.full(1000, 255, np.uint8))
    assert ause_aurg(blind)[1] > 0
    assert not beats_chance(blind)
    assert beats_chance(sparsification(error, -error))
    assert not beats_chance(sparsification(error, error))


# The mean curve


def curve_of(values: np.ndarray) -> Sparsification:
    dropped = np.linspace(0, 1, len(values))
    return Sparsification(dropped, values, values / 2, np.full_like(values, values[0]))


def test_the_mean_curve_is_numpys() -> None:
    curves = list(np.random.default_rng(0).random((9, 51)))
    mean = CurveMean()
    for values in curves:
        mean.add(curve_of(values))
    np.testing.assert_allclose(mean.mean().method_S, np.mean(curves, axis=0))
    np.testing.assert_allclose(mean.mean().oracle_S, np.mean(curves, axis=0) / 2)
    with pytest.raises(UsageError, match="no curve"):
        CurveMean().mean()


def test_kept_errors_by_hand() -> None:
    (kept,) = kept_errors(curve_of(np.array([4.0, 2.0, 1.0, 0.0, 0.0])), [0.125])
    assert (kept.dropped, kept.method, kept.oracle, kept.random) == (0.125, 3.0, 1.5, 4.0)


# Calibration


def test_actual_error_by_hand_in_metres() -> None:
    label = np.array([[2.0, 4.0, 6.0]], dtype=np.float32)  # median 4
    truth = np.array([[3.0, 4.0, 0.0]])
    denominator = code_denominator(label)
    assert denominator.tolist() == [[6.0, 8.0, 10.0]]
    errors = actual_code_errors(label, truth, truth > 0, denominator, "depth")
    np.testing.assert_allclose(errors, [[1 / 6, 0.0, np.nan]])


def test_actual_error_by_hand_in_disparity() -> None:
    # 1/truth = 1, 2, 3 is to become 1, 4, 4: scale 1.5, shift 0, so the label is off by 0.5, 1 and 0.5.
    label = np.array([[1.0, 4.0, 4.0]], dtype=np.float32)
    truth = np.array([[1.0, 1 / 2, 1 / 3]])
    errors = actual_code_errors(label, truth, np.ones_like(truth, bool), code_denominator(label), "disparity")
    np.testing.assert_allclose(errors, [[0.5 / 5, 1 / 8, 0.5 / 8]], rtol=1e-6)


def test_the_actual_error_is_the_relative_error_of_the_label_against_the_truth() -> None:
    """In the definition of the codes, once the truth is aligned to the label."""
    rng = np.random.default_rng(4)
    label = torch.from_numpy(rng.uniform(0.5, 3, (1, 20, 30)).astype(np.float32))
    truth = label + torch.from_numpy(rng.uniform(0, 0.4, (1, 20, 30)).astype(np.float32))
    aligned = apply_scale_shift(truth, *align_scale_shift(truth, label))
    expected = relative_error(label, aligned - label)[0].numpy()
    other = (truth * 3 + 1)[0].double().numpy()
    depth = label[0].numpy()
    actual = actual_code_errors(depth, 1 / other, np.ones_like(other, bool), code_denominator(depth), "disparity")
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)


def test_codes_that_say_the_error_are_calibrated() -> None:
    rng = np.random.default_rng(6)
    errors = 10 ** rng.uniform(-3.5, -0.5, 50_000)
    codes = encode_error(torch.from_numpy(errors), version=1).numpy()
    sums = CodeErrors(1)
    sums.add(codes[:20_000], errors[:20_000])
    sums.add(codes[20_000:], errors[20_000:])
    held = sums.calibration()
    assert sum(each.pixels for each in held.bins) == 50_000
    assert len(held.bins) == 16
    assert max(each.pixels for each in held.bins) < 50_000 / 16 * 1.3
    assert held.spread < 0.01
    for each in held.bins:
        assert each.actual == pytest.approx(each.expected, rel=0.02)
        assert each.first_code <= each.last_code
    tripled = CodeErrors(1)
    tripled.add(codes, 3 * errors)
    assert tripled.calibration().bias == pytest.approx(np.log10(3), abs=0.01)
    assert tripled.calibration().spread == pytest.approx(np.log10(3), abs=0.01)
    lower = CodeErrors(1)
    lower.add(codes, errors / 3)
    assert lower.calibration().bias == pytest.approx(-np.log10(3), abs=0.01)


def test_bins_by_hand() -> None:
    sums = CodeErrors(1)
    codes = np.array([0, 1, 1, 128, 255, 255], dtype=np.uint8)
    sums.add(codes, np.array([9.0, 0.5, 0.7, np.nan, 0.1, 0.3]))
    first, last = sums.calibration(bins=2).bins
    assert (first.first_code, first.last_code, first.pixels) == (1, 1, 2)
    assert (first.expected, first.actual) == (1.0, pytest.approx(0.6))
    assert (last.first_code, last.last_code, last.pixels) == (255, 255, 2)
    assert (last.expected, last.actual) == (
        pytest.approx(float(decode_error(torch.tensor(255), version=1))),
        pytest.approx(0.2),
    )


def test_without_errors_there_is_no_ratio() -> None:
    sums = CodeErrors(1)
    assert sums.calibration().bins == ()
    assert math.isnan(sums.calibration().spread)
    sums.add(np.array([255], dtype=np.uint8), np.array([0.0]))
    (only,) = sums.calibration().bins
    assert only.actual == 0.0
    assert math.isnan(sums.calibration().bias)


# One label against its truth


def compared(**changes: Any) -> Comparison | None:
    rng = np.random.default_rng(8)
    arguments: dict[str, Any] = {
        "depth_HW": rng.uniform(1, 9, (10, 12)).astype(np.float32),
        "reliability_HW": rng.integers(1, 256, (10, 12)).astype(np.uint8),
        "truth_HW": rng.uniform(1, 9, (10, 12)),
        "quantity": "depth",
        "depth_range": RANGE,
    }
    return compare(**(arguments | changes))


def test_a_comparison_counts_only_what_has_truth_depth_and_reliability() -> None:
    whole = compared()
    assert whole is not None
    depth_HW, truth_HW = np.random.default_rng(8).uniform(1, 9, (10, 12)).astype(np.float32), np.full((10, 12), 2.0)
    reliability_HW = np.full((10, 12), 9, dtype=np.uint8)
    truth_HW[0], depth_HW[1], reliability_HW[2] = 0.0, np.nan, 0
    part = compared(depth_HW=depth_HW, truth_HW=truth_HW, reliability_HW=reliability_HW)
    assert part is not None
    assert (whole.pixels, part.pixels) == (120, 84)
    assert part.mask_HW[3:].all()
    error = np.abs(depth_HW[3:] - 2.0) / 2.0
    assert part.metrics["abs_rel"] == pytest.approx(error.mean())
    assert part.curves["abs_rel"].random_S[0] == pytest.approx(error.mean())
    assert part.curves["rmse"].random_S[0] == pytest.approx(part.metrics["rmse"])
    assert part.curves["delta1"].random_S[0] == pytest.approx(1 - part.metrics["delta1"])
    assert math.isnan(part.spearman)
    assert -1 < whole.spearman < 1


@pytest.mark.parametrize("empty", ["truth_HW", "reliability_HW"])
def test_a_label_with_nothing_to_compare_is_none(empty: str) -> None:
    assert compared(**{empty: np.zeros((10, 12), dtype=np.uint8)}) is None


def test_alignment_is_as_chosen() -> None:
    truth = np.random.default_rng(9).uniform(1, 9, (10, 12))
    doubled, shifted = 2 * truth, 2 * truth + 1

    def abs_rel(depth_HW: np.ndarray, align: str, quantity: str = "depth") -> float:
        found = compared(depth_HW=depth_HW, truth_HW=truth, align=align, quantity=quantity)
        assert found is not None
        return found.metrics["abs_rel"]

    assert abs_rel(doubled, "auto") == abs_rel(doubled, "none") == pytest.approx(1.0)
    assert abs_rel(doubled, "scale") == pytest.approx(0, abs=1e-9)
    assert abs_rel(shifted, "scale") > 0.02
    assert abs_rel(shifted, "scale-shift") == pytest.approx(0, abs=1e-9)
    assert abs_rel(1 / truth, "none", "disparity") == pytest.approx(0, abs=1e-9)
    assert abs_rel(3 / truth, "none", "disparity") == pytest.approx(2 / 3)
    assert abs_rel(3 / truth, "scale", "disparity") == pytest.approx(0, abs=1e-9)
    assert abs_rel(3 / truth + 1, "auto", "disparity") == pytest.approx(0, abs=1e-9)
    with pytest.raises(UsageError, match="'median'"):
        abs_rel(truth, "median")


def test_a_label_comes_to_another_shape_between_pixel_centres_and_holes_spread() -> None:
    depth = np.array([[0.0, 4.0]], dtype=np.float32)
    codes = np.array([[10, 200]], dtype=np.uint8)
    grown, nearest = label_at_shape(depth, codes, (1, 4))
    assert grown.tolist() == [[0.0, 1.0, 3.0, 4.0]]
    assert nearest.tolist() == [[10, 10, 200, 200]]
    grown, nearest = label_at_shape(depth, np.array([[0, 200]], dtype=np.uint8), (1, 4))
    assert np.isnan(grown).tolist() == [[True, True, True, False]]
    assert nearest.tolist() == [[0, 0, 200, 200]]
    same, codes_same = label_at_shape(depth, np.array([[0, 200]], dtype=np.uint8), (1, 2))
    assert same[0, 1] == 4.0
    assert codes_same.tolist() == [[0, 200]]
