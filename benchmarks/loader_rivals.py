"""The ways to store and read labels that the loader is measured against. Axes: B images of a batch, H row, W column.

Each rival is written once, from the labels of a store, and read as its own documentation advises. What all of them
deliver is the same: batches of ``depth`` float32 [B,H,W] and ``mask`` bool [B,H,W] of random windows, and with images
``image`` float32 [B,3,H,W], 0..1. All get the masks' thresholds for nothing, as plain numbers.
"""

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

cv2.setNumThreads(1)


@dataclass(frozen=True)
class Stored:
    """One label as rivals keep it; ``jpeg`` is the image at label shape."""

    number: int
    depth_HW: np.ndarray
    reliability_HW: np.ndarray
    threshold: int
    jpeg: bytes


@dataclass(frozen=True)
class Reading:
    """How samples are read: a window of ``crop`` pixels a side, ``batch`` of them at a time, with images or without."""

    crop: int
    batch: int
    images: bool


def finish(
    depth_HW: Any, reliability_HW: Any, threshold: int, jpeg: bytes | None, crop: int
) -> dict[str, torch.Tensor]:
    """A sample from what was stored: one window of all maps."""
    height, width = depth_HW.shape
    top, left = np.random.randint(height - crop + 1), np.random.randint(width - crop + 1)
    window = np.s_[top : top + crop, left : left + crop]
    sample = {
        "depth": torch.from_numpy(depth_HW[window].astype(np.float32)),
        "mask": torch.from_numpy(reliability_HW[window] >= threshold),
    }
    if jpeg is not None:
        rgb_HW3 = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)[window]
        sample["image"] = torch.from_numpy(np.ascontiguousarray(rgb_HW3)).permute(2, 0, 1).float().div_(255)
    return sample


class Indexed(Dataset):
    """A rival that reads any sample by its number."""

    def __init__(self, folder: Path, thresholds: list[int], reading: Reading) -> None:
        self.folder, self.thresholds, self.reading = folder, thresholds, reading
        self.opened: Any = None

    def __len__(self) -> int:
        return len(self.thresholds)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        if self.opened is None or self.opened[0] != os.getpid():
            self.opened = os.getpid(), self.open()
        return finish(*self.read(self.opened[1], number), self.reading.crop)

    def open(self) -> Any:
        return None


def batches_of(dataset: Indexed, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    """An epoch in a random order, by torch's own loader."""
    return iter(DataLoader(dataset, dataset.reading.batch, shuffle=True, num_workers=workers))


class ZarrReads(Indexed):
    """The store itself, an image at a time by zarr-python. ``places.npy`` has the group and row of each label."""

    def open(self) -> Any:
        import zarr

        places = np.load(self.folder / "places.npy")
        opened = {}
        for group in sorted(set(places["group"].tolist())):
            found = zarr.open_group(group, mode="r")
            opened[group] = found["depth"], found["reliability"]
        return places, opened

    def read(self, opened: Any, number: int) -> tuple[Any, Any, int, None]:
        places, groups = opened
        depth, reliability = groups[str(places["group"][number])]
        row = int(places["row"][number])
        return depth[row], reliability[row], self.thresholds[number], None


class PngFolders(Indexed):
    """16-bit PNG for depth, 8-bit PNG for reliability, in two folders, and images in a third."""

    @staticmethod
    def write(folder: Path, labels: Iterator[Stored]) -> None:
        for name in ("depth", "reliability", "image"):
            (folder / name).mkdir(parents=True)
        for label in labels:
            depth_HW = label.depth_HW.astype(np.float32)
            scaled_HW = (depth_HW * (65535 / depth_HW.max())).round().astype(np.uint16)
            cv2.imwrite(str(folder / "depth" / f"{label.number:06d}.png"), scaled_HW)
            cv2.imwrite(str(folder / "reliability" / f"{label.number:06d}.png"), label.reliability_HW)
            (folder / "image" / f"{label.number:06d}.jpg").write_bytes(label.jpeg)

    def read(self, opened: Any, number: int) -> tuple[Any, Any, int, bytes | None]:
        depth_HW = cv2.imread(str(self.folder / "depth" / f"{number:06d}.png"), cv2.IMREAD_UNCHANGED)
        codes_HW = cv2.imread(str(self.folder / "reliability" / f"{number:06d}.png"), cv2.IMREAD_UNCHANGED)
        jpeg = (self.folder / "image" / f"{number:06d}.jpg").read_bytes() if self.reading.images else None
        return depth_HW, codes_HW, self.thresholds[number], jpeg


class H5py(Indexed):
    """One HDF5 file: a dataset a label shape and map, gzip, a chunk an image; JPEG bytes of variable length."""

    @staticmethod
    def write(folder: Path, labels: Iterator[Stored]) -> None:
        folder.mkdir()
        shapes: dict[tuple[int, int], list[Stored]] = {}
        for label in labels:
            shapes.setdefault(label.depth_HW.shape, []).append(label)
        places: list[tuple[int, str, int]] = []
        with h5py.File(folder / "labels.h5", "w") as file:
            for (height, width), some in shapes.items():
                group = file.create_group(f"{height}x{width}")
                how = {"chunks": (1, height, width), "compression": "gzip", "shuffle": True}
                group.create_dataset("depth", data=np.stack([one.depth_HW for one in some]), **how)
                group.create_dataset("reliability", data=np.stack([one.reliability_HW for one in some]), **how)
                jpeg = group.create_dataset("image", len(some), h5py.vlen_dtype(np.uint8))
                for row, one in enumerate(some):
                    jpeg[row] = np.frombuffer(one.jpeg, np.uint8)
                    places.append((one.number, group.name, row))
        np.save(folder / "places.npy", np.array(sorted(places), [("number", "i4"), ("group", "U32"), ("row", "i4")]))

    def open(self) -> Any:
        return h5py.File(self.folder / "labels.h5", "r"), np.load(self.folder / "places.npy")

    def read(self, opened: Any, number: int) -> tuple[Any, Any, int, bytes | None]:
        file, places = opened
        group, row = file[str(places["group"][number])], int(places["row"][number])
        jpeg = group["image"][row].tobytes() if self.reading.images else None
        return group["depth"][row], group["reliability"][row], self.thresholds[number], jpeg


class _NpyFromTar:
    """What turns a member of a WebDataset into a sample; picklable, for worker processes."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def __call__(self, member: dict[str, Any]) -> dict[str, torch.Tensor]:
        depth_HW, codes_HW = (np.load(io.BytesIO(member[name])) for name in ("depth.npy", "codes.npy"))
        jpeg = member["jpg"] if self.reading.images else None
        return finish(depth_HW, codes_HW, int(member["threshold"]), jpeg, self.reading.crop)


def write_webdataset(folder: Path, labels: Iterator[Stored]) -> None:
    """Tars of raw arrays and JPEG bytes, at most 16 samples each."""
    import webdataset

    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "labels-%04d.tar"), maxcount=16, verbose=0) as sink:
        for label in labels:
            arrays = {"depth.npy": label.depth_HW, "codes.npy": label.reliability_HW}
            member: dict[str, Any] = {"__key__": f"{label.number:06d}", "threshold": str(label.threshold).encode()}
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.save(buffer, array)
                member[name] = buffer.getvalue()
            sink.write(member | {"jpg": label.jpeg})


def read_webdataset(folder: Path, reading: Reading, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    """Tars in a random order, samples through a shuffle buffer."""
    import webdataset

    tars = sorted(str(path) for path in folder.glob("*.tar"))
    dataset = webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0).shuffle(64).map(_NpyFromTar(reading))
    return iter(DataLoader(dataset, reading.batch, num_workers=workers))


def write_litdata(folder: Path, labels: Iterator[Stored]) -> None:
    """Chunks of 64 MB of raw arrays and JPEG bytes."""
    from litdata.streaming.writer import BinaryWriter

    folder.mkdir()
    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for label in labels:
        bytes_of = {"depth": label.depth_HW, "codes": label.reliability_HW}
        sample = {name: np.ascontiguousarray(array) for name, array in bytes_of.items()}
        writer[label.number] = sample | {"jpg": label.jpeg, "threshold": label.threshold}
    writer.done()
    writer.merge()


def read_litdata(folder: Path, reading: Reading, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    """Chunks and samples shuffled, by LitData's own loader."""
    from litdata import StreamingDataLoader, StreamingDataset

    class Samples(StreamingDataset):
        def __getitem__(self, index: Any) -> dict[str, torch.Tensor]:
            found = super().__getitem__(index)
            jpeg = found["jpg"] if reading.images else None
            return finish(found["depth"], found["codes"], found["threshold"], jpeg, reading.crop)

    dataset = Samples(str(folder), shuffle=True, seed=0)
    return iter(StreamingDataLoader(dataset, batch_size=reading.batch, num_workers=workers))


WRITERS: dict[str, Callable[[Path, Iterator[Stored]], None]] = {
    "png": PngFolders.write,
    "h5py": H5py.write,
    "webdataset": write_webdataset,
    "litdata": write_litdata,
}


def read_rival(
    name: str, folder: Path, thresholds: list[int], reading: Reading, workers: int
) -> Iterator[dict[str, torch.Tensor]]:
    """One epoch of a rival's batches."""
    indexed = {"zarr": ZarrReads, "png": PngFolders, "h5py": H5py}
    if name in indexed:
        return batches_of(indexed[name](folder, thresholds, reading), workers)
    return {"webdataset": read_webdataset, "litdata": read_litdata}[name](folder, reading, workers)
