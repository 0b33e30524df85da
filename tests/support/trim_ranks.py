"""What the ranks of tests/test_trim_distributed.py do: no pytest, so that a rank starts fast.

Each case is the batch of each of three ranks and the settings of the trim. A rank that holds no image, or none with a
valid pixel, still takes part.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed, nn

from depthsieve.core.errors import UsageError
from depthsieve.training.losses import TrimmedLoss

RANKS = 3
SIZES = (2, 0, 3)


class Share(NamedTuple):
    """One rank's part of a batch."""

    loss: torch.Tensor
    valid: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    protect: torch.Tensor | None = None


class Case(NamedTuple):
    """A batch and how it is trimmed."""

    shares: tuple[Share, ...]
    settings: dict[str, Any]


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def ragged(make: Callable[[torch.Tensor], torch.Tensor], **settings: Any) -> Case:
    """Batches of 2, 0 and 3 images of 11 x 13 pixels, four fifths of them valid."""
    shares = []
    for rank, size in enumerate(SIZES):
        loss, valid = make(rand(rank, size, 11, 13)), rand(10 + rank, size, 11, 13) < 0.8
        shares.append(Share(torch.where(valid, loss, torch.nan), valid))
    return Case(tuple(shares), settings)


def with_more(case: Case) -> Case:
    """Weights on two of the ranks, and protected pixels on one."""
    first, second, third = case.shares
    first = first._replace(weight=rand(20, *first.loss.shape))
    third = third._replace(weight=rand(21, *third.loss.shape), protect=rand(22, *third.loss.shape) < 0.3)
    return case._replace(shares=(first, second, third))


def cases() -> dict[str, Case]:
    """By name. Every rank makes them anew."""
    even = [rand(30 + rank, 4, 9, 10) for rank in range(RANKS)]
    nothing = torch.zeros(4, 9, 10, dtype=torch.bool)
    infinite = [torch.tensor([[0.0, -0.0, -1.0, -torch.inf, 2.0 + rank, torch.inf]]) for rank in range(RANKS)]
    broken = even[0].clone()
    broken[0, 0, 0] = torch.nan
    return {
        "one rank without images": ragged(lambda u: u, drop=0.1),
        "ties across ranks": ragged(lambda u: (u * 8).floor(), drop=0.25),
        "one value everywhere": ragged(lambda u: u * 0 + 3, drop=0.5),
        "values that differ in the last bit": ragged(lambda u: 1 + (u * 99).floor() * 2**-23, drop=0.3),
        "of both signs": ragged(lambda u: u - 0.5, drop=0.9),
        "bfloat16": ragged(lambda u: u.bfloat16(), drop=0.123456789),
        "float16": ragged(lambda u: (u * 300).half(), drop=0.1),
        "float64": ragged(lambda u: 1 + u.double() * 1e-12, drop=0.1),
        "nothing to trim": ragged(lambda u: u, drop=0.0),
        "patches": ragged(lambda u: u, drop=0.3, region=4),
        "weights and protected pixels": with_more(ragged(lambda u: u, drop=0.2)),
        "weights and protected pixels, patches": with_more(ragged(lambda u: u, drop=0.2, region=4)),
        "one rank without a valid pixel": Case(
            (Share(even[0]), Share(even[1], nothing), Share(even[2])), {"drop": 0.1}
        ),
        "all the worst on one rank": Case((Share(even[0]), Share(even[1] + 5), Share(even[2])), {"drop": 0.33}),
        "nothing valid anywhere": Case(tuple(Share(loss, nothing) for loss in even), {"drop": 0.1}),
        "infinities and zeros": Case(tuple(map(Share, infinite)), {"drop": 0.5}),
        "a NaN": Case((Share(broken), Share(even[1]), Share(even[2])), {"drop": 0.1}),
    }


def run_rank(rank: int, folder: str) -> None:
    """Join the others, go through all cases, and write ``rank-<rank>.pt``."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", timedelta(seconds=120), world_size=RANKS, rank=rank)
    found: dict[str, Any] = {name: run_case(case, rank) for name, case in cases().items()}
    found["sent"] = sent_by(cases()["one rank without images"], rank)
    found["sent, float64"] = sent_by(cases()["float64"], rank)
    found["warm-up"] = warm_up(rank)
    found["group"] = within_group(rank)
    found["ddp"] = train(rank)
    torch.save(found, Path(folder) / f"rank-{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def run_case(case: Case, rank: int) -> dict[str, torch.Tensor]:
    """Mask, value and gradient of one rank."""
    share = case.shares[rank]
    loss = share.loss.clone().requires_grad_()
    trimmed = TrimmedLoss(scope="global", **case.settings)
    value = trimmed(loss, *share[1:])
    value.backward()
    assert loss.grad is not None
    return {"value": value.detach(), "grad": loss.grad, "mask": trimmed.keep_mask(loss, share.valid, share.protect)}


def sent_by(case: Case, rank: int) -> list[int]:
    """Bytes of each all-reduce of one call, which goes on as ever."""
    sizes = []
    all_reduce = distributed.all_reduce

    def noted(tensor: torch.Tensor, *arguments: Any, **more: Any) -> Any:
        sizes.append(tensor.nbytes)
        return all_reduce(tensor, *arguments, **more)

    distributed.all_reduce = noted
    try:
        TrimmedLoss(scope="global", **case.settings)(*case.shares[rank])
    finally:
        distributed.all_reduce = all_reduce
    return sizes


def warm_up(rank: int) -> list[int]:
    """How many of a rank's 100 pixels are kept, call by call: the ranks' losses are 0..99, 100..199, 200..299."""
    loss = torch.arange(100.0)[None] + 100 * rank
    trimmed = TrimmedLoss(0.5, "global", warmup=3)
    kept = []
    for _ in range(5):
        kept.append(int(trimmed.keep_mask(loss).sum()))
        trimmed(loss)
    return kept


def within_group(rank: int) -> str | int:
    """The trim over ranks 0 and 2 alone."""
    group = distributed.new_group([0, 2])
    loss = torch.arange(100.0)[None] + 100 * rank
    try:
        return int(TrimmedLoss(0.5, "global", group=group).keep_mask(loss).sum())
    except UsageError as error:
        return str(error)


def model_and_batch() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A small convolution, and a batch of seven images with their labels."""
    torch.manual_seed(0)
    return nn.Conv2d(3, 1, 3, padding=1), rand(40, 7, 3, 12, 12), rand(41, 7, 12, 12)


def train(rank: int) -> list[torch.Tensor]:
    """Gradients of a DistributedDataParallel model: 4 images, 1 and 2."""
    model, image_BCHW, label_BHW = model_and_batch()
    wrapped = nn.parallel.DistributedDataParallel(model)
    mine = (slice(0, 4), slice(4, 5), slice(5, 7))[rank]
    loss_BHW = (wrapped(image_BCHW[mine])[:, 0] - label_BHW[mine]).abs()
    TrimmedLoss(0.2, "global")(loss_BHW).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
