"""Stores of each kind from a pinned description, whose bytes follow from this file alone: no clock, photo or teacher.

Every value is whole-number arithmetic on the image's number, so that neither a random generator nor the CPU has a say.

Axes: N images of a shard, H and W the label shape.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import depthsieve
from depthsieve.core.records import (
    DatasetNote,
    ImageRecord,
    LabelSpec,
    NumericsProfile,
    RejectedImage,
    Shape,
    Shard,
    TeacherRequest,
    seal,
)
from depthsieve.storage import open_root
from depthsieve.store import Store, schema
from depthsieve.store.create import add_generation, open_or_create
from depthsieve.store.layer_kinds import features_spec, signals_spec
from depthsieve.store.layers import commit_to_layer, make_layer
from depthsieve.store.plan import PlannedShard, rejected_table, removed_table
from depthsieve.store.stored_images import images_spec, pack_images
from depthsieve.store.writer import CommitContext, ShardArrays, commit_shard, empty_arrays

NOTE = DatasetNote("made", "Made", "https://example.org", "CC0-1.0", "", "yes", "yes", "no", "None.", "Nobody")
SHAPES: tuple[Shape, ...] = ((14, 21), (20, 15))


def pinned_spec(weights: str = "0", encoding: str = "fast") -> LabelSpec:
    """A label spec of a teacher whose weights digest is that character, 64 times."""
    return LabelSpec(
        weights_digest=weights * 64,
        quantity="disparity",
        unit="1",
        dtype="float32",
        preprocessing={"rule": "pinned", "size": 14},
        signals=("flip",),
        calibration="flip-1",
        encoding=schema.ENCODINGS[encoding].text,
    )


def image(number: int, mtime: int = 0) -> ImageRecord:
    """Image ``number`` as a scan saw it; two of three are landscape."""
    height, width = SHAPES[number % 3 == 2]
    return ImageRecord(f"default/photo {number}.png", 1000 + number, 10**18 + mtime, 2 * width, 2 * height, 1)


def depth_of(number: int, shape: Shape) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Depth [H,W]: sixteenths between 1 and 9."""
    y_HW, x_HW = np.indices(shape)
    return ((16 + (x_HW * 3 + y_HW * 5 + number * 7 + x_HW * y_HW) % 128) / 16).astype(np.float16)


def codes_of(number: int, shape: Shape) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Reliability [H,W]: all codes there are, a corner of 0."""
    y_HW, x_HW = np.indices(shape)
    codes_HW = (1 + (x_HW * 11 + y_HW * 17 + number * 31) % 255).astype(np.uint8)
    codes_HW[: 1 + number % 3, :4] = 0
    return codes_HW


def add(
    store: Store,
    shards: Sequence[Sequence[int]],
    failed: Sequence[int] = (),
    actions: Sequence[Sequence[str]] | None = None,
    rejected: Sequence[str] = (),
    removed: Sequence[str] = (),
    valid: Callable[[int], bool] = lambda number: True,
) -> None:
    """Plan a generation of these images' numbers, shard by shard, and commit its labels. Those ``failed`` have none,
    and of those that are not ``valid`` each pixel has reliability 0."""
    generation = len(store.generations())
    planned = []
    for place, numbers in enumerate(shards):
        images = tuple(image(number, generation) for number in numbers)
        shard = Shard(schema.shard_name(generation, place), SHAPES[numbers[0] % 3 == 2], images)
        planned.append(PlannedShard(shard, tuple(actions[place] if actions else ["add"] * len(numbers))))
    rejects = rejected_table([RejectedImage(f"default/{name}", 3, 10**18, "pinned") for name in rejected])
    add_generation(
        store,
        (one.table() for one in planned),
        rejects,
        removed_table([f"default/{name}" for name in removed]),
        {"default": "/photos"},
        NumericsProfile(2, 1, "cpu", "pinned", "none", {"torch": "0"}),
        TeacherRequest("pinned", size=14, dtype="float32"),
        {} if generation else {"default": NOTE},
    )
    spec = store.spec
    context = CommitContext(spec.fingerprint, spec.quantity, spec.unit, "1" * 64, ((0, 2, 1),), spec.encoding)
    for one, numbers in zip(planned, shards, strict=True):
        arrays = empty_arrays(one.shard)
        for row, number in enumerate(numbers):
            shape = one.shard.shape
            codes_HW = codes_of(number, shape) * valid(number)
            if number in failed:
                codes_HW[:] = 0
                arrays["status"][row], arrays["reason"][row] = 1, "pinned"
            else:
                arrays["depth"][row], arrays["focal_px"][row] = depth_of(number, shape), 35 * number
            arrays["reliability"][row] = codes_HW
            arrays["histogram"][row] = np.bincount(codes_HW.ravel(), minlength=256)
            arrays["content_sha256"][row] = hashlib.sha256(str(number).encode()).hexdigest()
        assert commit_shard(store.root, one.shard, ShardArrays(arrays), context)


def plain(folder: Path, spec: LabelSpec | None = None, **options: Any) -> Store:
    """Three shards of two label shapes, with a refused file."""
    folder.mkdir(parents=True)
    store = open_or_create(open_root(folder), spec or pinned_spec())
    add(store, [[0, 1], [3, 4, 6], [2, 5]], rejected=["empty.png"], **options)
    return store


def small(folder: Path) -> Store:
    """The same in the other encoding."""
    return plain(folder, pinned_spec(encoding="small"))


def failed(folder: Path) -> Store:
    """The same, where one image of each of two shards failed."""
    return plain(folder, failed=[1, 5])


def grown(folder: Path) -> Store:
    """Two generations: one image is replaced, one is new, one is removed."""
    store = plain(folder)
    add(store, [[4, 7], [8]], actions=[["replace", "add"], ["add"]], removed=["photo 0.png"])
    return store


def layered(folder: Path) -> Store:
    """With a layer of each kind: kept signals, features, stored images, and reliability made of them again."""
    store = plain(folder, failed=[1])
    spec = store.spec
    kept = make_layer(store.root, signals_spec(spec))
    features = make_layer(store.root, features_spec(spec, 8, "pinned"))
    images = make_layer(store.root, images_spec(store.fingerprint, 90))
    for shard_id in sorted(store.committed()):
        shard, digest = store.planned_shard(shard_id), store.commit_record(shard_id)["content_sha256"]
        count = len(shard.images)
        signal_NHW = np.stack([depth_of(row, shard.shape) / 64 for row in range(count)]).astype(np.float16)
        commit_to_layer(kept, shard_id, digest, {"flip": signal_NHW}, spec.encoding)
        values_NF = np.arange(count * len(features.spec.detail["columns"])).reshape(count, -1)
        about = {
            "values": (values_NF / 8).astype(np.float32),
            "phash": np.arange(count, dtype=np.uint64) << np.uint64(60),
            "embedding": (np.arange(count * 8).reshape(count, 8) / 64).astype(np.float16),
        }
        commit_to_layer(features, shard_id, digest, about, spec.encoding)
        jpegs = [b"\xff\xd8" + bytes(range(20 + row)) if row else b"" for row in range(count)]
        commit_to_layer(images, shard_id, digest, pack_images(jpegs), spec.encoding)
    calibration = folder.parent / f"{folder.name}.json"
    weights = {"disparity": {"flip": {"constant": -0.5, "level": -0.7, "flip": 0.4}}}
    calibration.write_text(json.dumps({"version": "9", "fitted_on": [], "weights": weights}))
    assert depthsieve.recalibrate(folder, calibration=calibration, progress=False).shards_now == 3
    return store


def fused(folder: Path) -> Store:
    """Fused of two stores, the second of which has no valid pixel: each label is the first store's, to the bit."""
    parents = [folder.parent / f"{folder.name}-{number}" for number in (1, 2)]
    plain(parents[0])
    plain(parents[1], pinned_spec("1"), valid=lambda number: False)
    depthsieve.fuse(parents, folder, shard_size=2, threads=1, progress=False)
    return depthsieve.open_store(folder)


KINDS = {"plain": plain, "small": small, "failed": failed, "grown": grown, "layered": layered, "fused": fused}


def bytes_digest(store: Path) -> str:
    """sha256 over the path and the bytes of every file of ``labels.zarr``, ``plan``, ``commits`` and ``layers``, sorted
    by path. Left out of a fused store's records is what another folder or machine would change: where its parents lie,
    and the profile, which names the builds of packages."""
    digest = hashlib.sha256()
    fused = b'"kind": "fused"' in (store / "labels.zarr" / "zarr.json").read_bytes()
    files = [path for part in ("labels.zarr", "plan", "commits", "layers") for path in (store / part).rglob("*")]
    for path in sorted(path for path in files if path.is_file()):
        data = path.read_bytes()
        if fused and path.parent.name == "commits":
            data = seal(json.loads(data) | {"parents": [], "profile": ""})
        digest.update(f"{path.relative_to(store).as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()


if __name__ == "__main__":
    import tempfile

    for name, make in KINDS.items():
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch) / name)
            print(f'    "{name}": "{bytes_digest(Path(scratch) / name)}",')
