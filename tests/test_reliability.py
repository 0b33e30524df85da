"""Disagreement, expected error and its uint8 code."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.errors import UsageError
from depthsieve.reliability import (
    decode_error,
    encode_error,
    flip_disagreement,
    histogram,
    lowres_disagreement,
    lowres_view,
    relative_error,
)


def formula(e: float) -> int:
    """The code as the design writes it, with logarithms and Python's round."""
    if e == 0:
        return 255
    return 1 + round(254 * min(max(math.log(1 / e) / math.log(1e4), 0.0), 1.0))


# The code


@pytest.mark.parametrize(
    ("code", "errors"),
    [
        (255, [0.0, -0.0, 1e-45, 1e-9, 1e-4]),
        (128, [1e-2]),
        (1, [1.0, 2.0, math.inf]),
        (0, [math.nan, -0.5, -math.inf]),
    ],
)
def test_fixed_points_of_the_code(code: int, errors: list[float]) -> None:
    assert encode_error(torch.tensor([[errors]])).tolist() == [[[code] * len(errors)]]


@settings(deadline=None, max_examples=40)
@given(e=st.floats(2**-20, 3.0, width=32))
def test_the_code_is_the_rounded_logarithm(e: float) -> None:
    step = 254 * math.log(1 / e) / math.log(1e4)
    if abs(step % 1 - 0.5) > 1e-4:  # nearer to a threshold the logarithm's own rounding decides
        assert encode_error(torch.tensor([e])).item() == formula(e)


def test_the_code_steps_exactly_at_its_thresholds() -> None:
    for half in range(1, 255):  # codes half and half + 1 meet here
        threshold = np.float32(10.0 ** (-4 * (half - 0.5) / 254))
        around = np.array([np.nextafter(threshold, np.float32(0)), threshold, np.nextafter(threshold, np.float32(2))])
        assert encode_error(torch.from_numpy(around)).tolist() == [half + 1, half + 1, half], half


def test_every_float32_pattern_of_the_upper_bits_is_coded_like_the_formula() -> None:
    starts = (np.arange(0x2000, 0x4100, dtype=np.int32) << 16 | 0x1234).view(np.float32)
    codes = encode_error(torch.from_numpy(starts)).tolist()
    assert codes == [formula(float(e)) for e in starts]


def test_the_code_never_rises_with_the_error() -> None:
    e = torch.logspace(-6, 1, 20_000)
    codes = encode_error(e).int()
    assert (codes.diff() <= 0).all()
    assert sorted(set(codes.tolist())) == list(range(1, 256))


def test_invalid_pixels_get_0_and_valid_ones_never_do() -> None:
    e = torch.tensor([[[0.0, 0.5, 5.0, math.nan]]])
    valid = torch.tensor([[[False, True, True, True]]])
    codes = encode_error(e, valid)
    assert codes.dtype == torch.uint8
    assert codes.tolist() == [[[0, 20, 1, 0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_rounded_to_float32_first(dtype: torch.dtype) -> None:
    e = torch.logspace(-4, 0, 300).to(dtype)
    assert torch.equal(encode_error(e), encode_error(e.float()))


def test_memory_order_does_not_matter() -> None:
    e = torch.logspace(-5, 0.5, 24).view(1, 4, 6)
    assert torch.equal(encode_error(e.transpose(1, 2)), encode_error(e).transpose(1, 2))
    assert encode_error(torch.zeros(0, 4, 6)).shape == (0, 4, 6)


def test_decoding_gives_the_middle_of_the_bin_and_encoding_brings_it_back() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    e = decode_error(codes)
    assert e.dtype == torch.float32
    assert math.isnan(e[0])
    assert e[1] == 1.0
    assert e[128].item() == pytest.approx(1e-2, rel=1e-6)
    assert e[255].item() == pytest.approx(1e-4, rel=1e-6)
    assert torch.equal(encode_error(e), codes)


def test_the_codes_of_an_error_never_change() -> None:
    """Labels in stores were made with these numbers."""
    e = torch.tensor([3e-4, 1.7e-3, 0.031, 0.11, 0.62])
    assert encode_error(e).tolist() == [225, 177, 97, 62, 14]


# The histogram


def test_the_histogram_counts_each_image() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (3, 20, 30), generator=generator, dtype=torch.uint8)
    counted = histogram(codes)
    assert counted.dtype == torch.int64
    expected = [[int((image == code).sum()) for code in range(256)] for image in codes]
    assert counted.tolist() == expected
    assert histogram(codes[:0]).shape == (0, 256)


# Relative error


def test_the_relative_error_is_relative_to_label_and_median() -> None:
    depth = torch.tensor([[[1.0, 2.0], [4.0, 3.0]]])  # the lower of the middle values 2 and 3
    delta = torch.tensor([[[0.3, -0.4], [0.6, 0.0]]])
    e = relative_error(depth, delta)
    assert e.dtype == torch.float32
    assert e.flatten().tolist() == pytest.approx([0.1, 0.1, 0.1, 0.0])


def test_where_most_is_sky_the_denominator_is_a_tenth_of_the_mean() -> None:
    depth = torch.zeros(1, 1, 10)
    depth[..., 0] = 5.0  # median 0, mean 0.5, floor 0.05
    e = relative_error(depth, torch.full_like(depth, 0.01))
    assert e.flatten().tolist() == pytest.approx([0.01 / 5] + [0.2] * 9)


def test_the_floor_is_taken_over_finite_pixels() -> None:
    depth = torch.tensor([[[5.0, 0.0, 0.0, 0.0, 0.0, math.nan, math.nan, math.nan, math.nan, math.inf]]])
    e = relative_error(depth, torch.full_like(depth, 0.01))  # mean 1, floor 0.1
    assert e[0, 0, :5].tolist() == pytest.approx([0.01 / 5] + [0.1] * 4)


def test_the_floor_holds_for_negative_labels_too() -> None:
    depth = torch.tensor([[[-1.0, -1.0, 2.0]]])  # median -1: the sums are -2, -2, 1; the mean magnitude is 4/3
    e = relative_error(depth, torch.full_like(depth, 0.1))
    assert e.flatten().tolist() == pytest.approx([0.75, 0.75, 0.1])


def test_a_map_of_nothing_but_0_is_invalid_or_all_wrong() -> None:
    e = relative_error(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 1e-3]]]))
    assert encode_error(e).tolist() == [[[0, 1]]]


def test_pixels_that_are_not_finite_are_invalid_and_disturb_no_other() -> None:
    depth = torch.tensor([[[1.0, 2.0, 3.0, math.nan, math.inf, 3.0, 1.0]]])
    delta = torch.tensor([[[0.3, 0.4, 0.5, 0.1, 0.1, math.nan, math.inf]]])
    e = relative_error(depth, delta)
    assert e[0, 0, :3].tolist() == pytest.approx([0.3 / 3, 0.4 / 4, 0.5 / 5])  # the median of 1 1 2 3 3 is 2
    assert encode_error(e)[0, 0, 3:].tolist() == [0, 0, 0, 0]
    assert encode_error(relative_error(torch.full((1, 2, 2), math.nan), torch.zeros(1, 2, 2))).sum() == 0


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_the_relative_error_does_not_depend_on_the_unit(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    depth, delta = torch.rand(2, 1, 6, 6, generator=generator)
    torch.testing.assert_close(
        relative_error(depth * scale, delta * scale), relative_error(depth, delta), rtol=1e-5, atol=0
    )


# Flip disagreement


def test_a_teacher_that_mirrors_exactly_does_not_disagree_with_itself() -> None:
    depth = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    assert flip_disagreement(depth, depth.flip(-1), "depth").tolist() == torch.zeros(2, 5, 7).tolist()


def test_disparity_is_aligned_by_scale_and_shift_and_depth_is_not() -> None:
    depth = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1))
    flipped = (depth * 3 + 2).flip(-1)
    assert flip_disagreement(depth, flipped, "disparity").max() < 1e-6
    torch.testing.assert_close(flip_disagreement(depth, flipped, "depth"), depth * 2 + 2)


def test_the_disagreement_lies_where_the_label_does() -> None:
    depth = torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(2))
    flipped = depth.flip(-1).clone()
    flipped[0, 4, 0] += 1.0  # column 0 of the mirrored image is the last of the label
    delta = flip_disagreement(depth, flipped, "disparity")
    assert delta.argmax().item() == 4 * 40 + 39
    assert delta[0, 4, 39] > 0.9
    assert delta.median() < 0.01


def test_a_disagreement_that_is_not_finite_codes_as_invalid() -> None:
    depth = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(3)) + 1
    flipped = (depth + 0.01).flip(-1).clone()
    flipped[0, 0, 5], flipped[0, 1, 5] = math.nan, math.inf
    codes = encode_error(relative_error(depth, flip_disagreement(depth, flipped, "disparity")))
    assert codes[0, :2, 0].tolist() == [0, 0]
    assert (codes == 0).sum() == 2


def test_an_image_has_the_same_bytes_in_every_batch() -> None:
    generator = torch.Generator().manual_seed(4)
    depth, noise = torch.rand(2, 4, 60, 70, generator=generator)
    flipped = (depth + 0.1 * noise).flip(-1)
    flipped[3] = torch.nan  # a broken neighbour

    def codes(part: slice) -> torch.Tensor:
        delta = flip_disagreement(depth[part], flipped[part], "disparity")
        return encode_error(relative_error(depth[part], delta))

    whole = codes(slice(0, 4))
    for b in range(3):
        assert torch.equal(whole[b : b + 1], codes(slice(b, b + 1)))


# Disagreement at half the resolution


def ramp(height: int, width: int) -> torch.Tensor:
    """A map that is linear in the pixel's centre, whatever its resolution: [1,H,W]."""
    y_H, x_W = ((torch.arange(side) + 0.5) / side for side in (height, width))
    return (1 + y_H[:, None] + 2 * x_W)[None]


def test_the_lowres_view_is_small_and_mirrored() -> None:
    image_1CHW = ramp(28, 42)[:, None].expand(1, 3, 28, 42)
    view_1Chw = lowres_view(image_1CHW, (14, 21))
    assert view_1Chw.shape == (1, 3, 14, 21)
    torch.testing.assert_close(
        view_1Chw[:, :, 2:-2, 2:-2], ramp(14, 21).flip(-1)[:, None, 2:-2, 2:-2].expand(1, 3, 10, 17)
    )


def test_a_teacher_that_sees_the_same_at_half_the_size_does_not_disagree() -> None:
    lowres = ramp(14, 21).flip(-1)
    inner = (0, slice(2, -2), slice(2, -2))  # the enlargement cannot know what lies beyond the border
    assert lowres_disagreement(ramp(28, 42), lowres, "depth")[inner].max() < 1e-5
    assert lowres_disagreement(ramp(28, 42), lowres * 3 + 1, "disparity")[inner].max() < 0.02
    assert lowres_disagreement(ramp(28, 42), lowres * 3 + 1, "depth")[inner].min() > 1


def test_the_lowres_disagreement_lies_where_the_label_does() -> None:
    lowres = ramp(14, 21).flip(-1).clone()
    lowres[0, 3, 0] += 5.0  # the mirrored view's first column is the label's last two
    delta = lowres_disagreement(ramp(28, 42), lowres, "depth")
    row, column = divmod(int(delta.argmax()), 42)
    assert row in (6, 7) and column in (40, 41)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="2 labels and 1 predictions to compare"):
        lowres_disagreement(torch.zeros(2, 4, 4), torch.zeros(1, 2, 2), "depth")
    with pytest.raises(UsageError, match="'metres'"):
        flip_disagreement(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), "metres")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one shape"):
        flip_disagreement(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3), "depth")
    with pytest.raises(UsageError, match="one shape"):
        relative_error(torch.zeros(2, 2), torch.zeros(2, 2))
