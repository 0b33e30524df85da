"""Which images of many are the most diverse: farthest points, or turns of clusters. Axes: N images, D numbers."""

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.progress import with_progress
from depthsieve.curation.neighbours import cluster
from depthsieve.curation.vectors import Vectors

MOST_PRODUCTS = 50_000_000
"""Products of vectors that picking farthest points may take; of more images clusters take turns."""

CLUSTERS = 1024


def is_exact(images: int, wanted: int) -> bool:
    """Whether farthest points are picked, and not turns taken."""
    return images * wanted <= MOST_PRODUCTS


def most_diverse(vectors: Vectors, wanted: int, threads: int, progress: bool = False) -> NDArray[np.bool_]:
    """True for ``wanted`` of the images, which come in the order of their quality.

    The first is the best one; each next one is that whose nearest chosen image is the farthest away (Gonzalez 1985: the
    largest gap is at most twice the best possible), the better of equals. Where that would take too long, images are
    put into :data:`CLUSTERS` clusters, or ``wanted`` of them if that is less, which take turns to give their best.
    """
    if wanted >= len(vectors):
        return np.ones(len(vectors), np.bool_)
    chosen_N = np.zeros(len(vectors), np.bool_)
    if not is_exact(len(vectors), wanted):
        cluster_N = cluster(vectors, min(CLUSTERS, wanted), threads, progress)
        order = np.lexsort((np.arange(len(vectors)), turns(cluster_N)))
        chosen_N[order[:wanted]] = True
        return chosen_N
    rows_ND = vectors.rows(slice(None))
    nearest_N = np.full(len(vectors), -2, np.float32)
    number = 0
    for _ in with_progress(range(wanted), "most diverse", shown=progress):
        chosen_N[number] = True
        np.maximum(nearest_N, np.einsum("nd,d->n", rows_ND, rows_ND[number]), out=nearest_N)
        number = int(np.argmin(np.where(chosen_N, np.inf, nearest_N)))
    return chosen_N


def turns(group_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many images of its group come before each image: int64 [N]."""
    order = np.argsort(group_N, kind="stable")
    sorted_N = group_N[order]
    first_N = np.flatnonzero(np.concatenate([[True], sorted_N[1:] != sorted_N[:-1]])) if len(group_N) else np.zeros(0)
    starts_N = np.repeat(first_N, np.diff(np.append(first_N, len(group_N))).astype(np.int64))
    turn_N = np.empty(len(group_N), np.int64)
    turn_N[order] = np.arange(len(group_N)) - starts_N
    return turn_N
