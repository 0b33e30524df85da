"""The error network: what it sees, what it returns, and its file. Whether it learns is in tests/jobs/calibrate."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from depthsieve.core.errors import UsageError
from depthsieve.reliability.fusion import near_level
from depthsieve.reliability.network import (
    MOST_BYTES,
    ErrorNetwork,
    is_network_file,
    network_inputs,
    shipped_network,
)
from depthsieve.teachers import load_teacher

SHAPE = (42, 56)


def photos(count: int, shape: tuple[int, int] = SHAPE, seed: int = 0) -> torch.Tensor:
    dice = np.random.default_rng(seed)
    return torch.from_numpy(dice.integers(0, 256, (count, *shape, 3), dtype=np.uint8))


def labels(count: int, shape: tuple[int, int] = SHAPE, seed: int = 0) -> torch.Tensor:
    dice = np.random.default_rng(seed + 1)
    slope_HW = np.linspace(1, 4, shape[0])[:, None] + np.linspace(0, 1, shape[1])
    return torch.from_numpy((slope_HW + dice.random((count, *shape))).astype(np.float32))


@pytest.fixture(scope="module")
def network() -> ErrorNetwork:
    return ErrorNetwork.random(3)


# What it returns


@pytest.mark.parametrize("shape", [(42, 56), (56, 42), (14, 14), (45, 31), (1, 1)])
def test_every_shape_gets_an_error_above_0_at_each_pixel(network: ErrorNetwork, shape: tuple[int, int]) -> None:
    e_BHW = network.expected_error(photos(2, shape), labels(2, shape))
    assert e_BHW.dtype == torch.float32 and e_BHW.shape == (2, *shape)
    assert torch.isfinite(e_BHW).all() and (e_BHW > 0).all()


def test_an_image_gets_the_same_bits_whatever_else_is_in_its_batch(network: ErrorNetwork) -> None:
    photo_BHW3, depth_BHW = photos(3), labels(3)
    together_BHW = network.expected_error(photo_BHW3, depth_BHW)
    for place in range(3):
        one = slice(place, place + 1)
        assert torch.equal(network.expected_error(photo_BHW3[one], depth_BHW[one])[0], together_BHW[place])
    turned = [2, 0, 1]
    assert torch.equal(network.expected_error(photo_BHW3[turned], depth_BHW[turned]), together_BHW[turned])
    assert network.expected_error(photo_BHW3[:0], depth_BHW[:0]).shape == (0, *SHAPE)


def test_edges_are_as_sharp_as_the_label(network: ErrorNetwork) -> None:
    """Neighbouring pixels can differ, and what is seen at single pixels decides."""
    photo_BHW3, depth_BHW = photos(1), labels(1)
    e_HW = network.expected_error(photo_BHW3, depth_BHW)[0]
    assert (e_HW[:, 1:] != e_HW[:, :-1]).float().mean() > 0.99
    depth_BHW[0, 20, 20] += 1
    assert network.expected_error(photo_BHW3, depth_BHW)[0, 20, 20] != e_HW[20, 20]


def test_scale_has_no_say_and_the_photo_has(network: ErrorNetwork) -> None:
    photo_BHW3, depth_BHW = photos(1), labels(1)
    e_BHW = network.expected_error(photo_BHW3, depth_BHW)
    assert torch.equal(network.expected_error(photo_BHW3, depth_BHW * 4), e_BHW)  # float16 keeps powers of 2
    assert not torch.equal(network.expected_error(photos(1, seed=9), depth_BHW), e_BHW)


def test_a_stored_label_has_the_error_of_the_one_that_was_predicted(network: ErrorNetwork) -> None:
    photo_BHW3, depth_BHW = photos(1), labels(1) * 1.2345
    e_BHW = network.expected_error(photo_BHW3, depth_BHW)
    assert not torch.equal(depth_BHW.half().float(), depth_BHW)
    assert torch.equal(network.expected_error(photo_BHW3, depth_BHW.half().float()), e_BHW)


def test_what_is_not_finite_is_invalid_and_spoils_nothing_else(network: ErrorNetwork) -> None:
    photo_BHW3, depth_BHW = photos(1), labels(1)
    depth_BHW[0, :10, :12] = math.nan
    depth_BHW[0, 30, 30] = math.inf
    e_BHW = network.expected_error(photo_BHW3, depth_BHW)
    assert torch.equal(torch.isnan(e_BHW), ~torch.isfinite(depth_BHW))
    inputs_CHW = network_inputs(photo_BHW3[0], depth_BHW[0], "disparity")
    known_HW = torch.isfinite(depth_BHW[0])
    middle = depth_BHW[0][known_HW].half().float().median()
    filled_CHW = network_inputs(photo_BHW3[0], torch.where(known_HW, depth_BHW[0], middle), "disparity")
    assert torch.isfinite(inputs_CHW).all() and torch.equal(inputs_CHW, filled_CHW)


@pytest.mark.parametrize("value", [0.0, 2.5, -1.0, math.nan])
def test_a_map_that_says_nothing_raises_nothing(network: ErrorNetwork, value: float) -> None:
    e_BHW = network.expected_error(photos(1), torch.full((1, *SHAPE), value))
    assert bool(torch.isnan(e_BHW).all()) == math.isnan(value)
    assert math.isnan(value) or torch.isfinite(e_BHW).all()


def test_the_inputs_are_colour_level_steepness_and_distance_from_the_median() -> None:
    """Of a step from 1 to 3 whose median is 1: d + median is 2 and 4."""
    depth_HW = torch.tensor([[1.0, 1.0, 1.0, 3.0]])
    photo_HW3 = torch.tensor([[[0, 255, 51]] * 4], dtype=torch.uint8)
    inputs_CHW = network_inputs(photo_HW3, depth_HW, "disparity")
    assert inputs_CHW[:3, 0, 0].tolist() == pytest.approx([-1.5, 1.5, -0.9])
    assert inputs_CHW[3, 0].tolist() == pytest.approx([0, 0, 0, 4 * (0.75 - 0.5)])
    assert inputs_CHW[4, 0].tolist() == pytest.approx([1 + math.log(0.52)] * 3 + [1 + math.log(0.77)])
    steep, flat = (math.log(2 / 2 + 1e-3) + 4.5) / 2, (math.log(1e-3) + 4.5) / 2
    assert inputs_CHW[5, 0].tolist() == pytest.approx([flat, flat, steep, flat])
    assert inputs_CHW[6, 0].tolist() == pytest.approx([0, 0, 0, 2 * 2 / (0.5 + 2)])


def test_metres_are_seen_as_their_inverse_is() -> None:
    """Near is 1 for both, and nearer than the median is above 0 for both."""
    metres_HW = torch.tensor([[1.0, 2.0, 4.0]])
    photo_HW3 = torch.zeros((1, 3, 3), dtype=torch.uint8)
    of_metres_CHW = network_inputs(photo_HW3, metres_HW, "depth")
    of_inverse_CHW = network_inputs(photo_HW3, 1 / metres_HW, "disparity")
    assert of_metres_CHW[3].tolist() == of_inverse_CHW[3].tolist()
    assert of_metres_CHW[6].sign().tolist() == of_inverse_CHW[6].sign().tolist() == [[1, 0, -1]]


def test_the_blend_orders_by_both_errors_on_the_scale_of_the_first(network: ErrorNetwork) -> None:
    inputs_BCHW = network_inputs(photos(1)[0], labels(1)[0], "disparity")[None]
    out_B3HW = network(inputs_BCHW)
    assert torch.equal(network.blended(out_B3HW, inputs_BCHW), out_B3HW[:, 0])
    other = ErrorNetwork.from_bytes(network.to_bytes(), "copy")
    other.blend.copy_(torch.tensor([0.5, 2.0, 0.25, 0.125]))
    level_BHW, (first_BHW, second_BHW, _) = inputs_BCHW[:, 4], out_B3HW.unbind(1)
    of_ground_BHW = (0.5 + 2 * (0.75 * first_BHW + 0.25 * second_BHW - 0.125 * level_BHW)).exp()
    in_a_sky_BHW = near_level(labels(1).half().float(), "disparity") + 0.1
    for odds, sky in ((0.0, 0.5), (-50.0, 0.0), (50.0, 1.0)):
        other.head.weight[:, 2], other.head.bias[2] = 0.0, odds
        wanted_BHW = (1 - sky) * of_ground_BHW + sky * in_a_sky_BHW
        assert torch.allclose(other.expected_error(photos(1), labels(1)), wanted_BHW)
    assert other.digest != network.digest


def test_a_new_network_leaves_no_grid_on_what_is_flat() -> None:
    inputs_BCHW = network_inputs(photos(1)[0], labels(1)[0], "disparity")[None]
    out_B3HW = ErrorNetwork.random(5)(inputs_BCHW)
    assert torch.equal(out_B3HW[..., ::2, ::2], out_B3HW[..., 1::2, 1::2])
    assert torch.equal(out_B3HW[..., ::2, ::2], out_B3HW[..., 1::2, ::2])
    assert out_B3HW.std() > 0.01


def test_mistakes_are_usage_errors(network: ErrorNetwork) -> None:
    with pytest.raises(UsageError, match="trained on disparity cannot tell the error of depth"):
        network.expected_error(photos(1), labels(1), "depth")
    with pytest.raises(UsageError, match=r"needs uint8 photos \[B,H,W,3\] and labels \[B,H,W\], not torch.float32"):
        network.expected_error(photos(1).float(), labels(1))
    with pytest.raises(UsageError, match=r"not torch.uint8 \[2, 42, 56, 3\] and \[1, 42, 56\]"):
        network.expected_error(photos(2), labels(1))


# Its file


def test_a_saved_network_is_the_same_network(network: ErrorNetwork, tmp_path: Path) -> None:
    made = ErrorNetwork("depth", ("abc",), {"teacher": "some", "steps": 3})
    made.load_state_dict(network.state_dict())
    path = tmp_path / "réseau ::1.safetensors"
    made.save(path)
    again = ErrorNetwork.load(path)
    assert (again.quantity, again.fitted_on, again.meta) == ("depth", ("abc",), {"teacher": "some", "steps": 3})
    assert again.digest == made.digest and again.to_bytes() == made.to_bytes() == path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name] and path.stat().st_size < MOST_BYTES
    ours, theirs = (one.eval().expected_error(photos(1), labels(1), "depth") for one in (made, again))
    assert torch.equal(ours, theirs)
    assert is_network_file(path)


def test_the_digest_is_of_what_decides_errors_and_the_name_tells_a_transfer(network: ErrorNetwork) -> None:
    noted = ErrorNetwork("disparity", ("abc",), {"teacher": "some"})
    noted.load_state_dict(network.state_dict())
    assert noted.digest == network.digest == ErrorNetwork.random(3).digest
    other = ErrorNetwork("depth")
    other.load_state_dict(network.state_dict())
    assert len({network.digest, other.digest, ErrorNetwork.random(4).digest}) == 3
    assert noted.name("abc") == f"network-{noted.digest[:8]}"
    assert noted.name("def") == f"network-{noted.digest[:8]}-transferred"


def test_a_file_that_is_no_network_is_refused_in_one_line(network: ErrorNetwork, tmp_path: Path) -> None:
    whole, path = network.to_bytes(), tmp_path / "file"
    wild = ErrorNetwork.random(3)
    wild.head.bias[0] = math.nan
    of_another_release = whole.replace(b"depthsieve-error-network-2", b"depthsieve-error-network-9")
    for data in (b"", b"{}", b'{"version": "2"}', whole[:-100], whole[:5000], of_another_release, wild.to_bytes()):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"holds no error network .*; make one with `dep") as found:
            ErrorNetwork.load(path)
        assert str(path) in str(found.value) and "\n" not in str(found.value)
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UsageError, match="larger than any error network"):
        ErrorNetwork.load(path)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        ErrorNetwork.load(tmp_path / "none")
    path.write_text('{"version": "2", "weights": {}}')
    assert not is_network_file(path) and not is_network_file(tmp_path / "none") and not is_network_file(tmp_path)


def test_the_network_that_ships_is_for_the_embedded_teacher() -> None:
    shipped, teacher = shipped_network(), load_teacher("tiny", device="cpu")
    assert shipped is not None and shipped.quantity == teacher.quantity
    assert shipped.name(teacher.weights_digest) == shipped.version
    assert shipped.meta["teacher"] == "tiny" and shipped.meta["families"] == ["home", "wild"]
