"""How steady the labels of clips are in time, as :func:`depthsieve.align_clips` measured it. Nothing is read but the
index."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from depthsieve.core.clips import Clips
from depthsieve.store import Store
from depthsieve.store.index import settled_index

_COLUMNS = ("clip_segment", "clip_change", "clip_change_aligned")


@dataclass(frozen=True)
class ClipStability:
    """A clip as the layer has it: labelled ``frames`` in so many ``segments`` (one more than cuts), and the means over
    its frames of ``change`` and ``change_aligned``, from frame to frame, before and after alignment
    (:class:`~depthsieve.core.clips.ClipFit`); None where they are not known."""

    clip: str
    frames: int
    segments: int
    change: float | None
    change_aligned: float | None


@dataclass(frozen=True)
class Stability:
    """Of all aligned clips of a store, by name; ``change`` and ``change_aligned`` are means over all of their frames,
    None where they are not known."""

    clips: tuple[ClipStability, ...] = ()
    change: float | None = None
    change_aligned: float | None = None


def stability_of(store: Store) -> Stability:
    """How steady the labels of the store's clips are; without clips where none were aligned."""
    table, _ = settled_index(store, ["id", *_COLUMNS], "labelled")
    columns = [table[name].to_pylist() for name in _COLUMNS]
    rows = dict(zip(table["id"].to_pylist(), zip(*columns, strict=True), strict=True))
    known = {image_id: row for image_id, row in rows.items() if row[0] is not None}
    clips = []
    for clip, ids in Clips(known, store.sequences()).items():
        segments, change, aligned = zip(*(known[one] for one in ids), strict=True)
        clips.append(ClipStability(clip, len(ids), len(set(segments)), _mean(change), _mean(aligned)))
    return Stability(tuple(clips), *(_mean(row[place] for row in known.values()) for place in (1, 2)))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
