"""What the trim costs: against torch.quantile, sorting and topk, and as a share of a training step of ViT-S.

    python benchmarks/trimmed_loss.py [--images 1 2 8] [--rounds 7] [--json trimmed_loss.json]

Each side takes the same map of losses [B,518,518] forward and backward. Sides take turns in rounds; a side's time in a
round is the median of its calls, ratios are those of one round, and their median and range are printed.

- **TrimmedLoss** at scope `image`, `batch`, `global` (one rank of a process group) and with `region=14`.
- **quantile**: `torch.quantile`, over the batch or each image, then `L[L < v].mean()`; **quantile, where** takes the
  mean by `torch.where`, as TrimmedLoss does. "Times as fast" is meant against the faster of the two. `torch.quantile`
  raises above 2^24 values; what it says is printed.
- **sort** and **topk** find the same threshold as TrimmedLoss; **mean** is no trim at all.

The training step is Depth Anything V2's ViT-S with random weights at 518 x 518: forward, L1, the trim, backward, AdamW.
It takes turns with the same step with a plain mean. The trim's share is also given as its own time, forward and
backward, over that of the step, which is less noisy. On CUDA the step runs in bfloat16 (autocast). On a machine that
others use, say `--threads 1`: threads that wait for each other are most of what is measured otherwise.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from photos import find_teacher

from depthsieve.training.losses import TrimmedLoss

SIDE = 518
DROP = 0.10
Loss = Callable[[torch.Tensor], torch.Tensor]


# The sides


def rows_of(loss_BHW: torch.Tensor, scope: str) -> torch.Tensor:
    """[R,N]: a row for each scope."""
    return loss_BHW.flatten(1) if scope == "image" else loss_BHW.reshape(1, -1)


def by_quantile(scope: str, indexed: bool) -> Loss:
    """The usual way: the mean below a quantile."""

    def trim(loss_BHW: torch.Tensor) -> torch.Tensor:
        rows_RN = rows_of(loss_BHW, scope)
        kept_RN = rows_RN < torch.quantile(rows_RN.detach(), 1 - DROP, dim=1, keepdim=True)
        return rows_RN[kept_RN].mean() if indexed else mean_where(kept_RN, rows_RN)

    return trim


def by_sort(scope: str) -> Loss:
    """The k-th largest of everything sorted."""

    def trim(loss_BHW: torch.Tensor) -> torch.Tensor:
        rows_RN = rows_of(loss_BHW, scope)
        k = int(DROP * rows_RN.shape[1])
        v_R1 = rows_RN.detach().sort(dim=1, descending=True).values[:, k - 1 : k]
        return mean_where(rows_RN < v_R1, rows_RN)

    return trim


def by_topk(scope: str) -> Loss:
    """The smallest of the k largest."""

    def trim(loss_BHW: torch.Tensor) -> torch.Tensor:
        rows_RN = rows_of(loss_BHW, scope)
        largest_RK = rows_RN.detach().topk(int(DROP * rows_RN.shape[1]), dim=1, sorted=False).values
        return mean_where(rows_RN < largest_RK.amin(dim=1, keepdim=True), rows_RN)

    return trim


def mean_where(kept: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The mean of what is kept, without an index."""
    return torch.where(kept, values, 0.0).sum() / kept.sum()


def sides() -> dict[str, Loss]:
    """By name."""
    found: dict[str, Loss] = {}
    for scope in ("image", "batch"):
        found |= {
            f"TrimmedLoss, {scope}": TrimmedLoss(DROP, scope),  # type: ignore[arg-type]
            f"quantile, {scope}": by_quantile(scope, indexed=True),
            f"quantile, where, {scope}": by_quantile(scope, indexed=False),
            f"sort, {scope}": by_sort(scope),
            f"topk, {scope}": by_topk(scope),
        }
    found["TrimmedLoss, global on one rank"] = TrimmedLoss(DROP, "global")
    found["TrimmedLoss, region 14"] = TrimmedLoss(DROP, region=14)
    found["mean"] = torch.Tensor.mean
    return found


# Timing


def wait(device: str) -> None:
    """A GPU answers before it has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(what: Callable[[], Any], device: str, calls: int) -> float:
    """The median of several calls."""
    found = []
    for _ in range(calls):
        wait(device)
        start = time.perf_counter()
        what()
        wait(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def there_and_back(loss: Loss, loss_BHW: torch.Tensor) -> Callable[[], None]:
    """One call forward and backward."""

    def go() -> None:
        loss_BHW.grad = None
        loss(loss_BHW).backward()

    return go


def in_turns(what: dict[str, Callable[[], Any]], device: str, rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds of each, round by round; every other round goes the other way."""
    for one in what.values():
        one()
    found: dict[str, list[float]] = {name: [] for name in what}
    for number in range(rounds):
        for name in list(what) if number % 2 == 0 else list(what)[::-1]:
            found[name].append(seconds_of(what[name], device, calls))
    return found


def spread(values: list[float], form: str) -> str:
    """The median, with the range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


# The measurements


def maps(images: int, device: str) -> torch.Tensor:
    """Losses as they are: mostly small, some large, a tenth of them exactly 0."""
    generator = torch.Generator().manual_seed(images)
    loss_BHW = torch.randn(images, SIDE, SIDE, generator=generator).abs() ** 2
    loss_BHW[torch.rand(loss_BHW.shape, generator=generator) < 0.1] = 0.0
    return loss_BHW.to(device).requires_grad_()


def compare(images: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """All sides on one batch; prints a row each."""
    loss_BHW = maps(images, options.device)
    what = {name: there_and_back(loss, loss_BHW) for name, loss in sides().items()}
    found = in_turns(what, options.device, options.rounds, options.calls)
    print(f"\n{images} x {SIDE} x {SIDE}: milliseconds; times as fast as torch.quantile; times as fast as a sort")
    for name, seconds in found.items():
        scope = "image" if "image" in name or "region" in name else "batch"
        quantile = map(min, found[f"quantile, {scope}"], found[f"quantile, where, {scope}"])
        ratios = [base / own for base, own in zip(quantile, seconds, strict=True)]
        sorts = [base / own for base, own in zip(found[f"sort, {scope}"], seconds, strict=True)]
        line = f"{name:>32}  {spread([one * 1000 for one in seconds], '.3g'):>28}"
        print(f"{line}  {spread(ratios, '.1f'):>22}  {spread(sorts, '.1f'):>22}", flush=True)
    return found


def beyond_quantile(device: str) -> str:
    """What torch.quantile says about 64 maps, and how long the trim takes for them."""
    loss_BHW = maps(64, device)
    try:
        by_quantile("batch", indexed=True)(loss_BHW)
        said = "nothing: it works"
    except RuntimeError as error:
        said = f"{type(error).__name__}: {error}"
    seconds = seconds_of(there_and_back(TrimmedLoss(DROP, "batch"), loss_BHW), device, 3)
    print(f"\n64 x {SIDE} x {SIDE}: torch.quantile says {said!r}; TrimmedLoss, batch takes {seconds * 1000:.0f} ms")
    return said


def training_step(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a step with a plain mean, with the trim, and of mean and trim alone, on the same map."""
    from transformers import DepthAnythingForDepthEstimation

    with tempfile.TemporaryDirectory() as folder:
        model = DepthAnythingForDepthEstimation.from_pretrained(find_teacher("vit-s", Path(folder)))
    model = model.to(options.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-6)
    generator = torch.Generator().manual_seed(0)
    images, device = options.step_images, options.device
    image_BCHW = torch.randn(images, 3, SIDE, SIDE, generator=generator).to(device)
    label_BHW = torch.rand(images, SIDE, SIDE, generator=generator).to(device)

    def per_pixel() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            depth_BHW: torch.Tensor = model(pixel_values=image_BCHW).predicted_depth
        return (depth_BHW.float() - label_BHW).abs()

    def step(loss: Loss) -> Callable[[], None]:
        def go() -> None:
            optimizer.zero_grad()
            loss(per_pixel()).backward()
            optimizer.step()

        return go

    with torch.no_grad():
        loss_BHW = per_pixel()
    loss_BHW.requires_grad_()
    trims: dict[str, Loss] = {
        "mean": torch.Tensor.mean,
        "image": TrimmedLoss(DROP),
        "region 14": TrimmedLoss(DROP, region=14),
    }
    what = {f"step, {name}": step(trims[name]) for name in ("mean", "image")}
    what |= {f"alone, {name}": there_and_back(loss, loss_BHW) for name, loss in trims.items()}
    found = in_turns(what, device, options.rounds, 1)
    print(f"\nA training step of ViT-S, {images} x {SIDE} x {SIDE} on {device}: {spread(found['step, mean'], '.3g')} s")
    for name in ("image", "region 14"):
        shares = [a / b for a, b in zip(found[f"alone, {name}"], found["step, image"], strict=True)]
        print(f"TrimmedLoss, {name}, forward and backward, over the step: {spread(shares, '.3%')}")
    ratios = [trimmed / plain for trimmed, plain in zip(found["step, image"], found["step, mean"], strict=True)]
    print(f"step with TrimmedLoss, image over step with a mean: {spread(ratios, '.3f')}", flush=True)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 8], help="batch sizes of the maps")
    parser.add_argument("--step-images", type=int, default=1, help="batch size of the training step")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=5, help="calls of each side in a round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write all times here, too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if options.device == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, f"file://{folder}/meet", world_size=1, rank=0)
        print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, {options.rounds} rounds")
        body: dict[str, Any] = {"torch": torch.__version__, "device": options.device, "threads": options.threads}
        body["maps"] = {images: compare(images, options) for images in options.images}
        body["quantile of 64 maps"] = beyond_quantile(options.device)
        body["step"] = training_step(options)
        torch.distributed.destroy_process_group()
    if options.json:
        options.json.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
