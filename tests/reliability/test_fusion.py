"""Relative errors, their fusion into one expected error, and calibrations."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthsieve.core.errors import UsageError
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.fusion import Calibration, fuse, near_level, relative_error, shipped_calibration
from depthsieve.teachers import load_teacher

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
    assert encode_error(e, version=1).tolist() == [[[0, 1]]]


def test_pixels_that_are_not_finite_are_invalid_and_disturb_no_other() -> None:
    depth = torch.tensor([[[1.0, 2.0, 3.0, math.nan, math.inf, 3.0, 1.0]]])
    delta = torch.tensor([[[0.3, 0.4, 0.5, 0.1, 0.1, math.nan, math.inf]]])
    e = relative_error(depth, delta)
    assert e[0, 0, :3].tolist() == pytest.approx([0.3 / 3, 0.4 / 4, 0.5 / 5])  # the median of 1 1 2 3 3 is 2
    assert encode_error(e, version=1)[0, 0, 3:].tolist() == [0, 0, 0, 0]
    assert encode_error(relative_error(torch.full((1, 2, 2), math.nan), torch.zeros(1, 2, 2)), version=1).sum() == 0


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_the_relative_error_does_not_depend_on_the_unit(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    depth, delta = torch.rand(2, 1, 6, 6, generator=generator)
    torch.testing.assert_close(
        relative_error(depth * scale, delta * scale), relative_error(depth, delta), rtol=1e-5, atol=0
    )


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
    assert calibration.fitted_on == (load_teacher("tiny-v1").weights_digest,)


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
