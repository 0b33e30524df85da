"""The demo's student: what it learns, from what, and in which form."""

import numpy as np
import pytest
import torch
from ran_demo import Ran

from depthsieve.core.errors import UsageError
from depthsieve.demo.student import Student, as_disparity, normalised, train_student
from depthsieve.training import PseudoLabelDataset


def dataset_of(ran: Ran, **options: float) -> PseudoLabelDataset:
    return PseudoLabelDataset(ran.out / "labels", **options)  # type: ignore[arg-type]


def test_student_learns_and_is_the_same_each_time(ran: Ran) -> None:
    torch.manual_seed(5)
    first = train_student(dataset_of(ran), steps=15, batch=4)
    state_after = torch.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state_after), "training must leave the global random state alone"
    again = train_student(dataset_of(ran), steps=15, batch=4)
    assert first.losses == again.losses
    assert len(first.losses) == 15
    assert np.mean(first.losses[-3:]) < 0.85 * np.mean(first.losses[:3])
    assert not first.student.training


def test_mask_and_trim_both_lower_the_loss(ran: Ran) -> None:
    def first_loss(mask_drop: float, trim_drop: float) -> float:
        return train_student(dataset_of(ran, drop=mask_drop), steps=1, batch=4, drop=trim_drop).losses[0]

    assert first_loss(0.0, 0.3) < 0.8 * first_loss(0.0, 0.0)
    assert first_loss(0.3, 0.0) != first_loss(0.0, 0.0)


def test_each_step_is_told_with_its_loss(ran: Ran) -> None:
    told: list[float] = []
    training = train_student(dataset_of(ran), steps=3, batch=2, advance=told.append)
    assert tuple(told) == training.losses
    with pytest.raises(UsageError, match="at least 1 step"):
        train_student(dataset_of(ran), steps=0)


@pytest.mark.parametrize(("height", "width"), [(70, 98), (63, 33), (126, 168)])
def test_student_answers_at_the_size_of_the_image(height: int, width: int) -> None:
    assert Student()(torch.rand(2, 3, height, width)).shape == (2, height, width)


def test_student_is_told_where_each_pixel_lies() -> None:
    student, seen = Student(), []
    student.stem.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    image_BCHW = torch.rand(2, 3, 32, 64)
    student(image_BCHW)
    assert torch.equal(seen[0][:, :3], image_BCHW - 0.5)
    rows, columns = seen[0][1, 3:]
    assert torch.allclose(rows[:, 5], torch.linspace(-31 / 32, 31 / 32, 32))
    assert torch.allclose(columns[5], torch.linspace(-63 / 64, 63 / 64, 64))


def test_labels_are_normalised_over_the_pixels_that_count() -> None:
    label_BHW = torch.tensor([[[1.0, 2.0, 3.0, 6.0, 1000.0]]])
    mask_BHW = torch.tensor([[[True, True, True, False, False]]])
    assert normalised(label_BHW, mask_BHW)[0, 0].tolist() == pytest.approx([-1.5, 0.0, 1.5, 0.0, 0.0])
    assert normalised(label_BHW, torch.zeros_like(mask_BHW)).tolist() == [[[0.0] * 5]]
    assert torch.equal(normalised(label_BHW * 5 + 3, mask_BHW), normalised(label_BHW, mask_BHW))


def test_metres_become_disparity() -> None:
    depth_BHW = torch.tensor([[[0.0, 0.5, 4.0]]])
    assert as_disparity(depth_BHW, "depth").tolist() == [[[0.0, 2.0, 0.25]]]
    assert as_disparity(depth_BHW, "disparity") is depth_BHW
