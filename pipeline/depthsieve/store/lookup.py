"""Why an image has no label, in words, and which ids are like one that a store does not have."""

import bisect
import difflib
from collections.abc import Sequence

from depthsieve.store.catalog import Catalog
from depthsieve.store.history import history

NEAR_IDS = 2000
"""Ids before and after one that is not there that are compared with it."""


def full_id(image_id: str, sources: Sequence[str]) -> str:
    """The id with its source's name before it, where that can only be one."""
    return f"{sources[0]}/{image_id}" if len(sources) == 1 else image_id


def why_no_label(store: Catalog, image_id: str, ids: Sequence[str]) -> str:
    """Why there is no label of an image; ``ids`` are those that have one, sorted."""
    full = full_id(image_id, list(store.sources()))
    events = history(store, image_id) or history(store, full)
    now = next((event for event in events if event.counts), None)
    if now is None:
        near = near_ids(image_id, full, ids)
        listed = "the column id of its index.parquet has all ids"
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else listed
        return f"{store.location} has no image {image_id!r}; {hint if ids else 'nothing is labelled there yet'}"
    retry = "`depthsieve label --retry-failed` tries again"
    said = {
        "failed": f"failed ({now.reason}); {retry}",
        "rejected": f"was rejected ({now.reason}); {retry}",
        "removed": "was removed from the store, as it was no longer in its source",
    }
    later = "was not labelled yet when the store was opened; `depthsieve label` resumes"
    return f"{store.location} has no label of {image_id!r}: it {said.get(now.status, later)}"


def near_ids(image_id: str, full: str, ids: Sequence[str]) -> list[str]:
    """Up to three of ``ids``, sorted, that are most like an id which is not among them."""
    if len(ids) > 2 * NEAR_IDS:  # comparing with all of them would take seconds
        place = bisect.bisect_left(ids, full)
        ids = ids[max(0, place - NEAR_IDS) : place + NEAR_IDS]
    by_name = {one.partition("/")[2]: one for one in ids} | {one: one for one in ids}
    found = difflib.get_close_matches(image_id, by_name, n=6, cutoff=0.7)
    return list(dict.fromkeys(by_name[one] for one in found))[:3]
