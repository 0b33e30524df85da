"""The numerics profile: what moves the last bit of a label, and the batch size found by trial."""

import contextlib
import importlib.metadata
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from depthsieve.core.progress import with_progress
from depthsieve.core.records import NumericsProfile, Shape
from depthsieve.core.threads import torch_threads
from depthsieve.images.decode import decoder_versions
from depthsieve.labelling.predicting import predict
from depthsieve.teachers import Batch, Teacher

SMALL_JOB = 64
"""Images below which a trial would cost more than it can gain."""

LARGE_SHAPE = 200_000
"""Pixels of a label shape from which a CPU is fastest with one image at a time (ViT-S: 3% faster than with four)."""

MOST_LANES = 8

SLOW = 1.0
"""Images a second in a lane, below which a larger batch has nothing to gain on a CPU."""

TRIALS = 3

TRIAL_S = 2.0
"""Seconds after which a batch size is not tried again."""


def make_profile(teacher: Teacher, batch_size: int, threads: int, *, videos: bool = False) -> NumericsProfile:
    """The profile of this process, this device and these versions; with ``videos`` those of what decodes them too."""
    packages = ("torch", "transformers", "numpy", "zarr", "numcodecs")
    versions = {name: importlib.metadata.version(name) for name in packages} | decoder_versions()
    if videos:
        versions |= video_versions()
    kind = teacher.device.type
    model = torch.cuda.get_device_name(teacher.device) if kind == "cuda" else _processor()
    return NumericsProfile(batch_size, threads, kind, model, teacher.attention, dict(sorted(versions.items())))


def video_versions() -> dict[str, str]:
    """Versions of what decodes videos, for the numerics profile."""
    try:
        import av
    except ImportError:
        return {"ffmpeg": "absent", "pyav": "absent"}
    return {"ffmpeg": str(av.ffmpeg_version_info), "pyav": str(av.__version__)}


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def threads_a_lane(cores: int, images: int) -> int:
    """Threads of one forward pass on a CPU: one, so that no core waits for another, as long as there are lanes enough.

    Two lanes of one thread labelled 1.03 (ViT-S at 518) to 1.2 times (tiny-v1) as fast as one of two on two cores.
    There are at most :data:`MOST_LANES`, since each holds a batch of activations, and no more than images.
    """
    return max(1, cores // max(1, min(MOST_LANES, images)))


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """How a batch size is tried: ``lanes`` batches at a time with ``threads`` each on a CPU, ``views`` of each image in
    one pass, for a job of so many ``images`` of at most ``shape``."""

    shape: Shape
    images: int
    lanes: int = 1
    threads: int = 1
    views: int = 1


def find_batch_size(teacher: Teacher, settings: TrialSettings, progress: bool) -> int:
    """The batch size with the most images a second, among powers of two, by a short trial.

    A larger batch must win by 5%, so that memory is not spent on noise. Small jobs get 4 without a trial, or 1 where a
    CPU takes long for one image: then nothing else does. What fits at the largest shape there is fits everywhere.
    """
    on_cpu = teacher.device.type == "cpu"
    shape, images, lanes = settings.shape, settings.images, settings.lanes
    if images < SMALL_JOB:
        most = 4 if shape[0] * shape[1] < LARGE_SHAPE or not on_cpu else 1
        return min(most, max(1, images // lanes))
    best, best_rate = 1, 0.0
    limit = 8 if on_cpu else 64
    sizes = [2**exponent for exponent in range(limit.bit_length())]
    with ThreadPoolExecutor(lanes) as pool:
        for size in with_progress(sizes, "batch size", unit="sizes", shown=progress):
            try:
                rate = _images_per_second(teacher, settings, size, pool)
            except torch.OutOfMemoryError:
                break
            if rate > 1.05 * best_rate:
                best, best_rate = size, rate
            elif size >= 4 * best:
                break
            if on_cpu and rate < lanes * SLOW:
                break
    if teacher.device.type == "cuda":
        torch.cuda.empty_cache()  # what the trial held, a worker on the same device needs
    return best


def images_per_second(teacher: Teacher, settings: TrialSettings, batch_size: int) -> float:
    """How many images a worker predicts in a second, by a short trial: on a CPU one view of each."""
    with ThreadPoolExecutor(settings.lanes) as pool:
        return _images_per_second(teacher, settings, batch_size, pool)


def _images_per_second(teacher: Teacher, settings: TrialSettings, size: int, pool: ThreadPoolExecutor) -> float:
    images = Batch.of(torch.zeros((settings.views * size, 3, *settings.shape), device=teacher.device))

    def try_once(_: int) -> None:
        with torch_threads(settings.threads):
            predict(teacher, images).depth.cpu()

    fastest, began = float("inf"), time.perf_counter()
    for _ in range(TRIALS):
        start = time.perf_counter()
        list(pool.map(try_once, range(settings.lanes)))
        fastest = min(fastest, time.perf_counter() - start)
        if time.perf_counter() - began > TRIAL_S:
            break
    return settings.lanes * size / fastest
