"""Which labels are compared with which ground truth, and what is named."""

from pathlib import Path

import numpy as np
import pytest
from storemaker import Picture, make_store
from truths import LABEL, SOURCE, evaluated, truth_of, write_truth

from depthsieve.core.errors import GroundTruthError, StoreNotFound
from depthsieve.evaluation.comparing import evaluate_labels
from depthsieve.store import Store


def test_what_does_not_match_is_named(tmp_path: Path) -> None:
    images = [Picture(f"it's {n}/a.png", SOURCE, LABEL, failed=n == 2, pending=n == 9) for n in range(10)]
    images[9] = Picture("late.png", SOURCE, LABEL, pending=True)
    store = make_store(tmp_path, images, rejected=["broken.jpg", "other.jpg"])
    truth = tmp_path / "truth"
    for name in ["it's 0/a", "it's 1/a", "it's 2/a", "it's 3/a", "it's 4/a", "it's 5/a", "late", "broken", "new\nline"]:
        (truth / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(truth / f"{name}.npy", truth_of(0))
    np.save(truth / "it's 3" / "a.npy", truth_of(0).T)
    np.save(truth / "it's 4" / "a.npy", np.zeros(SOURCE, np.float32))
    np.save(truth / "it's 5" / "a.npy", truth_of(0) * 1000)
    known = truth_of(0)[truth_of(0) > 0] * 1000
    span = f"it goes from {known.min():.3g} to {known.max():.3g} m: is --scale right?"
    result = evaluated(store, truth)
    assert [score.id for score in result.images] == ["default/it's 0/a.png", "default/it's 1/a.png"]
    assert [(failure.id, failure.reason) for failure in result.not_compared] == [
        ("default/broken.jpg", "no label: made up"),
        ("default/it's 2/a.png", "no label: made up"),
        (
            "default/it's 3/a.png",
            "it's 3/a.npy: it is 28x56, and the upright image 56x28: of another image, or rotated?",
        ),
        (
            "default/it's 4/a.png",
            "it's 4/a.npy: no pixel has ground truth from 0.001 to 80 m and a label (it is empty)",
        ),
        ("default/it's 5/a.png", f"it's 5/a.npy: no pixel has ground truth from 0.001 to 80 m and a label ({span})"),
        ("default/late.png", "no label: not labelled yet"),
    ]
    assert result.without_truth == ("default/it's 6/a.png", "default/it's 7/a.png", "default/it's 8/a.png")
    assert result.without_image == ("new%0Aline.npy",)


def test_nothing_in_common_says_what_was_looked_for(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", truth_of(0))
    with pytest.raises(
        GroundTruthError, match=r"for default/0.png looked for 0.npy\|.png\|.*begins with x.npy.*--replace"
    ):
        evaluated(store, tmp_path)


def test_nothing_comparable_gives_the_first_reason(store: Store, tmp_path: Path) -> None:
    (tmp_path / "0.npy").write_bytes(b"no array")
    with pytest.raises(
        GroundTruthError, match=r"none of the 1 .* first: default/0.png: 0.npy: it is not a whole .npy file$"
    ):
        evaluated(store, tmp_path)


def test_truth_of_unlabelled_images_alone_is_said(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture("0.png", SOURCE, LABEL, failed=True)])
    with pytest.raises(GroundTruthError, match=r"no image of .* that has ground truth in .* is labelled"):
        evaluated(store, write_truth(tmp_path / "truth"))


def test_two_images_with_one_truth_are_refused_and_can_be_told_apart(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture("a.png", SOURCE, LABEL), Picture("a.bmp", SOURCE, LABEL)])
    truth = tmp_path / "truth"
    truth.mkdir()
    for name in ("a.npy", "a.png.npy", "a.bmp.npy"):
        np.save(truth / name, truth_of(0))
    with pytest.raises(
        GroundTruthError, match=r"^default/a.bmp and default/a.png have the same .*, a.npy; .*--pattern"
    ):
        evaluated(store, truth)
    assert len(evaluated(store, truth, pattern="{name}.npy").images) == 2


@pytest.mark.parametrize("shape", [(28, 56), (280, 560), (7, 14), (29, 56), (27, 56)])
def test_shapes_of_the_same_picture_are_compared(store: Store, tmp_path: Path, shape: tuple[int, int]) -> None:
    np.save(tmp_path / "0.npy", truth_of(0, shape))
    assert len(evaluated(store, tmp_path, min_pixels=50).images) == 1


@pytest.mark.parametrize("shape", [(56, 28), (28, 50), (31, 56), (1, 100)])
def test_shapes_of_another_picture_are_not(store: Store, tmp_path: Path, shape: tuple[int, int]) -> None:
    np.save(tmp_path / "0.npy", truth_of(0, shape))
    with pytest.raises(GroundTruthError, match=f"it is {shape[1]}x{shape[0]}, and the upright image 56x28"):
        evaluated(store, tmp_path, min_pixels=1)


def test_a_store_that_is_not_there(tmp_path: Path, truth: Path) -> None:
    with pytest.raises(StoreNotFound):
        evaluate_labels(tmp_path / "nothing", truth)
