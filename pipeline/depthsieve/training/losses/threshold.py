"""The value that the trim cuts at: the k-th largest of each row, exactly, by counting digits.

Floats are ordered like the integers that their bits make, so the k-th largest is found digit by digit, from the top:
count how many candidates have which digit, see in which the k-th largest lies, and go on among those (a radix select).
This never sorts, waits for no device, and what it needs of all ranks of a distributed batch are the sums of the counts.

Axes: R row, of which each has its own threshold; N value of a row; D digit.
"""

from collections.abc import Callable
from fractions import Fraction

import torch

from depthsieve.reliability.masking import drop_fraction
from depthsieve.training.losses.masked import count_dtype

COUNTABLE = 2**40
"""So many values of a scope are counted exactly: four million maps of 518 x 518."""

DIGIT_BITS = 16
SHORT_DIGIT_BITS = 8
"""Rows shorter than ``SHORT_ROW`` would spend their time on 65,536 counts each; they take more and smaller digits."""
SHORT_ROW = 2**15

Total = Callable[[torch.Tensor], torch.Tensor]
"""The sum of an int64 tensor over all ranks."""


def countable_fraction(drop: float) -> tuple[int, int]:
    """Numerator and denominator, at most :data:`COUNTABLE`, that give ``floor(drop * n)`` for all ``n`` up to there.

    The largest fraction up to ``drop`` with such a denominator: ``floor(drop * n) / n`` is itself one, so it is not
    above that largest one, and the floors are the same.

    Raises:
        UsageError: ``drop`` is no number in [0, 1).
    """
    wanted = drop_fraction(drop)
    nearest = wanted.limit_denominator(COUNTABLE)
    p, q = nearest.numerator, nearest.denominator
    if nearest > wanted:  # its lower neighbour among those fractions: p * q' - q * p' = 1, q' as large as may be
        inverse = pow(p, -1, q) if q > 1 else 0
        lower_q = inverse + (COUNTABLE - inverse) // q * q
        below = Fraction((p * lower_q - 1) // q, lower_q)
        p, q = below.numerator, below.denominator
    return p, q


def floor_share(n: torch.Tensor, p: int, q: int) -> torch.Tensor:
    """``floor(n * p / q)`` for int64 ``n``, ``p`` and ``q`` up to 2^40, without leaving int64 or the device."""
    high, low = n >> 20, n & (2**20 - 1)
    upper = high * p
    return ((upper // q) << 20) + (((upper % q) << 20) + low * p) // q


def kth_largest(
    values_RN: torch.Tensor,
    candidate_RN: torch.Tensor,
    n_R: torch.Tensor,
    count: Callable[[torch.Tensor], torch.Tensor],
    total: Total | None = None,
) -> torch.Tensor:
    """The ``k``-th largest candidate of each row, ``k = min(count(n), candidates)``; NaN where ``k`` is 0.

    A NaN counts as larger than all else (as smaller, where its sign bit is set).

    Args:
        values_RN: float32 or float64.
        candidate_RN: bool, True where a value takes part.
        n_R: int64, what ``count`` turns into the int64 ``k_R``.
        total: sums over all ranks, for one row: ``n`` and the candidates are then those of all ranks. It is called once
            a digit (two of float32, four of float64), on 65,537 and then 65,536 numbers.
    """
    rows, length = values_RN.shape
    key_RN, bits = _ordered_keys(values_RN), 8 * values_RN.element_size()
    width = DIGIT_BITS if total is not None or length >= SHORT_ROW else SHORT_DIGIT_BITS
    row_R1 = torch.arange(rows, dtype=key_RN.dtype, device=values_RN.device)[:, None] << width
    known_R1 = key_RN.new_zeros(rows, 1)  # the digits found so far, in their places
    rank_R1 = k_R1 = n_R[:, None]
    for shift in range(bits - width, -1, -width):
        first = shift == bits - width
        if not first:
            candidate_RN = candidate_RN & ((key_RN ^ known_R1).bitwise_right_shift_(shift + width) == 0)
        # Those that do not take part add 0 to a bin of their own digit: one bin for them all would be waited for on
        # a GPU, where additions to one place queue.
        bin_RN = (key_RN >> shift).bitwise_and_(2**width - 1)
        if rows > 1:
            bin_RN.add_(row_R1)
        counts = torch.zeros(rows << width, dtype=count_dtype(length), device=values_RN.device)
        counts.index_add_(0, bin_RN.reshape(-1), candidate_RN.reshape(-1).to(counts.dtype))
        count_RD = counts.view(rows, 1 << width)
        if total is not None:
            summed = total(torch.cat([counts.long(), n_R]) if first else counts.long())
            count_RD, n_R = summed[None, : 1 << width], summed[1 << width :] if first else n_R
        upto_RD = count_RD.cumsum(dim=1, dtype=torch.int64)
        if first:
            k_R1 = torch.minimum(count(n_R)[:, None], upto_RD[:, -1:])
            rank_R1 = upto_RD[:, -1:] - k_R1  # how many candidates are left below it, in the order of keys
        digit_R1 = torch.searchsorted(upto_RD, rank_R1, right=True).clamp(max=2**width - 1)
        rank_R1 = rank_R1 - upto_RD.gather(1, digit_R1) + count_RD.gather(1, digit_R1)
        known_R1 = known_R1 | (digit_R1.to(key_RN.dtype) << shift)
    return torch.where(k_R1 > 0, _values_of(known_R1, values_RN.dtype), torch.nan)[:, 0]


def _ordered_keys(values: torch.Tensor) -> torch.Tensor:
    """The bits of floats, turned so that as unsigned integers they have the order of the floats."""
    bits = values.view(torch.int64 if values.dtype == torch.float64 else torch.int32)
    sign, low = _sign(bits.dtype), 8 * bits.element_size() - 1
    return (bits >> low).bitwise_or_(sign).bitwise_xor_(bits)  # negative: all bits turn; else the sign bit alone


def _values_of(keys: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The floats of ordered keys."""
    sign, low = _sign(keys.dtype), 8 * keys.element_size() - 1
    return (keys ^ (~(keys >> low) | sign)).view(dtype)


def _sign(dtype: torch.dtype) -> int:
    return torch.iinfo(dtype).min
