"""Calls to one root that do not depend on each other: side by side where each is a round trip."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from depthsieve.storage.protocol import Root

AT_ONCE = 16

Result = TypeVar("Result")


def together(root: Root, calls: Iterable[Callable[[], Result]]) -> list[Result]:
    """What the calls return, in order. In a folder they are made one after another; to an object store side by side,
    and all have ended when this returns, or raises what the first of them that failed has raised."""
    calls = list(calls)
    if root.path is not None or len(calls) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(len(calls), AT_ONCE), "together") as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
