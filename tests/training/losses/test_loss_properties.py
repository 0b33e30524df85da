"""What must hold of the losses and of the alignment for any input: scale, shift, order, masks, extremes, gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.reliability.alignment import align_scale_shift
from depthsieve.reliability.masking import drop_count
from depthsieve.training.losses import GradientMatchingLoss, ScaleShiftInvariantLoss, TrimmedLoss

LOSS_CLASSES = [ScaleShiftInvariantLoss, GradientMatchingLoss]
SEEDS = st.integers(0, 10_000)
DROPS = st.floats(0, 1, exclude_max=True)
SCOPES = st.sampled_from(["image", "batch"])
REGIONS = st.sampled_from([None, 2, 3])
JUNK = st.sampled_from([math.nan, math.inf, -math.inf, 3e38, -3e38, 0.0])
POWERS = st.integers(-40, 40).map(lambda power: 2.0**power)


def rand(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shuffled(seed: int, size: int) -> torch.Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


# The trim


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, drop=DROPS, scope=SCOPES, region=REGIONS, scale=POWERS)
def test_a_trim_scales_with_its_loss(seed: int, drop: float, scope: str, region: int | None, scale: float) -> None:
    loss, valid = rand(seed, 2, 7, 8), rand(seed + 1, 2, 7, 8) < 0.8
    trimmed = TrimmedLoss(drop, scope, region)  # type: ignore[arg-type]
    assert torch.equal(trimmed.keep_mask(loss * scale, valid), trimmed.keep_mask(loss, valid))
    assert trimmed(loss * scale, valid).item() == trimmed(loss, valid).item() * scale


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, drop=DROPS, scope=SCOPES, shift=st.integers(-1000, 1000))
def test_a_trim_shifts_with_its_loss(seed: int, drop: float, scope: str, shift: int) -> None:
    loss, valid = (rand(seed, 2, 7, 8) * 50).floor(), rand(seed + 1, 2, 7, 8) < 0.8  # exact in float32
    trimmed = TrimmedLoss(drop, scope)  # type: ignore[arg-type]
    assert torch.equal(trimmed.keep_mask(loss + shift, valid), trimmed.keep_mask(loss, valid))
    assert trimmed(loss + shift, valid).item() == pytest.approx(
        trimmed(loss, valid).item() + shift * valid.any().item()
    )


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, drop=DROPS, scope=SCOPES)
def test_the_order_of_pixels_and_images_does_not_matter_to_a_trim(seed: int, drop: float, scope: str) -> None:
    loss, valid, protect = (rand(seed, 3, 40) * 20).floor(), rand(seed + 1, 3, 40) < 0.8, rand(seed + 2, 3, 40) < 0.2
    trimmed = TrimmedLoss(drop, scope)  # type: ignore[arg-type]
    keep = trimmed.keep_mask(loss, valid, protect)
    images, pixels = shuffled(seed, 3), shuffled(seed, 40)
    moved = [tensor[images][:, pixels] for tensor in (loss, valid, protect)]
    assert torch.equal(trimmed.keep_mask(*moved), keep[images][:, pixels])


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, drop=DROPS, scope=SCOPES, region=REGIONS, junk=JUNK)
def test_what_a_mask_hides_has_no_part_in_a_trim(
    seed: int, drop: float, scope: str, region: int | None, junk: float
) -> None:
    loss, valid = rand(seed, 2, 7, 8), rand(seed + 1, 2, 7, 8) < 0.6
    weight, protect = rand(seed + 2, 2, 7, 8), rand(seed + 3, 2, 7, 8) < 0.2
    trimmed = TrimmedLoss(drop, scope, region)  # type: ignore[arg-type]
    value = trimmed(loss, valid, weight, protect)
    spoiled = torch.where(valid, loss, junk).requires_grad_()
    spoiled_value = trimmed(spoiled, valid, torch.where(valid, weight, junk), protect | ~valid)
    spoiled_value.backward()
    assert spoiled_value.item() == value.item()
    assert spoiled.grad is not None
    assert spoiled.grad.isfinite().all()
    assert not spoiled.grad[~valid].any()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, drop=DROPS, scope=SCOPES)
def test_what_is_kept_is_below_what_goes_and_as_many_as_may_be(seed: int, drop: float, scope: str) -> None:
    loss = rand(seed, 2, 9, 10)  # no two alike, but for chance
    valid = rand(seed + 1, 2, 9, 10) < 0.8
    keep = TrimmedLoss(drop, scope).keep_mask(loss, valid)  # type: ignore[arg-type]
    assert not (keep & ~valid).any()
    for part in [slice(None)] if scope == "batch" else [slice(0, 1), slice(1, 2)]:
        values, kept = loss[part][valid[part]], loss[part][keep[part]]
        if len(values.unique()) == len(values) > 0:
            assert len(kept) == len(values) - drop_count(drop, len(values))
        if 0 < len(kept) < len(values):
            assert kept.max() < loss[part][valid[part] & ~keep[part]].min()


@settings(deadline=None, max_examples=100)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=30),
    drop=DROPS,
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_a_trim_of_any_finite_or_infinite_floats_is_the_definition(
    values: list[float], drop: float, dtype: torch.dtype
) -> None:
    loss = torch.tensor([values], dtype=torch.float64).to(dtype)
    k = drop_count(drop, len(values))
    v = sorted(loss[0].tolist(), reverse=True)[k - 1] if k else math.inf
    wanted = [k == 0 or value < v for value in loss[0].tolist()]
    keep = TrimmedLoss(drop).keep_mask(loss)
    assert keep[0].tolist() == (wanted if any(wanted) else [True] * len(values))


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, share=st.floats(0.01, 0.99), scope=SCOPES, region=REGIONS, times=st.integers(1, 3))
def test_a_nan_is_never_out_of_sight(seed: int, share: float, scope: str, region: int | None, times: int) -> None:
    loss = rand(seed, 2, 6, 6)
    for place in range(times):
        loss.view(-1)[shuffled(seed + place, 72)[0]] = -math.nan if place == 1 else math.nan
    assert math.isnan(TrimmedLoss(share, scope, region)(loss).item())  # type: ignore[arg-type]


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, drop=DROPS, scope=SCOPES, region=REGIONS)
def test_a_trims_gradient_is_that_of_finite_differences(seed: int, drop: float, scope: str, region: int | None) -> None:
    order = (
        shuffled(seed, 24).double().view(2, 3, 4)
    )  # a step of 1 between any two: no small change moves the threshold
    loss = (order + 0.1 * rand(seed, 2, 3, 4, dtype=torch.float64)).requires_grad_()
    valid, protect = rand(seed + 1, 2, 3, 4) < 0.8, rand(seed + 2, 2, 3, 4) < 0.2
    weight = rand(seed + 3, 2, 3, 4)
    trimmed = TrimmedLoss(drop, scope, region)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda loss: trimmed(loss, valid, weight, protect), loss, eps=1e-6)


# The two losses of Depth Anything


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, power=st.integers(-15, 110), sign=st.sampled_from([1.0, -1.0]))
def test_maps_of_any_magnitude_have_the_same_loss(loss_class: type, seed: int, power: int, sign: float) -> None:
    """Up to 2^110, where float32 ends at 2^128; down to where the spread is no longer told from a constant's."""
    prediction, label, valid = rand(seed, 2, 30, 20), rand(seed + 1, 2, 30, 20), rand(seed + 2, 2, 30, 20) < 0.8
    loss = loss_class()
    value = loss(prediction * sign, label, valid)
    assert value.item() == loss(prediction * sign * 2.0**power, label, valid).item()
    assert value.item() == loss(prediction * sign, label * 2.0**power, valid).item()


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
def test_large_values_do_not_overflow_on_their_way(loss_class: type) -> None:
    prediction, label = rand(0, 1, 30, 20).requires_grad_(), rand(1, 1, 30, 20)
    large = (prediction.detach() * 2.0**126).requires_grad_()  # their sum is beyond float32
    value, large_value = loss_class()(prediction, label), loss_class()(large, label)
    assert large_value.item() == value.item()
    value.backward(), large_value.backward()
    assert prediction.grad is not None and large.grad is not None
    torch.testing.assert_close(large.grad * 2.0**126, prediction.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_images_do_not_know_of_each_other(loss_class: type, seed: int) -> None:
    prediction, label, valid = rand(seed, 3, 8, 9), rand(seed + 1, 3, 8, 9), rand(seed + 2, 3, 8, 9) < 0.8
    images = shuffled(seed, 3)
    loss = loss_class(reduction="none")
    map_BHW = loss(prediction, label, valid)
    assert torch.equal(loss(prediction[images], label[images], valid[images]), map_BHW[images])
    torch.testing.assert_close(loss(prediction[1:2], label[1:2], valid[1:2]), map_BHW[1:2])


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_the_order_of_pixels_does_not_matter_to_ssi(seed: int) -> None:
    maps = [rand(seed, 1, 1, 60), rand(seed + 1, 1, 1, 60), rand(seed + 2, 1, 1, 60) < 0.8]
    pixels = shuffled(seed, 60)
    loss = ScaleShiftInvariantLoss(reduction="none")
    torch.testing.assert_close(loss(*(map_[..., pixels] for map_ in maps)), loss(*maps)[..., pixels])


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_gradient_matching_at_full_size_is_the_same_in_a_mirror(seed: int) -> None:
    maps = [rand(seed, 2, 7, 9), rand(seed + 1, 2, 7, 9), rand(seed + 2, 2, 7, 9) < 0.8]
    loss = GradientMatchingLoss(scales=1)  # coarser scales start at a corner
    value = loss(*maps)
    for axes in ([1], [2], [1, 2]):
        torch.testing.assert_close(loss(*(map_.flip(axes) for map_ in maps)), value)


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, share=st.floats(0, 1), junk=JUNK)
def test_what_a_mask_hides_has_no_part_in_a_loss(loss_class: type, seed: int, share: float, junk: float) -> None:
    prediction, label, valid = rand(seed, 2, 7, 8), rand(seed + 1, 2, 7, 8), rand(seed + 2, 2, 7, 8) < share
    value = loss_class()(prediction, label, valid)
    spoiled = torch.where(valid, prediction, junk).requires_grad_()
    spoiled_value = loss_class()(spoiled, torch.where(valid, label, -junk), valid)
    spoiled_value.backward()
    assert spoiled_value.item() == value.item()
    assert spoiled.grad is not None
    assert spoiled.grad.isfinite().all()
    assert not spoiled.grad[~valid].any()


@pytest.mark.parametrize("loss_class", LOSS_CLASSES)
@settings(deadline=None, max_examples=8)
@given(seed=SEEDS, share=st.floats(0.3, 1), height=st.integers(1, 4), width=st.integers(2, 5))
def test_a_losss_gradient_is_that_of_finite_differences(
    loss_class: type, seed: int, share: float, height: int, width: int
) -> None:
    prediction = (
        shuffled(seed, height * width).double().view(1, height, width)
    )  # apart, since |x| and medians have kinks
    prediction = (prediction + 0.3 * rand(seed, 1, height, width, dtype=torch.float64)).requires_grad_()
    label, valid = rand(seed + 1, 1, height, width, dtype=torch.float64), rand(seed + 2, 1, height, width) < share
    assert torch.autograd.gradcheck(lambda p: loss_class()(p, label, valid), prediction, eps=1e-7, atol=1e-4)


# The alignment


def aligned_error(
    source: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    error = scale[:, None, None] * source.double() + shift[:, None, None] - target.double()
    return (error.square() * valid).sum(dim=(1, 2))


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    scale=st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6),
    shift=st.floats(-100, 100),
    share=st.floats(0.3, 1),
)
def test_alignment_undoes_what_is_done_to_either_map(seed: int, scale: float, shift: float, share: float) -> None:
    source, target = rand(seed, 2, 6, 7, dtype=torch.float64), rand(seed + 1, 2, 6, 7, dtype=torch.float64)
    valid = rand(seed + 2, 2, 6, 7) < share
    a, b = align_scale_shift(source, target, valid)
    c, d = align_scale_shift((source + shift) * scale, target, valid)
    torch.testing.assert_close(c * scale, a, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(d + c * scale * shift, b, rtol=1e-8, atol=1e-8)
    c, d = align_scale_shift(source, (target + shift) * scale, valid)
    torch.testing.assert_close(c / scale, a, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(d / scale - shift, b, rtol=1e-8, atol=1e-8)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, step=st.floats(1e-4, 10), share=st.floats(0.1, 1))
def test_no_other_scale_and_shift_fit_better(seed: int, step: float, share: float) -> None:
    source, target, valid = rand(seed, 2, 6, 7), rand(seed + 1, 2, 6, 7), rand(seed + 2, 2, 6, 7) < share
    scale, shift = align_scale_shift(source, target, valid)
    best = aligned_error(source, target, valid, scale, shift)
    for scale_step, shift_step in [(step, 0), (-step, 0), (0, step), (0, -step), (step, -step), (-step, step)]:
        other = aligned_error(source, target, valid, scale + scale_step, shift + shift_step)
        assert (other >= best - 1e-12).all()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, junk=JUNK)
def test_order_and_what_a_mask_hides_do_not_matter_to_alignment(seed: int, junk: float) -> None:
    source, target, valid = rand(seed, 2, 1, 42), rand(seed + 1, 2, 1, 42), rand(seed + 2, 2, 1, 42) < 0.8
    wanted = align_scale_shift(source, target, valid)
    images, pixels = shuffled(seed, 2), shuffled(seed, 42)
    moved = align_scale_shift(*(map_[images][..., pixels] for map_ in (source, target, valid)))
    torch.testing.assert_close(moved, tuple(one[images] for one in wanted), rtol=1e-9, atol=1e-9)
    hidden = align_scale_shift(torch.where(valid, source, junk), torch.where(valid, target, -junk), valid)
    assert all(torch.equal(*pair) for pair in zip(hidden, wanted, strict=True))
    if not math.isfinite(junk):  # and needs no mask
        found = align_scale_shift(torch.where(valid, source, junk), target)
        assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, source_power=st.integers(-120, 127), target_power=st.integers(-120, 127), zeros=st.floats(0, 0.9))
def test_float32_maps_of_any_magnitude_are_aligned(
    seed: int, source_power: int, target_power: int, zeros: float
) -> None:
    source, target = rand(seed, 2, 6, 7), rand(seed + 1, 2, 6, 7)
    source[rand(seed + 2, 2, 6, 7) < zeros] = 0.0
    a, b = align_scale_shift(source, target)
    c, d = align_scale_shift(source * 2.0**source_power, target * 2.0**target_power)
    torch.testing.assert_close(c * 2.0 ** (source_power - target_power), a, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(d * 2.0**-target_power, b, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=8)
@given(seed=SEEDS, share=st.floats(0.3, 1))
def test_the_alignments_gradient_is_that_of_finite_differences(seed: int, share: float) -> None:
    maps = [rand(seed + part, 2, 3, 4, dtype=torch.float64).requires_grad_() for part in range(2)]
    valid = rand(seed + 2, 2, 3, 4) < share
    valid[:, 0, :2] = True  # with one pixel the source is constant
    assert torch.autograd.gradcheck(lambda *pair: align_scale_shift(*pair, valid), maps, eps=1e-7, atol=1e-4)
