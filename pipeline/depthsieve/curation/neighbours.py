"""The nearest neighbours of many vectors, by faiss. Axes: N images, D numbers, K neighbours.

The answer does not depend on how many threads there are: everything that decides it runs in one, and threads share out
blocks of images.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.progress import progress_bar
from depthsieve.curation.vectors import BLOCK, Vectors

EXACT = 20_000
"""Up to this many images every pair is compared; beyond that, only those that lie in the same parts of space."""

PROBES = 12
"""Parts of space that are looked into for each image."""

QUERIES = 1024
"""Images that one thread looks up at a time."""

TRAINED, ROUNDS = 40, 4
"""Images a part that decide where parts lie, and rounds of k-means for that: rough parts will do."""


def nearest(
    vectors: Vectors, queries: Vectors, count: int, threads: int, told: Callable[[int], object]
) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any]]]:
    """For each block of ``queries`` the similarities [n,K] and numbers [n,K] of the ``count`` nearest of ``vectors``,
    the nearest first; -1 where there are fewer. Of more than :data:`EXACT` vectors some may be missed. ``told`` hears
    of as many images as there are vectors and queries, some at a time."""
    faiss.omp_set_num_threads(1)
    index: Any = faiss.IndexFlatIP(vectors.raw_ND.shape[1]) if len(vectors) <= EXACT else _parted(vectors)
    for start in range(0, len(vectors), BLOCK):
        rows_ND = vectors.rows(slice(start, start + BLOCK))
        index.add(rows_ND)
        told(len(rows_ND))

    def search(start: int) -> tuple[slice, NDArray[Any], NDArray[Any]]:
        part = slice(start, min(start + QUERIES, len(queries)))
        similar, numbers = index.search(queries.rows(part), count)
        return part, similar, numbers

    for part, similar, numbers in _shared_out(search, range(0, len(queries), QUERIES), threads):
        yield part, similar, numbers
        told(len(numbers))


def cluster(vectors: Vectors, count: int, threads: int, progress: bool = False) -> NDArray[np.int64]:
    """Which of ``count`` clusters each image is in: int64 [N]. Spherical k-means, always begun alike."""
    centres = faiss.IndexFlatIP(vectors.raw_ND.shape[1])
    cluster_N = np.empty(len(vectors), np.int64)

    def assign(start: int) -> tuple[slice, NDArray[Any]]:
        part = slice(start, min(start + QUERIES, len(vectors)))
        return part, centres.search(vectors.rows(part), 1)[1][:, 0]

    starts = range(0, len(vectors), QUERIES)
    with progress_bar("clusters", total=len(vectors), shown=progress) as bar:
        centres.add(_centres(vectors, min(count, len(vectors)), 256, 12))
        for part, numbers in _shared_out(assign, starts, threads):
            cluster_N[part] = numbers
            bar.update(len(numbers))
    return cluster_N


def _parted(vectors: Vectors) -> Any:
    size = vectors.raw_ND.shape[1]
    parts = int(4 * len(vectors) ** 0.5)
    quantizer = faiss.IndexFlatIP(size)
    quantizer.add(_centres(vectors, parts, TRAINED, ROUNDS))
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, size, parts, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.train(vectors.rows(slice(0, 1)))  # nothing is learnt: the centres are there, and half floats need no range
    index.nprobe = PROBES
    return index


def _centres(vectors: Vectors, count: int, each: int, rounds: int) -> NDArray[np.float32]:
    """Centres of clusters [count,D], of ``each`` images a cluster."""
    faiss.omp_set_num_threads(1)
    wanted = min(len(vectors), count * each)
    chosen = np.sort(np.random.Generator(np.random.Philox(0)).permutation(len(vectors))[:wanted])
    means = faiss.Kmeans(
        vectors.raw_ND.shape[1], count, niter=rounds, seed=0, spherical=True, min_points_per_centroid=1,
        max_points_per_centroid=each,
    )  # fmt: skip
    means.train(vectors.rows(chosen))
    assert means.centroids is not None
    return np.asarray(means.centroids, np.float32)


def _shared_out(work: Callable[[int], Any], starts: range, threads: int) -> Iterator[Any]:
    """What ``work`` gives for each start, in order; faiss lets go of Python's lock while it searches."""
    with ThreadPoolExecutor(threads, initializer=lambda: faiss.omp_set_num_threads(1)) as pool:
        ahead = 4 * threads
        waiting = [pool.submit(work, start) for start in starts[:ahead]]
        for start in [*starts[ahead:], *[-1] * len(waiting)]:
            yield waiting.pop(0).result()
            if start >= 0:
                waiting.append(pool.submit(work, start))
