"""The trim over three processes finds what one process with all the pixels finds."""

from typing import Any

import pytest
import torch
from torch import multiprocessing
from trim_ranks import RANKS, Case, Share, cases, model_and_batch, run_rank

from depthsieve.training.losses import TrimmedLoss

CASES = cases()
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each of three processes found, joined by gloo. A rank that waits for ever is an error after two minutes."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(run_rank, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(RANKS)]


def whole(case: Case) -> Share:
    """The batches of all ranks as one."""

    def join(name: str, otherwise: float, dtype: torch.dtype) -> torch.Tensor:
        parts = [getattr(share, name) for share in case.shares]
        filled = [
            torch.full_like(share.loss, otherwise, dtype=dtype) if part is None else part
            for part, share in zip(parts, case.shares, strict=True)
        ]
        return torch.cat(filled)

    loss = torch.cat([share.loss for share in case.shares])
    weight = None
    if any(share.weight is not None for share in case.shares):
        weight = join("weight", 1, torch.float32)
    return Share(loss, join("valid", 1, torch.bool), weight, join("protect", 0, torch.bool))


@pytest.mark.parametrize("name", [name for name in CASES if name != "a NaN"])
def test_masks_values_and_gradients_are_those_of_one_process(ranks: Found, name: str) -> None:
    loss, *more = whole(CASES[name])
    loss.requires_grad_()
    trimmed = TrimmedLoss(scope="batch", **CASES[name].settings)
    value = trimmed(loss, *more)
    value.backward()
    assert loss.grad is not None
    found = [rank[name] for rank in ranks]
    assert torch.equal(torch.cat([one["mask"] for one in found]), trimmed.keep_mask(loss, more[0], more[2]))
    last_bits = {"rtol": 2**-50, "atol": 0.0} if loss.dtype == torch.float64 else {"rtol": 2**-21, "atol": 0.0}
    mean = torch.stack([one["value"] for one in found]).mean()
    torch.testing.assert_close(mean, value.detach(), **last_bits)
    grad = torch.cat([one["grad"] for one in found])  # the average over ranks of what each adds is grad / RANKS
    torch.testing.assert_close(grad / RANKS, loss.grad, **last_bits if loss.grad.element_size() > 2 else {})


def test_a_nan_on_one_rank_is_seen_and_the_others_go_on(ranks: Found) -> None:
    assert [bool(rank["a NaN"]["value"].isnan()) for rank in ranks] == [True, False, False]
    loss, *_ = whole(CASES["a NaN"])
    mask = torch.cat([rank["a NaN"]["mask"] for rank in ranks])
    assert torch.equal(mask, TrimmedLoss(0.1, "batch").keep_mask(loss))
    assert mask[0, 0, 0]


def test_a_rank_without_anything_gives_0_and_a_gradient(ranks: Found) -> None:
    for name, rank in (("one rank without images", 1), ("one rank without a valid pixel", 1)):
        found = ranks[rank][name]
        assert found["value"].item() == 0.0
        assert found["grad"].shape == CASES[name].shares[rank].loss.shape
        assert not found["grad"].any()


def test_the_ranks_send_counts_and_no_losses(ranks: Found) -> None:
    counts = 65_536 * 8
    for rank in ranks:
        assert rank["sent"] == [counts + 8, counts, 32]
        assert rank["sent, float64"] == [counts + 8, counts, counts, counts, 32]


def test_the_share_rises_over_all_ranks(ranks: Found) -> None:
    assert [rank["warm-up"] for rank in ranks] == [
        [100, 100, 100, 100, 100],
        [100, 100, 100, 50, 50],
        [100, 50, 0, 0, 0],
    ]


def test_a_group_shares_its_own_threshold_and_has_no_others(ranks: Found) -> None:
    assert [rank["group"] for rank in ranks[::2]] == [100, 0]
    assert ranks[1]["group"] == "this process is not in the trim's process group: give the group that it is in"


def test_gradients_that_ddp_averages_are_those_of_all_kept_pixels(ranks: Found) -> None:
    model, image_BCHW, label_BHW = model_and_batch()
    TrimmedLoss(0.2, "batch")((model(image_BCHW)[:, 0] - label_BHW).abs()).backward()
    for rank in ranks:
        for found, parameter in zip(rank["ddp"], model.parameters(), strict=True):
            torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=1e-7)


def test_without_other_processes_global_is_batch() -> None:
    loss, valid = torch.rand(3, 8, 9), torch.rand(3, 8, 9) < 0.8
    alone, batch = TrimmedLoss(0.2, "global"), TrimmedLoss(0.2, "batch")
    assert torch.equal(alone.keep_mask(loss, valid), batch.keep_mask(loss, valid))
    assert alone(loss, valid).item() == batch(loss, valid).item()
