"""A small real store with labels that are made up, and the images they belong to, for tests of what reads stores.

``make_store(folder)`` writes ``folder/images`` and ``folder/labels``. Values are drawn from the image's number, so that
a test can compute them again with :func:`made_label`.

Axes: H row, W column, N image.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depthsieve.core.records import (
    DatasetNote,
    ImageRecord,
    LabelSpec,
    NumericsProfile,
    RejectedImage,
    Shape,
    Shard,
    TeacherRequest,
)
from depthsieve.planning.sharding import MAX_SHARD_PIXELS
from depthsieve.sources import encode_path
from depthsieve.storage import open_root
from depthsieve.store import Store, open_store, schema
from depthsieve.store.create import add_generation, open_or_create
from depthsieve.store.plan import Generation, PlannedShard, rejected_table, removed_table
from depthsieve.store.writer import CommitContext, ShardArrays, commit_shard

SPEC = LabelSpec(
    weights_digest="0" * 64,
    quantity="disparity",
    unit="1",
    dtype="float32",
    preprocessing={"rule": "made up"},
    signals=("flip",),
    calibration="made up",
    encoding=schema.ENCODING,
)
PROFILE = NumericsProfile(1, 1, "cpu", "made up", "none")

_MEMBER = re.compile(r"(.*\.(?:zip|mp4|mkv))::(.*)", re.DOTALL)
"""Of an archive or a video, whose member the file stands for."""

QUARTERS = {1: 0, 3: 2, 6: 1, 8: 3}
"""How often a picture is turned to the left for its EXIF orientation to bring it upright."""


@dataclass(frozen=True)
class Picture:
    """One image of a made store. ``failed`` or ``pending`` ones have no label. With an EXIF ``orientation`` (1, 3, 6 or
    8) the file holds it turned, so that upright it is of the shape ``source`` all the same.

    ``rgb_HW3`` is what it shows, upright, ``depth_HW`` and ``reliability_HW`` its label; by default all are drawn.
    """

    path: str
    source: Shape
    label: Shape
    failed: bool = False
    pending: bool = False
    orientation: int = 1
    focal_px: float = 0.0
    rgb_HW3: NDArray[Any] | None = None
    depth_HW: NDArray[Any] | None = None
    reliability_HW: NDArray[Any] | None = None


def pictures(counts: dict[Shape, int]) -> list[Picture]:
    """For each label shape as many pictures, of twice its size, named ``0.png``, ``1.png``, ... across shapes."""
    shapes = [shape for shape, count in counts.items() for _ in range(count)]
    return [Picture(f"{n}.png", (2 * h, 2 * w), (h, w)) for n, (h, w) in enumerate(shapes)]


def made_image(number: int, shape: Shape) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """RGB [H,W,3] of picture ``number``: noise of 2x2 blocks, so that halving its sides loses nothing."""
    random = np.random.default_rng([1, number])
    small_HW3 = random.integers(0, 256, ((shape[0] + 1) // 2, (shape[1] + 1) // 2, 3), dtype=np.uint8)
    return small_HW3.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]


def made_label(number: int, shape: Shape) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Depth, float32 [H,W] of float16 values, and reliability, uint8 [H,W]: ties, 5% zeros, and reliable to another
    degree in each picture, so that the three scopes differ."""
    random = np.random.default_rng([2, number])
    depth_HW = random.uniform(0.1, 9, shape).astype(np.float16).astype(np.float32)
    middle = 60 + 170 * ((number * 7) % 10) / 10
    reliability_HW = np.clip(random.normal(middle, 12, shape), 1, 255).astype(np.uint8)
    reliability_HW[random.random(shape) < 0.05] = 0
    return depth_HW, reliability_HW


def make_store(
    folder: Path,
    images: Sequence[Picture],
    rejected: Sequence[str] = (),
    spec: LabelSpec = SPEC,
    shard_size: int = 3,
    sequence: bool = False,
) -> Store:
    """Write ``folder/images`` and in ``folder/labels`` a store with one generation more; ids are ``default/PATH``. With
    ``sequence`` folders are clips."""
    root = folder / "images"
    by_shape: dict[Shape, list[int]] = {}
    for number, picture in enumerate(images):
        target = root / picture.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shown_HW3 = made_image(number, picture.source) if picture.rgb_HW3 is None else picture.rgb_HW3
        turned = Image.fromarray(np.rot90(shown_HW3, QUARTERS[picture.orientation]))
        exif = Image.Exif()
        exif[0x0112] = picture.orientation
        turned.save(target, _format(picture), **({} if picture.orientation == 1 else {"exif": exif}))
        by_shape.setdefault(picture.label, []).append(number)
    path = folder / "labels"
    path.mkdir(parents=True, exist_ok=True)
    store = open_or_create(open_root(path), spec)
    generation = len(store.generations())
    planned, numbers_of = [], []
    for shape, members in by_shape.items():
        for first in range(0, len(members), shard_size):
            numbers = members[first : first + shard_size]
            records = tuple(_record(root, images[number]) for number in numbers)
            shard = Shard(schema.shard_name(generation, len(planned)), shape, records)
            planned.append(PlannedShard(shard, ("add",) * len(records)))
            numbers_of.append(numbers)
    rejects = [RejectedImage(f"default/{name}", 1, 1, "made up") for name in rejected]
    add_planned(store, planned, rejects, sources={"default": str(root.resolve())}, sequence=sequence)
    context = CommitContext(store.fingerprint, spec.quantity, spec.unit, "0" * 64)
    for one, numbers in zip(planned, numbers_of, strict=True):
        if not any(images[number].pending for number in numbers):
            assert commit_shard(store.root, one.shard, _content(one.shard, numbers, images, root), context)
    return open_store(path)


def make_shards(images: Iterable[tuple[ImageRecord, Shape]], generation: int, shard_size: int) -> list[Shard]:
    """The shards that a generation of these images has, in the plainest way: what planning is held to."""
    buckets: dict[Shape, list[ImageRecord]] = {}
    for image, shape in images:
        buckets.setdefault(shape, []).append(image)
    shards: list[Shard] = []
    for shape in sorted(buckets):
        members = sorted(buckets[shape], key=lambda image: image.id)
        count = max(1, min(shard_size, MAX_SHARD_PIXELS // (shape[0] * shape[1])))
        for start in range(0, len(members), count):
            name = schema.shard_name(generation, len(shards))
            shards.append(Shard(name, shape, tuple(members[start : start + count])))
    return shards


def add_planned(
    store: Store,
    planned: Sequence[PlannedShard],
    rejected: Sequence[RejectedImage] = (),
    removed: Sequence[str] = (),
    sources: Mapping[str, str] | None = None,
    profile: NumericsProfile = PROFILE,
    sequence: bool = False,
) -> Generation:
    """A new generation of these shards."""
    tables = (one.table() for one in planned)
    out = (rejected_table(rejected), removed_table(removed))
    said = {"default": True} if sequence else None
    return add_generation(store, tables, *out, sources or {}, profile, TeacherRequest("made up"), sequences=said)


def learn(store: Store, datasets: dict[str, DatasetNote] | None) -> Store:
    """The store with one more generation, of no images, that says which datasets sources are of."""
    out = (rejected_table([]), removed_table([]))
    add_generation(store, [], *out, {}, PROFILE, TeacherRequest("made up"), datasets)
    return open_store(store.root)


def _record(root: Path, picture: Picture) -> ImageRecord:
    status = (root / picture.path).stat()
    height, width = picture.source
    size, mtime = status.st_size, status.st_mtime_ns
    inside = _MEMBER.fullmatch(picture.path)
    path = "::".join(map(encode_path, inside.groups() if inside else [picture.path]))
    return ImageRecord(f"default/{path}", size, mtime, width, height, picture.orientation)


def _format(picture: Picture) -> str | None:
    """Of the file: a frame's is read as PPM."""
    return "PPM" if ".mp4::" in picture.path or ".mkv::" in picture.path else None


def _content(shard: Shard, numbers: Sequence[int], images: Sequence[Picture], root: Path) -> ShardArrays:
    count = len(numbers)
    depth_NHW = np.zeros((count, *shard.shape), np.float16)
    reliability_NHW = np.zeros((count, *shard.shape), np.uint8)
    for row, number in enumerate(numbers):
        if not images[number].failed:
            picture, (depth_HW, reliability_HW) = images[number], made_label(number, shard.shape)
            depth_NHW[row] = depth_HW if picture.depth_HW is None else picture.depth_HW
            reliability_NHW[row] = reliability_HW if picture.reliability_HW is None else picture.reliability_HW
    failed = np.array([images[number].failed for number in numbers])
    return ShardArrays(
        {
            "depth": depth_NHW,
            "reliability": reliability_NHW,
            "histogram": np.stack([_histogram(codes_HW) for codes_HW in reliability_NHW]),
            "id": np.array([record.id for record in shard.images], object),
            "status": failed.astype(np.uint8),
            "reason": np.array(["made up" if one else "" for one in failed], object),
            "source_height": np.array([record.height for record in shard.images], np.int32),
            "source_width": np.array([record.width for record in shard.images], np.int32),
            "orientation": np.array([record.orientation for record in shard.images], np.uint8),
            "focal_px": np.array([images[number].focal_px for number in numbers], np.float32),
            "content_sha256": np.array([_sha256(root / images[number].path) for number in numbers], object),
        }
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _histogram(codes_HW: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.bincount(codes_HW.ravel(), minlength=256).astype(np.uint32)
