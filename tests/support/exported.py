"""What the tests of exports share: a small store, its labels as they should come out, and how each target is read.

A target has a row in :data:`READERS`, which reads it as its users do: with its own library, or by the formula that its
format publishes.

Axes: H row, W column.
"""

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import OpenEXR
from PIL import Image
from storemaker import Picture, make_store

import depthsieve
from depthsieve.store import Store

PICTURES = (
    Picture("a.jpg", (28, 56), (14, 28)),
    Picture("a.png", (28, 56), (14, 28)),
    Picture("b/c.d.png", (56, 28), (28, 14)),
    Picture("b/turned.jpg", (30, 50), (14, 28), orientation=6),
    Picture("failed.png", (28, 56), (14, 28), failed=True),
)
"""Two label shapes; one source is not of its label's aspect, and turned by EXIF; one image has no label."""


@dataclass(frozen=True)
class Read:
    """One image as a target's reader has it: depth float [H,W], NaN where invalid; reliability, None where the target
    does not hold it; the photo as RGB, None where it has none."""

    depth_HW: np.ndarray
    reliability_HW: np.ndarray | None = None
    photo_HW3: np.ndarray | None = None


@dataclass(frozen=True)
class Reader:
    """``read`` takes the output folder and returns what is in it by id. Depth may be off by ``steps`` of the image's
    range, and by ``relative`` of itself; 0 is exactly equal. ``options`` are what the target needs."""

    read: Callable[[Path], dict[str, Read]]
    steps: float = 0.0
    relative: float = 0.0
    options: Mapping[str, Any] | None = None


def read_png(out: Path) -> dict[str, Read]:
    def one(row: dict[str, Any]) -> Read:
        codes_HW = _pixels(out / row["depth"]).astype(np.float64)
        depth_HW = np.where(codes_HW > 0, row["offset"] + row["scale"] * codes_HW, np.nan)
        return Read(depth_HW, _pixels(out / row["reliability"]))

    return {row["id"]: one(row) for row in json.loads((out / "depth.json").read_text())["images"]}


def read_npy(out: Path) -> dict[str, Read]:
    rows = json.loads((out / "index.json").read_text())["images"]
    return {row["id"]: Read(np.load(out / row["depth"]), np.load(out / row["reliability"])) for row in rows}


def read_npz(out: Path) -> dict[str, Read]:
    found = {}
    for row in json.loads((out / "index.json").read_text())["images"]:
        with np.load(out / row["labels"]) as arrays:
            found[row["id"]] = Read(arrays["depth"], arrays["reliability"])
    return found


def read_hdf5(out: Path) -> dict[str, Read]:
    found = {}

    def look(name: str, item: Any) -> None:
        if "id" in item.attrs:
            assert item["depth"].attrs["unit"] and item["depth"].compression == "gzip"
            found[item.attrs["id"]] = Read(item["depth"][:], item["reliability"][:])

    for path in out.glob("labels-*.h5"):
        with h5py.File(path) as file:
            file.visititems(look)
    return found


def read_webdataset(out: Path) -> dict[str, Read]:
    import webdataset

    shards = sorted(map(str, out.glob("labels-*.tar")))
    found, fields = {}, set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it does not close its files
        for sample in webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"):
            fields.add(tuple(name for name in sample if not name.startswith("__")))
            found[sample["json"]["id"]] = Read(sample["depth.npy"], sample["reliability.npy"], sample.get("jpg"))
    assert len(fields) == 1  # the same in all
    return found


def read_huggingface(out: Path) -> dict[str, Read]:
    import datasets

    found = {}
    for row in datasets.load_dataset(str(out), split="train", cache_dir=str(out.parent / "cache")):
        assert row["depth_map"].mode == "F"
        photo = np.asarray(row["image"]) if "image" in row else None
        found[row["id"]] = Read(np.asarray(row["depth_map"]), np.asarray(row["reliability"]), photo)
    return found


def read_exr(out: Path) -> dict[str, Read]:
    found = {}
    for path in out.rglob("*.exr"):
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels, header = file.channels(), file.header()
            name = {"disparity": "Y", "depth": "Z"}[header["quantity"]]
            found[header["id"]] = Read(channels[name].pixels.copy(), channels["reliability"].pixels.copy())
    return found


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())))


READERS: dict[str, Reader] = {
    "png": Reader(read_png, steps=0.51 / 65534),
    "npy": Reader(read_npy),
    "npz": Reader(read_npz),
    "hdf5": Reader(read_hdf5),
    "webdataset": Reader(read_webdataset),
    "huggingface": Reader(read_huggingface),
    "exr": Reader(read_exr),
}

OF_VIDEOS = ("video-depth-anything", "frames", "mp4")
"""Targets of clips."""

READ_ELSEWHERE = ("3dgs", "nerfstudio", "kitti", "ultralytics", "depth-anything-v2", "moge", *OF_VIDEOS)
"""Targets of metric stores, of photos with poses, or of clips, which have tests of their own."""


def small_store(folder: Path, **changes: Any) -> Store:
    """A store of :data:`PICTURES`, with its images."""
    return make_store(folder, PICTURES, **changes)


def export(store: Store | Path, out: Path, target: str, **options: Any) -> depthsieve.ExportSummary:
    """Without a progress bar, in one thread."""
    location = store.location if isinstance(store, Store) else store
    return depthsieve.export_labels(location, out, target=target, **{"progress": False, "threads": 1} | options)


def labels_of(store: Store, drop: float | None = None) -> dict[str, Read]:
    """By id, depth and reliability as the store has them; NaN and 0 where they are invalid or masked."""
    found = {}
    for image_id in store:
        label = store[image_id]
        keep_HW = label.reliability > 0 if drop is None else label.mask(drop)
        found[image_id] = Read(np.where(keep_HW, label.depth, np.nan), np.where(keep_HW, label.reliability, 0))
    return found


def check_equal(found: Mapping[str, Read], expected: Mapping[str, Read], reader: Reader) -> None:
    """The same images, and of each the same pixels invalid and the same values within what the target holds."""
    assert sorted(found) == sorted(expected)
    for image_id, wanted in expected.items():
        read, range_of = found[image_id], np.nanmax(wanted.depth_HW) - np.nanmin(wanted.depth_HW)
        assert np.array_equal(np.isnan(read.depth_HW), np.isnan(wanted.depth_HW)), image_id
        slack_HW = reader.steps * range_of + reader.relative * np.abs(wanted.depth_HW)
        assert np.all(np.abs(read.depth_HW - wanted.depth_HW)[~np.isnan(slack_HW)] <= slack_HW[~np.isnan(slack_HW)])
        if read.reliability_HW is not None:
            assert np.array_equal(read.reliability_HW, wanted.reliability_HW), image_id


def bytes_of(folder: Path) -> dict[str, str]:
    """sha256 of every file, those of its own record too, by its path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
