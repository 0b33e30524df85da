"""What was used last, and no more of it than a bound."""

import contextlib
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Values by name, at most ``most`` of them: those that were used last.

    Threads may share one. There is no lock, which a fork could find taken for ever: each step is one call into a dict,
    which nothing interrupts, and a value that went meanwhile is made again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str) -> Value | None:
        """The value of that name, which is then the one used last."""
        value = self._values.get(name)
        if value is not None:
            with contextlib.suppress(KeyError):  # gone since
                self._values.move_to_end(name)
        return value

    def put(self, name: str, value: Value) -> Value:
        """Keep a value; it is returned."""
        self._values[name] = value
        while len(self._values) > self._most:
            with contextlib.suppress(KeyError):  # another thread was faster
                self._values.popitem(last=False)
        return value
