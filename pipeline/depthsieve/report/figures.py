"""The figures of a report: what a whole store says of itself, however few of its images the gallery shows.

Axes: N images, S shards, K the 256 reliability codes.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.records import TeacherRequest
from depthsieve.features import COLUMNS
from depthsieve.reliability.fusion import means_errors
from depthsieve.reliability.masking import masked_share, threshold_code
from depthsieve.reliability.scale import SCALES
from depthsieve.report.page import percent
from depthsieve.store import Store, schema
from depthsieve.teachers import find_preset

DROPS = (0.05, 0.10, 0.20, 0.30)

BINS = 30

PAUSE = 10
"""Between two commits, this many times the median interval is a pause and not labelling."""

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Reason:
    """Why some images have no label: how many, and the first of them. Reasons that differ in numbers are one."""

    status: str
    reason: str
    images: int
    example: str


@dataclass(frozen=True)
class Spread:
    """How a number spreads over images: ``counts`` of equal bins between ``low`` and ``high``, the extremes are in the
    first and last bin. ``known`` images have it."""

    name: str
    about: str
    counts: tuple[int, ...]
    low: float
    median: float
    high: float
    known: int


@dataclass(frozen=True)
class MaskedAt:
    """What a ``drop`` masks over the dataset: the threshold code, and the share of valid pixels that really goes."""

    drop: float
    code: int
    share: float


def failures(index: pa.Table) -> tuple[Reason, ...]:
    """Why images of an index have no label, the most frequent reason first."""
    rows = index.filter(pc.is_in(index["status"], value_set=pa.array(["failed", "rejected"])))
    found: dict[tuple[str, str], Reason] = {}
    for image_id, status, reason in zip(*(rows[name].to_pylist() for name in ("id", "status", "reason")), strict=True):
        text = (reason or "no reason is recorded").replace(image_id, "…")
        key = (status, _NUMBER.sub("#", text))
        before = found.get(key, Reason(status, text, 0, image_id))
        found[key] = dataclasses.replace(before, images=before.images + 1)
    return tuple(sorted(found.values(), key=lambda one: (-one.images, one.status, one.reason)))


def spread(name: str, about: str, value_N: NDArray[np.float64]) -> Spread | None:
    """How a number spreads, between its 0.5th and 99.5th percentile; None where no image has it."""
    known_N = value_N[np.isfinite(value_N)]
    if not len(known_N):
        return None
    low, median, high = np.percentile(known_N, (0.5, 50, 99.5)).tolist()
    counts, _ = np.histogram(np.clip(known_N, low, high), BINS, (low, high) if high > low else (low - 0.5, low + 0.5))
    return Spread(name, about, tuple(counts.tolist()), low, median, high, len(known_N))


def masked_at(histogram_K: NDArray[np.int64]) -> tuple[MaskedAt, ...]:
    """What each of :data:`DROPS` masks of the dataset with this histogram."""
    rows = []
    for drop in DROPS:
        code = threshold_code(histogram_K, drop)
        rows.append(MaskedAt(drop, code, masked_share(histogram_K, code)))
    return tuple(rows)


ASKED = 50
"""Shards whose times are compared, to tell a store that was copied."""

AT_ONCE = 16
"""So many shards may be written at once by workers side by side."""


def code_errors(store: Store) -> tuple[float | None, ...]:
    """The expected relative error of each code of the store; None for code 0."""
    scale = SCALES[store.code_version]
    return (None, *(scale.error(code) for code in range(1, 256)))


def is_calibrated(store: Store) -> bool:
    """Whether the store's reliability codes are expected errors, and not only an order of pixels."""
    return store.layer is not None or means_errors(store.spec.calibration)


def expected_error(store: Store, code: int) -> str:
    """The error that a code of the store stands for, in words; code 0 stands for none."""
    error = code_errors(store)[code]
    return percent(error) if error is not None and is_calibrated(store) else "not calibrated"


def images_per_second(store: Store) -> float | None:
    """How fast the store was labelled, by the times of its commit records, pauses left out; None where too few tell,
    and of a store whose files have the times at which they were copied."""
    committed = {
        entry.key.rpartition("/")[2].removesuffix(".json"): entry.modified
        for entry in store.root.entries(schema.COMMITS)
    }
    images = store.images_of(name for name in committed if not name.startswith("generation-"))
    if len(images) < 3:
        return None
    order = sorted(images, key=lambda shard: committed[shard])
    if _was_copied(store, [(shard, committed[shard]) for shard in order]):
        return None
    interval_S = np.diff([committed[shard] for shard in order])
    done_S = np.array([images[shard] for shard in order[1:]])
    working = interval_S <= PAUSE * np.median(interval_S)
    seconds = float(interval_S[working].sum())
    return float(done_S[working].sum()) / seconds if seconds > 0 else None


def _was_copied(store: Store, records: Sequence[tuple[str, float]]) -> bool:
    """Whether times say nothing: the files of most shards are written just before their record, after those of others,
    unless they were all copied."""
    places = range(2, len(records), max(1, len(records) // ASKED))
    fit = 0
    for place in places:
        shard, recorded = records[place]
        written = store.root.entry(f"{schema.group_key(store.commit_record(shard)['group'])}/zarr.json")
        earliest = records[max(0, place - AT_ONCE)][1]
        fit += written is not None and earliest <= written.modified <= recorded
    return 2 * fit <= len(places)


def licence(teacher: TeacherRequest) -> str:
    """The licence of a teacher's weights, with what a user must know of it; for others than presets, where to look."""
    preset = find_preset(teacher.name)
    if preset is None:
        return "not known here: read the model's card"
    return f"{preset.licence} ({preset.note})" if preset.note else preset.licence


def floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64 [N], NaN where it is null."""
    values_N: NDArray[np.float64] = table[name].cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return values_N


def numbers_of(table: pa.Table) -> dict[str, tuple[str, NDArray[np.float64]]]:
    """The numbers that a gallery sorts and filters by: by name, what each means, and float64 [N]."""
    more = {"unreliable": "share of the valid pixels under the dataset's threshold, 0..1"}
    more["short_side"] = "shorter side of the photo, in pixels"
    return {name: (about, floats(table, name)) for name, about in (COLUMNS | more).items()}
