"""An index of an archive's members that stays small: some eight-byte numbers for each, found by their names."""

import hashlib
from array import array

import numpy as np
from numpy.typing import NDArray


class MemberIndex:
    """Of several members of one name the last one added is found, as it is the one that unpacking would leave."""

    def __init__(self, fields: int) -> None:
        self._added = tuple(array("q") for _ in range(fields))
        self._names = array("Q")
        self._columns: tuple[NDArray[np.int64], ...] = ()
        self._sorted: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._has_duplicates = False

    def add(self, name: bytes, *values: int) -> None:
        """Add a member."""
        self._names.append(_hash(name))
        for column, value in zip(self._added, values, strict=True):
            column.append(value)

    def seal(self) -> None:
        """End adding, begin finding."""
        names_N = np.frombuffer(self._names, np.uint64)
        # The last of equal names is the first of its run in the reversed order.
        self._sorted, first_U = np.unique(names_N[::-1], return_index=True)
        last_U = len(names_N) - 1 - first_U
        self._columns = tuple(np.frombuffer(column, np.int64)[last_U] for column in self._added)
        self._has_duplicates = len(last_U) < len(names_N)
        self._added, self._names = (), array("Q")

    def find(self, name: bytes) -> tuple[int, ...] | None:
        """The values of the member of that name; None if there is none."""
        wanted = np.uint64(_hash(name))
        at = int(np.searchsorted(self._sorted, wanted))
        if at == len(self._sorted) or self._sorted[at] != wanted:
            return None
        return tuple(int(column[at]) for column in self._columns)

    def is_replaced(self, name: bytes, first: int) -> bool:
        """Whether a later member has taken the name of the one whose first value is ``first``."""
        found = self.find(name) if self._has_duplicates else None
        return found is not None and found[0] != first

    def column(self, field: int) -> NDArray[np.int64]:
        """One value of every member that can be found."""
        return self._columns[field]


def _hash(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
