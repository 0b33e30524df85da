"""Near-duplicates along time: of the frames of a clip, those that show no more than the last one kept. Axes: N images,
F frames of a clip."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from depthsieve.curation.duplicates import MOST_BITS
from depthsieve.curation.vectors import BLOCK, Vectors


def find_near_frames(
    vectors: Vectors, phash_N: NDArray[np.uint64], clips: Iterable[NDArray[np.int64]], threshold: float
) -> list[tuple[int, int, float, int]]:
    """Which frames go, each with the one that stays for it, their similarity, and in how many bits their hashes differ.

    ``clips`` are the numbers [F] of each clip's frames, in the order of time. A frame goes if it is like the last one
    of its clip that stays: the product of their vectors is at least ``threshold``, and their hashes differ in at most
    :data:`~depthsieve.curation.duplicates.MOST_BITS` bits. Each frame is compared once; clips are not compared.
    """
    gone = []
    for clip_F in clips:
        last, last_D = -1, np.zeros(0, np.float32)
        for start in range(0, len(clip_F), BLOCK):
            part = clip_F[start : start + BLOCK]
            for number, own_D in zip(part.tolist(), vectors.rows(part), strict=True):
                if last >= 0:
                    similarity = float(np.einsum("d,d->", last_D, own_D))
                    bits = int(phash_N[last] ^ phash_N[number]).bit_count()
                    if similarity >= threshold and bits <= MOST_BITS:
                        gone.append((number, last, similarity, bits))
                        continue
                last, last_D = number, own_D
    return gone
