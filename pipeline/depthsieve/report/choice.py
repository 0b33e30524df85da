"""Which images a gallery shows where a store has more than fit: the extremes of everything that it sorts by, and others
at random, so that whatever a person sorts by, the first page is that of the whole store. Axes: N images.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray


def choose(values: Sequence[NDArray[np.float64]], groups: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """At most ``count`` of N images, as numbers in rising order.

    Half of them are the first of each order and each group, in turns: an order by each of ``values`` (float64 [N], NaN
    where not known) from below and from above, and the rows in each of ``groups``. The others are drawn at random, the
    same ones each time.
    """
    total = len(values[0])
    if total <= count:
        return np.arange(total)
    chosen: dict[int, None] = {}
    for row in _turns([*_orders(values), *groups]):
        if len(chosen) >= count // 2:
            break
        chosen[row] = None
    rest = np.setdiff1d(np.arange(total), np.fromiter(chosen, np.int64, len(chosen)))
    drawn = np.random.default_rng(0).choice(rest, count - len(chosen), replace=False)
    return np.sort(np.concatenate([np.fromiter(chosen, np.int64, len(chosen)), drawn]))


def _orders(values: Sequence[NDArray[np.float64]]) -> Iterator[NDArray[np.int64]]:
    for value_N in values:
        order_N = np.argsort(value_N, kind="stable")  # what is not known comes last
        known = order_N[: int(np.isfinite(value_N).sum())]
        yield known
        yield known[::-1]


def _turns(orders: Iterable[NDArray[np.int64]]) -> Iterator[int]:
    """The first of each, then the second of each, and so on."""
    for some in zip_longest(*orders):
        yield from (int(row) for row in some if row is not None)
