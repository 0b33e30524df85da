"""The reliability from which a dataset trains: threshold codes at image, batch or dataset scope, computed when needed.

Axes: N images of the dataset, in the order of their ids; B images of a batch; K the 256 codes; R rows of a shard.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import StoreDamaged, UsageError
from depthsieve.core.records import MEND
from depthsieve.reliability.masking import masked_counts, scope_histogram, threshold_code, threshold_codes
from depthsieve.store import Store
from depthsieve.store.arrays import ShardReader
from depthsieve.training.samples import Pixels
from depthsieve.training.selection import Selection

Scope = Literal["image", "batch", "dataset"]


class Thresholds:
    """Threshold codes of the images of a dataset: train where reliability is at least the code.

    Histograms are read when they are first needed (at scope ``dataset``: at once, mostly as the sums in commit records)
    and not kept; at scope ``image`` each image's code is. Several threads may use it; it can be pickled.
    """

    def __init__(self, store: Store, selection: Selection, drop: float, scope: Scope) -> None:
        self.drop, self.scope = drop, scope
        self._store, self._selection = store, selection
        self._codes: dict[int, NDArray[np.uint8]] = {}  # [R] of a shard, by its number in the selection
        self._checked: set[int] = set()
        self._of_dataset = self._dataset() if scope == "dataset" else None

    def of(self, indices_B: NDArray[np.integer[Any]]) -> NDArray[np.int16]:
        """[B] threshold codes at scope ``image`` or ``dataset``. Raises :class:`UsageError` at scope ``batch``."""
        self._refuse_batch()
        if self._of_dataset is not None:
            return np.full(len(indices_B), self._of_dataset[0], np.int16)
        shard_B, row_B = self._selection.shard_N[indices_B].tolist(), self._selection.row_N[indices_B].tolist()
        return np.array([self._of_shard(shard)[row] for shard, row in zip(shard_B, row_B, strict=True)], np.int16)

    def of_batch(self, indices_B: NDArray[np.integer[Any]]) -> int:
        """The code that all images of one global batch share, at scope ``batch``."""
        return threshold_code(self._histogram(indices_B), self.drop)

    def count_batch(self, indices_B: NDArray[np.integer[Any]]) -> Pixels:
        """What :meth:`of_batch` keeps of the whole labels of these images."""
        histogram_K = self._histogram(indices_B)
        return _counted(histogram_K, np.array([threshold_code(histogram_K, self.drop)]))

    def count(self) -> Pixels:
        """What is kept of the whole labels of all images. Raises :class:`UsageError` at scope ``batch``."""
        self._refuse_batch()
        if self._of_dataset is not None:
            return self._of_dataset[1]
        total = Pixels()
        for shard, row_R in self._selection.rows_of_shards():
            histograms_RK = self._column(shard)[row_R]
            total += _counted(histograms_RK, threshold_codes(histograms_RK, self.drop))
        return total

    def masked_share(self) -> float:
        """The fraction of valid pixels that is masked, over all images and before crops: at most ``drop``. Raises as
        :meth:`count`."""
        return self.count().masked_share

    def histogram(self) -> NDArray[np.int64]:
        """[K] the reliability codes of all images, counted over their whole labels; code 0 = invalid."""
        total_K = np.zeros(256, np.int64)
        for shard, row_R in self._selection.rows_of_shards():
            total_K += self._sum_of_shard(shard, row_R)
        return total_K

    def _refuse_batch(self) -> None:
        if self.scope == "batch":
            raise UsageError("at scope 'batch' what is masked depends on the batches: ask the loader's masked_share()")

    def _of_shard(self, shard: int) -> NDArray[np.uint8]:
        if shard not in self._codes:
            self._codes[shard] = threshold_codes(self._column(shard), self.drop).astype(np.uint8)
        return self._codes[shard]

    def _dataset(self) -> tuple[int, Pixels]:
        """The code of all images, and what it keeps."""
        total_K = self.histogram()
        code = threshold_code(total_K, self.drop)
        return code, _counted(total_K, np.array([code]))

    def _sum_of_shard(self, shard: int, row_R: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The histogram of some rows; the sum in the commit record, where no label is left out: failed ones have no
        valid pixels. That of a layer's reliability is in no record."""
        if self._store.layer is None:
            record = self._store.commit_record(self._selection.shards[shard])
            if len(row_R) == record["images"] - len(record["failures"]):
                return np.array(record["histogram"], np.int64)
        return scope_histogram(self._column(shard)[row_R])

    def _histogram(self, indices_B: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """[K] of a batch: single rows, from columns whose checksum was verified once."""
        total_K = np.zeros(256, np.int64)
        shard_B, row_B = self._selection.shard_N[indices_B].tolist(), self._selection.row_N[indices_B].tolist()
        for shard, row in zip(shard_B, row_B, strict=True):
            if shard in self._checked:
                total_K += self._read(shard, partial(_row_of_histogram, row=row))
            else:
                total_K += self._column(shard)[row]
                self._checked.add(shard)
        return total_K

    def _column(self, shard: int) -> NDArray[Any]:
        """[R,K] of a shard."""
        return self._read(shard, lambda reader: reader.column("histogram"))

    def _read(self, shard: int, read: Callable[[ShardReader], NDArray[Any]]) -> NDArray[Any]:
        shard_id = self._selection.shards[shard]
        try:
            return read(self._store.reader(shard_id))
        except OSError as error:
            where = f"{self._store.location}: the histograms of shard {shard_id}"
            raise StoreDamaged(f"{where} cannot be read ({error.strerror or error}); {MEND}") from error


def _row_of_histogram(reader: ShardReader, row: int) -> NDArray[Any]:
    histogram_K: NDArray[Any] = reader.read_range("histogram", row, row + 1)[0]
    return histogram_K


def _counted(histograms_NK: NDArray[Any], t_N: NDArray[Any]) -> Pixels:
    masked_N, valid_N = masked_counts(np.atleast_2d(histograms_NK), t_N)
    valid = int(valid_N.sum())
    return Pixels(valid, valid - int(masked_N.sum()))
