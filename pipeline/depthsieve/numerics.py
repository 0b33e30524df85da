"""The numerics profile: what moves the last bit of a label, and the batch size found by trial."""

import contextlib
import importlib.metadata
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm.auto import tqdm

from depthsieve.images import decoder_versions
from depthsieve.records import NumericsProfile, Shape
from depthsieve.teachers import Teacher

SMALL_JOB = 64
"""Images below which a trial would cost more than it can gain."""

LARGE_SHAPE = 200_000
"""Pixels of a label shape from which a CPU is fastest with one image at a time (ViT-S: 10% faster than with four)."""


def make_profile(teacher: Teacher, batch_size: int, threads: int) -> NumericsProfile:
    """The profile of this process, this device and these versions."""
    packages = ("torch", "transformers", "numpy", "zarr", "numcodecs")
    versions = {name: importlib.metadata.version(name) for name in packages} | decoder_versions()
    kind = teacher.device.type
    model = torch.cuda.get_device_name(teacher.device) if kind == "cuda" else _processor()
    return NumericsProfile(batch_size, threads, kind, model, teacher.attention, dict(sorted(versions.items())))


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads, and give the process its own setting back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def find_batch_size(teacher: Teacher, shape: Shape, images: int, threads: int, progress: bool) -> int:
    """The batch size with the most images a second at ``shape``, among powers of two, by a short trial.

    A larger one must win by 5%, so that memory is not spent on noise. Small jobs get 4 without a trial, or 1 for large
    shapes on a CPU. ``shape`` should be the largest there is: what fits there fits everywhere.
    """
    if images < SMALL_JOB:
        most = 4 if shape[0] * shape[1] < LARGE_SHAPE or teacher.device.type != "cpu" else 1
        return min(most, max(1, images))
    best, best_rate = 1, 0.0
    limit = 8 if teacher.device.type == "cpu" else 64
    sizes = [2**exponent for exponent in range(limit.bit_length())]
    with torch_threads(threads), tqdm(sizes, desc="batch size", leave=False, disable=None if progress else True) as bar:
        for size in bar:
            try:
                rate = _images_per_second(teacher, shape, size)
            except torch.cuda.OutOfMemoryError:
                break
            if rate > 1.05 * best_rate:
                best, best_rate = size, rate
            elif size >= 4 * best:
                break
    if teacher.device.type == "cuda":
        torch.cuda.empty_cache()  # what the trial held, a worker on the same device needs
    return best


def _images_per_second(teacher: Teacher, shape: Shape, size: int) -> float:
    images = torch.zeros((size, 3, *shape), device=teacher.device)
    fastest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        teacher.predict(images).cpu()
        fastest = min(fastest, time.perf_counter() - start)
    return size / fastest
