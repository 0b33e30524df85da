"""The merge of several labels of one image, and the expected error of what comes out."""

import pytest
import torch

from depthsieve.core.errors import UsageError
from depthsieve.core.records import Quantity
from depthsieve.reliability.code import decode_error, encode_error
from depthsieve.reliability.fusion import fuse, relative_error, shipped_calibration
from depthsieve.reliability.merging import OneLabel, merge_labels, on_grid

CALIBRATION = shipped_calibration()


def scene(seed: int = 0, shape: tuple[int, int] = (40, 56)) -> torch.Tensor:
    """A smooth map between 1 and 9."""
    coarse = torch.rand((1, 1, 4, 5), generator=torch.Generator().manual_seed(seed)) * 8 + 1
    return torch.nn.functional.interpolate(coarse, size=shape, mode="bilinear")[0, 0]


def one(depth_hw: torch.Tensor, code: int | torch.Tensor = 128, quantity: Quantity = "disparity") -> OneLabel:
    code_hw = code if isinstance(code, torch.Tensor) else torch.full(depth_hw.shape, code, dtype=torch.uint8)
    return OneLabel(depth_hw, code_hw, quantity, code_version=1)


def test_labels_that_differ_by_scale_and_shift_merge_into_the_first() -> None:
    first = scene()
    merged, e = merge_labels([one(first), one(first * 0.25 + 3)], CALIBRATION)
    torch.testing.assert_close(merged, first, rtol=1e-5, atol=1e-5)
    by_disagreement = fuse(first[None], {"teachers": torch.zeros_like(first)[None]}, "disparity", CALIBRATION)[0]
    own = decode_error(torch.tensor(128, dtype=torch.uint8), version=1)
    torch.testing.assert_close(e, (by_disagreement * own).sqrt(), rtol=1e-3, atol=0)


def test_each_pixel_is_the_mean_by_inverse_square_error_and_far_ones_are_left_out() -> None:
    first = scene()
    other = first.clone()
    other[10:14, 10:14] += 0.02  # within what the errors allow
    other[20:24, 20:24] += 3
    code = torch.full(first.shape, 100, dtype=torch.uint8)
    code[:, 28:] = 90
    merged, _ = merge_labels([one(first, 80), one(other, code)], CALIBRATION)
    e_first, e_other = decode_error(torch.tensor([80, 100], dtype=torch.uint8), version=1).double().tolist()
    weight = (e_first / e_other) ** 2  # of the other, whose denominator is nearly the same
    expected = first[12, 12] + 0.02 * weight / (1 + weight)
    assert float(merged[12, 12]) == pytest.approx(float(expected), abs=2e-4)
    torch.testing.assert_close(merged[21, 21], other[21, 21], rtol=1e-3, atol=0)  # the other is the more reliable
    swapped, _ = merge_labels([one(first, 120), one(other, code)], CALIBRATION)
    torch.testing.assert_close(swapped[21, 21], first[21, 21], rtol=1e-3, atol=0)


def test_expected_error_grows_with_disagreement_and_is_the_formula() -> None:
    first, other = scene(0), scene(0) + 0.4 * (scene(1) - 5)
    merged, e = merge_labels([one(first, 120, "depth"), one(other, 90, "depth")], CALIBRATION)
    delta = relative_error(merged[None], (first - other).abs()[None])
    by_disagreement = fuse(merged[None], {"teachers": delta}, "depth", CALIBRATION)[0]
    own = decode_error(torch.tensor([120, 90], dtype=torch.uint8), version=1).prod().sqrt()
    torch.testing.assert_close(e, (by_disagreement * own).sqrt())
    less = merge_labels([one(first, 120, "depth"), one(first * 0.99 + other * 0.01, 90, "depth")], CALIBRATION)[1]
    assert (less < e).float().mean() > 0.95


def test_invalid_pixels_are_taken_from_the_other_label_and_stay_invalid_where_there_is_none() -> None:
    first = scene()
    codes = torch.full((2, *first.shape), 150, dtype=torch.uint8)
    codes[0, :10] = 0
    codes[1, :10, :20] = 0
    spoilt = torch.where(codes[0] > 0, first, 1e4)  # what an invalid pixel holds means nothing
    merged, e = merge_labels([one(spoilt, codes[0]), one(first * 2 + 1, codes[1])], CALIBRATION)
    assert merged[:10, :20].isnan().all()
    assert e[:10, :20].isnan().all()
    torch.testing.assert_close(merged[:10, 20:], first[:10, 20:], rtol=1e-4, atol=1e-4)
    assert (encode_error(e, version=1)[:10, 20:] == 150).all(), "one label's own expected error"
    assert torch.isfinite(merged[10:]).all()


def test_a_label_that_runs_the_other_way_or_is_constant_has_no_say() -> None:
    first = scene()
    agreeing = merge_labels([one(first, 50), one(first, 50)], CALIBRATION)[1]
    for other in (-first, torch.full_like(first, 3.0)):
        merged, e = merge_labels([one(first, 50), one(other, 250)], CALIBRATION)
        assert torch.equal(merged, first)
        assert e.mean() > 1.2 * agreeing.mean()


def test_metres_are_inverted_beside_disparity_and_the_other_way_is_refused() -> None:
    first = scene()
    merged, _ = merge_labels([one(first), one(1 / first, quantity="depth")], CALIBRATION)
    torch.testing.assert_close(merged, first, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="name the labels of disparity first"):
        merge_labels([one(1 / first, quantity="depth"), one(first)], CALIBRATION)
    with pytest.raises(UsageError, match="two labels or more"):
        merge_labels([one(first)], CALIBRATION)


def test_metres_are_not_aligned() -> None:
    first = scene()
    merged, _ = merge_labels([one(first, 60, "depth"), one(first + 0.5, 60, "depth")], CALIBRATION)
    assert ((merged > first) & (merged < first + 0.5)).all()


def test_labels_without_signals_weigh_the_same() -> None:
    first, other = scene(), scene() + 0.3 * (scene(2) - 5)
    labels = [OneLabel(first, torch.full(first.shape, 255, dtype=torch.uint8), "depth", judged=False), one(other, 9)]
    labels[1] = OneLabel(other, labels[1].code_hw, "depth", code_version=1)
    merged, e = merge_labels(labels, CALIBRATION)
    torch.testing.assert_close(merged, (first + other) / 2)
    delta = relative_error(merged[None], (first - other).abs()[None])
    torch.testing.assert_close(e, fuse(merged[None], {"teachers": delta}, "depth", CALIBRATION)[0])


def test_three_labels_merge_and_two_outvote_one_that_is_wild() -> None:
    first = scene()
    wild = first.clone()
    wild[5:12, 5:12] = 30
    merged, e = merge_labels([one(first, 120), one(first * 3, 120), one(wild, 60)], CALIBRATION)
    torch.testing.assert_close(merged, first, rtol=2e-2, atol=2e-2)
    assert e[8, 8] > 2 * e[30, 40]


@pytest.mark.parametrize("shape", [(20, 28), (120, 168), (33, 50)])
def test_another_size_is_mapped_by_pixel_centres(shape: tuple[int, int]) -> None:
    """A ramp over the image's width is the same ramp at any size, but for the half pixel at the borders."""
    height, width = 40, 56
    ramp = ((torch.arange(width) + 0.5) / width).expand(height, width)
    depth, e = on_grid(one(ramp), shape)
    inner = slice(3, -3)
    expected = ((torch.arange(shape[1]) + 0.5) / shape[1]).expand(shape)
    torch.testing.assert_close(depth[:, inner], expected[:, inner], rtol=0, atol=2e-3)
    torch.testing.assert_close(
        e, torch.full(shape, float(decode_error(torch.tensor(128, dtype=torch.uint8), version=1)))
    )


def test_a_pixel_of_another_size_is_valid_where_most_of_what_it_is_made_of_is() -> None:
    """Enlarged twice, the second column lies a quarter into what is valid, the third three quarters."""
    depth, code = torch.ones(4, 4), torch.full((4, 4), 128, dtype=torch.uint8)
    depth[:, 0], code[:, 0] = 99, 0
    larger, e = on_grid(one(depth, code), (8, 8))
    assert larger[:, :2].isnan().all()
    assert e[:, :2].isnan().all()
    torch.testing.assert_close(larger[:, 2:], torch.ones(8, 6))
