"""The table from a teacher's own confidence to expected error."""

import numpy as np
import pytest
import torch

from depthsieve.core.errors import UsageError
from depthsieve.reliability.native import NativeConfidence, fit_knots, pooled, rank_correlation
from depthsieve.reliability.network import ErrorNetwork

KNOTS = torch.tensor([[1.0, 2.0, 4.0], [-1.0, -2.0, -4.0], [0.0, -1.0, -2.0]])


def with_table(seed: int = 3) -> ErrorNetwork:
    """A network whose expected error is the table's first, but for a factor of 2, and nothing of its own."""
    native = NativeConfidence("what it says", KNOTS)
    native.blend.copy_(torch.tensor([np.log(2), 0.0, 1.0]))
    made = ErrorNetwork("disparity", ("abc",), {"teacher": "some"}, native)
    made.load_state_dict({**made.state_dict(), **ErrorNetwork.random(seed).state_dict()})
    made.head.bias.data[2] = -20  # no sky
    made.head.weight.data[:, 2] = 0
    return made.eval().requires_grad_(False)


def maps(images: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(0)
    photo_BHW3 = torch.randint(0, 256, (images, 32, 48, 3), generator=dice, dtype=torch.uint8)
    return photo_BHW3, torch.rand(images, 32, 48, generator=dice) + 0.5


def test_values_out_of_order_are_pooled() -> None:
    values, weights = np.array([1.0, 3.0, 2.0, 2.0, 0.0, 9.0]), np.array([1.0, 1.0, 1.0, 2.0, 1.0, 1.0])
    assert pooled(values, weights).tolist() == pytest.approx([1, 1.8, 1.8, 1.8, 1.8, 9])
    assert pooled(np.arange(5.0), np.ones(5)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_table_finds_the_mean_error_in_either_direction(better: str) -> None:
    dice = np.random.default_rng(0)
    confidence_P = dice.uniform(1, 3, 20_000)
    mean_P = 0.1 * (4 - confidence_P) if better == "higher" else 0.1 * confidence_P
    knots_3K = fit_knots(confidence_P, np.stack((mean_P, 3 * mean_P)) * dice.exponential(1, 20_000))
    table = NativeConfidence("some", torch.from_numpy(knots_3K))
    assert table.lower_is_better == (better == "lower")
    assert (np.diff(knots_3K[0]) > 0).all() and knots_3K.shape[1] > 50
    at_1HW = torch.tensor([[[1.2, 2.0, 2.8]]])
    found_2W = table.logs(at_1HW)[0, :, 0].exp().numpy()
    wanted_W = 0.1 * (4 - at_1HW[0, 0].numpy()) if better == "higher" else 0.1 * at_1HW[0, 0].numpy()
    assert found_2W[0] == pytest.approx(wanted_W, rel=0.15) and found_2W[1] == pytest.approx(3 * wanted_W, rel=0.15)


def test_a_mask_is_a_table_of_two_knots() -> None:
    knots_3K = fit_knots(np.array([0.0, 1, 1, 0, 1, 1]), np.array([[0.5, 0.1, 0.1, 0.3, 0.2, 0.2]] * 2))
    assert np.exp(knots_3K[1:]).tolist() == pytest.approx(np.array([[0.4, 0.15]] * 2)) and knots_3K[0].tolist() == [
        0,
        1,
    ]
    assert fit_knots(np.ones(9), np.full((2, 9), 0.2)).shape == (3, 1)
    assert rank_correlation(np.ones(9), np.arange(9.0)) == 0


def test_between_knots_a_line_and_beyond_the_ends() -> None:
    table = NativeConfidence("some", KNOTS)
    confidence_1HW = torch.tensor([[[0.0, 1.0, 1.5, 3.0, 9.0, torch.inf, torch.nan]]])
    first, second = table.logs(confidence_1HW)[0, :, 0].tolist()
    assert first[:-1] == [-1, -1, -1.5, -3, -4, -4] and second[:-1] == [0, 0, -0.5, -1.5, -2, -2]
    assert np.isnan([first[-1], second[-1]]).all()
    alone = NativeConfidence("some", KNOTS[:, :1]).logs(torch.tensor([[[3.0, torch.nan]]]))[0, 0, 0].tolist()
    assert alone[0] == -1 and np.isnan(alone[1])


def test_a_network_with_a_table_needs_the_confidence_and_others_take_none() -> None:
    photo_BHW3, depth_BHW = maps(2)
    confidence_BHW = torch.ones_like(depth_BHW)
    confidence_BHW[:, :, 24:], confidence_BHW[1] = 2.0, 4.0
    made = with_table()
    e_BHW = made.expected_error(photo_BHW3, depth_BHW, "disparity", confidence_BHW)
    assert e_BHW[0, 5, [3, 30]].tolist() == pytest.approx([2 * np.exp(-1), 2 * np.exp(-2)], rel=1e-3)
    assert e_BHW[1, 5, 5].item() == pytest.approx(2 * np.exp(-4), rel=1e-3)
    alone = made.without_confidence()
    assert alone.without_confidence() is alone and alone.native is None
    for one, said in ((made, None), (alone, confidence_BHW), (made, confidence_BHW[:1])):
        with pytest.raises(UsageError, match="confidence"):
            one.expected_error(photo_BHW3, depth_BHW, "disparity", said)
    assert not torch.allclose(alone.expected_error(photo_BHW3, depth_BHW), e_BHW)


def test_its_file_holds_the_table_and_what_it_is_for() -> None:
    made = with_table()
    again = ErrorNetwork.from_bytes(made.to_bytes(), "copy")
    assert (
        again.native is not None and torch.equal(again.native.knots, KNOTS) and again.native.meaning == "what it says"
    )
    assert again.digest == made.digest and made.version == f"network-native-{made.digest[:8]}"
    assert again.reads("abc", "what it says")
    assert not again.reads("abd", "what it says") and not again.reads("abc", "another")
    alone = made.without_confidence()
    assert alone.digest != made.digest and not alone.reads("abc", "what it says")
    assert ErrorNetwork.from_bytes(alone.to_bytes(), "copy").digest == alone.digest
    other = with_table()
    assert other.native is not None
    other.native.knots[1, 0] = -0.5
    assert other.digest != made.digest
    other.native.knots[0, 0] = 7
    with pytest.raises(UsageError, match="a table of confidence that does not ascend"):
        ErrorNetwork.from_bytes(other.to_bytes(), "copy")
