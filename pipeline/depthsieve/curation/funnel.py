"""The steps of curation, in their fixed order, and what each lets go with which reason. Axes: N images."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.clips import Clips
from depthsieve.core.errors import StoreError
from depthsieve.curation.diversity import is_exact, most_diverse, turns
from depthsieve.curation.duplicates import MOST_BITS, Duplicates, find_duplicates
from depthsieve.curation.in_time import find_near_frames
from depthsieve.curation.neighbours import cluster
from depthsieve.curation.pixels import Pixels
from depthsieve.curation.settings import CurateSettings
from depthsieve.curation.vectors import Vectors
from depthsieve.curation.where import where

LABELLED = "labelled"

GREY = 3.0
"""Colourfulness under which an image counts as grey."""

BLURRED = 0.84
"""Of the sharpness of the sharpest of equals, under which an image is blurred. A blur by a standard deviation of 1
pixel leaves 0.72 to 0.89 of it on 16 photos, JPEG at quality 15 at least 0.93, and may add 0.18."""


class VectorsOf(Protocol):
    """See ``vectors_of`` of :class:`Funnel`."""

    def __call__(self, rows: NDArray[np.int64], common: NDArray[np.int64] | None = None) -> tuple[Vectors, str]: ...


class NoneLeft(StoreError):
    """A step has dropped the last image."""


@dataclass(frozen=True)
class Step:
    """One row of the funnel: how many images came into it, and how many it dropped. ``note`` says how."""

    name: str
    before: int
    dropped: int
    note: str = ""

    @property
    def after(self) -> int:
        """How many go on to the next."""
        return self.before - self.dropped


@dataclass
class Funnel:
    """Goes through the steps of ``settings`` over ``table`` (a row an image, sorted by id). ``vectors_of`` returns the
    vectors of some rows, less what they have in common, or what other rows have in common; ``pixels`` looks at their
    images. Afterwards ``step_N`` and ``reason_N`` are empty for images that stay. ``remedy`` says what to do where the
    store lacks a column, ``sequences`` are its sources whose folders are clips. ``progress``: bars."""

    table: pa.Table
    settings: CurateSettings
    vectors_of: VectorsOf
    pixels: Pixels
    threads: int
    remedy: str
    sequences: frozenset[str] = frozenset()
    progress: bool = False
    steps: list[Step] = field(default_factory=list)
    step_N: NDArray[np.object_] = field(init=False)
    reason_N: NDArray[np.object_] = field(init=False)
    duplicate_of: dict[int, tuple[int, float, int]] = field(default_factory=dict)
    """For each image that went as a near-duplicate: that which stayed, their similarity, bits that differ."""

    def run(self) -> None:
        """All steps. Raises :class:`NoneLeft`, naming the step, where nothing is left."""
        self.step_N = np.full(len(self.table), "", object)
        self.reason_N = np.full(len(self.table), "", object)
        if self.settings.where is not None:
            self._where(self.settings.where)
        for cut, limit in self.settings.cuts:
            name = f"{cut.option.replace('_', '-')} {limit:g}"
            value_N = self._column(cut.column, cut.option)
            with np.errstate(invalid="ignore"):
                out_N = value_N < limit if cut.least else value_N > limit
            unknown_N = np.isnan(value_N)
            rows = self._left(out_N | unknown_N)
            reasons = [
                f"{cut.column} is not known" if unknown_N[row] else cut.words(value_N[row], limit)
                for row in rows.tolist()
            ]
            self._drop(name, rows, reasons)
        if self.settings.near_frames is not None:
            self._near_frames(self.settings.near_frames)
        if self.settings.near_duplicates is not None:
            self._near_duplicates(self.settings.near_duplicates)
        if self.settings.balance is not None and self.settings.cap is not None:
            self._balance(self.settings.balance, self.settings.cap)
        if self.settings.max_images is not None:
            self._max(self.settings.max_images)

    def order(self) -> NDArray[np.int64]:
        """Rows that are left, the best first: the most reliable, then the sharpest, then by id."""
        rows = np.flatnonzero(self.step_N == "")
        return self._sorted(rows, [self._floats("reliability"), self._floats("sharpness")])

    def _sorted(self, rows: NDArray[np.int64], values: list[NDArray[np.float64]]) -> NDArray[np.int64]:
        """Rows by falling values, the first of which counts most; what is not known comes last, equals by id."""
        keys = [-np.nan_to_num(value_N[rows], nan=-1) for value_N in reversed(values)]
        return rows[np.lexsort((rows, *keys))]

    def _worth(self) -> dict[str, NDArray[np.float64]]:
        """What near-duplicates are compared by, but for their sharpness, which only images tell: float64 [N] each."""
        return {
            "resolution": self._floats("height") * self._floats("width"),
            "colour": (self._floats("colourfulness") >= GREY).astype(np.float64),
            "compression": self._floats("size"),
            "reliability": self._floats("reliability"),
        }

    def _column(self, name: str, option: str) -> NDArray[np.float64]:
        value_N = self._floats(name)
        if len(value_N) and np.isnan(value_N).all():
            raise StoreError(f"{option.replace('_', '-')} needs the column {name}, which no image has; {self.remedy}")
        return value_N

    def _floats(self, name: str) -> NDArray[np.float64]:
        column: NDArray[np.float64] = self.table[name].cast(pa.float64()).fill_null(float("nan")).to_numpy()
        return column

    def _left(self, out_N: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Rows where ``out_N`` is true, of those that no step has dropped yet."""
        return np.flatnonzero(out_N & (self.step_N == ""))

    def _drop(self, name: str, rows: NDArray[np.int64], reasons: list[str], note: str = "") -> None:
        before = int((self.step_N == "").sum())
        self.step_N[rows] = name
        self.reason_N[rows] = np.array([*reasons, ""], object)[:-1]
        self.steps.append(Step(name, before, len(rows), note))
        if len(rows) == before:
            example = f"; the first: {self.table['id'][int(rows[0])].as_py()}: {reasons[0]}" if len(rows) else ""
            raise NoneLeft(f"no image is left after {name}, which dropped the last {before}{example}")

    def _where(self, expression: str) -> None:
        rows = self._left(~where(self.table, expression))
        self._drop("where", rows, [f"not ({' '.join(expression.split())})"] * len(rows))

    def _near_frames(self, threshold: float) -> None:
        rows = np.flatnonzero(self.step_N == "")
        ids = self.table["id"].take(pa.array(rows)).to_pylist()
        place = {name: number for number, name in enumerate(ids)}
        clips = Clips(ids, self.sequences)
        # A clip counts as one image in what all have in common: else what is left of a still one would be its noise.
        alone = [number for name, number in place.items() if clips.of(name) is None]
        middles = [place[frames[len(frames) // 2]] for frames in clips.values()]
        vectors, kind = self.vectors_of(rows, rows[sorted(alone + middles)])
        hash_N = self.table["phash"].fill_null(0).to_numpy()[rows]
        numbers = (np.array([place[name] for name in frames], np.int64) for frames in clips.values())
        gone = sorted(find_near_frames(vectors, hash_N, numbers, threshold))
        reasons = []
        for number, stays, similarity, bits in gone:
            self.duplicate_of[int(rows[number])] = (int(rows[stays]), similarity, bits)
            reasons.append(
                f"near-duplicate of {ids[stays]}, the last frame kept of its clip "
                f"(similarity {similarity:.3f}, {bits} of 64 bits differ)"
            )
        touched = len({clips.of(ids[number]) for number, *_ in gone})
        frames = sum(len(one) for one in clips.values())
        note = f"{len(gone)} of {frames} frames, in {touched} of {len(clips)} clips; by {kind}"
        self._drop(f"near-frames {threshold:g}", rows[[number for number, *_ in gone]], reasons, note)

    def _near_duplicates(self, threshold: float) -> None:
        keep, worth = self.settings.keep_names, self._worth()
        order = self._sorted(np.flatnonzero(self.step_N == ""), [worth[name] for name in keep if name in worth])
        found, kind = self._alike(order, threshold)
        if "sharpness" in keep:
            before = [worth[name] for name in keep[: keep.index("sharpness")]]
            worth["sharpness"] = self._not_blurred(order, found, before)
            if not worth["sharpness"].all():
                order = self._sorted(order[found.alike_N], [worth[name] for name in keep])
                found, kind = self._alike(order, threshold)
        gone = np.flatnonzero(found.of_N >= 0)
        pairs = sorted(
            (int(order[one]), int(order[found.of_N[one]]), float(found.similarity_N[one]), int(found.bits_N[one]))
            for one in gone.tolist()
        )
        reasons = []
        for row, stays, similarity, bits in pairs:
            self.duplicate_of[row] = (stays, similarity, bits)
            name = self.table["id"][stays].as_py()
            part = similarity < threshold or bits > MOST_BITS
            how = "they show a part of one another; " if part else ""
            reasons.append(f"near-duplicate of {name} ({how}similarity {similarity:.3f}, {bits} of 64 bits differ)")
        note = f"by {kind}"
        if self.settings.crops:
            crops = sum(reason.find("(they show") > 0 for reason in reasons)
            note += f"; {crops} by their pixels"
        if self.pixels.unread:
            note += f", but {len(self.pixels.unread)} images could not be read"
        self._drop(f"near-duplicates {threshold:g}", np.array([one[0] for one in pairs], np.int64), reasons, note)

    def _alike(self, order: NDArray[np.int64], threshold: float) -> tuple[Duplicates, str]:
        """The near-duplicates among rows that come the best first, and what they were found by."""
        vectors, kind = self.vectors_of(order)
        hash_N = self.table["phash"].fill_null(0).to_numpy()[order]

        def overlap(first_E: NDArray[np.int64], second_E: NDArray[np.int64]) -> NDArray[np.bool_]:
            return self.pixels.overlap(order[first_E], order[second_E])

        look = overlap if self.settings.crops else None
        return find_duplicates(vectors, hash_N, threshold, self.threads, self.progress, look), kind

    def _not_blurred(
        self, order: NDArray[np.int64], found: Duplicates, before: list[NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """float64 [N]: 0 for an image that is clearly blurrier than one that is like it and equal ``before``, else 1.

        Images are read only where they are equal in all that counts before sharpness.
        """
        groups: dict[tuple[float, ...], list[int]] = {}
        for number in np.flatnonzero(found.alike_N).tolist():
            stays = int(found.of_N[number])
            row = int(order[number])
            equal = tuple(float(value_N[row]) for value_N in before)
            groups.setdefault((number if stays < 0 else stays, *equal), []).append(row)
        several = [rows for rows in groups.values() if len(rows) > 1]
        known = iter(self.pixels.sharpness([row for rows in several for row in rows]))
        sharp_N = np.ones(len(self.table))
        for rows in several:
            values = [next(known) for _ in rows]
            most = max((value for value in values if value is not None), default=0.0)
            for row, value in zip(rows, values, strict=True):
                if value is not None and value < BLURRED * most:
                    sharp_N[row] = 0
        return sharp_N

    def _balance(self, balance: str, cap: int) -> None:
        order = self.order()
        if self.settings.clusters is None:
            names = self.table["source"].combine_chunks().take(pa.array(order)).dictionary_encode()
            group_N = names.indices.to_numpy().astype(np.int64)
            words, note = [str(name) for name in names.dictionary.to_pylist()], "the best of each source"
        else:
            vectors, kind = self.vectors_of(order)
            group_N = cluster(vectors, self.settings.clusters, self.threads, self.progress)
            words, note = [f"cluster {number}" for number in range(self.settings.clusters)], f"clusters by {kind}"
        out = np.flatnonzero(turns(group_N) >= cap)
        out = out[np.argsort(order[out])]
        size = np.bincount(group_N)
        reasons = [
            f"{cap} better ones of the {size[group_N[one]]} of {words[group_N[one]]} stay" for one in out.tolist()
        ]
        self._drop(f"balance {balance}, cap {cap}", order[out], reasons, note)

    def _max(self, wanted: int) -> None:
        order = self.order()
        if len(order) <= wanted:
            self._drop(f"max {wanted}", np.zeros(0, np.int64), [])
            return
        vectors, kind = self.vectors_of(order)
        note = f"{'farthest points' if is_exact(len(order), wanted) else 'turns of clusters'} by {kind}"
        rows = np.sort(order[~most_diverse(vectors, wanted, self.threads, self.progress)])
        self._drop(f"max {wanted}", rows, [f"not among the {wanted} most diverse"] * len(rows), note)


def unlabelled(index: pa.Table) -> tuple[pa.Table, list[str]]:
    """The rows of an index that have no label, and why."""
    rows = index.filter(pc.not_equal(index["status"], LABELLED))
    states = zip(rows["status"].to_pylist(), rows["reason"].to_pylist(), strict=True)
    return rows, [f"{status}: {reason}" if reason else f"{status}" for status, reason in states]
