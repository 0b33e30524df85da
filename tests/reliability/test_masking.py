"""Percentile thresholds from histograms, against counting pixels."""

import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.core.errors import UsageError
from depthsieve.reliability.masking import (
    drop_count,
    masked_counts,
    masked_share,
    scope_histogram,
    threshold_code,
    threshold_codes,
    train_mask,
)

DROPS = st.one_of(st.sampled_from([0, 0.1, 0.29, 0.5, 0.99]), st.floats(0, 0.999))
CODES = st.lists(st.integers(0, 255) | st.sampled_from([0, 3, 255]), min_size=1, max_size=60)


def histogram_of(codes: list[int]) -> np.ndarray:
    return np.bincount(codes, minlength=256).astype(np.uint32)


# How many pixels a fraction is


@pytest.mark.parametrize(
    ("drop", "n", "count"),
    [
        (0.29, 100, 29),
        (0.1, 10, 1),
        (0.57, 100, 57),
        (0.07, 100, 7),
        (0.1, 9, 0),
        (0, 5, 0),
        (0.1, 0, 0),
        (0.999, 1000, 999),
        (1e-7, 10**7, 1),
        (Decimal("0.3"), 10, 3),
        (Fraction(1, 3), 9, 3),
        (np.float32(0.1), 10, 1),
    ],
    ids=str,
)
def test_drop_means_the_decimal_that_it_is_written_as(drop: float, n: int, count: int) -> None:
    assert drop_count(drop, n) == count


@settings(deadline=None, max_examples=50)
@given(percent=st.integers(0, 99), n=st.integers(0, 10**9))
def test_a_percentage_is_counted_in_integers(percent: int, n: int) -> None:
    assert drop_count(percent / 100, n) == percent * n // 100


@pytest.mark.parametrize("drop", [1, 1.0, 1.5, -0.1, float("nan"), float("inf"), "a tenth", "0.1", None])
def test_other_drops_are_refused_by_value(drop: float) -> None:
    with pytest.raises(UsageError, match=f"drop must be .* not {drop!r}"):
        drop_count(drop, 10)


# Thresholds


@settings(deadline=None, max_examples=100)
@given(codes=CODES, drop=DROPS)
def test_the_threshold_is_the_largest_that_masks_no_more_than_drop(codes: list[int], drop: float) -> None:
    pixels = np.array(codes)
    valid = pixels[pixels > 0]
    allowed = drop_count(drop, len(valid))
    fitting = [t for t in range(1, 256) if np.count_nonzero(valid < t) <= allowed]
    assert threshold_code(histogram_of(codes), drop) == max(fitting)


@settings(deadline=None, max_examples=60)
@given(codes=CODES, t=st.integers(0, 256))
def test_the_share_is_what_the_mask_really_masks(codes: list[int], t: int) -> None:
    pixels = np.array(codes, dtype=np.uint8)
    mask = train_mask(pixels, t)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [code >= t and code > 0 for code in codes]
    valid = int(np.count_nonzero(pixels))
    masked = valid - int(mask.sum())
    assert masked_share(histogram_of(codes), t) == (masked / valid if valid else 0.0)


@settings(deadline=None, max_examples=60)
@given(many=st.lists(CODES, min_size=0, max_size=4), drop=DROPS, scale=st.sampled_from([1, 10**6, 2**40]))
def test_many_histograms_at_once_are_as_one_by_one(many: list[list[int]], drop: float, scale: int) -> None:
    histograms = np.array([histogram_of(codes).astype(np.int64) * scale for codes in many], np.int64).reshape(-1, 256)
    codes = threshold_codes(histograms, drop)
    assert codes.dtype == np.int16 and codes.tolist() == [threshold_code(one, drop) for one in histograms]
    masked, valid = masked_counts(histograms, codes)
    shares = [m / v if v else 0.0 for m, v in zip(masked.tolist(), valid.tolist(), strict=True)]
    assert shares == [masked_share(one, code) for one, code in zip(histograms, codes.tolist(), strict=True)]


def test_many_thresholds_count_exactly_where_floats_and_int64_do_not() -> None:
    """0.29 of 100 is 29; and the digits of this ``drop`` times the pixels do not fit into 64 bits."""
    histogram = np.zeros(256, np.int64)
    histogram[[3, 9, 200]] = 28, 1, 71
    assert threshold_codes(histogram[None], 0.29).tolist() == [200] == [threshold_code(histogram, 0.29)]
    assert threshold_codes(histogram[None] * 2**40, 0.29000000000000004).tolist() == [200]
    assert threshold_codes(histogram[None] * 2**40, float(np.nextafter(0.29, 0))).tolist() == [9]


def test_ten_percent_of_a_ramp() -> None:
    codes = np.arange(1, 201, dtype=np.uint8)
    t = threshold_code(histogram_of(codes.tolist()), 0.1)
    assert t == 21
    assert train_mask(codes, t).sum() == 180
    assert masked_share(histogram_of(codes.tolist()), t) == 0.1


def test_ties_are_kept_together_and_the_share_says_so() -> None:
    histogram = histogram_of([7] * 15 + [200] * 85)
    assert threshold_code(histogram, 0.10) == 7
    assert masked_share(histogram, 7) == 0.0
    assert threshold_code(histogram, 0.15) == 200
    assert masked_share(histogram, 200) == 0.15


def test_invalid_pixels_are_masked_and_not_counted() -> None:
    histogram = histogram_of([0] * 900 + [5] * 10 + [9] * 90)
    t = threshold_code(histogram, 0.1)
    assert (t, masked_share(histogram, t)) == (9, 0.1)
    assert train_mask(np.array([[0, 5], [9, 255]], dtype=np.uint8), t).tolist() == [[False, False], [True, True]]
    assert not train_mask(np.zeros((2, 2), dtype=np.uint8), 0).any()


@pytest.mark.parametrize(
    ("codes", "t"), [([0, 0], 255), ([255], 255), ([1], 1), ([1, 255], 1), ([40] * 9, 40)], ids=str
)
def test_histograms_at_the_edge(codes: list[int], t: int) -> None:
    assert threshold_code(histogram_of(codes), 0.1) == t
    assert masked_share(histogram_of(codes), t) == 0.0


def test_a_scope_adds_its_images_without_overflow() -> None:
    rows = np.zeros((3, 256), dtype=np.uint32)
    rows[:, 9] = 2**32 - 1
    total = scope_histogram(rows)
    assert total.dtype == np.int64
    assert total[9] == 3 * (2**32 - 1)
    assert scope_histogram(rows[0])[9] == 2**32 - 1
    assert scope_histogram(rows[:0]).tolist() == [0] * 256
    assert threshold_code(total, 0.1) == 9


def test_a_histogram_has_256_bins() -> None:
    with pytest.raises(UsageError, match=r"not shape \[255\]"):
        threshold_code(np.zeros(255), 0.1)
    with pytest.raises(UsageError, match=r"not shape \[2, 256\]"):
        masked_share(np.zeros((2, 256)), 3)


def test_many_histograms_have_256_bins_each() -> None:
    for shape in ((256,), (3, 255)):
        with pytest.raises(UsageError, match="256 bins a row"):
            threshold_codes(np.zeros(shape), 0.1)
        with pytest.raises(UsageError, match="256 bins a row"):
            masked_counts(np.zeros(shape), np.ones(3))


def test_masking_needs_no_torch() -> None:
    code = "import sys, depthsieve.reliability.masking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
