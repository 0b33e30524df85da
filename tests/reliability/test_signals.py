"""Disagreement signals: what each says of a label, and where."""

import math

import pytest
import torch

from depthsieve.core.errors import UsageError
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.fusion import relative_error
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
    codes = encode_error(relative_error(depth, flip_disagreement(depth, flipped, "disparity")), version=1)
    assert codes[0, :2, 0].tolist() == [0, 0]
    assert (codes == 0).sum() == 2


def test_an_image_has_the_same_bytes_in_every_batch() -> None:
    generator = torch.Generator().manual_seed(4)
    depth, noise = torch.rand(2, 4, 60, 70, generator=generator)
    flipped = (depth + 0.1 * noise).flip(-1)
    flipped[3] = torch.nan  # a broken neighbour

    def codes(part: slice) -> torch.Tensor:
        delta = flip_disagreement(depth[part], flipped[part], "disparity")
        return encode_error(relative_error(depth[part], delta), version=1)

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
