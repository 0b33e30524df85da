"""Near-duplicates: which images go, each for one that stays. Axes: N images, E pairs of images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthsieve.curation.neighbours import nearest
from depthsieve.curation.vectors import Vectors, hamming

NEIGHBOURS = 16
"""Nearest neighbours that are looked at first, an image's own self among them; of crowds more, in further rounds."""

MOST_NEIGHBOURS, MOST_ROUNDS = 1024, 32

MOST_BITS = 26
"""Of 64: images whose perceptual hashes differ in more are not taken for near-duplicates. Hashes of different images
differ in 32 +- 4, those of a photo and its crop to 90% of each side in up to 26."""

MARGIN = 0.004
"""By how much similarity may be off that is found with half floats; the exact one decides."""


@dataclass(frozen=True)
class Duplicates:
    """``of_N`` is the number of the image that stays for one that goes, -1 for those that stay; ``similarity_N`` is
    that of the two, ``bits_N`` in how many of 64 bits their hashes differ."""

    of_N: NDArray[np.int64]
    similarity_N: NDArray[np.float32]
    bits_N: NDArray[np.int64]


def find_duplicates(vectors: Vectors, phash_N: NDArray[np.uint64], threshold: float, threads: int = 2) -> Duplicates:
    """Drop every image that is like a better one that stays. Images come in the order of their quality, the best first.

    A greedy cover, not connected components: each image that goes is itself like the one that stays for it, so a film
    in which every frame is like the next keeps a frame of each view; and no two that stay are alike, as far as
    neighbours were found. Two are alike if the product of their vectors is at least ``threshold`` and their hashes
    differ in at most :data:`MOST_BITS` bits.

    An image in a crowd may have more neighbours than are looked at. Those that stay with such a list are looked up
    again among themselves, with longer lists, until no list is full or none of them goes. Images that went for one that
    now goes itself come back into the next round, unless they are like what it went for.
    """
    found = Duplicates(
        np.full(len(vectors), -1, np.int64), np.ones(len(vectors), np.float32), np.zeros(len(vectors), np.int64)
    )
    rows, count = np.arange(len(vectors)), NEIGHBOURS
    for _ in range(MOST_ROUNDS):
        if len(rows) < 2:
            break
        part = vectors if len(rows) == len(vectors) else vectors.take(rows)
        pairs_2E, full_N = _pairs(part, threshold, min(count, len(rows)), threads)
        first_E, second_E = rows[pairs_2E[0]], rows[pairs_2E[1]]
        similar_E, bits_E = vectors.products(first_E, second_E), hamming(phash_N[first_E], phash_N[second_E])
        alike_E = (similar_E >= threshold) & (bits_E <= MOST_BITS)
        gone = _cover(first_E[alike_E], second_E[alike_E], similar_E[alike_E], bits_E[alike_E], found)
        crowded = rows[full_N & (found.of_N[rows] < 0)]
        back = _settle(vectors, phash_N, threshold, found)
        if not gone and not len(back) and count >= MOST_NEIGHBOURS:
            break
        rows, count = np.union1d(crowded, back), min(2 * count, MOST_NEIGHBOURS)
    return found


def _settle(vectors: Vectors, phash_N: NDArray[np.uint64], threshold: float, found: Duplicates) -> NDArray[np.int64]:
    """Let images that went for one that has gone itself go for what that went for. Returns those that are not like it:
    they stay for now."""
    of_N = found.of_N
    rows = np.flatnonzero((of_N >= 0) & (of_N[of_N] >= 0))
    target = of_N[rows]
    while (of_N[target] >= 0).any():
        target = np.where(of_N[target] >= 0, of_N[target], target)
    similar, bits = vectors.products(rows, target), hamming(phash_N[rows], phash_N[target])
    alike = (similar >= threshold) & (bits <= MOST_BITS)
    of_N[rows] = np.where(alike, target, -1)
    found.similarity_N[rows] = np.where(alike, similar, 1)
    found.bits_N[rows] = np.where(alike, bits, 0)
    return rows[~alike]


def _pairs(vectors: Vectors, threshold: float, count: int, threads: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs [2,E] of different images that may be alike, each once, the smaller number first, in order; and which
    images have more neighbours as near than were looked at."""
    pairs: list[NDArray[np.int64]] = []
    full_N = np.zeros(len(vectors), np.bool_)
    for part, similar, numbers in nearest(vectors, count, threads):
        near = (similar >= threshold - MARGIN) & (numbers >= 0)
        full_N[part] = near[:, -1] & (count < len(vectors))
        row, column = np.nonzero(near)
        own, other = row + part.start, numbers[row, column].astype(np.int64)
        different = own != other
        pairs.append(np.stack([np.minimum(own, other)[different], np.maximum(own, other)[different]]))
    keys = np.unique(np.concatenate([one[0] * len(vectors) + one[1] for one in pairs]))
    return np.stack([keys // len(vectors), keys % len(vectors)]), full_N


def _cover(
    first_E: NDArray[np.int64],
    second_E: NDArray[np.int64],
    similar_E: NDArray[np.float32],
    bits_E: NDArray[np.int64],
    found: Duplicates,
) -> int:
    """Go through the images in order; each that stays takes those that are like it. Pairs are (better, worse), ordered.
    Returns how many went. Of several that stay, an image goes for the one that is most like it."""
    gone = 0
    of_N = found.of_N
    for first, second, similar, bits in zip(
        first_E.tolist(), second_E.tolist(), similar_E.tolist(), bits_E.tolist(), strict=True
    ):
        # Pairs come by their first image, so whether that one stays is known: all pairs that could drop it came before.
        if of_N[first] < 0 and (of_N[second] < 0 or similar > found.similarity_N[second]):
            gone += int(of_N[second] < 0)
            of_N[second], found.similarity_N[second], found.bits_N[second] = first, similar, bits
    return gone
