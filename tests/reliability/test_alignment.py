"""Scale and shift between maps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.core.errors import UsageError
from depthsieve.reliability.alignment import align_scale_shift, apply_scale_shift, is_finite, sum_map


def random_maps(seed: int, shape: tuple[int, ...] = (3, 7, 11)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def test_an_exact_affine_relation_is_recovered() -> None:
    source, _ = random_maps(0)
    scales, shifts = torch.tensor([2.0, -0.5, 1e-3]), torch.tensor([0.25, 3.0, -7.0])
    target = source.double() * scales[:, None, None] + shifts[:, None, None]
    scale, shift = align_scale_shift(source, target)
    assert scale.dtype == shift.dtype == torch.float64
    torch.testing.assert_close(scale, scales.double(), rtol=1e-12, atol=0)
    torch.testing.assert_close(shift, shifts.double(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(apply_scale_shift(source.double(), scale, shift), target, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), keep=st.floats(0.2, 1.0))
def test_it_is_numpys_least_squares_over_the_valid_pixels(seed: int, keep: float) -> None:
    source, target = random_maps(seed)
    valid = torch.rand(source.shape, generator=torch.Generator().manual_seed(seed + 1)) < keep
    scale, shift = align_scale_shift(source, target, valid)
    for b in range(len(source)):
        columns = np.stack([source[b][valid[b]].numpy(), np.ones(int(valid[b].sum()))], axis=1).astype(np.float64)
        expected, *_ = np.linalg.lstsq(columns, target[b][valid[b]].double().numpy(), rcond=None)
        assert [scale[b].item(), shift[b].item()] == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-9)


def test_a_large_offset_costs_no_accuracy() -> None:
    _, target = random_maps(1, (1, 9, 9))
    source = target.double() * 1e-3 + 1e6
    scale, shift = align_scale_shift(source, target)
    torch.testing.assert_close(apply_scale_shift(source, scale, shift), target.double(), rtol=0, atol=1e-5)


def test_pixels_that_are_not_finite_or_not_valid_do_not_count() -> None:
    source, target = random_maps(2, (1, 4, 4))
    want = align_scale_shift(source[:, :, :3], target[:, :, :3])
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[:, 0, 3] = False
    source[0, 1, 3], source[0, 2, 3], target[0, 3, 3] = torch.nan, -torch.inf, torch.nan
    got = align_scale_shift(source, target, valid)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -4e5])
def test_a_constant_source_gives_scale_0_and_the_mean(value: float) -> None:
    source = torch.full((1, 13, 17), value, dtype=torch.float64)  # whose computed mean is not always the value
    _, target = random_maps(3, (1, 13, 17))
    scale, shift = align_scale_shift(source, target)
    assert scale.tolist() == [0.0]
    assert shift.item() == pytest.approx(target.double().mean().item(), rel=1e-12)


def test_without_a_valid_pixel_the_map_stays_as_it_is() -> None:
    source, target = random_maps(4, (2, 3, 3))
    scale, shift = align_scale_shift(source, target, torch.zeros(2, 3, 3, dtype=torch.bool))
    assert scale.tolist() == [1.0, 1.0]
    assert shift.tolist() == [0.0, 0.0]


def test_a_sum_has_the_same_bits_with_any_number_of_threads() -> None:
    # Doubles of many magnitudes: the order of their sum shows in its last bits.
    maps = torch.randn((4, 200, 300), generator=torch.Generator().manual_seed(5)).double() ** 3
    threads = torch.get_num_threads()
    sums = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            sums.append([sum_map(map_HW).item() for map_HW in maps])
    finally:
        torch.set_num_threads(threads)
    assert sums[0] == sums[1] == sums[2]


def test_an_image_has_the_same_bits_in_every_batch() -> None:
    source, target = torch.randn((2, 4, 20, 30), generator=torch.Generator().manual_seed(6)) ** 3
    whole = torch.stack(align_scale_shift(source, target))
    alone = [torch.stack(align_scale_shift(source[b : b + 1], target[b : b + 1])) for b in range(4)]
    assert torch.equal(whole, torch.cat(alone, dim=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_applying_keeps_the_dtype(dtype: torch.dtype) -> None:
    source = torch.arange(6, dtype=dtype).view(1, 2, 3)
    aligned = apply_scale_shift(source, torch.tensor([2.0]), torch.tensor([-1.0]))
    assert aligned.dtype == dtype
    assert aligned.flatten().tolist() == [-1.0, 1.0, 3.0, 5.0, 7.0, 9.0]


def test_the_result_is_rounded_once() -> None:
    above_1 = torch.tensor([1 + 2**-12])
    aligned = apply_scale_shift(above_1[:, None, None], above_1, torch.tensor([-1.0]))
    assert aligned.item() == 2**-11 + 2**-24  # float32 would lose the last term in the product


def test_is_finite_is_torchs() -> None:
    values = torch.tensor([0.0, -1.0, torch.inf, -torch.inf, torch.nan, 3e38])
    assert torch.equal(is_finite(values), torch.isfinite(values))


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 4), (1, 4, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"source_BHW \[1, 3, 4\], target_BHW"):
        align_scale_shift(torch.zeros(1, 3, 4), torch.zeros(shape))
    with pytest.raises(UsageError, match=r"valid_BHW"):
        align_scale_shift(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4), torch.ones(shape, dtype=torch.bool))


def test_an_empty_batch_gives_nothing() -> None:
    scale, shift = align_scale_shift(torch.zeros(0, 3, 4), torch.zeros(0, 3, 4))
    assert scale.shape == shift.shape == (0,)
