"""Which ids are like one that is not there, for messages about it."""

import difflib
from bisect import bisect_left

import pyarrow as pa
import pyarrow.compute as pc

CANDIDATES = 2000
"""Ids that are compared letter by letter, which takes about a tenth of a second."""


def near_ids(ids: pa.ChunkedArray, wanted: str, most: int = 1) -> list[str]:
    """Of sorted ``ids``, those most like ``wanted``, best first: ids of the same file name, which an id without its
    source or folder has, else ids that are spelled alike. ``most`` of them, or fewer."""
    name = wanted.rpartition("/")[2]
    named = ids.filter(pc.ends_with(ids, f"/{name}"))[:CANDIDATES].to_pylist() if name else []
    if named:
        return sorted(named, key=lambda one: (not one.endswith(f"/{wanted}"), -_likeness(one, wanted), one))[:most]
    place = bisect_left(range(len(ids)), wanted, key=lambda number: ids[number].as_py())
    around = ids[max(0, place - CANDIDATES // 2) :][:CANDIDATES].to_pylist()
    return difflib.get_close_matches(wanted, around, n=most, cutoff=0.7)


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
