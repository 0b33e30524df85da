"""The uint8 code of expected errors, and its histogram."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.reliability.code import decode_error, encode_error, histogram
from depthsieve.reliability.masking import masked_share, threshold_code
from depthsieve.reliability.scale import SCALES


def formula(e: float) -> int:
    """The code as the design writes it, with logarithms and Python's round."""
    if e == 0:
        return 255
    return 1 + round(254 * min(max(math.log(1 / e) / math.log(1e4), 0.0), 1.0))


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
    assert encode_error(torch.tensor([[errors]]), version=1).tolist() == [[[code] * len(errors)]]


@settings(deadline=None, max_examples=40)
@given(e=st.floats(2**-20, 3.0, width=32))
def test_the_code_is_the_rounded_logarithm(e: float) -> None:
    step = 254 * math.log(1 / e) / math.log(1e4)
    if abs(step % 1 - 0.5) > 1e-4:  # nearer to a threshold the logarithm's own rounding decides
        assert encode_error(torch.tensor([e]), version=1).item() == formula(e)


def test_the_code_steps_exactly_at_its_thresholds() -> None:
    for half in range(1, 255):  # codes half and half + 1 meet here
        threshold = np.float32(10.0 ** (-4 * (half - 0.5) / 254))
        around = np.array([np.nextafter(threshold, np.float32(0)), threshold, np.nextafter(threshold, np.float32(2))])
        assert encode_error(torch.from_numpy(around), version=1).tolist() == [half + 1, half + 1, half], half


def test_every_float32_pattern_of_the_upper_bits_is_coded_like_the_formula() -> None:
    starts = (np.arange(0x2000, 0x4100, dtype=np.int32) << 16 | 0x1234).view(np.float32)
    codes = encode_error(torch.from_numpy(starts), version=1).tolist()
    assert codes == [formula(float(e)) for e in starts]


def test_the_code_never_rises_with_the_error() -> None:
    e = torch.logspace(-6, 1, 20_000)
    codes = encode_error(e, version=1).int()
    assert (codes.diff() <= 0).all()
    assert sorted(set(codes.tolist())) == list(range(1, 256))


def test_invalid_pixels_get_0_and_valid_ones_never_do() -> None:
    e = torch.tensor([[[0.0, 0.5, 5.0, math.nan]]])
    valid = torch.tensor([[[False, True, True, True]]])
    codes = encode_error(e, valid, version=1)
    assert codes.dtype == torch.uint8
    assert codes.tolist() == [[[0, 20, 1, 0]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_rounded_to_float32_first(dtype: torch.dtype) -> None:
    e = torch.logspace(-4, 0, 300).to(dtype)
    assert torch.equal(encode_error(e, version=1), encode_error(e.float(), version=1))


def test_memory_order_does_not_matter() -> None:
    e = torch.logspace(-5, 0.5, 24).view(1, 4, 6)
    assert torch.equal(encode_error(e.transpose(1, 2), version=1), encode_error(e, version=1).transpose(1, 2))
    assert encode_error(torch.zeros(0, 4, 6), version=1).shape == (0, 4, 6)


def test_decoding_gives_the_middle_of_the_bin_and_encoding_brings_it_back() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    e = decode_error(codes, version=1)
    assert e.dtype == torch.float32
    assert math.isnan(e[0])
    assert e[1] == 1.0
    assert e[128].item() == pytest.approx(1e-2, rel=1e-6)
    assert e[255].item() == pytest.approx(1e-4, rel=1e-6)
    assert torch.equal(encode_error(e, version=1), codes)


def test_the_codes_of_an_error_never_change() -> None:
    """Labels in stores were made with these numbers."""
    e = torch.tensor([3e-4, 1.7e-3, 0.031, 0.11, 0.62])
    assert encode_error(e, version=1).tolist() == [225, 177, 97, 62, 14]


# The second version


def test_the_first_scale_is_to_the_bit_what_it_was() -> None:
    halves = np.arange(254, 0, -1) - 0.5
    before = (1e4 ** (-halves / 254)).astype(np.float32)
    assert (np.array([SCALES[1].error(half + 1) for half in halves]).astype(np.float32) == before).all()
    assert SCALES[1].formula == "10000 ** (-(code - 1) / 254)"


def test_the_formula_of_each_scale_is_what_its_codes_decode_to() -> None:
    code = np.arange(1, 256)
    for version, scale in SCALES.items():
        names = {"code": code, "exp": np.exp, "log": np.log, "interp": np.interp}
        stated = eval(scale.formula, names)  # as a reader without our code computes it
        decoded = decode_error(torch.arange(1, 256, dtype=torch.uint8), version=version)
        np.testing.assert_allclose(decoded.numpy(), stated, rtol=1e-6)
        assert (np.diff(decoded.numpy()) < 0).all()


def test_codes_of_the_second_scale_step_between_their_neighbours() -> None:
    codes = torch.arange(1, 256, dtype=torch.uint8)
    e = decode_error(codes, version=2)
    assert torch.equal(encode_error(e, version=2), codes)
    for code in range(1, 255):
        middle = np.float32(SCALES[2].error(code + 0.5))
        around = np.array([np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(2))])
        assert encode_error(torch.from_numpy(around), version=2).tolist() == [code + 1, code + 1, code], code
    assert encode_error(torch.tensor([0.0, 1e-9, 1.0, 9.0, math.inf, math.nan]), version=2).tolist() == [
        *(255, 255, 1, 1, 1, 0)
    ]


def test_the_codes_of_an_error_never_change_in_the_second_version_either() -> None:
    e = torch.tensor([3e-3, 1.2e-2, 0.031, 0.062, 0.11, 0.29, 0.62])
    assert encode_error(e, version=2).tolist() == [252, 244, 222, 191, 136, 44, 6]


def test_a_mask_of_10_percent_falls_short_by_less_than_half_a_percent() -> None:
    """Over images whose expected errors spread as those of photos do: medians of 0.02 to 0.2, and a standard deviation
    of their logarithm of 0.25 to 0.5. With the first scale it is nearly twice as much."""
    generator = np.random.default_rng(0)
    short = {1: [], 2: []}
    for median in (0.02, 0.04, 0.07, 0.1, 0.14, 0.2):
        for spread in (0.25, 0.35, 0.5):
            e = torch.from_numpy(median * np.exp(spread * generator.standard_normal(50_000))).float()
            for version, found in short.items():
                count_K = np.bincount(encode_error(e, version=version).numpy(), minlength=256)
                found.append(0.1 - masked_share(count_K, threshold_code(count_K, 0.1)))
    assert np.mean(short[2]) < 0.005 and np.mean(short[1]) > 1.5 * np.mean(short[2])


# The histogram


def test_the_histogram_counts_each_image() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 256, (3, 20, 30), generator=generator, dtype=torch.uint8)
    counted = histogram(codes)
    assert counted.dtype == torch.int64
    expected = [[int((image == code).sum()) for code in range(256)] for image in codes]
    assert counted.tolist() == expected
    assert histogram(codes[:0]).shape == (0, 256)
