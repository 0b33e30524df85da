"""What is planned and not committed: a few bytes a shard, however many images. Axes: S shards of a generation."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthsieve.store.plan import ShardTable
from depthsieve.store.schema import shard_name, shard_number


@dataclass(frozen=True)
class Pending:
    """Shards that are left, in order; iterating gives their ids. ``tables`` has all shards of each generation,
    ``numbers`` those of them that are left."""

    tables: Mapping[int, ShardTable]
    numbers: Mapping[int, NDArray[np.int64]]

    @classmethod
    def of(
        cls, tables: Mapping[int, ShardTable], committed: Iterable[str], part: tuple[int, int] | None = None
    ) -> "Pending":
        """All of ``tables`` but the ``committed``; of a ``part`` (i, n), counted from 1, every n-th shard only."""
        left = {generation: np.ones(len(table.images_S), np.bool_) for generation, table in tables.items()}
        for shard_id in committed:
            generation, number = shard_number(shard_id)
            if generation in left and number < len(left[generation]):
                left[generation][number] = False
        if part is not None:
            for mask_S in left.values():
                mask_S[np.arange(len(mask_S)) % part[1] != part[0] - 1] = False
        return cls(tables, {generation: np.flatnonzero(mask_S) for generation, mask_S in left.items()})

    def __len__(self) -> int:
        return sum(len(numbers) for numbers in self.numbers.values())

    def __iter__(self) -> Iterator[str]:
        return (shard_name(one, int(number)) for one, numbers in self.numbers.items() for number in numbers)

    @property
    def images(self) -> int:
        """Images in them."""
        return sum(int(self.tables[one].images_S[numbers].sum()) for one, numbers in self.numbers.items())

    @property
    def pixels(self) -> int:
        """Pixels of label in them."""
        total = 0
        for one, numbers in self.numbers.items():
            table = self.tables[one]
            total += int((table.images_S[numbers] * table.label_shapes_S2[numbers].prod(axis=1)).sum())
        return total

    def images_of(self, shard_id: str) -> int:
        """Images in one shard."""
        generation, number = shard_number(shard_id)
        return int(self.tables[generation].images_S[number])
