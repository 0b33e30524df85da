"""The knee of the mean curve, whether it is there, and how far other images would move it."""

import numpy as np
import pytest

from depthsieve.evaluation.metrics import Knee, find_knee
from depthsieve.evaluation.metrics.knee import _resampled, t_quantile

DROPPED = np.linspace(0, 1, 51)


def knee_of(curves: np.ndarray | list[np.ndarray]) -> Knee:
    return find_knee(np.asarray(curves), DROPPED)


def bent(at: float, noise: float = 0.0, images: int = 12, seed: int = 5) -> np.ndarray:
    """Curves that fall steeply until ``at`` and hardly beyond."""
    line = np.where(at >= DROPPED, 1 - 4 * DROPPED, 1 - 4 * at - 0.1 * (DROPPED - at))
    return np.maximum(line + noise * np.random.default_rng(seed).normal(size=(images, 51)), 0)


def scattered(images: int, spread: float, seed: int = 7) -> np.ndarray:
    """Curves that bend at 0.2, each image elsewhere."""
    places = np.random.default_rng(seed).normal(0.2, spread, images).clip(0.02, 0.48)
    return np.concatenate([bent(float(place), images=1) for place in places])


@pytest.mark.parametrize("at", [0.04, 0.12, 0.2])
def test_the_knee_is_where_the_curve_bends(at: float) -> None:
    knee = knee_of(bent(at))
    assert knee.drop == pytest.approx(at)
    assert (knee.error, knee.kept_error, knee.reason) == (1.0, pytest.approx(1 - 4 * at), "")
    assert knee.low == knee.high == knee.drop, "images that are all alike leave no doubt"


def test_the_knee_is_found_in_noise() -> None:
    knee = knee_of(bent(0.12, noise=0.05, images=40))
    assert knee.drop == pytest.approx(0.12, abs=0.03)


def test_what_happens_beyond_half_of_the_pixels_moves_no_knee() -> None:
    curve = np.where(DROPPED <= 0.1, 1 - 3 * DROPPED, 0.7)
    late = np.where(DROPPED > 0.5, 0.0, curve)
    assert knee_of([late] * 8) == knee_of([curve] * 8)
    assert knee_of([curve] * 8).drop == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("curves", "reason"),
    [
        ([1 - 0.5 * DROPPED] * 12, "falls about evenly"),
        ([np.ones(51)] * 12, "does not lower the error"),
        ([1 + DROPPED] * 12, "does not lower the error"),
        ([np.exp(-9 * DROPPED)] * 7, "takes 8 images or more, and there are 7"),
        ([np.exp(-9 * DROPPED), 3 - np.exp(-9 * DROPPED)] * 6, "does not lower the error"),
        (
            list(np.random.default_rng(1).normal(5, 1, (12, 51))),
            "over 12 images may be chance (standard error of the fall: 0.5078); more images would tell",
        ),
    ],
)
def test_there_is_no_knee_where_dropping_does_not_help(curves: list[np.ndarray], reason: str) -> None:
    knee = knee_of(curves)
    assert knee.drop is knee.low is knee.high is None
    assert reason in knee.reason
    assert knee.error == knee.kept_error == pytest.approx(np.mean([curve[0] for curve in curves]))


def test_few_images_need_more_of_a_gain() -> None:
    """The same mean and spread between images, a knee of many and chance of few."""
    curves = bent(0.12, images=2)
    curves[0, 1:] -= 0.21
    curves[1, 1:] += 0.55  # a gain of 2.16 standard errors over 8 images, of 2.365 that they need; of 5.1 over 40
    assert knee_of(np.tile(curves, (20, 1))).drop == pytest.approx(0.12)
    assert "over 8 images may be chance" in knee_of(np.tile(curves, (4, 1))).reason


def test_the_interval_narrows_as_images_come() -> None:
    """And is that of a bootstrap written out."""
    widths = []
    for images in (12, 60, 400):
        knee = knee_of(scattered(images, 0.12))
        assert knee.drop is not None and knee.low is not None and knee.high is not None
        assert knee.low <= knee.drop <= knee.high
        widths.append(knee.high - knee.low)
    assert widths[0] > widths[1] > widths[2] > 0
    curves, random = scattered(60, 0.12), np.random.default_rng(0)
    found = []
    for _ in range(1500):
        mean = curves[random.integers(0, 60, 59)].mean(axis=0)[:26]
        found.append(0.02 * int(np.argmax(mean[0] + (mean[25] - mean[0]) * np.arange(26) / 25 - mean)))
    knee = knee_of(curves)
    assert (knee.low, knee.high) == pytest.approx(tuple(np.quantile(found, [0.05, 0.95])), abs=0.021)


def test_the_order_of_images_and_the_run_do_not_matter() -> None:
    curves = scattered(30, 0.12)
    shuffled = np.random.default_rng(3).permutation(curves)
    first, second = knee_of(curves), knee_of(shuffled)
    assert (first.drop, first.low, first.high) == (second.drop, second.low, second.high)
    share_S = np.arange(26) / 25
    steps_B = _resampled(curves[:, :26], share_S)
    assert len(set(steps_B.tolist())) > 3
    np.testing.assert_array_equal(_resampled(curves[:, :26], share_S), steps_B)
    np.testing.assert_array_equal(_resampled(shuffled[:, :26], share_S), steps_B)


def test_many_images_are_put_together_first() -> None:
    few, many = knee_of(scattered(1900, 0.12)), knee_of(scattered(6001, 0.12))
    assert few.drop == many.drop
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None
    assert few.high - few.low + 1e-9 >= many.high - many.low
    assert many.low <= few.high and few.low <= many.high


def test_quantiles_are_those_of_students_t() -> None:
    table = {3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 10: 2.228, 30: 2.042, 1000: 1.962}
    for freedom, value in table.items():
        assert t_quantile(freedom) == pytest.approx(value, rel=0.01)
