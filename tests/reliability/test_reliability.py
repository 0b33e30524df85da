"""Disagreement, expected error and its uint8 code."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.core.errors import UsageError
from depthsieve.reliability.code import decode_error, encode_error, histogram
from depthsieve.reliability.fusion import Calibration, fuse, near_level, relative_error, shipped_calibration
from depthsieve.reliability.signals import (
    edges_disagreement,
    flip_disagreement,
    lowres_disagreement,
    lowres_view,
    native_disagreement,
    photometric_disagreement,
    photometric_view,
    teachers_disagreement,
)
from depthsieve.teachers import load_teacher


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


# Other views, another teacher, and the map itself


def test_the_photometric_view_is_mild_and_the_same_for_every_image() -> None:
    images_BCHW = torch.randn(3, 3, 40, 50, generator=torch.Generator().manual_seed(7))
    view_BCHW = photometric_view(images_BCHW)
    assert torch.equal(view_BCHW[1:2], photometric_view(images_BCHW[1:2]))
    off_BCHW = view_BCHW - images_BCHW
    assert 0.1 < off_BCHW.std() < 0.2  # of colours whose deviation is 1
    gain_C = [
        float((view[:] * image).sum() / (image * image).sum())
        for view, image in zip(view_BCHW.transpose(0, 1), images_BCHW.transpose(0, 1), strict=True)
    ]
    assert gain_C == pytest.approx([1.1, 1.0, 0.9], abs=0.02)


def test_the_photometric_disagreement_is_not_mirrored() -> None:
    depth = torch.rand(1, 6, 8, generator=torch.Generator().manual_seed(0))
    other = depth.clone()
    other[0, 2, 1] += 1
    delta = photometric_disagreement(depth, other, "depth")
    assert delta.flatten().argmax().item() == 2 * 8 + 1
    assert photometric_disagreement(depth, depth * 2 + 1, "disparity").max() < 1e-6


def test_a_second_teacher_is_compared_in_the_labels_quantity_and_size() -> None:
    depth = ramp(28, 42)
    assert teachers_disagreement(depth, ramp(28, 42) * 5 - 1, "disparity", "disparity").max() < 1e-5
    assert teachers_disagreement(depth, 1 / ramp(28, 42), "disparity", "depth").max() < 1e-5
    metres = teachers_disagreement(depth, depth + 0.5, "depth", "depth")
    torch.testing.assert_close(metres, torch.full_like(depth, 0.5))
    coarse = teachers_disagreement(depth, ramp(14, 21), "disparity", "disparity")
    assert coarse[:, 2:-2, 2:-2].max() < 0.02
    with pytest.raises(UsageError, match="name a metric one"):
        teachers_disagreement(depth, depth, "depth", "disparity")


def test_a_second_teachers_depth_of_nothing_is_no_disparity() -> None:
    depth = ramp(8, 8)
    other = (1 / ramp(8, 8)).clone()
    other[0, 0, 0] = 0.0
    delta = teachers_disagreement(depth, other, "disparity", "depth")
    assert delta[0, 0, 0].isnan() and delta.isnan().sum() == 1


def test_confidence_is_turned_the_right_way() -> None:
    depth = torch.full((1, 1, 4), 2.0)
    confidence = torch.tensor([[[1.0, 4.0, 0.0, math.nan]]])
    higher, lower = (native_disagreement(depth, confidence, better).flatten() for better in ("higher", "lower"))
    assert higher[:3].tolist() == [2.0, 0.5, math.inf] and higher[3].isnan()
    assert lower[:3].tolist() == [2.0, 8.0, 0.0] and lower[3].isnan()
    with pytest.raises(UsageError, match="'up'"):
        native_disagreement(depth, confidence, "up")  # type: ignore[arg-type]


def test_edges_are_what_is_within_reach() -> None:
    depth = torch.ones(1, 21, 40)
    depth[:, :, 20:] = 3.0  # one step of 2
    row = edges_disagreement(depth)[0, 10]
    assert row[[19, 18, 17, 16, 15, 12, 11]].tolist() == [2.0, 1.5, 1.0, 1.0, 0.5, 0.5, 0.0]
    assert torch.equal(row, row.flip(0))
    assert torch.equal(edges_disagreement(depth.transpose(1, 2)), edges_disagreement(depth).transpose(1, 2))


# Fusion


def weights(**rows: dict[str, float]) -> Calibration:
    return Calibration("9", ("ab",), {"disparity": {name.replace("_", "+"): row for name, row in rows.items()}})


def test_the_expected_error_is_a_power_law_of_level_and_patch_means() -> None:
    generator = torch.Generator().manual_seed(0)
    depth, flip, edges = torch.rand(3, 1, 20, 30, generator=generator) + torch.tensor([0.5, 0, 0]).view(3, 1, 1, 1)
    calibration = weights(edges_flip={"constant": -1.0, "level": -0.5, "flip": 0.4, "edges": 0.3})
    got = fuse(depth, {"flip": flip, "edges": edges}, "disparity", calibration)[0]
    middle = float(depth.flatten().sort().values[(600 - 1) // 2])

    def around(map_HW: torch.Tensor, y: int, x: int) -> float:
        return float(map_HW[max(0, y - 7) : y + 8, max(0, x - 7) : x + 8].double().mean())

    for y, x in [(0, 0), (10, 15), (19, 3)]:
        d = float(depth[0, y, x])
        level = d / (d + middle)
        expected = math.exp(-1.0) * (level + 0.02) ** -0.5 * (around(flip[0], y, x) + 1e-3) ** 0.4
        expected *= (around(edges[0], y, x) + 1e-3) ** 0.3
        assert float(got[y, x]) == pytest.approx(expected, rel=1e-4)


def test_near_is_near_in_metres_as_in_disparity() -> None:
    disparity = torch.tensor([[[0.1, 0.5, 2.0]]])
    near = near_level(disparity, "disparity")
    torch.testing.assert_close(near, near_level(1 / disparity, "depth"))
    assert near.flatten().tolist() == pytest.approx([0.1 / 0.6, 0.5, 2.0 / 2.5])


def test_what_is_not_finite_gets_no_expected_error_and_spoils_no_neighbour() -> None:
    depth = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0)) + 1
    flip = torch.full((1, 20, 20), 0.1)
    flip[0, 5, 5] = math.nan
    e = fuse(depth, {"flip": flip}, "disparity", shipped_calibration())
    assert e[0, 5, 5].isnan() and e.isnan().sum() == 1
    clean = fuse(depth, {"flip": torch.full_like(flip, 0.1)}, "disparity", shipped_calibration())
    torch.testing.assert_close(e[~e.isnan()], clean[~e.isnan()])


def test_an_image_has_the_same_expected_error_in_every_batch() -> None:
    generator = torch.Generator().manual_seed(4)
    depth, flip = torch.rand(2, 4, 60, 70, generator=generator)
    whole = fuse(depth, {"flip": flip}, "disparity", shipped_calibration())
    for b in range(4):
        alone = fuse(depth[b : b + 1], {"flip": flip[b : b + 1]}, "disparity", shipped_calibration())
        assert torch.equal(whole[b : b + 1], alone)
    assert fuse(depth[:0], {"flip": flip[:0]}, "disparity", shipped_calibration()).shape == (0, 60, 70)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-2, 1e2))
def test_the_expected_error_knows_no_unit_and_grows_with_disagreement(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    depth, delta = torch.rand(2, 1, 12, 16, generator=generator) + 0.1

    def expected(depth: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        return fuse(depth, {"flip": relative_error(depth, delta)}, "disparity", shipped_calibration())

    e = expected(depth, delta)
    torch.testing.assert_close(expected(depth * scale, delta * scale), e, rtol=1e-4, atol=0)
    assert (expected(depth, delta * 2) > e).all()


def test_the_shipped_calibration_knows_every_combination_and_no_signal_lowers_the_error() -> None:
    names = ["edges", "flip", "lowres", "photometric", "teachers"]
    every = {"+".join(some) for count in range(1, 6) for some in itertools.combinations(names, count)}
    calibration = shipped_calibration()
    assert calibration.weights.keys() == {"disparity", "depth"}
    for table in calibration.weights.values():
        assert table.keys() == every
        assert all(row[name] >= 0 for key, row in table.items() for name in key.split("+"))
        assert all(row["level"] < 0 for row in table.values())  # far is less certain than near
    assert calibration.fitted_on == (load_teacher("tiny").weights_digest,)


def test_what_codes_mean_never_changes_under_one_version() -> None:
    """Labels in stores were made with it: other weights, floors or windows need another version."""
    calibration = shipped_calibration()
    assert (calibration.version, calibration.digest[:12]) == ("2", "125eabe19125")


def test_calibrations_are_named_by_signals_and_marked_where_they_were_not_fitted() -> None:
    calibration = weights(flip={"constant": 0, "level": 0, "flip": 1})
    assert calibration.name((), "ab") == "none"
    assert calibration.name(("lowres", "flip"), "ab") == "flip+lowres-9"
    assert calibration.name(("flip",), "cd") == "flip-9-transferred"
    with pytest.raises(UsageError, match=r"calibration 9 was not fitted for disparity with signals edges"):
        calibration.weights_of("disparity", ["edges"])
    with pytest.raises(UsageError, match="not fitted for depth with signals flip"):
        calibration.weights_of("depth", ["flip"])


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"version": "1", "fitted_on": []},
        {"version": "1", "fitted_on": [], "weights": {"disparity": {"flip": 3}}},
        {"version": "1", "fitted_on": [], "weights": {"disparity": {"flip": {"constant": 1, "level": 0}}}},
        {"version": "1", "fitted_on": [], "weights": {"depth": {"flip": {"constant": 1, "level": 0, "flip": "nan"}}}},
    ],
)
def test_a_file_that_is_no_calibration_is_refused_by_its_name(body: object) -> None:
    with pytest.raises(UsageError, match=r"mine\.json"):
        Calibration.from_json(body, "mine.json")
