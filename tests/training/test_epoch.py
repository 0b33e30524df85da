"""The pure parts of the loader: epoch plans, streams of random bits, windows, the image brought to label shape."""

import hashlib
import itertools

import numpy as np
import pytest

from depthsieve.core.errors import UsageError
from depthsieve.store.stored_images import to_label_shape
from depthsieve.training.augment import Augment, check_crop
from depthsieve.training.crops import Window, choose_window
from depthsieve.training.epoch import Draws, plan_epoch, rank_share, shuffled, smallest_type, stream

PINNED_BITS = [2129512530910296552, 8021433055519150496]
PINNED_ORDER = [3, 1, 2, 6, 5, 7, 0, 4]
PINNED_DRAWS = [14887987215415075273, 11457722755576599029, 6414718442315756244, 82232810251758722, 3119899370105159409]
PINNED_PLAN = [[4, 7, 3, 0], [2, 1, 6, 8], [10], [14], [12, 11, 13, 9], [5]]
PINNED_DIGEST = "4febf01a283d23d4"


def batches(buckets, global_batch, seed=0, epoch=0):
    plan = plan_epoch(np.array(buckets), global_batch, seed, epoch)
    return [plan.batch(number).tolist() for number in range(len(plan))]


def test_random_bits_and_order_are_pinned():
    # Values of the first release: changing them changes every run that goes on from a saved state.
    assert stream("order", 0, 0).random_raw(2).tolist() == PINNED_BITS
    assert shuffled(8, "order", 3, 1).tolist() == PINNED_ORDER
    draws = Draws("window", 0, 0, "default/a.png")
    assert [draws.bits() for _ in range(5)] == PINNED_DRAWS  # the fifth is of a second block
    assert stream("order", 0, 1).random_raw() != stream("order", 1, 0).random_raw()


@pytest.mark.parametrize("global_batch", [1, 3, 4, 7, 50])
def test_every_image_is_in_one_batch_and_batches_share_a_bucket(global_batch):
    buckets = [n % 3 for n in range(20)] + [3] * 5 + [4]
    made = batches(buckets, global_batch)
    assert sorted(itertools.chain(*made)) == list(range(26))
    assert all(len({buckets[image] for image in batch}) == 1 for batch in made)
    sizes = {bucket: [len(b) for b in made if buckets[b[0]] == bucket] for bucket in range(5)}
    for bucket, count in ((0, 7), (1, 7), (2, 6), (3, 5), (4, 1)):
        whole, rest = divmod(count, global_batch)
        assert sorted(sizes[bucket], reverse=True) == [global_batch] * whole + [rest] * (rest > 0)


def test_one_bucket_is_the_shuffled_order_cut():
    order = shuffled(10, "order", 5, 2).tolist()
    assert batches([0] * 10, 4, 5, 2) == [order[:4], order[4:8], order[8:]]


def chi_square(counts):
    """Pearson's statistic of counts that should all be alike, in standard deviations from what it should be."""
    expected, freedom = counts.sum() / counts.size, counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def test_no_bucket_comes_sooner_than_another():
    buckets = np.array([0] * 200 + [1] * 60 + [2] * 9 + [3])  # 50, 15, 3 and 1 batches
    places_of_bucket = np.zeros((4, 69))
    for epoch in range(400):
        plan = plan_epoch(buckets, 4, 7, epoch)
        places_of_bucket[buckets[plan.grouped_N[plan.starts_M]], np.arange(69)] += 1
    for bucket in range(4):
        thirds = places_of_bucket[bucket].reshape(3, 23).sum(axis=1)
        assert abs(chi_square(thirds)) < 5, bucket


def test_an_image_has_any_place_and_any_neighbours():
    buckets, epochs = np.arange(48) % 2, 600
    at, together = np.zeros((48, 12)), np.zeros((48, 48))
    for epoch in range(epochs):
        plan = plan_epoch(buckets, 4, 3, epoch)
        for place in range(12):
            batch = plan.batch(place)
            at[batch, place] += 1
            together[np.ix_(batch, batch)] += 1
    assert all(abs(chi_square(row)) < 6 for row in at)
    pairs = together[np.triu_indices(48, 1)]
    assert (pairs[(buckets[:, None] != buckets)[np.triu_indices(48, 1)]] == 0).all()
    assert abs(chi_square(pairs[pairs > 0])) < 5


def test_plans_are_pinned():
    buckets = np.array([0] * 9 + [1] * 5 + [2])
    assert batches(buckets, 4, 11, 2) == PINNED_PLAN
    assert hashlib.sha256(shuffled(100_000, "order", 1, 2).tobytes()).hexdigest()[:16] == PINNED_DIGEST
    for kind in (np.uint8, np.uint16, np.int64):
        assert batches(buckets.astype(kind), 4, 11, 2) == PINNED_PLAN


def test_an_order_is_that_of_its_random_bits():
    """By the plainest way, for counts around powers of two, where the bits of a number and of its place meet."""
    for count in (0, 1, 2, 3, 4, 5, 255, 256, 257, 1000):
        bits = stream("order", 0, count).random_raw(count) if count else np.empty(0)
        assert shuffled(count, "order", 0, count).tolist() == sorted(range(count), key=lambda n: bits[n])


def test_bucket_numbers_get_the_smallest_type():
    for most, kind in ((0, np.uint8), (255, np.uint8), (256, np.uint16), (65_536, np.uint32)):
        small = smallest_type(np.array([0, most]))
        assert (small.dtype, small.tolist()) == (kind, [0, most])


def test_draws_are_uniform():
    draws = [Draws("some", n) for n in range(300)]
    units = np.array([[one.unit() for _ in range(6)] for one in draws])
    assert units.min() >= 0 and units.max() < 1
    counts = np.stack([np.histogram(column, 10, (0, 1))[0] for column in units.T])
    assert abs(chi_square(counts.sum(axis=0))) < 4
    assert all(abs(chi_square(row)) < 5 for row in counts)
    assert np.abs(np.corrcoef(units.T) - np.eye(6)).max() < 0.25
    sides = np.bincount([one.below(3) for one in draws])
    assert abs(chi_square(sides)) < 5 and len(sides) == 3


def test_seed_and_epoch_change_the_order_and_nothing_else_does():
    assert batches([0] * 30, 4, 1, 2) == batches([0] * 30, 4, 1, 2)
    assert batches([0] * 30, 4, 1, 2) != batches([0] * 30, 4, 1, 3)
    assert batches([0] * 30, 4, 1, 2) != batches([0] * 30, 4, 2, 2)


def test_tails_are_emptied_where_they_are():
    plan = plan_epoch(np.array([0] * 11 + [1] * 3), 8, 0, 0)
    whole = [plan.batch(number).tolist() for number in range(3)]
    assert sorted(map(len, whole)) == [3, 3, 8]
    cut = plan.without_tails(8)
    assert [cut.batch(number).tolist() for number in range(3)] == [one if len(one) == 8 else [] for one in whole]


def test_ranks_share_a_batch_in_its_order():
    batch = np.array([5, 3, 9, 1, 0, 2])
    assert [rank_share(batch, rank, 3).tolist() for rank in range(3)] == [[5, 3], [9, 1], [0, 2]]


@pytest.mark.parametrize(
    ("size", "parts"),
    [(5, [[5, 3], [9, 1], [0, 5]]), (4, [[5, 3], [9, 1], [5, 3]]), (2, [[5], [3], [5]]), (1, [[5], [5], [5]])],
)
def test_ranks_get_as_much_of_a_tail(size, parts):
    batch = np.array([5, 3, 9, 1, 0, 2])[:size]
    assert [rank_share(batch, rank, 3).tolist() for rank in range(3)] == parts


def test_windows_reach_every_place_and_stay_inside():
    windows = {choose_window((6, 8), Augment(crop=5, flip=True), 0, epoch, "default/a.png") for epoch in range(200)}
    assert {(w.top, w.left, w.flip) for w in windows} == {
        (t, left, flip) for t in range(2) for left in range(4) for flip in (False, True)
    }
    assert {(w.height, w.width) for w in windows} == {(5, 5)}
    assert choose_window((6, 8), Augment(), 0, 0, "a") == Window(0, 0, 6, 8, False, (6, 8))
    assert len({choose_window((600, 800), Augment(crop=5), 0, 0, f"{n}") for n in range(20)}) == 20
    assert len({choose_window((600, 800), Augment(crop=5), seed, 0, "a") for seed in range(20)}) == 20


def test_a_window_cuts_then_mirrors():
    map_HW = np.arange(12).reshape(3, 4)
    assert Window(1, 1, 2, 3).cut(map_HW).tolist() == [[5, 6, 7], [9, 10, 11]]
    assert Window(1, 1, 2, 3, flip=True).cut(map_HW).tolist() == [[7, 6, 5], [11, 10, 9]]


@pytest.mark.parametrize("bad", [0, -3, (1,), (1, 2, 3), "14", (14.0, 14), 14.0, True, (True, 3)])
def test_crops_that_cannot_be_meant(bad):
    with pytest.raises(UsageError, match="crop must be"):
        check_crop(bad)


def test_crops_in_each_spelling():
    assert check_crop(14) == (14, 14)
    assert check_crop([14, 28]) == (14, 28)
    assert check_crop(None) is None


@pytest.mark.parametrize(
    ("source", "label"), [((90, 130), (28, 42)), ((20, 30), (28, 42)), ((20, 130), (28, 42)), ((28, 42), (28, 42))]
)
def test_the_image_lies_on_its_labels_pixels(source, label):
    y, x = np.mgrid[: source[0], : source[1]].astype(np.float64)
    ramps_HW3 = np.stack([255 * x / (source[1] - 1), 255 * y / (source[0] - 1), 0 * x], axis=2)
    made = to_label_shape(np.round(ramps_HW3).astype(np.uint8), label).astype(np.float64)
    assert made.shape == (*label, 3)
    # The mapping that stores declare: x_source = (x + 0.5) * source_width / W - 0.5.
    x_source = (np.arange(label[1]) + 0.5) * source[1] / label[1] - 0.5
    y_source = (np.arange(label[0]) + 0.5) * source[0] / label[0] - 0.5
    inner = (slice(2, -2), slice(2, -2))
    expected_x = np.broadcast_to(255 * x_source / (source[1] - 1), label)
    expected_y = np.broadcast_to(255 * y_source[:, None] / (source[0] - 1), label)
    # Half a pixel of the label would be 3 and 4.6.
    assert np.abs(made[..., 0] - expected_x)[inner].max() < 1.1
    assert np.abs(made[..., 1] - expected_y)[inner].max() < 1.1
