"""Near-duplicates: which images go, each for one that stays. Axes: N images, E pairs of images."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.progress import progress_bar
from depthsieve.curation.neighbours import nearest
from depthsieve.curation.vectors import Vectors, hamming

NEIGHBOURS = 16
"""Nearest neighbours that are looked at first, an image's own self among them; of crowds more, in further rounds."""

MOST_NEIGHBOURS = 1024

MOST_BITS = 26
"""Of 64: images whose perceptual hashes differ in more are not taken for near-duplicates. Hashes of different images
differ in 32 +- 4, those of a photo and its crop to 90% of each side in up to 26."""

_AT_ONCE = 1 << 19

MARGIN = 0.004
"""By how much similarity may be off that is found with half floats; the exact one decides."""


SOMEWHAT = 0.6
"""Similarity from which two images are compared by their pixels, where somebody can: they may be crops."""

SOMEWHAT_BITS = 8
"""Likewise, of 64 bits of their hashes: grey copies have the same hash, and another embedding."""

CANDIDATES = 6
"""Most images that each is compared with by pixels, the most similar ones."""

Overlap = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Tells of pairs of images (better, worse), by their numbers, whether they show a part of one another."""


@dataclass(frozen=True)
class Duplicates:
    """``of_N`` is the number of the image that stays for one that goes, -1 for those that stay; ``similarity_N`` is
    that of the two, ``bits_N`` in how many of 64 bits their hashes differ. ``alike_N``: there is an image like it."""

    of_N: NDArray[np.int64]
    similarity_N: NDArray[np.float32]
    bits_N: NDArray[np.int64]
    alike_N: NDArray[np.bool_]


@dataclass(frozen=True)
class _Pairs:
    """Pairs of images that are alike: the better one, the worse one (int32), how alike, and bits that differ."""

    first_E: NDArray[np.int32]
    second_E: NDArray[np.int32]
    similar_E: NDArray[np.float32]
    bits_E: NDArray[np.uint8]

    @classmethod
    def joined(cls, parts: list["_Pairs"]) -> "_Pairs":
        """All of them, each once, by their first image and then by their second."""
        columns: list[NDArray[Any]] = [
            np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)
        ]
        order = np.lexsort((columns[1], columns[0]))
        first_E, second_E = (column[order] for column in columns[:2])
        new_E = np.ones(len(order), np.bool_)
        new_E[1:] = (first_E[1:] != first_E[:-1]) | (second_E[1:] != second_E[:-1])
        first_E, second_E, similar_E, bits_E = (column[order][new_E] for column in columns)
        return cls(first_E, second_E, similar_E, bits_E)


def find_duplicates(
    vectors: Vectors,
    phash_N: NDArray[np.uint64],
    threshold: float,
    threads: int = 2,
    progress: bool = False,
    overlap: Overlap | None = None,
) -> Duplicates:
    """Drop every image that is like a better one that stays. Images come in the order of their quality, the best first.

    A greedy cover, not connected components: each image that goes is itself like the one that stays for it, so a film
    in which every frame is like the next keeps a frame of each view; and no two that stay are alike, as far as
    neighbours were found. Two are alike if the product of their vectors is at least ``threshold`` and their hashes
    differ in at most :data:`MOST_BITS` bits; or, with ``overlap``, if that says so of images that are somewhat alike.

    An image in a crowd has more neighbours than are looked at first. Those that stay with such a list are looked up
    again, for all images with one, and the cover is computed again from all known pairs, until no list is full.
    """
    found = Duplicates(
        np.full(len(vectors), -1, np.int64),
        np.ones(len(vectors), np.float32),
        np.zeros(len(vectors), np.int64),
        np.zeros(len(vectors), np.bool_),
    )
    crowd = rows = np.arange(len(vectors))
    known: list[_Pairs] = []
    count = NEIGHBOURS
    least = threshold if overlap is None else min(threshold, SOMEWHAT)
    while len(rows) > 1:
        total = len(rows) + len(crowd)  # each is put in, and each is looked up
        with progress_bar("near-duplicates", total=total, shown=progress) as bar:
            first_E, second_E, full_N = _near(
                vectors, crowd, rows, (least, threshold), min(count, len(rows)), threads, bar.update
            )
        similar_E, bits_E = vectors.products(first_E, second_E), hamming(phash_N[first_E], phash_N[second_E])
        alike_E = (similar_E >= threshold) & (bits_E <= MOST_BITS)
        if overlap is not None and count == NEIGHBOURS:
            known += _by_pixels(vectors, phash_N, (first_E, second_E, alike_E), overlap, threads)
        new = _Pairs(
            first_E[alike_E].astype(np.int32),
            second_E[alike_E].astype(np.int32),
            similar_E[alike_E],
            bits_E[alike_E].astype(np.uint8),
        )
        known = [_Pairs.joined([*known, new])]
        _cover(known[0], found)
        found.alike_N[known[0].first_E] = found.alike_N[known[0].second_E] = True
        if len(rows) == len(vectors):
            crowd = np.flatnonzero(full_N)
        before, rows = rows, crowd[found.of_N[crowd] < 0]
        if np.isin(rows, before[~full_N[before]]).all() or (count >= MOST_NEIGHBOURS and np.array_equal(rows, before)):
            break
        count = min(2 * count, MOST_NEIGHBOURS)
    return found


def _near(
    vectors: Vectors,
    crowd: NDArray[np.int64],
    rows: NDArray[np.int64],
    thresholds: tuple[float, float],
    count: int,
    threads: int,
    told: Callable[[int], object],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Pairs (better, worse) of images that may be alike, one of ``crowd`` and one of ``rows``, each once, in order; and
    which images [N] may have more neighbours as near among the ``rows`` than were looked at. ``thresholds`` are those
    of the two: the least similarity of a pair, and that of neighbours of which there may be more."""
    whole = len(rows) == len(vectors)
    among, asking = (vectors, vectors) if whole else (vectors.take(rows), vectors.take(crowd))
    keys: list[NDArray[np.int64]] = []
    full_N = np.zeros(len(vectors), np.bool_)
    for part, similar, numbers in nearest(among, asking, count, threads, told):
        near, nearer = ((similar >= least - MARGIN) & (numbers >= 0) for least in thresholds)
        full_N[crowd[part]] = nearer[:, -1] & (count < len(rows))
        row, column = np.nonzero(near)
        own, other = crowd[part][row], rows[numbers[row, column]]
        different = own != other
        keys.append(np.minimum(own, other)[different] * len(vectors) + np.maximum(own, other)[different])
    pairs_E = np.unique(np.concatenate(keys))
    return pairs_E // len(vectors), pairs_E % len(vectors), full_N


def _by_pixels(
    vectors: Vectors,
    phash_N: NDArray[np.uint64],
    seen: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]],
    overlap: Overlap,
    threads: int,
) -> list[_Pairs]:
    """The pairs that are alike by ``overlap``, of those that are somewhat alike by their vectors or their hashes and
    not alike by both: ``seen`` has pairs (better, worse) that are near by vectors, and which of those are."""
    first_E, second_E, alike_E = seen
    everything = np.arange(len(vectors))
    hashes = Vectors.of_hashes(phash_N)
    same = 1 - SOMEWHAT_BITS / 32
    count = min(NEIGHBOURS, len(vectors))
    near = _near(hashes, everything, everything, (same, same), count, threads, lambda done: None)
    firsts, seconds = np.concatenate([first_E[~alike_E], near[0]]), np.concatenate([second_E[~alike_E], near[1]])
    done = first_E[alike_E] * len(vectors) + second_E[alike_E]
    keys = np.setdiff1d(np.unique(firsts * len(vectors) + seconds), done)
    first_E, second_E = keys // len(vectors), keys % len(vectors)
    similar_E, bits_E = vectors.products(first_E, second_E), hamming(phash_N[first_E], phash_N[second_E])
    chosen = _most_similar(first_E, second_E, np.maximum(similar_E, 1 - bits_E / 32), len(vectors))
    chosen = chosen[overlap(first_E[chosen], second_E[chosen])]
    if not len(chosen):
        return []
    pairs = (first_E[chosen].astype(np.int32), second_E[chosen].astype(np.int32))
    return [_Pairs(*pairs, similar_E[chosen], bits_E[chosen].astype(np.uint8))]


def _most_similar(
    first_E: NDArray[np.int64], second_E: NDArray[np.int64], similar_E: NDArray[np.floating], images: int
) -> NDArray[np.int64]:
    """Which pairs are among the :data:`CANDIDATES` most similar of one of their images."""
    chosen = []
    taken_N = np.zeros(images, np.int64)
    for pair in np.argsort(-similar_E, kind="stable").tolist():
        both = [first_E[pair], second_E[pair]]
        if (taken_N[both] < CANDIDATES).any():
            chosen.append(pair)
            taken_N[both] += 1
    return np.array(sorted(chosen), np.int64)


def _cover(pairs: _Pairs, found: Duplicates) -> None:
    """Go through the images in order; each that stays takes those that are like it. Of several that stay, an image goes
    for the one that is most like it, the better of equals."""
    of_N, similarity_N, bits_N = found.of_N, found.similarity_N, found.bits_N
    of_N[:], similarity_N[:], bits_N[:] = -1, 1, 0
    for start in range(0, len(pairs.first_E), _AT_ONCE):
        columns = (getattr(pairs, one.name)[start : start + _AT_ONCE].tolist() for one in fields(pairs))
        for first, second, similar, bits in zip(*columns, strict=True):
            # Pairs come by their better image, so whether that one stays is known: all that could drop it came before.
            if of_N[first] < 0 and (of_N[second] < 0 or similar > similarity_N[second]):
                of_N[second], similarity_N[second], bits_N[second] = first, similar, bits
