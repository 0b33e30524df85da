"""What only the images themselves tell of near-duplicates: which are crops, and which of several is blurred.

Only images that are alike are read again, from where the store knows them. Axes: N images, E pairs of images.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import DepthsieveError
from depthsieve.core.progress import progress_bar
from depthsieve.curation.overlap import ALIKE, Outline, correlation, outline
from depthsieve.features.of_image import native_sharpness
from depthsieve.images.decode import decode
from depthsieve.sources import Source, reopen_source
from depthsieve.store import Store

Seen = TypeVar("Seen")

KEPT = 1 << 14
"""Outlines that are kept at a time: about 130 KB each."""

AT_ONCE = 1 << 10
"""Pairs that are compared at a time."""


class Pixels:
    """Looks at the images of a table's rows. ``unread`` are rows whose image could not be read; nothing is said of
    those."""

    def __init__(self, store: Store, ids: Sequence[str], threads: int, progress: bool) -> None:
        self._ids, self._threads, self._progress = ids, threads, progress
        self._alpha = store.spec.alpha
        self._sources: dict[str, Source] = {name: reopen_source(name, root) for name, root in store.sources().items()}
        self._outlines: OrderedDict[int, Outline | None] = OrderedDict()
        self._known: dict[tuple[int, int], bool] = {}
        self._sharpness: dict[int, float | None] = {}
        self.unread: set[int] = set()

    def overlap(self, first_E: NDArray[np.int64], second_E: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the images of each pair of rows lie over each other."""
        pairs = [(min(pair), max(pair)) for pair in zip(first_E.tolist(), second_E.tolist(), strict=True)]
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        with (
            progress_bar("look for crops", total=len(new), unit="pairs", shown=self._progress) as bar,
            ThreadPoolExecutor(self._threads) as pool,
        ):
            for start in range(0, len(new), AT_ONCE):
                some = new[start : start + AT_ONCE]
                rows = sorted({row for pair in some for row in pair} - self._outlines.keys())
                self._outlines.update(zip(rows, pool.map(self._outline, rows), strict=True))
                for pair, alike in zip(some, pool.map(self._alike, some), strict=True):
                    self._known[pair] = alike
                while len(self._outlines) > KEPT:
                    self._outlines.popitem(last=False)
                bar.update(len(some))
        return np.array([self._known[pair] for pair in pairs], np.bool_)

    def sharpness(self, rows: Sequence[int]) -> list[float | None]:
        """How sharp the images of some rows are at their own resolution, 0..1; None where one cannot be read."""
        new = sorted(set(rows) - self._sharpness.keys())
        with (
            progress_bar("compare sharpness", total=len(new), shown=self._progress) as bar,
            ThreadPoolExecutor(self._threads) as pool,
        ):
            for row, value in zip(new, pool.map(lambda row: self._look(row, native_sharpness), new), strict=True):
                self._sharpness[row] = value
                bar.update()
        return [self._sharpness[row] for row in rows]

    def _outline(self, row: int) -> Outline | None:
        return self._look(row, outline)

    def _alike(self, pair: tuple[int, int]) -> bool:
        first, second = (self._outlines[row] for row in pair)
        return first is not None and second is not None and correlation(first, second) >= ALIKE

    def _look(self, row: int, what: Callable[[NDArray[Any]], Seen]) -> Seen | None:
        image = self._ids[row]
        try:
            return what(decode(self._sources[image.partition("/")[0]].read(image), self._alpha).rgb_HW3)
        except (DepthsieveError, OSError, KeyError):
            self.unread.add(row)
            return None
