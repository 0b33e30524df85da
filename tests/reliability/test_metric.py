"""The scale and shift that bring a relative label to metres."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from depthsieve.reliability.metric import FAR_M, MetricFit, fit_metres, to_metres

SCALE, SHIFT = 0.02, 0.05


@pytest.fixture(name="label_HW")
def label_fixture() -> NDArray[np.float16]:
    """A label from 0.7 m to 14 m at the true scale."""
    random = np.random.default_rng(0)
    rows_H = np.linspace(1, 60, 60)
    return (rows_H[:, None] + random.uniform(0, 10, (60, 80))).astype(np.float16)


def fit(disparity_HW: NDArray[np.float16], metres_HW: NDArray[np.floating], codes_HW: object = None) -> MetricFit:
    codes_HW = np.full(disparity_HW.shape, 200, np.uint8) if codes_HW is None else codes_HW
    return fit_metres(disparity_HW, codes_HW, np.asarray(metres_HW, np.float32))  # type: ignore[arg-type]


def metres(disparity_HW: NDArray[np.float16]) -> NDArray[np.float64]:
    return 1 / (SCALE * disparity_HW.astype(np.float64) + SHIFT)


def test_an_exact_relation_is_found_and_makes_the_metres(label_HW: NDArray[np.float16]) -> None:
    found = fit(label_HW, metres(label_HW))
    assert found.scale == pytest.approx(SCALE, rel=1e-5) and found.shift == pytest.approx(SHIFT, rel=1e-4)
    assert found.residual < 1e-5 and (found.inliers, found.pixels) == (1.0, 1.0)
    made_HW = to_metres(label_HW, found.scale, found.shift)
    assert made_HW.dtype == np.float32
    np.testing.assert_allclose(made_HW, metres(label_HW), rtol=1e-4)


def test_a_wild_part_and_noise_do_not_move_it_and_are_counted(label_HW: NDArray[np.float16]) -> None:
    random = np.random.default_rng(1)
    metres_HW = metres(label_HW) * np.exp(random.normal(0, 0.05, label_HW.shape))
    metres_HW[:60, :12] *= 3  # 15% of the pixels, of every depth
    found = fit(label_HW, metres_HW)
    assert found.scale == pytest.approx(SCALE, rel=0.03)
    assert found.inliers == pytest.approx(0.85, abs=0.01) and 0.03 < found.residual < 0.06


def test_near_and_far_count_alike_by_their_relative_error(label_HW: NDArray[np.float16]) -> None:
    """Least squares of inverse depth would follow the near pixels, which bend away here by 20%."""
    metres_HW = metres(label_HW)
    near_HW = metres_HW < np.quantile(metres_HW, 0.15)
    metres_HW[near_HW] *= 1.2
    made_HW = to_metres(label_HW, *fit(label_HW, metres_HW)[:2])
    assert np.abs(made_HW / metres_HW - 1)[~near_HW].max() < 0.01


def test_sky_invalid_and_unreliable_pixels_have_no_say(label_HW: NDArray[np.float16]) -> None:
    truth_HW = metres(label_HW)
    cut_HW, metres_HW = label_HW.copy(), truth_HW.copy()
    codes_HW = np.full(cut_HW.shape, 200, np.uint8)
    metres_HW[:10], codes_HW[:10] = 1.0, 0  # invalid
    metres_HW[10:15], codes_HW[10:15] = 1.0, 3  # 10% of the valid pixels, the least reliable
    metres_HW[15:25] = FAR_M + 1
    cut_HW[25:30], metres_HW[25:30] = 0, 40.0  # cut off by the network
    metres_HW[30:32] = np.nan
    metres_HW[32:34] = 0
    found = fit(cut_HW, metres_HW, codes_HW)
    assert found.scale == pytest.approx(SCALE, rel=1e-5) and found.inliers == 1.0
    assert found.pixels == pytest.approx((60 - 34) / 60)


def test_below_zero_a_shifted_label_is_as_good_as_any(label_HW: NDArray[np.float16]) -> None:
    """Only where 0 is the lowest value has the network been cut off there."""
    shifted_HW = (label_HW.astype(np.float32) - 30).round().astype(np.float16)
    found = fit(shifted_HW, 1 / (SCALE * (shifted_HW.astype(np.float64) + 30) + SHIFT))
    assert (shifted_HW == 0).any() and found.pixels == 1.0 and found.scale == pytest.approx(SCALE, rel=1e-5)


@pytest.mark.parametrize("case", ["contradiction", "constant", "too few"])
def test_what_cannot_be_fitted_says_so(label_HW: NDArray[np.float16], case: str) -> None:
    metres_HW = metres(label_HW)
    if case == "contradiction":
        found = fit(label_HW, 1 / metres_HW)  # near where the label says far
    elif case == "constant":
        found = fit(np.full_like(label_HW, 7), metres_HW)
    else:
        metres_HW[1:] = 100
        metres_HW[0, 40:] = 100  # 40 of 4,800 are left
        found = fit(label_HW, metres_HW)
    assert np.isnan(found.scale) and np.isnan(found.residual)
    assert found.pixels == pytest.approx(40 / 4800 if case == "too few" else 1.0)


def test_beyond_the_horizon_is_infinitely_far() -> None:
    made_HW = to_metres(np.array([[0.0, 1.0, 3.0]], np.float16), 0.5, -0.5)
    assert made_HW.tolist() == [[np.inf, np.inf, 1.0]]


def test_threads_do_not_move_a_bit(label_HW: NDArray[np.float16]) -> None:
    random = np.random.default_rng(2)
    large_HW = np.tile(label_HW, (8, 8))
    metres_HW = metres(large_HW) * np.exp(random.normal(0, 0.1, large_HW.shape))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(fit(large_HW, metres_HW))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
