"""Seconds and memory of finding near-duplicates among made-up embeddings of 384 numbers.

    python benchmarks/near_duplicates.py                    # 10,000 and 100,000
    python benchmarks/near_duplicates.py --images 1e6       # some minutes on two cores

Embeddings are float16 of norm 1: a third of the images stand alone, the others come in groups of 2 to 20 that are alike
(similarity 0.93 and more within a group), as frames of films are; groups lie in 200 regions, as photos of like subjects
do. Each size runs in a process of its own: memory is that process's peak, the embeddings in it. ``missed`` is the share
of images that should have gone, as all others of their group, and stayed; ``wrong`` the share of those that went which
are of another group than the image that stays for them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

SIZE = 384
REGIONS = 200
THRESHOLD = 0.85


def made(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (float16 [N,D]) in no order, and the group of each."""
    random = np.random.default_rng(seed)
    regions = random.normal(size=(REGIONS, SIZE)).astype(np.float32)
    sizes = np.where(random.random(images) < 0.8, 1, random.integers(2, 21, images))
    sizes = sizes[: np.searchsorted(sizes.cumsum(), images) + 1]
    group_N = random.permutation(np.repeat(np.arange(len(sizes)), sizes)[:images])
    region_G = random.integers(0, REGIONS, len(sizes))
    embedding_ND = np.empty((images, SIZE), np.float16)
    block = 1 << 14
    for start in range(0, images, block):
        part = group_N[start : start + block]
        rows = np.empty((len(part), SIZE), np.float32)
        for row, group in enumerate(part.tolist()):
            own = np.random.Generator(np.random.Philox(key=group)).standard_normal(SIZE, np.float32)
            rows[row] = 0.5 * regions[region_G[group]] + own
        rows += 0.22 * random.standard_normal(rows.shape, np.float32)
        embedding_ND[start : start + block] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return embedding_ND, group_N


def run(images: int, threads: int) -> dict[str, Any]:
    """One size, in this process."""
    from depthsieve.curation.duplicates import find_duplicates
    from depthsieve.curation.vectors import Vectors

    embedding_ND, group_N = made(images)
    hashes = np.zeros(images, np.uint64)
    start, busy = time.perf_counter(), time.process_time()
    found = find_duplicates(Vectors.of(embedding_ND), hashes, THRESHOLD, threads)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    gone = found.of_N >= 0
    right = group_N[found.of_N[gone]] == group_N[gone]
    should = images - len(np.unique(group_N))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "images": images,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(busy, 1),
        "peak_mib": round(peak),
        "dropped": int(gone.sum()),
        "missed": round(1 - float(right.sum()) / should, 5),
        "wrong": round(1 - float(right.mean()), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=float, nargs="+", default=[1e4, 1e5])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one, options.threads)))
        return
    head = ("images", "seconds", "CPU seconds", "peak MiB", "dropped", "missed", "wrong")
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|")
    for images in options.images:
        command = [sys.executable, __file__, "--one", str(int(images)), "--threads", str(options.threads)]
        done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        counts = f"{done['peak_mib']:,} | {done['dropped']:,} | {done['missed']:.2%} | {done['wrong']:.2%}"
        print(f"| {done['images']:,} | {done['seconds']} | {done['cpu_seconds']} | {counts} |", flush=True)


if __name__ == "__main__":
    main()
