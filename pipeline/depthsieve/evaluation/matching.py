"""Which labels have which ground truth. Settled before a single map is read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from depthsieve.core.errors import GroundTruthError, ImageRejected, SourceError
from depthsieve.core.records import ImageFailure, Shape
from depthsieve.evaluation.ground_truth.protocol import GroundTruth
from depthsieve.sources import reopen_source
from depthsieve.store import Store

_TIMESTAMP = re.compile(r"\d{9,}\.\d+|\d{13,}")


@dataclass(frozen=True, slots=True)
class Pair:
    """A label, by shard and row, the shape of its upright image, and the place of its ground truth."""

    id: str
    shard: str
    row: int
    source_shape: Shape
    place: str


@dataclass(frozen=True)
class Matches:
    """``pairs`` are in the order of the store's shards. ``unusable``: images that have ground truth but no label, or
    are their own ground truth, with the reason. ``without_truth`` and ``without_image`` are names only. ``apart``: by
    how many seconds each pair differs, where they were associated by time."""

    pairs: tuple[Pair, ...]
    unusable: tuple[ImageFailure, ...]
    without_truth: tuple[str, ...]
    without_image: tuple[str, ...]
    apart: tuple[float, ...]


def match(store: Store, truth: GroundTruth, by_time: bool = False) -> Matches:
    """Match every image of the store's index by its id, or by the time in its name.

    Raises:
        GroundTruthError: an image with two ground truths, two images with one, or no image with any; the last says what
            was looked for.
    """
    pairs, unusable, without_truth, apart = [], [], [], []
    owner: dict[str, str] = {}
    masks, own = set(), set()
    example: str | None = None
    sameness = _Sameness(store, truth)
    nearest = truth.nearest(_not_their_own(store, truth, sameness)) if by_time else {}
    for row in _rows(store):
        image_id, example = row["id"], example or row["id"]
        masks.add(truth.mask_place(image_id))
        place = truth.place(image_id)
        if place is not None and sameness.is_same(row, place):
            own.add(place)
            unusable.append(ImageFailure(image_id, f"{place}: {_OWN}"))
            continue
        if by_time:
            place, seconds = nearest.get(image_id, (None, 0.0))
            apart += [seconds] if place is not None else []
        if place is None:
            if row["status"] == "labelled":
                without_truth.append(image_id)
            continue
        if place in owner:
            raise GroundTruthError(
                f"{owner[place]} and {image_id} have the same ground truth, {place}; tell them apart with --pattern, "
                "by {source}, {dir} or {name}"
            )
        owner[place] = image_id
        if row["status"] == "labelled":
            shape = (row["height"], row["width"])
            pairs.append(Pair(image_id, row["shard"], row["row"], shape, place))
        else:
            reason = row["reason"] or "not labelled yet"
            unusable.append(ImageFailure(image_id, f"no label: {reason}"))
    if not pairs:
        raise GroundTruthError(_nothing(store, truth, example, unusable, len(own), by_time))
    return Matches(
        tuple(sorted(pairs, key=lambda pair: (pair.shard, pair.row))),
        tuple(unusable),
        tuple(without_truth),
        tuple(place for place in truth.places() if place not in owner and place not in masks and place not in own),
        tuple(apart),
    )


_OWN = (
    "the image is its own ground truth, one and the same file; if it is a depth map, label the folder of photos alone, "
    "if it is a photo, say where its ground truth is with --pattern or --replace"
)


class _Sameness:
    """Whether an image of the store and a file of ground truth are one: in the same place, a link, or a copy."""

    def __init__(self, store: Store, truth: GroundTruth) -> None:
        self._truth = truth
        self._roots = store.sources()

    def is_same(self, row: dict[str, Any], place: str) -> bool:
        """Only a PNG can be both. The bytes are compared where sizes agree, so hardly ever in vain."""
        path = self._truth.file(place)
        if path is None or path.suffix.lower() != ".png":
            return False
        name, _, encoded = row["id"].partition("/")
        try:
            if path.stat().st_size != row["size"]:
                return False
            return reopen_source(name, self._roots[name]).read(row["id"]) == path.read_bytes()
        except (ImageRejected, SourceError, OSError, KeyError):
            return bool(place == encoded)  # the images are out of reach: the same name and size


def _not_their_own(store: Store, truth: GroundTruth, sameness: _Sameness) -> Iterator[str]:
    for row in _rows(store):
        place = truth.place(row["id"])
        if place is None or not sameness.is_same(row, place):
            yield row["id"]


def _rows(store: Store) -> Iterator[dict[str, Any]]:
    columns = ("id", "status", "reason", "shard", "row", "height", "width", "size")
    for batch in store.index().select(columns).to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _nothing(
    store: Store, truth: GroundTruth, example: str | None, unusable: list[ImageFailure], own: int, by_time: bool
) -> str:
    if example is None:
        return f"{store.location} holds no images; label some first"
    timed = "; --associate SECONDS matches names that are timestamps, such as 0.02 for TUM"
    hint = timed if not by_time and _TIMESTAMP.search(example) else ""
    if own:
        return (
            f"no image of {store.location} can be compared with {truth.location}; {own} of them have themselves as "
            f"ground truth, the first {unusable[0].id}: {_OWN}{hint}"
        )
    if unusable:
        return f"no image of {store.location} that has ground truth in {truth.location} is labelled"
    there = next(iter(truth.places()), "nothing")
    within = " or the nearest in time within the tolerance" if by_time else ""
    return (
        f"no image of {store.location} has ground truth in {truth.location}; for {example} looked for "
        f"{truth.looked_for(example)}{within}, and what is there begins with {there}; --replace, --strip and --pattern "
        f"say how names differ{hint}"
    )
