"""Association by timestamps: colour and depth cameras that run on their own clocks name their files by the time."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

_TIME = re.compile(r"(.*?)(\d+)(?:\.(\d+))?", re.DOTALL)
_EPOCH_DIGITS = 10
NANOSECONDS = 1_000_000_000


def timestamp(stem: str) -> tuple[str, int] | None:
    """What stands before the number at the end of a name without its suffix, and that number in nanoseconds; None
    without one.

    A number is in seconds. One of more than ten digits before its point (milliseconds, microseconds or nanoseconds
    since 1970) has its seconds in the first ten.
    """
    found = _TIME.fullmatch(stem)
    if found is None:
        return None
    point = min(len(found[2]), _EPOCH_DIGITS)
    digits = found[2] + (found[3] or "")
    return found[1], int(digits[:point]) * NANOSECONDS + int(digits[point:].ljust(9, "0")[:9])


def associate(
    wanted: Iterable[tuple[str, int, str]], there: Mapping[str, Sequence[tuple[int, str]]], tolerance: int
) -> dict[str, tuple[str, int]]:
    """Each name with the file that is nearest in time, as TUM's ``associate.py`` does it: of all pairs within the
    tolerance, both ends included, the closest first, and no name and no file twice.

    Args:
        wanted: name, time, and the group in which its file must be.
        there: for each group times and files, sorted.
        tolerance: in nanoseconds, as all times.

    Returns:
        for the names that have one, the file and how far away it is.
    """
    near = []
    for name, time, group in wanted:
        files = there.get(group, ())
        first, last = bisect_left(files, (time - tolerance,)), bisect_right(files, (time + tolerance + 1,))
        near += [(abs(at - time), name, file) for at, file in files[first:last]]
    chosen: dict[str, tuple[str, int]] = {}
    taken = set()
    for apart, name, file in sorted(near):
        if name not in chosen and file not in taken:
            chosen[name] = file, apart
            taken.add(file)
    return chosen
