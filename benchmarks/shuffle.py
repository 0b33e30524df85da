"""How well an epoch is shuffled, and how long that takes.

    python benchmarks/shuffle.py [--images 20000] [--epochs 200] [--timed 10000000]

Three plans of the same images, in four label shapes of unequal frequency, as many epochs of each:

* numpy: every bucket's images and then all batches are permuted by ``numpy.random.Generator.permutation``, the named
  alternative;
* depthsieve: ``plan_epoch``;
* by first image: depthsieve's plan with its batches in the order of their first image's place in the shuffled order,
  which looks natural and is what depthsieve did before.

What is counted, each as the distance of Pearson's chi-square from what a uniform shuffle gives, in its standard
deviations (so that a uniform one is mostly within -2..2), but for the last two:

* position: in which twentieth of the epoch an image comes, over all images in a hundred groups;
* rarest: in which twentieth the batches of the rarest shape come;
* adjacency: how often an image is followed by its neighbour in id order, over the mean of a uniform shuffle (1 is
  uniform; labels of one video stand next to each other);
* run: mean number of batches in a row that have one label shape, over that of a uniform shuffle (1 is uniform).

Axes: N images, M batches.
"""

import argparse
import itertools
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.training.epoch import EpochPlan, plan_epoch, smallest_type

SHARES = (0.6, 0.3, 0.09, 0.01)
"""Of the label shapes."""
BATCH = 16
PARTS = 20
GROUPS = 100


def made_buckets(images: int) -> NDArray[Any]:
    """[N] buckets, by id: mixed as folders mix them."""
    bucket_N = np.random.default_rng(0).choice(len(SHARES), images, p=SHARES)
    return smallest_type(bucket_N.astype(np.int64))


def by_first_image(bucket_N: NDArray[Any], epoch: int) -> EpochPlan:
    plan = plan_epoch(bucket_N, BATCH, 0, epoch)
    place_N = np.empty(len(bucket_N), np.int64)
    place_N[plan_epoch(np.zeros_like(bucket_N), BATCH, 0, epoch).grouped_N] = np.arange(len(bucket_N))
    sequence_M = np.argsort(place_N[plan.grouped_N[plan.starts_M]])
    return EpochPlan(plan.grouped_N, plan.starts_M[sequence_M], plan.ends_M[sequence_M])


def by_numpy(bucket_N: NDArray[Any], epoch: int) -> EpochPlan:
    random = np.random.default_rng([1, epoch])
    members = [random.permutation(np.flatnonzero(bucket_N == bucket)) for bucket in range(len(SHARES))]
    firsts = np.cumsum([0] + [len(one) for one in members])
    starts_M = np.concatenate([np.arange(a, b, BATCH) for a, b in itertools.pairwise(firsts)])
    ends_M = np.append(starts_M[1:], len(bucket_N))
    sequence_M = random.permutation(len(starts_M))
    return EpochPlan(np.concatenate(members).astype(np.uint32), starts_M[sequence_M], ends_M[sequence_M])


def ours(bucket_N: NDArray[Any], epoch: int) -> EpochPlan:
    return plan_epoch(bucket_N, BATCH, 0, epoch)


def deviations(counts: NDArray[Any], expected: NDArray[Any]) -> float:
    """Pearson's statistic of a table whose rows are tests of their own, in standard deviations from its mean."""
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.shape[0] * (counts.shape[1] - 1)
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def quality(make: Any, bucket_N: NDArray[Any], epochs: int) -> tuple[float, float, float, float]:
    """position, rarest, adjacency, run: see the head of this file."""
    count, rare = len(bucket_N), len(SHARES) - 1
    group_N = np.arange(count) * GROUPS // count
    position, rarest = np.zeros((GROUPS, PARTS)), np.zeros((1, PARTS))
    followed = changes = uniform_changes = 0.0
    batches = 0
    for epoch in range(epochs):
        plan = make(bucket_N, epoch)
        of_batch_M = bucket_N[plan.grouped_N[plan.starts_M]].astype(np.int64)
        order_N = np.concatenate([plan.batch(number) for number in range(len(plan))]).astype(np.int64)
        part_N = np.arange(count) * PARTS // count
        # One image of each batch: those of a batch come together, so they are not independent of each other.
        first_N = np.concatenate([[0], np.cumsum(plan.sizes_M)[:-1]])
        np.add.at(position, (group_N[order_N[first_N]], part_N[first_N]), 1)
        part_M = np.arange(len(plan)) * PARTS // len(plan)
        np.add.at(rarest[0], part_M[of_batch_M == rare], 1)
        followed += np.count_nonzero(np.diff(order_N) == 1)
        changes += np.count_nonzero(np.diff(of_batch_M))
        shares = np.bincount(of_batch_M) / len(plan)
        uniform_changes += (1 - (shares**2).sum()) * len(plan)
        batches += len(plan)
    # A uniform shuffle puts two neighbours that share a shape (and so may share a batch) next to each other as often as
    # any two of that shape; what crosses from batch to batch may be of any shape.
    sizes = np.bincount(bucket_N)
    same = [np.count_nonzero((bucket_N[1:] == b) & (bucket_N[:-1] == b)) for b in range(len(SHARES))]
    inner = sum(s * (1 - 1 / BATCH) / n for s, n in zip(same, sizes, strict=True))
    expected = epochs * (inner + 1 / BATCH)
    position_expected = position.sum(axis=1, keepdims=True) / PARTS
    return (
        deviations(position, np.broadcast_to(position_expected, position.shape)),
        deviations(rarest, np.full_like(rarest, rarest.sum() / PARTS)),
        followed / expected,
        (batches / changes) / (batches / uniform_changes),
    )


def seconds(images: int) -> tuple[float, float, float]:
    """CPU seconds of a plan in four shapes, of one without shapes, and of numpy's permutation of as many numbers."""
    bucket_N = made_buckets(images)
    taken = []
    for work in (
        lambda: plan_epoch(bucket_N, 192, 0, 0),
        lambda: plan_epoch(np.zeros_like(bucket_N), 192, 0, 0),
        lambda: np.random.default_rng(0).permutation(images),
    ):
        best = float("inf")
        for _ in range(3):
            before = time.process_time()
            work()
            best = min(best, time.process_time() - before)
        taken.append(best)
    return taken[0], taken[1], taken[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--timed", type=int, default=10_000_000, help="images of the plan that is timed")
    options = parser.parse_args()
    bucket_N = made_buckets(options.images)
    print("| plan | position | rarest | adjacency | run |\n| --- | --- | --- | --- | --- |")
    for name, make in (("numpy", by_numpy), ("depthsieve", ours), ("by first image", by_first_image)):
        position, rarest, adjacency, run = quality(make, bucket_N, options.epochs)
        print(f"| {name} | {position:+.1f} | {rarest:+.1f} | {adjacency:.2f} | {run:.3f} |")
    shapes, alone, numpy_s = seconds(options.timed)
    print(
        f"{options.timed:,} images: {shapes:.2f} s of CPU in {len(SHARES)} shapes, {alone:.2f} s in one; numpy's "
        f"permutation alone {numpy_s:.2f} s"
    )


if __name__ == "__main__":
    main()
