"""Which labels have which ground truth. Settled before a single map is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from depthsieve.core.errors import GroundTruthError
from depthsieve.core.records import ImageFailure, Shape
from depthsieve.evaluation.ground_truth.protocol import GroundTruth
from depthsieve.store import Store


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
    """``pairs`` are in the order of the store's shards. ``without_label``: images that have ground truth and no label,
    with the reason. The others are named only."""

    pairs: tuple[Pair, ...]
    without_label: tuple[ImageFailure, ...]
    without_truth: tuple[str, ...]
    without_image: tuple[str, ...]


def match(store: Store, truth: GroundTruth) -> Matches:
    """Match every image of the store's index by its id.

    Raises:
        GroundTruthError: an image with two ground truths, two images with one, or no image with any; the last says what
            was looked for.
    """
    pairs, without_label, without_truth = [], [], []
    owner: dict[str, str] = {}
    example: str | None = None
    for row in _rows(store):
        image_id, example = row["id"], example or row["id"]
        place = truth.place(image_id)
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
            without_label.append(ImageFailure(image_id, f"no label: {reason}"))
    if not pairs:
        raise GroundTruthError(_nothing(store, truth, example, len(without_label)))
    return Matches(
        tuple(sorted(pairs, key=lambda pair: (pair.shard, pair.row))),
        tuple(without_label),
        tuple(without_truth),
        tuple(place for place in truth.places() if place not in owner),
    )


def _rows(store: Store) -> Iterator[dict[str, Any]]:
    columns = ("id", "status", "reason", "shard", "row", "height", "width")
    for batch in store.index().select(columns).to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _nothing(store: Store, truth: GroundTruth, example: str | None, without_label: int) -> str:
    if example is None:
        return f"{store.location} holds no images; label some first"
    if without_label:
        return f"no image of {store.location} that has ground truth in {truth.location} is labelled"
    there = next(iter(truth.places()), "nothing")
    return (
        f"no image of {store.location} has ground truth in {truth.location}; for {example} looked for "
        f"{truth.looked_for(example)}, and what is there begins with {there}; --replace and --pattern say how names "
        "differ"
    )
