"""The trim: the mean of a per-pixel loss without its largest values.

Axes: B image of a batch, H row, W column; h and w row and column of patches; R scope (an image, or one for all), N all
that a scope has.
"""

from typing import Literal, NamedTuple

import torch
from torch import distributed, nn
from torch.nn import functional

from depthsieve.core.errors import UsageError
from depthsieve.training.losses.masked import at_least_float32, counts, fitting, fitting_mask
from depthsieve.training.losses.threshold import Total, countable_fraction, floor_share, kth_largest

Scope = Literal["image", "batch", "global"]


class TrimmedLoss(nn.Module):
    """The mean of a per-pixel loss without its largest values: ``L[L < v].mean()``. For any task that has such a loss.

    Depth Anything V2 ignores the top 10% this way when it trains on pseudo-labels (section "Learning from
    pseudo-labels"; the formula is its author's, issue 108 of its repository). Over the valid losses of the scope, ``k
    = floor(drop * n)`` (exact, see :func:`depthsieve.reliability.masking.drop_count`), ``v`` is the k-th largest, and
    pixels with ``L >= v`` go. ``k = 0`` keeps all. Where nothing at all would be left, as where all losses are equal,
    all of the scope is kept.

    **Regions.** The paper speaks of regions, its author of pixels. With ``region=14`` the map is cut into patches of 14
    by 14 pixels, from the upper left corner; at the right and lower border they may be smaller. A patch's loss is the
    mean over its valid pixels; ``n`` is the number of patches that have one, however many. Patches go whole.

    **Distributed.** ``scope="global"`` takes ``v`` over the batches of all ranks, the very value that one process with
    all the pixels would find. Every rank must call the loss equally often, with the same settings, also one whose batch
    is empty; float64 losses must be so on all ranks. A rank's result is ``ranks * (sum over its kept pixels) / (pixels
    kept on all ranks)``: the mean of these, and of their gradients as DistributedDataParallel takes it, is that of all
    kept pixels. No loss is sent, but counts: two all-reduces of 512 KiB (float64: four) and one of 32 bytes, together
    1% of what ViT-S's gradients take. Without a process group it is ``batch``.

    Args:
        drop: fraction in [0, 1); 0.10 is the paper's. May be set anew between steps, for a schedule of one's own.
        scope: over what ``v`` is found: each ``image``, the ``batch``, or the batches of all ranks (``global``).
        region: side of a patch in pixels; None trims pixels.
        warmup: the number that goes rises from 0 in equal steps over the first ``warmup`` calls in training mode:
            ``floor(k * calls / warmup)``. Calls, not optimiser steps: with gradients accumulated over 4 batches, give
            four times as many, and two losses a step need two trims. In evaluation mode the count of calls stands
            still. It is in the state dict (``calls``), so that training resumes where it was.
        group: the process group of ``global``; default: all ranks.

    Raises:
        UsageError: an argument out of range, or another scope. ``dataset`` is a scope of masks only: losses change with
            every step, so no value of theirs holds for a dataset.
    """

    calls: torch.Tensor | None

    def __init__(
        self,
        drop: float = 0.10,
        scope: Scope = "image",
        region: int | None = None,
        warmup: int = 0,
        group: "distributed.ProcessGroup | None" = None,
    ) -> None:
        super().__init__()
        if scope not in ("image", "batch", "global"):
            raise UsageError(
                f"the trim's scope is 'image', 'batch' or 'global', not {scope!r} (losses change with every step, so "
                "none of their values holds for a dataset; 'dataset' is a scope of masks)"
            )
        if region is not None and not (isinstance(region, int) and region >= 1):
            raise UsageError(f"region is the side of a patch, 1 pixel or more, or None, not {region!r}")
        if not (isinstance(warmup, int) and warmup >= 0):
            raise UsageError(f"warmup is a number of calls, 0 or more, not {warmup!r}")
        if group is not None and scope != "global":
            raise UsageError(f"a process group is for scope 'global', not {scope!r}")
        self.drop = drop
        self.scope, self.region, self.warmup, self.group = scope, region, warmup, group
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64) if warmup else None)

    @property
    def drop(self) -> float:
        """The fraction that goes once the warm-up is over."""
        return self._drop

    @drop.setter
    def drop(self, drop: float) -> None:
        self._fraction = countable_fraction(drop)  # raises where drop is out of range
        self._drop = drop

    def extra_repr(self) -> str:
        more = f", region={self.region}" * (self.region is not None) + f", warmup={self.warmup}" * (self.warmup > 0)
        return f"drop={self.drop}, scope={self.scope!r}{more}"

    def forward(
        self,
        loss: torch.Tensor,
        valid: torch.Tensor | None = None,
        weight: torch.Tensor | None = None,
        protect: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The mean over all kept pixels of the batch; every kept pixel weighs the same, whichever image it is in.

        Args:
            loss: one loss a pixel, batch first, any shape ([B,H,W] or [B,1,H,W] with ``region``), any floating dtype.
            valid: bool, True where a loss counts (default: everywhere), such as the loader's mask; as many axes as
                ``loss``, broadcast over axes of size 1. What stands in other pixels, NaN too, reaches neither value nor
                gradient.
            weight: 0 or more, shaped as ``valid``: the mean becomes ``sum(weight * loss) / sum(weight)`` over the kept
                pixels. It has no say in which are kept, and gets no gradient.
            protect: bool, shaped as ``valid``, True at pixels that are never trimmed. They count in ``n``, but ``k`` is
                taken among the others (all of them, if they are fewer). A patch's mean is that of its pixels which are
                not protected, and only those go with it.

        Returns:
            A scalar, summed in float32 (float64 for float64 losses). 0 with zero gradients if nothing is valid or the
            weights add up to 0. A NaN at a valid pixel is never trimmed out of sight: it makes the result NaN. An
            infinite loss is a large loss.

        Raises:
            UsageError: a shape that does not fit, or a rank that is not in ``group``.
        """
        kept = self._decide(loss, valid, weight, protect)
        if self.calls is not None and self.training:
            self.calls.add_(1)
        values = at_least_float32(loss)
        if kept.weight is not None:
            values = values * kept.weight
        return torch.where(kept.mask, values, 0.0).sum() * kept.ranks / kept.total

    @torch.no_grad()
    def keep_mask(
        self, loss: torch.Tensor, valid: torch.Tensor | None = None, protect: torch.Tensor | None = None
    ) -> torch.Tensor:
        """True at the pixels that the next :meth:`forward` of the same would average over: bool, shaped as ``loss``.

        With ``scope="global"`` all ranks must call it.
        """
        return self._decide(loss, valid, None, protect).mask

    @torch.no_grad()
    def _decide(
        self,
        loss: torch.Tensor,
        valid: torch.Tensor | None,
        weight: torch.Tensor | None,
        protect: torch.Tensor | None,
    ) -> "_Kept":
        """Which pixels are kept, and what their sum is divided by."""
        if loss.dim() == 0:
            raise UsageError("losses must have a batch axis; a scalar has nothing to trim")
        ranks = self._ranks()
        total = self._sum_over_ranks if ranks > 1 else None
        valid = fitting_mask(loss, valid)
        free = valid if protect is None else valid & ~fitting_mask(loss, protect, "a protect mask")
        keep_RN = self._in_scopes(valid & ~(free & self._largest(loss, valid, free, total)))
        valid_RN = self._in_scopes(valid)

        sums = [counts(keep_RN), counts(valid_RN)]
        if weight is not None:
            weight = fitting(loss, weight, "a weight").to(at_least_float32(loss).dtype)
            weight_RN = self._in_scopes(torch.where(valid, weight, 0.0))
            sums += [torch.where(keep_RN, weight_RN, 0.0).sum(dim=1), weight_RN.sum(dim=1)]
        if total is not None:
            sums = list(total(torch.stack([*sums, *sums][:4]).double()))  # counts up to 2^53 are exact
        none_left_R = sums[0] == 0
        keep = (keep_RN | (valid_RN & none_left_R[:, None])).view(loss.shape)
        if weight is not None:
            weight = torch.where(keep, weight, 0.0)
            sums = sums[2:]
        whole = torch.where(none_left_R, sums[1], sums[0]).sum()
        return _Kept(keep, weight, torch.where(whole > 0, whole, 1).to(at_least_float32(loss).dtype), ranks)

    def _largest(
        self, loss: torch.Tensor, valid: torch.Tensor, free: torch.Tensor, total: Total | None
    ) -> torch.Tensor:
        """True at the pixels that reach the threshold of their scope, or whose patches do; also at some not free."""
        units = _Units(at_least_float32(loss), valid, free)
        if self.region is not None:
            units = _patches(units, self.region)
        values_RN, valid_RN, free_RN = map(self._in_scopes, units)
        v_R = kth_largest(values_RN, free_RN, counts(valid_RN), self._count, total)
        reach = (values_RN >= v_R[:, None]).view(units.values.shape)  # a NaN does not, and nothing reaches a v of NaN
        return reach if self.region is None else _spread(reach, self.region, loss.shape)

    def _in_scopes(self, values: torch.Tensor) -> torch.Tensor:
        """[R,N]: a row for each scope."""
        rows = len(values) if self.scope == "image" else 1
        return values.reshape(rows, values.numel() // max(rows, 1))

    def _count(self, n: torch.Tensor) -> torch.Tensor:
        """How many of ``n`` go at this call."""
        k = floor_share(n, *self._fraction)
        return k if self.calls is None else k * self.calls.clamp(max=self.warmup) // self.warmup

    def _ranks(self) -> int:
        """How many processes share a scope."""
        if self.scope != "global" or not (distributed.is_available() and distributed.is_initialized()):
            return 1
        ranks = distributed.get_world_size(self.group)
        if ranks < 1:
            raise UsageError("this process is not in the trim's process group: give the group that it is in")
        return ranks

    def _sum_over_ranks(self, numbers: torch.Tensor) -> torch.Tensor:
        distributed.all_reduce(numbers, group=self.group)
        return numbers


class _Kept(NamedTuple):
    """The outcome of a trim."""

    mask: torch.Tensor
    weight: torch.Tensor | None
    """0 where not kept."""
    total: torch.Tensor
    """Of the weights, or else the pixels, that are kept on all ranks; 1 if that is 0."""
    ranks: int


class _Units(NamedTuple):
    """What is trimmed: pixels, or patches."""

    values: torch.Tensor
    """float32 or float64."""
    valid: torch.Tensor
    """Which count in ``n``."""
    free: torch.Tensor
    """Which may go."""


def _patches(pixels: _Units, side: int) -> _Units:
    """Patches [B,h,w]: the mean over the free pixels of each, whether any is valid, whether any is free."""
    shape = pixels.values.shape
    if not (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)):
        raise UsageError(f"a trim by region takes losses of [B,H,W] or [B,1,H,W], not {list(shape)}")
    values_BHW, valid_BHW, free_BHW = (pixel.reshape(shape[0], *shape[-2:]) for pixel in pixels)
    one = values_BHW.new_ones(())
    free_count = _patch_sums(torch.where(free_BHW, one, 0.0), side)
    valid_count = _patch_sums(torch.where(valid_BHW, one, 0.0), side)
    mean = _patch_sums(torch.where(free_BHW, values_BHW, 0.0), side) / free_count.clamp(min=1)
    return _Units(mean, valid_count > 0, free_count > 0)


def _patch_sums(map_BHW: torch.Tensor, side: int) -> torch.Tensor:
    """The sum of each patch [B,h,w]; an average pool adds it up in one order, whatever the batch and the threads."""
    height, width = map_BHW.shape[1:]
    padded_BHW = functional.pad(map_BHW, (0, -width % side, 0, -height % side))
    if padded_BHW.numel() == 0:
        return padded_BHW[:, ::side, ::side]
    return functional.avg_pool2d(padded_BHW[:, None], side, divisor_override=1)[:, 0]


def _spread(patch_Bhw: torch.Tensor, side: int, shape: torch.Size) -> torch.Tensor:
    """What holds for patches, at their pixels."""
    spread_BHW = patch_Bhw.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
    return spread_BHW[:, : shape[-2], : shape[-1]].reshape(shape)
