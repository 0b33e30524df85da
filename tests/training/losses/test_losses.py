"""The trim and the two training losses, against independent formulations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.core.errors import UsageError
from depthsieve.reliability.masking import drop_count
from depthsieve.training.losses import GradientMatchingLoss, ScaleShiftInvariantLoss, TrimmedLoss

LOSS_CLASSES = [ScaleShiftInvariantLoss, GradientMatchingLoss]


def rand(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def kept_by_definition(losses: list[float], drop: float) -> list[float]:
    """The trim of one scope in plain Python, as the design words it."""
    k = drop_count(drop, len(losses))
    if k == 0:
        return losses
    v = sorted(losses, reverse=True)[k - 1]
    return [loss for loss in losses if loss < v] or losses


# The trim


def test_the_top_tenth_of_a_ramp_goes() -> None:
    loss = torch.arange(1.0, 101.0).view(1, 10, 10)
    assert TrimmedLoss(drop=0.10)(loss).item() == sum(range(1, 91)) / 90
    assert TrimmedLoss(drop=0.29)(loss).item() == sum(range(1, 72)) / 71
    assert TrimmedLoss()(loss).item() == TrimmedLoss(drop=0.10)(loss).item()


def test_it_is_the_papers_formula_where_that_is_defined() -> None:
    L = rand(0, 2, 40, 50)
    v = L.flatten().topk(L.numel() // 10).values[-1]
    torch.testing.assert_close(TrimmedLoss(drop=0.10, scope="batch")(L), L[L.lt(v)].mean())


@settings(deadline=None, max_examples=60)
@given(
    images=st.lists(st.lists(st.integers(0, 6), min_size=6, max_size=6), min_size=1, max_size=4),
    valid=st.lists(st.booleans(), min_size=24, max_size=24),
    drop=st.sampled_from([0.0, 0.1, 0.25, 0.34, 0.5, 0.9]),
)
def test_both_scopes_follow_the_definition(images: list[list[int]], valid: list[bool], drop: float) -> None:
    loss = torch.tensor(images, dtype=torch.float64).view(-1, 2, 3)
    mask = torch.tensor(valid[: loss.numel()]).view(loss.shape)
    rows = [image[image_mask].tolist() for image, image_mask in zip(loss, mask, strict=True)]
    by_image = [kept for row in rows for kept in kept_by_definition(row, drop)]
    by_batch = kept_by_definition([value for row in rows for value in row], drop)
    for scope, kept in (("image", by_image), ("batch", by_batch)):
        trimmed = TrimmedLoss(drop, scope)  # type: ignore[arg-type]
        assert trimmed(loss, mask).item() == pytest.approx(sum(kept) / max(len(kept), 1))
        assert sorted(loss[trimmed.keep_mask(loss, mask)].tolist()) == sorted(kept)


def test_scopes_differ_where_one_image_is_worse() -> None:
    loss = torch.stack([torch.arange(10.0), torch.arange(100.0, 110.0)]).view(2, 2, 5)
    assert TrimmedLoss(0.1, "image").keep_mask(loss).sum(dim=(1, 2)).tolist() == [9, 9]
    assert TrimmedLoss(0.1, "batch").keep_mask(loss).sum(dim=(1, 2)).tolist() == [10, 8]


def test_every_kept_pixel_weighs_the_same() -> None:
    loss = torch.tensor([[1.0, 1.0, 1.0, 1.0], [5.0, 9.0, 9.0, 9.0]])
    valid = torch.tensor([[True] * 4, [True, False, False, False]])
    assert TrimmedLoss(0.0)(loss, valid).item() == pytest.approx(9 / 5)


@pytest.mark.parametrize("shape", [(3,), (3, 7), (3, 4, 5), (3, 2, 4, 5)])
def test_any_shape_with_the_batch_first(shape: tuple[int, ...]) -> None:
    loss = rand(1, *shape)
    keep = TrimmedLoss(0.5).keep_mask(loss)
    assert keep.shape == shape
    assert torch.equal(keep, TrimmedLoss(0.5).keep_mask(loss.view(3, -1)).view(shape))


def test_a_mask_is_spread_over_channels() -> None:
    loss, valid = rand(2, 2, 3, 4, 5), rand(3, 2, 1, 4, 5) < 0.5
    keep = TrimmedLoss(0.2).keep_mask(loss, valid)
    assert torch.equal(keep, TrimmedLoss(0.2).keep_mask(loss, valid.expand(loss.shape)))
    assert not (keep & ~valid).any()


def test_gradients_run_through_kept_pixels_only() -> None:
    loss = torch.arange(1.0, 11.0).view(1, 10).requires_grad_()
    TrimmedLoss(0.2)(loss).backward()
    assert loss.grad is not None
    assert loss.grad[0].tolist() == pytest.approx([1 / 8] * 8 + [0.0] * 2)


def test_what_is_invalid_reaches_neither_value_nor_gradient() -> None:
    loss = torch.tensor([[1.0, 2.0, 3.0, math.nan, math.inf, -math.inf]], requires_grad=True)
    valid = torch.tensor([[True, True, True, False, False, False]])
    value = TrimmedLoss(0.34)(loss, valid)
    value.backward()
    assert value.item() == 1.5
    assert loss.grad is not None
    assert loss.grad.tolist() == [[0.5, 0.5, 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_nothing_valid_gives_0_and_gradients_of_0(scope: str) -> None:
    loss = torch.full((2, 3), math.nan, requires_grad=True)
    value = TrimmedLoss(0.1, scope)(loss, torch.zeros(2, 3, dtype=torch.bool))  # type: ignore[arg-type]
    value.backward()
    assert value.item() == 0.0
    assert loss.grad is not None
    assert loss.grad.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("shape", [(0, 4, 5), (0,), (2, 0, 5)])
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_an_empty_batch_gives_0_and_a_graph(scope: str, shape: tuple[int, ...]) -> None:
    loss = torch.zeros(shape, requires_grad=True)
    trimmed = TrimmedLoss(0.1, scope)  # type: ignore[arg-type]
    value = trimmed(loss)
    value.backward()
    assert value.item() == 0.0
    assert loss.grad is not None
    assert loss.grad.shape == trimmed.keep_mask(loss).shape == shape


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_the_losses_of_an_empty_batch_are_0(loss_class: type) -> None:
    prediction = torch.zeros(0, 9, 10, requires_grad=True)
    value = loss_class()(prediction, torch.zeros(0, 9, 10))
    value.backward()
    assert value.item() == 0.0
    assert prediction.grad is not None
    assert loss_class(reduction="none")(prediction, torch.zeros(0, 9, 10)).shape == (0, 9, 10)


def test_losses_that_are_all_equal_are_all_kept() -> None:
    assert TrimmedLoss(0.5)(torch.full((2, 8), 3.0)).item() == 3.0
    assert TrimmedLoss(0.5).keep_mask(torch.full((2, 8), 3.0)).all()
    assert TrimmedLoss(0.5)(torch.tensor([[4.0]])).item() == 4.0


def test_pixels_that_tie_with_the_threshold_go_together() -> None:
    loss = torch.tensor([[1.0, 7.0, 7.0, 7.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0]])
    assert TrimmedLoss(0.1)(loss).item() == 3.0


def test_a_nan_at_a_valid_pixel_is_not_trimmed_out_of_sight() -> None:
    loss = torch.tensor([[1.0, math.nan, 2.0, 3.0]])
    for drop in (0.0, 0.25, 0.5, 0.75):
        assert math.isnan(TrimmedLoss(drop)(loss).item())


def test_an_infinite_loss_is_the_largest() -> None:
    loss = torch.tensor([[1.0, math.inf, 2.0, 3.0]])
    assert TrimmedLoss(0.25)(loss).item() == 2.0
    assert TrimmedLoss(0.0)(loss).item() == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_selects_as_given_and_sums_in_float32(dtype: torch.dtype) -> None:
    loss = (rand(4, 2, 90, 90) * 100).to(
        dtype
    )  # a float16 sum would overflow, a bfloat16 sum stop at 256 times a value
    value = TrimmedLoss(0.1)(loss)
    assert value.dtype == torch.float32
    kept = [v for image in loss for v in kept_by_definition(image.flatten().tolist(), 0.1)]
    assert value.item() == pytest.approx(sum(kept) / len(kept), rel=1e-5)


def test_double_precision_is_kept() -> None:
    assert TrimmedLoss()(rand(5, 1, 9, dtype=torch.float64)).dtype == torch.float64


def test_more_elements_than_torch_quantile_takes() -> None:
    loss = torch.arange(2**24 + 100, dtype=torch.int32).bitwise_and(1023).float().view(1, -1)
    keep = TrimmedLoss(0.10, "batch").keep_mask(loss)
    assert int(keep.sum()) == int((loss < 921).sum())  # a tenth of 1024 values are 102.4: 922..1023 whole, 921 by ties


def test_the_options_show() -> None:
    assert repr(TrimmedLoss(0.2, "batch")) == "TrimmedLoss(drop=0.2, scope='batch')"
    assert list(TrimmedLoss().state_dict()) == []


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="drop must be"):
        TrimmedLoss(1.0)
    with pytest.raises(UsageError, match="'dataset' is a scope of masks"):
        TrimmedLoss(0.1, "dataset")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch axis"):
        TrimmedLoss()(torch.tensor(1.0))
    for shape in [(3, 4), (2, 3, 5), (1, 2, 3, 4)]:
        with pytest.raises(UsageError, match="does not fit"):
            TrimmedLoss()(rand(0, 2, 3, 4), torch.ones(shape, dtype=torch.bool))


# Scale-and-shift-invariant loss


def normalised(values: np.ndarray) -> np.ndarray:
    median = np.sort(values)[(len(values) - 1) // 2]
    return (values - median) / np.abs(values - median).mean()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), keep=st.floats(0.3, 1.0))
def test_ssi_is_the_formula_over_the_valid_pixels(seed: int, keep: float) -> None:
    prediction, label = rand(seed, 2, 5, 6), rand(seed + 1, 2, 5, 6)
    valid = rand(seed + 2, 2, 5, 6) < keep
    expected = np.zeros(valid.shape)
    for b, mask in enumerate(valid.numpy()):
        p, y = prediction[b].double().numpy()[mask], label[b].double().numpy()[mask]
        if mask.any():
            expected[b][mask] = np.abs(normalised(p) - normalised(y))
    loss = ScaleShiftInvariantLoss(reduction="none")(prediction, label, valid)
    np.testing.assert_allclose(loss.numpy(), expected, atol=1e-4)
    mean = ScaleShiftInvariantLoss()(prediction, label, valid)
    assert mean.item() == pytest.approx(expected.sum() / max(int(valid.sum()), 1), rel=1e-4)


def test_the_median_is_that_of_valid_pixels_not_of_masked_zeros() -> None:
    label = torch.tensor([[[0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 4.0]]])
    prediction = label.clone()
    prediction[..., 6] = 6.0  # over the last three: medians 2, spreads 1 and 5/3
    loss = ScaleShiftInvariantLoss(reduction="none")(prediction, label, label > 0)
    assert loss.flatten().tolist() == pytest.approx([0, 0, 0, 0, 0.4, 0, 0.4])


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_scale_and_shift_of_either_map_do_not_matter(loss_class: type, seed: int, scale: float, shift: float) -> None:
    prediction, label = rand(seed, 2, 9, 12, dtype=torch.float64), rand(seed + 1, 2, 9, 12, dtype=torch.float64)
    valid = rand(seed + 2, 2, 9, 12) < 0.8
    loss = loss_class()
    value = loss(prediction, label, valid)
    torch.testing.assert_close(loss(prediction * scale + shift, label, valid), value, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(loss(prediction, label * scale + shift, valid), value, rtol=1e-6, atol=1e-9)
    assert loss(label * scale + shift, label, valid).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_gradients_are_those_of_finite_differences(loss_class: type, reduction: str) -> None:
    prediction, label = rand(7, 2, 3, 5, dtype=torch.float64), rand(8, 2, 3, 5, dtype=torch.float64)
    valid = rand(9, 2, 3, 5) < 0.8
    loss = loss_class(reduction=reduction)
    assert torch.autograd.gradcheck(lambda p: loss(p, label, valid), prediction.requires_grad_(), eps=1e-7)


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_invalid_pixels_reach_neither_value_nor_gradient(loss_class: type) -> None:
    prediction, label = rand(10, 2, 6, 8), rand(11, 2, 6, 8)
    valid = rand(12, 2, 6, 8) < 0.6
    value = loss_class()(prediction, label, valid)
    for junk in (math.nan, math.inf, 1e30):
        spoiled = torch.where(valid, prediction, junk).requires_grad_()
        spoiled_value = loss_class()(spoiled, torch.where(valid, label, junk), valid)
        assert spoiled_value.item() == value.item()
        spoiled_value.backward()
        assert spoiled.grad is not None
        assert (spoiled.grad[~valid] == 0).all()
        assert torch.isfinite(spoiled.grad).all()
        assert spoiled.grad[valid].abs().sum() > 0
    assert (loss_class(reduction="none")(prediction, label, valid)[~valid] == 0).all()


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_an_image_without_valid_pixels_adds_nothing(loss_class: type) -> None:
    prediction, label = rand(13, 2, 6, 8).requires_grad_(), rand(14, 2, 6, 8)
    valid = torch.ones(2, 6, 8, dtype=torch.bool)
    valid[1] = False
    value = loss_class()(prediction, label, valid)
    assert value.item() == pytest.approx(loss_class()(prediction[:1], label[:1]).item(), rel=1e-6)
    value.backward()
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()
    nothing = loss_class()(prediction, label, torch.zeros_like(valid))
    assert nothing.item() == 0.0


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_a_constant_map_is_normalised_to_0(loss_class: type) -> None:
    constant, label = torch.full((1, 6, 8), 3.0, requires_grad=True), rand(15, 1, 6, 8)
    value = loss_class()(constant, label)
    value.backward()
    assert constant.grad is not None
    assert torch.isfinite(constant.grad).all()
    mirrored = loss_class()(torch.zeros_like(label), label)
    assert value.item() == mirrored.item() > 0
    assert loss_class()(label, constant).item() == pytest.approx(value.item(), rel=1e-6)


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_half_precision_gives_float32(loss_class: type) -> None:
    prediction, label = rand(16, 1, 6, 8).half(), rand(17, 1, 6, 8).half()
    value = loss_class()(prediction, label)
    assert value.dtype == torch.float32
    assert value.item() == loss_class()(prediction.float(), label.float()).item()


# Gradient matching


def gradient_matching_by_loops(residual: np.ndarray, valid: np.ndarray, scales: int) -> float:
    """One image in plain loops over pixel pairs."""
    total = 0.0
    for step in (2**scale for scale in range(scales)):
        r, m = residual[::step, ::step], valid[::step, ::step]
        change = 0.0
        for i in range(r.shape[0]):
            for j in range(r.shape[1]):
                if m[i, j] and j + 1 < r.shape[1] and m[i, j + 1]:
                    change += abs(r[i, j + 1] - r[i, j])
                if m[i, j] and i + 1 < r.shape[0] and m[i + 1, j]:
                    change += abs(r[i + 1, j] - r[i, j])
        total += change / max(int(m.sum()), 1)
    return total


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), scales=st.integers(1, 4), height=st.integers(1, 11), width=st.integers(1, 13))
def test_gradient_matching_is_the_sum_over_scales(seed: int, scales: int, height: int, width: int) -> None:
    prediction, label = rand(seed, 2, height, width).double(), rand(seed + 1, 2, height, width).double()
    valid = rand(seed + 2, 2, height, width) < 0.8
    by_image, counts = [], []
    for b, mask in enumerate(valid.numpy()):
        residual = np.zeros(mask.shape)
        if mask.sum() > 1:  # a single pixel is constant
            residual[mask] = normalised(prediction[b].numpy()[mask]) - normalised(label[b].numpy()[mask])
        by_image.append(gradient_matching_by_loops(residual, mask, scales))
        counts.append(int(mask.sum()))
    expected = np.dot(by_image, counts) / max(sum(counts), 1)
    assert GradientMatchingLoss(scales)(prediction, label, valid).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_hand_computed_step_edge() -> None:
    label = torch.tensor([[[0.0, 0.0, 1.0, 2.0]]])  # median 0, spread 3/4: 0 0 4/3 8/3
    prediction = torch.tensor([[[0.0, 0.0, 2.0, 2.0]]])  # median 0, spread 1: 0 0 2 2
    # residual 0 0 2/3 -2/3: scale 1 |2/3| + |4/3| over 4 pixels; scale 2 |2/3| over 2 pixels; then one pixel alone
    assert GradientMatchingLoss(1)(prediction, label).item() == pytest.approx(0.5)
    assert GradientMatchingLoss(2)(prediction, label).item() == pytest.approx(0.5 + 1 / 3)
    assert GradientMatchingLoss(4)(prediction, label).item() == pytest.approx(0.5 + 1 / 3)
    map_HW = GradientMatchingLoss(2, reduction="none")(prediction, label)[0, 0]
    assert map_HW.tolist() == pytest.approx([2 / 3, 2 / 3 + 2 / 3, 4 / 3, 0.0], rel=1e-6)


def test_rows_and_columns_are_treated_alike() -> None:
    maps = rand(18, 2, 1, 7, 10)
    loss = GradientMatchingLoss(3, reduction="none")
    torch.testing.assert_close(loss(*maps).mT, loss(*maps.mT))


def test_no_difference_is_taken_across_an_invalid_pixel() -> None:
    label = torch.tensor([[[0.0, 1.0, 9.0, 5.0, 6.0]]])
    prediction = torch.tensor([[[1.0, 0.0, 0.0, 6.0, 5.0]]])
    valid = torch.tensor([[[True, True, False, True, True]]])
    both = GradientMatchingLoss(1, reduction="none")(prediction, label, valid)[0, 0]
    assert (both > 0).tolist() == [True, False, False, True, False]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 19), width=st.integers(1, 19))
def test_the_map_has_the_loss_as_its_mean(seed: int, height: int, width: int) -> None:
    prediction, label = rand(seed, 3, height, width), rand(seed + 1, 3, height, width)
    valid = rand(seed + 2, 3, height, width) < 0.7
    map_BHW = GradientMatchingLoss(reduction="none")(prediction, label, valid)
    mean = GradientMatchingLoss()(prediction, label, valid)
    torch.testing.assert_close(map_BHW[valid].sum() / valid.sum().clamp(min=1), mean)
    alone = GradientMatchingLoss(reduction="none")(prediction[1:2], label[1:2], valid[1:2])
    torch.testing.assert_close(map_BHW[1:2], alone)


def test_losses_can_be_trimmed_together() -> None:
    """The use that the maps are for: Depth Anything's 1 : 2, trimmed."""
    label = rand(20, 2, 16, 16)
    prediction = (label + 0.01 * rand(21, 2, 16, 16)).requires_grad_()
    spoiled = label.clone()
    spoiled[:, 4:8, 4:8] += 3.0  # 6% of the labels are wrong
    valid = torch.ones_like(label, dtype=torch.bool)
    loss = ScaleShiftInvariantLoss("none")(prediction, spoiled) + 2 * GradientMatchingLoss(1, "none")(
        prediction, spoiled
    )
    trimmed = TrimmedLoss(0.10)
    trimmed(loss, valid).backward()
    assert not trimmed.keep_mask(loss, valid)[:, 4:8, 4:8].any()


def test_bad_loss_arguments_are_refused() -> None:
    for loss_class in LOSS_CLASSES:
        with pytest.raises(UsageError, match="'sum'"):
            loss_class(reduction="sum")
        with pytest.raises(UsageError, match=r"\[1, 2, 3\] and \[1, 3, 2\]"):
            loss_class()(rand(0, 1, 2, 3), rand(0, 1, 3, 2))
        with pytest.raises(UsageError, match=r"\[B,H,W\]"):
            loss_class()(rand(0, 2, 3), rand(0, 2, 3))
        with pytest.raises(UsageError, match="does not fit"):
            loss_class()(rand(0, 1, 2, 3), rand(0, 1, 2, 3), torch.ones(1, 2, 2, dtype=torch.bool))
    with pytest.raises(UsageError, match="at least 1 scale"):
        GradientMatchingLoss(0)
