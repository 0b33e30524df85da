"""Settings of the forward pass on this machine's CPU: memory format, torch.compile, threads and lanes, batch size.

    python benchmarks/forward_settings.py [--teacher tiny] [--height 126 --width 168] [--passes 60] [--compile]

Each setting gets the same images; what is printed is how many images a second it does, as a ratio to the plain one:
channels first, one batch of one image at a time, with all threads. Rounds take turns, the median counts.

``--compile`` compiles the teacher's network for each setting, and prints how long that took for one input shape, and
at how many pixels the label, as it is stored (float16), differs from the one without.
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


def compiling(setting: tuple[Predict, int, int, int], plain: Predict, shape: tuple[int, int]) -> str:
    """Compile by the first pass, and compare with the network as it is."""
    predict, size, _, threads = setting
    torch.set_num_threads(threads)
    images = torch.rand(size, 3, *shape)
    with torch.inference_mode():
        start = time.perf_counter()
        found_BHW = predict(images).depth
        seconds = time.perf_counter() - start
        wanted_BHW = plain(images).depth
    differing = float((found_BHW.half() != wanted_BHW.half()).float().mean())
    apart = float((found_BHW - wanted_BHW).abs().max() / wanted_BHW.max())
    return f"compiled in {seconds:.0f} s; {differing:.2%} of the pixels differ, by {apart:.1e} of the maximum at most"


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
        compiled = [load_teacher(name, device="cpu") for _ in range(3)]
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
        shape = (chosen.height, chosen.width)
        several = f"{cores} lanes"
        for teacher, what, size, lanes, threads in zip(
            compiled,
            ("channels last, compiled", f"{several}, compiled", f"{several} of 4, compiled"),
            (1, 1, 4),
            (1, cores, cores),
            (cores, 1, 1),
            strict=True,
        ):
            teacher._model.forward = torch.compile(teacher._model.forward, dynamic=False)  # type: ignore[attr-defined]
            settings[what] = (labelling(teacher), size, lanes, threads)
            print(f"{what:>25}: {compiling(settings[what], labelling(last), shape)}", flush=True)
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
