"""Settings of the forward pass on this machine's CPU: memory format, torch.compile, threads and lanes, batch size.

    python benchmarks/forward_settings.py [--teacher tiny] [--height 126 --width 168] [--passes 60] [--compile]

Each setting gets the same images; what is printed is how many images a second it does, as a ratio to the plain one:
channels first, one batch of one image at a time, with all threads. Rounds take turns, the median counts.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from photos import find_teacher

Predict = Callable[[torch.Tensor], Any]


def rate(predict: Predict, images: torch.Tensor, lanes: int, threads: int, passes: int) -> float:
    """Images a second of ``lanes`` at once, with ``threads`` each."""

    def go(_: int) -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            predict(images)

    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(go, range(lanes)))
        start = time.perf_counter()
        list(pool.map(go, range(passes)))
        return passes * len(images) / (time.perf_counter() - start)


def main() -> None:
    """The command line."""
    from depthsieve.teachers import Batch, load_teacher

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="tiny", help="tiny, vit-s, vit-b, vit-l (random weights), or a folder")
    parser.add_argument("--height", type=int, default=126)
    parser.add_argument("--width", type=int, default=168)
    parser.add_argument("--passes", type=int, default=60, help="images a setting and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="torch.compile, too: half a minute, and a C++ compiler")
    chosen = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        name = find_teacher(chosen.teacher, Path(folder))
        last, first = load_teacher(name, device="cpu"), load_teacher(name, device="cpu")
        compiled = load_teacher(name, device="cpu")
    first._model.to(memory_format=torch.contiguous_format)  # type: ignore[attr-defined]

    def labelling(teacher: Any) -> Predict:
        return lambda image_BCHW: teacher.predict(Batch.of(image_BCHW))

    def plain(image_BCHW: torch.Tensor) -> Any:
        return first._model(pixel_values=image_BCHW).predicted_depth  # type: ignore[attr-defined]

    settings: dict[str, tuple[Predict, int, int, int]] = {
        "channels first": (plain, 1, 1, cores),
        "channels last": (labelling(last), 1, 1, cores),
        "batches of 4": (labelling(last), 4, 1, cores),
        f"{cores} lanes of a thread": (labelling(last), 1, cores, 1),
        f"{cores} lanes, batches of 4": (labelling(last), 4, cores, 1),
    }
    if chosen.compile:
        compiled._model.forward = torch.compile(compiled._model.forward, dynamic=False)  # type: ignore[attr-defined]
        settings["channels last, compiled"] = (labelling(compiled), 1, 1, cores)
    rates: dict[str, list[float]] = {what: [] for what in settings}
    for _ in range(chosen.rounds):
        for what, (predict, size, lanes, threads) in settings.items():
            images = torch.rand(size, 3, chosen.height, chosen.width)
            rates[what].append(rate(predict, images, lanes, threads, max(lanes, chosen.passes // size)))
    for what, found in rates.items():
        ratios = [one / base for one, base in zip(found, rates["channels first"], strict=True)]
        print(f"{what:>25}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
