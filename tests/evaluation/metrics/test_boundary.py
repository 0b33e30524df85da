"""Boundary F1: by hand, by a formulation pixel by pixel, and where it is not defined."""

import numpy as np
import pytest

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.metrics import boundary_f1, has_boundaries


def square(top: int = 3, left: int = 4, near: float = 1.0, far: float = 2.0) -> np.ndarray:
    """A near square before a far wall, so with edges in all four directions."""
    depth_HW = np.full((12, 14), far)
    depth_HW[top : top + 5, left : left + 5] = near
    return depth_HW


def pixel_by_pixel(predicted_HW: np.ndarray, truth_HW: np.ndarray) -> float:
    """Of inverse depth, as published, with sets of pairs."""

    def edges(depth_HW: np.ndarray, threshold: float) -> list[set[tuple[int, int]]]:
        found = []
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            pairs = set()
            for row, column in np.ndindex(*depth_HW.shape):
                other = row + down, column + right
                inside = 0 <= other[0] < depth_HW.shape[0] and 0 <= other[1] < depth_HW.shape[1]
                if inside and (1 / depth_HW[row, column]) / (1 / depth_HW[other]) > threshold:
                    pairs.add((row, column))
            found.append(pairs)
        return found

    score, weights = 0.0, 0.0
    for step in range(10):
        threshold = 1.05 + 0.2 * step / 9
        pairs = list(zip(edges(predicted_HW, threshold), edges(truth_HW, threshold), strict=True))
        precision = sum(len(one & two) / max(len(one), 1) for one, two in pairs) / 4
        recall = sum(len(one & two) / max(len(two), 1) for one, two in pairs) / 4
        if precision + recall > 0:
            score += threshold * 2 * precision * recall / (precision + recall)
        weights += threshold
    return score / weights


def test_by_hand() -> None:
    assert boundary_f1(square(), square()) == pytest.approx(1)
    assert boundary_f1(7 * square(), square()) == pytest.approx(1), "scale does not matter"
    assert boundary_f1(square(left=5), square(top=7)) < 0.1
    assert boundary_f1(np.ones((4, 5)), square()[:4, :5]) == 0
    # One edge to the right alone: the other three directions have none, and count 0 as published.
    assert boundary_f1(np.array([[1.0, 1, 2, 2]]), np.array([[1.0, 1, 2, 2]])) == pytest.approx(0.25)
    # Of a ratio of 1.12, four of the ten thresholds are below (1.05, 1.0722, 1.0944, 1.1167).
    low = sum((1.05, 1.05 + 0.2 / 9, 1.05 + 0.4 / 9, 1.05 + 0.6 / 9)) / 11.5
    assert boundary_f1(square(far=1.12), square()) == pytest.approx(low)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_published_number(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth_HW = np.exp(random.normal(0, 0.1, (7, 9)))
    predicted_HW = truth_HW * np.exp(random.normal(0, 0.05, truth_HW.shape))
    found = boundary_f1(predicted_HW, truth_HW)
    assert 0.1 < found < 0.95
    assert found == pytest.approx(pixel_by_pixel(predicted_HW, truth_HW), abs=1e-12)


def test_pairs_with_an_unknown_pixel_do_not_count() -> None:
    truth_HW, predicted_HW = square(), square()
    predicted_HW[3, 4] = 50.0
    assert boundary_f1(predicted_HW, truth_HW) < 0.95
    mask_HW = np.ones(truth_HW.shape, bool)
    mask_HW[3, 4] = False
    assert boundary_f1(predicted_HW, truth_HW, mask_HW) == pytest.approx(1)
    for unknown in (np.nan, 0.0, np.inf):
        holed_HW = truth_HW.copy()
        holed_HW[3, 4] = unknown
        assert boundary_f1(predicted_HW, holed_HW) == boundary_f1(holed_HW, truth_HW) == pytest.approx(1)
    with pytest.raises(UsageError, match="truth has shape"):
        boundary_f1(truth_HW, truth_HW[:2])


def test_sparse_truth_and_truth_without_edges_have_no_boundaries() -> None:
    truth_HW, everywhere = square(), np.ones((12, 14), bool)
    assert has_boundaries(truth_HW, everywhere)
    assert not has_boundaries(np.ones_like(truth_HW), everywhere)
    assert not has_boundaries(truth_HW, ~everywhere)
    lines = everywhere.copy()
    lines[::2] = False
    assert not has_boundaries(truth_HW, lines), "scan lines: dense to the right, with nothing below"
    assert not has_boundaries(truth_HW.T, lines.T)
    sparse = np.random.default_rng(0).random(truth_HW.shape) < 0.7
    assert not has_boundaries(truth_HW, sparse)
    part = everywhere.copy()
    part[8:] = False
    assert has_boundaries(truth_HW, part), "half of an image may be without truth"
