"""The order of one epoch: a pure function of the images' buckets, the global batch, seed and epoch.

Axes: N images, M batches.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.records import canonical_json


def stream(*purpose: int | str) -> np.random.Philox:
    """Random bits that depend on nothing but ``purpose``, such as ``("window", seed, epoch, image_id)``.

    Use its ``random_raw`` alone: those bits are the same in every release of numpy, its distributions need not be.
    """
    digest = hashlib.sha256(canonical_json(purpose).encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def draw_below(random: np.random.Philox, n: int) -> int:
    """The next whole number in [0, n) of a stream; its bias is below n / 2**64."""
    return int(random.random_raw()) % n


def shuffled(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The images 0..count-1 in the order of an epoch."""
    return np.argsort(stream("order", seed, epoch).random_raw(count), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class EpochPlan:
    """The global batches of one epoch, in order. As :func:`plan_epoch` makes it, every image is in exactly one."""

    grouped_N: NDArray[np.int64]
    starts_M: NDArray[np.int64]
    ends_M: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts_M)

    def batch(self, number: int) -> NDArray[np.int64]:
        """The images of the ``number``-th global batch."""
        return self.grouped_N[self.starts_M[number] : self.ends_M[number]]

    @property
    def sizes_M(self) -> NDArray[np.int64]:  # noqa: N802
        """[M] images in each batch."""
        return self.ends_M - self.starts_M

    def without_tails(self, multiple: int, least: int) -> "EpochPlan":
        """The same batches, each cut to a multiple of ``multiple``, and those smaller than ``least`` emptied."""
        sizes_M = np.where(self.sizes_M < least, 0, self.sizes_M - self.sizes_M % multiple)
        return EpochPlan(self.grouped_N, self.starts_M, self.starts_M + sizes_M)


def plan_epoch(bucket_N: NDArray[np.int64], global_batch: int, seed: int, epoch: int) -> EpochPlan:
    """Cut an epoch into global batches whose images share a bucket.

    The images are shuffled. Each bucket takes its own in that order and is cut into batches of ``global_batch``; what
    is left over is its last, smaller batch. Batches follow one another by the place of their first image in the
    shuffled order, so that buckets mix. With one bucket this is the shuffled order, cut.

    ``bucket_N`` holds each image's bucket, counted from 0.
    """
    order_N = shuffled(len(bucket_N), seed, epoch)
    place_N = np.empty_like(order_N)
    place_N[order_N] = np.arange(len(order_N))
    grouped_N = order_N[np.argsort(bucket_N[order_N], kind="stable")]
    sizes = np.bincount(bucket_N)
    within_N = np.arange(len(grouped_N)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    starts_M = np.flatnonzero(within_N % global_batch == 0)
    ends_M = np.append(starts_M[1:], len(grouped_N))
    sequence_M = np.argsort(place_N[grouped_N[starts_M]])
    return EpochPlan(grouped_N, starts_M[sequence_M], ends_M[sequence_M])


def rank_share(batch: NDArray[Any], rank: int, world_size: int) -> NDArray[Any]:
    """The part of one rank: equal for all, in the batch's order; the ranks' parts in a row are the batch."""
    each = len(batch) // world_size
    return batch[rank * each : (rank + 1) * each]
