"""The batch size found by trial, and the numerics profile."""

from collections.abc import Callable

import pytest
import torch

from depthsieve.core.threads import torch_threads
from depthsieve.labelling import numerics
from depthsieve.labelling.numerics import SMALL_JOB, TrialSettings, find_batch_size
from depthsieve.teachers import Batch, Prediction

SHAPE = (14, 28)


class Clock:
    """Time that passes only when it is told to, so that no trial depends on how busy the machine is."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(numerics, "time", clock)
    return clock


class Paced:
    """A teacher on the CPU that takes ``seconds(images)`` of the clock for a pass."""

    device = torch.device("cpu")

    def __init__(self, clock: Clock, seconds: Callable[[int], float], room: int = 1000) -> None:
        self.clock, self.seconds, self.room = clock, seconds, room
        self.sizes: list[int] = []
        self.threads: set[int] = set()

    confidence_better = embedding_size = None
    intrinsics_out = False
    quantity = "disparity"

    def predict(self, batch: Batch) -> Prediction:
        image_BCHW = batch.image
        self.sizes.append(len(image_BCHW))
        self.threads.add(torch.get_num_threads())
        if len(image_BCHW) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.clock.now += self.seconds(len(image_BCHW))
        return Prediction(image_BCHW[:, 0])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (lambda images: 0.03, 8),  # a pass costs the same, however many images are in it
        (lambda images: 0.03 * images, 1),  # an image does
        (lambda images: 0.03 if images <= 2 else 0.03 * images, 2),
    ],
)
def test_the_trial_finds_the_size_with_the_most_images_a_second(
    clock: Clock, seconds: Callable[[int], float], expected: int
) -> None:
    teacher = Paced(clock, seconds)
    assert find_batch_size(teacher, TrialSettings(SHAPE, SMALL_JOB), progress=False) == expected  # type: ignore[arg-type]


def test_what_does_not_fit_into_memory_is_not_chosen(clock: Clock) -> None:
    teacher = Paced(clock, lambda images: 0.02, room=2)
    assert find_batch_size(teacher, TrialSettings(SHAPE, SMALL_JOB), progress=False) == 2  # type: ignore[arg-type]
    assert max(teacher.sizes) == 4


def test_all_lanes_are_tried_at_once_with_their_threads_and_all_views(clock: Clock) -> None:
    teacher = Paced(clock, lambda images: 0.02 * images)
    settings = TrialSettings(SHAPE, SMALL_JOB, lanes=2, threads=3, views=2)
    assert find_batch_size(teacher, settings, progress=False) == 1  # type: ignore[arg-type]
    assert teacher.threads == {3}
    assert teacher.sizes[:2] == [2, 2] and len(teacher.sizes) % 2 == 0


def test_a_teacher_that_takes_a_second_for_an_image_is_tried_once_with_one(clock: Clock) -> None:
    teacher = Paced(clock, lambda images: 2.1)
    assert find_batch_size(teacher, TrialSettings(SHAPE, SMALL_JOB), progress=False) == 1  # type: ignore[arg-type]
    assert teacher.sizes == [1]


@pytest.mark.parametrize(
    ("shape", "images", "lanes", "expected"),
    [(SHAPE, 20, 2, 4), (SHAPE, 3, 1, 3), (SHAPE, 6, 4, 1), (SHAPE, 0, 2, 1), ((518, 518), 20, 1, 1)],
)
def test_small_jobs_are_not_worth_a_trial(
    clock: Clock, shape: tuple[int, int], images: int, lanes: int, expected: int
) -> None:
    teacher = Paced(clock, lambda images: 0.0)
    assert find_batch_size(teacher, TrialSettings(shape, images, lanes), progress=False) == expected  # type: ignore[arg-type]
    assert teacher.sizes == []


def test_the_process_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
