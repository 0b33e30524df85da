"""Buckets and shards: which images are labelled, committed and stored together. Pure."""

from collections import defaultdict
from collections.abc import Iterable

from depthsieve.records import ImageRecord, Shape, Shard
from depthsieve.store.schema import shard_name

MAX_SHARD_PIXELS = 96_000_000


def make_shards(images: Iterable[tuple[ImageRecord, Shape]], generation: int, shard_size: int) -> list[Shard]:
    """Put images into shards of one label shape each.

    A shard holds at most ``shard_size`` images and at most 96 million pixels (always at least one image). The result
    depends on the set of images alone: buckets are ordered by shape, images in a bucket by id.
    """
    buckets: dict[Shape, list[ImageRecord]] = defaultdict(list)
    for image, shape in images:
        buckets[shape].append(image)
    shards: list[Shard] = []
    for shape in sorted(buckets):
        members = sorted(buckets[shape], key=lambda image: image.id)
        count = max(1, min(shard_size, MAX_SHARD_PIXELS // (shape[0] * shape[1])))
        for start in range(0, len(members), count):
            name = shard_name(generation, len(shards))
            shards.append(Shard(name, shape, tuple(members[start : start + count])))
    return shards
