"""A store whose labels are noise of a seed, so that two attempts at a shard differ."""

from pathlib import Path

import numpy as np
from storemaker import add_planned, make_shards

from depthsieve.core.records import (
    ImageRecord,
    LabelSpec,
    NumericsProfile,
    RejectedImage,
    Shard,
)
from depthsieve.storage import open_root
from depthsieve.store import schema
from depthsieve.store.create import open_or_create, prepare_root
from depthsieve.store.plan import PlannedShard
from depthsieve.store.reader import Store
from depthsieve.store.writer import CommitContext, ShardArrays, commit_shard

PROFILE = NumericsProfile(4, 2, "cpu", "some processor", "sdpa", {"torch": "2"})
CONTEXT = CommitContext("", "disparity", "", "0" * 64)


def spec(**changes: object) -> LabelSpec:
    fields = {
        "weights_digest": "ab" * 32,
        "quantity": "disparity",
        "unit": "",
        "dtype": "float32",
        "preprocessing": {"size": 70},
        "signals": ("flip",),
        "calibration": "flip-2",
        "encoding": schema.ENCODING,
    }
    return LabelSpec(**fields | changes)  # type: ignore[arg-type]


def image(number: int) -> ImageRecord:
    return ImageRecord(f"default/{number}.png", 100 + number, number, 60, 40)


def content(shard: Shard, seed: int) -> ShardArrays:
    count, (height, width) = len(shard.images), shard.shape
    random = np.random.default_rng(seed)
    depth_NHW = random.random((count, height, width)).astype(np.float16)
    code_NHW = random.integers(1, 256, (count, height, width), dtype=np.uint8)
    text = lambda values: np.array(values, dtype=object)  # noqa: E731
    return ShardArrays(
        {
            "depth": depth_NHW,
            "reliability": code_NHW,
            "histogram": np.stack([np.bincount(code.ravel(), minlength=256) for code in code_NHW]).astype(np.uint32),
            "id": text([image.id for image in shard.images]),
            "status": np.zeros(count, np.uint8),
            "reason": text([""] * count),
            "source_height": np.full(count, 40, np.int32),
            "source_width": np.full(count, 60, np.int32),
            "orientation": np.ones(count, np.uint8),
            "focal_px": np.zeros(count, np.float32),
            "content_sha256": text(["c" * 64] * count),
        }
    )


def empty_store(folder: Path) -> Store:
    path = folder / "a store"
    prepare_root(open_root(path))
    return open_or_create(open_root(path), spec())


def plan(store: Store, numbers: range, rejected: tuple[RejectedImage, ...] = ()) -> list[Shard]:
    shards = make_shards([(image(n), (14, 28)) for n in numbers], len(store.generations()), 2)
    planned = [PlannedShard(shard, ("add",) * len(shard.images)) for shard in shards]
    add_planned(store, planned, rejected, sources={"default": "/photos"}, profile=PROFILE)
    return shards


def commit(store: Store, shard: Shard, seed: int) -> bool:
    context = CommitContext(store.fingerprint, "disparity", "", "0" * 64)
    return commit_shard(store.root, shard, content(shard, seed), context)


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
