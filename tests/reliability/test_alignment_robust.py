"""Alignment that a few wild pixels cannot move."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.reliability.alignment import align_robust, align_scale_shift


def related(seed: int, scale: float = 2.0, shift: float = 0.5, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A map of 30 x 40, and what it is after scale, shift and noise: [1,H,W] float64."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.rand(1, 30, 40, generator=generator, dtype=torch.float64)
    spread = noise * torch.randn(1, 30, 40, generator=generator, dtype=torch.float64)
    return source, scale * source + shift + spread


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    wild=st.floats(0, 0.19),
    size=st.sampled_from([0.3, 10.0, 1e4, 1e12, -1e30]),
    where=st.sampled_from(["source", "target"]),
)
def test_wild_pixels_do_not_move_it(seed: int, wild: float, size: float, where: str) -> None:
    source, target = related(seed)
    hit = torch.rand(source.shape, generator=torch.Generator().manual_seed(seed + 1)) < wild
    hit &= torch.cumsum(hit.flatten(), 0).view(hit.shape) <= 0.19 * hit.numel()
    damaged = {"source": source, "target": target}
    damaged[where] = torch.where(hit, damaged[where] + size, damaged[where])
    scale, shift = align_robust(damaged["source"], damaged["target"])
    assert (scale.item(), shift.item()) == pytest.approx((2.0, 0.5), abs=1e-6)


def test_least_squares_is_moved_by_one_of_them() -> None:
    source, target = related(0)
    target[0, 3, 4] = 1e6
    assert abs(align_scale_shift(source, target)[0].item() - 2) > 100
    assert align_robust(source, target)[0].item() == pytest.approx(2, abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_it_follows_scale_and_shift_of_noisy_maps(seed: int, scale: float, shift: float) -> None:
    source, target = related(seed, noise=0.1)
    first_scale, first_shift = align_robust(source, target)
    assert (first_scale.item(), first_shift.item()) == pytest.approx((2.0, 0.5), abs=0.1)
    second_scale, second_shift = align_robust(source, target * scale + shift)
    torch.testing.assert_close(second_scale, first_scale * scale, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(second_shift, first_shift * scale + shift, rtol=1e-6, atol=1e-6 * (abs(shift) + scale))
    mirrored, _ = align_robust(source, -target)
    assert mirrored.item() == pytest.approx(-2.0, abs=0.1)


def test_sky_that_fills_most_of_an_image_does_not_flatten_the_rest() -> None:
    source, target = related(1, shift=0.0)
    sky = torch.zeros_like(source, dtype=torch.bool)
    sky[:, :22] = True  # 73% of it
    source, target = torch.where(sky, 0.0, source), torch.where(sky, 0.0, target)
    assert align_robust(source, target)[0].item() == pytest.approx(2, abs=1e-9)


def test_sky_that_fills_nearly_all_of_it_keeps_the_first_slope() -> None:
    source, target = related(1, shift=0.0)
    source[:, :28], target[:, :28] = 0.0, 0.0  # 93%: the best four fifths hold no slope
    scale, shift = align_robust(source, target)
    assert scale.item() == pytest.approx(2, abs=1e-9) and shift.item() == pytest.approx(0, abs=1e-9)


def test_a_constant_source_gives_scale_0_and_the_median() -> None:
    target = torch.tensor([[[1.0, 2.0, 100.0]]])
    scale, shift = align_robust(torch.full((1, 1, 3), 0.1), target)
    assert (scale.item(), shift.item()) == (0.0, 2.0)


def test_only_finite_valid_pixels_count_and_without_any_the_map_stays() -> None:
    source, target = related(2)
    source[0, 0, 0], target[0, 0, 1] = torch.nan, torch.inf
    valid = torch.ones(source.shape, dtype=torch.bool)
    valid[:, 1:20], target[:, 1:20] = False, 77.0
    scale, shift = align_robust(source, target, valid)
    assert (scale.item(), shift.item()) == pytest.approx((2.0, 0.5), abs=1e-9)
    scale, shift = align_robust(source, target, torch.zeros_like(valid))
    assert (scale.item(), shift.item()) == (1.0, 0.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1)])
def test_a_few_pixels_are_enough(shape: tuple[int, int]) -> None:
    source = torch.arange(shape[0] * shape[1], dtype=torch.float64).view(1, *shape)
    scale, shift = align_robust(source, source * 3 + 1)
    torch.testing.assert_close(scale * source + shift, source * 3 + 1)


def test_an_image_has_the_same_bits_in_every_batch_and_with_any_number_of_threads() -> None:
    pairs = [related(seed, noise=0.2) for seed in range(3)]
    sources, targets = (torch.cat(maps) for maps in zip(*pairs, strict=True))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            scales, shifts = align_robust(sources, targets)
            for b, (source, target) in enumerate(pairs):
                alone = align_robust(source, target)
                assert (scales[b], shifts[b]) == (alone[0][0], alone[1][0])
            if threads == 1:
                first = scales.clone(), shifts.clone()
            assert torch.equal(scales, first[0]) and torch.equal(shifts, first[1])
    finally:
        torch.set_num_threads(before)
