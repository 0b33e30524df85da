"""The order of one epoch: a pure function of the images' buckets, the global batch, seed and epoch.

Axes: N images, M batches.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.core.records import canonical_json


def stream(*purpose: int | str) -> np.random.Philox:
    """Random bits that depend on ``purpose`` alone, such as ``("order", seed, epoch)``.

    Use only its ``random_raw``: those bits are the same in every release of numpy, its distributions need not be.
    """
    digest = hashlib.sha256(canonical_json(purpose).encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


class Draws:
    """A few random numbers that depend on ``purpose`` alone: sha256 of it and of a counter. For a handful of them this
    takes a tenth of a :func:`stream`'s time."""

    def __init__(self, *purpose: int | str) -> None:
        self._purpose = canonical_json(purpose).encode()
        self._blocks = 0
        self._bits: list[int] = []

    def bits(self) -> int:
        """The next 64 bits."""
        if not self._bits:
            block = hashlib.sha256(self._purpose + self._blocks.to_bytes(8, "little")).digest()
            self._blocks += 1
            self._bits = list(struct.unpack("<4Q", block))[::-1]
        return self._bits.pop()

    def below(self, n: int) -> int:
        """The next whole number in [0, n); its bias is below n / 2**64."""
        return self.bits() % n

    def unit(self) -> float:
        """The next number in [0, 1), a multiple of 2**-53."""
        return (self.bits() >> 11) * 2.0**-53


def shuffled(count: int, *purpose: int | str) -> NDArray[np.uint32]:
    """The numbers 0..count-1, shuffled as ``purpose`` decides; every order is equally likely.

    Each number gets random bits, and the bits are sorted. The lowest bits are replaced by the number itself, so that no
    two are equal, and every sorting algorithm gives the same order. The bits above decide it; of ten million numbers
    about 45 pairs share those, and keep their order.
    """
    if not 0 <= count < 2**32:
        raise UsageError(f"an epoch has at most {2**32 - 1} images, not {count}")
    low = np.uint64((1 << max(count - 1, 0).bit_length()) - 1)
    bits_N = stream(*purpose).random_raw(count)
    bits_N &= ~low
    bits_N |= np.arange(count, dtype=np.uint64)
    bits_N.sort()
    bits_N &= low
    return bits_N.astype(np.uint32)


@dataclass(frozen=True)
class EpochPlan:
    """The global batches of one epoch, in order. As :func:`plan_epoch` makes it, every image is in exactly one."""

    grouped_N: NDArray[np.uint32]
    starts_M: NDArray[np.int64]
    ends_M: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts_M)

    def batch(self, number: int) -> NDArray[np.uint32]:
        """The images of the ``number``-th global batch."""
        return self.grouped_N[self.starts_M[number] : self.ends_M[number]]

    @property
    def sizes_M(self) -> NDArray[np.int64]:  # noqa: N802
        """[M] images in each batch."""
        return self.ends_M - self.starts_M

    def without_tails(self, global_batch: int) -> "EpochPlan":
        """The same batches at the same places, those of fewer images than ``global_batch`` emptied."""
        sizes_M = np.where(self.sizes_M < global_batch, 0, self.sizes_M)
        return EpochPlan(self.grouped_N, self.starts_M, self.starts_M + sizes_M)


def plan_epoch(bucket_N: NDArray[Any], global_batch: int, seed: int, epoch: int) -> EpochPlan:
    """Cut an epoch into global batches whose images share a bucket.

    The images are shuffled. Each bucket takes its own in that order and is cut into batches of ``global_batch``; the
    remainder is its last, smaller batch. The batches of several buckets are then shuffled, the smaller ones among them,
    so that no bucket comes earlier than another. With one bucket this is the shuffled order, cut.

    ``bucket_N`` holds each image's bucket, counted from 0; as uint16 (:func:`smallest_type`) it is sorted fastest.
    """
    order_N = shuffled(len(bucket_N), "order", seed, epoch)
    sizes = np.bincount(bucket_N)
    if len(sizes) > 1:
        order_N = order_N[np.argsort(bucket_N[order_N], kind="stable")]  # by radix, where the type has 16 bits or less
    first = np.cumsum(sizes) - sizes
    starts_M = np.concatenate([np.arange(at, at + size, global_batch) for at, size in zip(first, sizes, strict=True)])
    ends_M = np.append(starts_M[1:], len(order_N))
    if len(sizes) > 1:
        sequence_M = shuffled(len(starts_M), "batches", seed, epoch)
        starts_M, ends_M = starts_M[sequence_M], ends_M[sequence_M]
    return EpochPlan(order_N, starts_M, ends_M)


def smallest_type(bucket_N: NDArray[np.int64]) -> NDArray[Any]:
    """The same bucket numbers in the smallest unsigned type that holds them."""
    return bucket_N.astype(np.min_scalar_type(int(bucket_N.max(initial=0))))


def rank_share(batch: NDArray[Any], rank: int, world_size: int) -> NDArray[Any]:
    """One rank's part of a global batch: as many images for each rank, the ranks' parts in a row are the batch. A batch
    that is no multiple of the ranks is filled up with its own images, from its first one on."""
    each = -(-len(batch) // world_size)
    return np.resize(batch, each * world_size)[rank * each : (rank + 1) * each]
