"""Scale and shift between two depth maps.

Relative teachers give inverse depth (disparity) up to a scale and a shift that differ from map to map, so two of their
maps are compared only after one is aligned to the other: by least squares, as in Ranftl et al., "Towards Robust
Monocular Depth Estimation" (MiDaS, TPAMI 2020), section on scale- and shift-invariant losses, or, where a part of the
pixels may be wild, by least trimmed squares.

Axes: B image of a batch, H row, W column.

Every reduction is done for one image at a time, row by row, in float64: an image's result has the same bits whatever
else is in its batch and however many CPU threads run.
Maps on a device without float64 (Apple's MPS) have to be moved to the CPU first.
"""

import math
from collections.abc import Callable

import torch

from depthsieve.core.errors import UsageError

ROBUST_SAMPLE = 2048
"""Pixels of a map from which the robust alignment starts."""

ROBUST_KEPT = 0.8
"""The share of the pixels that the robust alignment fits: those nearest to it."""

ROBUST_ROUNDS = 2

Fit = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Scale and shift of one image: source, target, and where they count."""


def check_maps(**maps_BHW: torch.Tensor | None) -> None:
    """Raise :class:`UsageError` unless all given maps are [B,H,W] of one shape. ``None`` is passed over."""
    shapes = {name: tuple(map_.shape) for name, map_ in maps_BHW.items() if map_ is not None}
    if any(len(shape) != 3 for shape in shapes.values()) or len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UsageError(f"maps must be [B,H,W] and of one shape, not {listed}")


def sum_map(map_HW: torch.Tensor) -> torch.Tensor:
    """The sum of one map, in its dtype, rows first: each row is summed by one thread, so the order is fixed."""
    return map_HW.sum(dim=1).sum()


def is_finite(values: torch.Tensor) -> torch.Tensor:
    """``torch.isfinite``, four times as fast on CPU."""
    return values.abs() < torch.inf


def align_scale_shift(
    source_BHW: torch.Tensor, target_BHW: torch.Tensor, valid_BHW: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``scale`` and ``shift`` of each image that minimise the sum of ``(scale * source + shift - target) ** 2``.

    Closed form in float64: ``scale`` is covariance over variance of the source, both about their means, which keeps it
    accurate where the values are large against their spread.

    Args:
        source_BHW: maps to be aligned, any floating dtype.
        target_BHW: maps to align to.
        valid_BHW: bool, True where a pixel counts (default: everywhere). Pixels where either map is not finite never
            count.

    Returns:
        ``(scale_B, shift_B)``, float64. A constant source gives scale 0 and the target's mean as shift, the best that
        a constant can do. Without any valid pixel nothing is known: scale 1, shift 0.

    Raises:
        UsageError: shapes that are not [B,H,W] or differ.
    """
    return _fit_each(_least_squares, source_BHW, target_BHW, valid_BHW)


def align_robust(
    source_BHW: torch.Tensor, target_BHW: torch.Tensor, valid_BHW: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift as :func:`align_scale_shift`, of the 80% of the pixels that agree best: wild ones have no say.

    Least trimmed squares (Rousseeuw, "Least median of squares regression", 1984), found by concentration steps from
    Theil's incomplete estimator: the median slope between pixels half the sorted sample apart (Theil, 1950). Fewer
    than a fifth of the pixels cannot move the result beyond what the others allow, however wild they are.

    Args, returns and errors as for :func:`align_scale_shift`; a source that is constant at the sampled pixels gives
    scale 0 and the target's median.
    """
    return _fit_each(_least_trimmed_squares, source_BHW, target_BHW, valid_BHW)


def _fit_each(
    fit: Fit, source_BHW: torch.Tensor, target_BHW: torch.Tensor, valid_BHW: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What ``fit`` makes of each image; scale 1 and shift 0 of one without a pixel that counts."""
    check_maps(source_BHW=source_BHW, target_BHW=target_BHW, valid_BHW=valid_BHW)
    scale_B = torch.ones(len(source_BHW), dtype=torch.float64, device=source_BHW.device)
    shift_B = torch.zeros_like(scale_B)
    for b, (source_HW, target_HW) in enumerate(zip(source_BHW, target_BHW, strict=True)):
        counted_HW = is_finite(source_HW) & is_finite(target_HW)
        if valid_BHW is not None:
            counted_HW &= valid_BHW[b].bool()
        if counted_HW.any():
            scale_B[b], shift_B[b] = fit(source_HW.double(), target_HW.double(), counted_HW)
    return scale_B, shift_B


def _least_trimmed_squares(
    source_HW: torch.Tensor, target_HW: torch.Tensor, counted_HW: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The concentration steps are taken on a sample at even distances; the last fit is that of all pixels."""
    source_P, target_P = source_HW[counted_HW], target_HW[counted_HW]
    step = math.ceil(len(source_P) / ROBUST_SAMPLE)
    source_1S, target_1S = source_P[None, ::step], target_P[None, ::step]
    scale, shift = _median_slope(source_1S[0], target_1S[0])
    kept = math.ceil(ROBUST_KEPT * source_1S.numel())
    for source, target, counted in (
        *ROBUST_ROUNDS * [(source_1S, target_1S, torch.ones_like(source_1S, dtype=torch.bool))],
        (source_HW, target_HW, counted_HW),
    ):
        limit = _off(source_1S, target_1S, scale, shift).flatten().kthvalue(kept).values
        counted = counted & (_off(source, target, scale, shift) <= limit)
        fitted = source[counted]
        if fitted.numel() == 0 or fitted.amin() == fitted.amax():  # nothing but sky, say: no slope in it
            break
        scale, shift = _least_squares(source, target, counted)
    return scale, shift


def _off(source: torch.Tensor, target: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return (scale * source + shift - target).abs()


def _median_slope(source_S: torch.Tensor, target_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Theil's incomplete estimator; two pixels at least give a slope."""
    source_S, order_S = source_S.sort(stable=True)
    target_S = target_S[order_S]
    half = (len(source_S) + 1) // 2
    run = source_S[half:] - source_S[: len(source_S) - half]
    rise = target_S[half:] - target_S[: len(source_S) - half]
    slopes = (rise / run)[run > 0]
    scale = slopes.median() if len(slopes) else source_S.new_zeros(())
    return scale, (target_S - scale * source_S).median()


def _least_squares(
    source_HW: torch.Tensor, target_HW: torch.Tensor, counted_HW: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift of one image of float64 maps, both finite where ``counted_HW``, which is True somewhere."""
    count = counted_HW.sum().double()
    zero = source_HW.new_zeros(())
    source_mean = sum_map(torch.where(counted_HW, source_HW, zero)) / count
    target_mean = sum_map(torch.where(counted_HW, target_HW, zero)) / count
    source_rest_HW = torch.where(counted_HW, source_HW - source_mean, zero)
    target_rest_HW = torch.where(counted_HW, target_HW - target_mean, zero)
    variance = sum_map(source_rest_HW * source_rest_HW)
    covariance = sum_map(source_rest_HW * target_rest_HW)
    # A constant source is found by comparing values: its variance is rounding noise, not exactly 0.
    low = torch.where(counted_HW, source_HW, torch.inf).amin()
    high = torch.where(counted_HW, source_HW, -torch.inf).amax()
    scale = torch.where(high > low, covariance / variance, zero)
    return scale, target_mean - scale * source_mean


def apply_scale_shift(source_BHW: torch.Tensor, scale_B: torch.Tensor, shift_B: torch.Tensor) -> torch.Tensor:
    """``scale * source + shift`` for each image, computed in float64 and returned in the dtype of ``source_BHW``."""
    aligned_BHW = source_BHW.double() * scale_B[:, None, None] + shift_B[:, None, None]
    return aligned_BHW.to(source_BHW.dtype)
