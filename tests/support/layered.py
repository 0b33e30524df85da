"""A store with kept signals and a layer of reliability, and what tests of layers do to one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from labelled import small_teacher, write_photos
from numpy.typing import NDArray
from PIL import Image

import depthsieve
from depthsieve.core.records import seal
from depthsieve.jobs.verify.repair import VerifyReport, verify

SIGNAL_NAMES = ("edges", "flip", "lowres")
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "threads": 1,
    "shard_size": 3,
    "progress": False,
    "signals": "flip,lowres,edges",
}
WEIGHTS = {"constant": -0.5, "level": -0.7, "edges": 0.2, "flip": 0.4, "lowres": 0.1}
NAME = "edges+flip+lowres-9-transferred"


def make_layered(folder: Path) -> Path:
    """Photos, a teacher, a calibration, and a store that kept signals: seven photos in three shards, one of them with
    holes, one broken; and a layer of that calibration."""
    photos = write_photos(folder / "photos", 7)
    (photos / "photo 1.png").write_bytes((photos / "photo 1.png").read_bytes()[:500])
    with Image.open(photos / "photo 0.png") as opened:
        photo = opened.convert("RGBA")
    photo.paste((0, 0, 0, 0), (10, 10, 60, 50))
    photo.save(photos / "photo 0.png")
    teacher = str(small_teacher(folder / "teacher"))
    summary = depthsieve.label(photos, folder / "store", teacher=teacher, keep_signals=True, **SETTINGS)
    assert (summary.labelled, len(summary.failed)) == (6, 1)
    assert ["transparent" in note for note in summary.notes] == [True]
    write_calibration(folder / "nine.json")
    done = depthsieve.recalibrate(folder / "store", calibration=folder / "nine.json", progress=False)
    assert (done.layer, done.images_now, done.shards_now, done.shards) == (NAME, 7, 3, 3)
    return folder


def write_calibration(path: Path, version: str = "9", fitted_on: tuple[str, ...] = (), **weights: float) -> Path:
    row = WEIGHTS | weights
    body = {"version": version, "fitted_on": fitted_on, "weights": {"disparity": {"edges+flip+lowres": row}}}
    path.write_text(json.dumps(body))
    return path


def records(store: Path, layer: str) -> dict[str, dict[str, Any]]:
    """The layer's records, by shard."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(store.glob(f"layers/{layer}/commits/*.json"))}


def group_of(store: Path, layer: str, shard_id: str) -> Path:
    return store / "layers" / layer / "shards" / str(records(store, layer)[shard_id]["group"])


def labels_of(store: Path, shard_id: str) -> Any:
    record = json.loads((store / "commits" / f"{shard_id}.json").read_bytes())
    return zarr.open_group(store / "labels.zarr" / "shards" / record["group"], mode="r")


def expected_codes(
    depth_HW: NDArray[np.float64], signals_SHW: NDArray[np.float64], weights: dict[str, float]
) -> NDArray[np.float64]:
    """The code of each pixel before it is rounded, by the formulas of the documents, in float64 and the plainest way.
    Signals are in the order of ``SIGNAL_NAMES``."""
    median = np.sort(depth_HW.ravel())[(depth_HW.size - 1) // 2]
    level_HW = (depth_HW / np.maximum(depth_HW + median, 0.1 * np.abs(depth_HW).mean())).clip(0, 1)
    log_HW = weights["constant"] + weights["level"] * np.log(level_HW + 0.02)
    height, width = depth_HW.shape
    for name, signal_HW in zip(SIGNAL_NAMES, signals_SHW, strict=True):
        mean_HW = np.empty_like(signal_HW)
        for y in range(height):
            for x in range(width):
                mean_HW[y, x] = signal_HW[max(0, y - 7) : y + 8, max(0, x - 7) : x + 8].mean()
        log_HW += weights[name] * np.log(mean_HW + 0.001)
    code, error = [1, 6, 41, 194, 240, 251, 255], [1, 0.6, 0.3, 0.06, 0.02, 0.005, 0.001]  # see docs/store_format.md
    return np.asarray(np.interp(log_HW, np.log(error[::-1]), code[::-1]))


def check(store: Path, repair: bool = False) -> VerifyReport:
    return verify(store, repair=repair, progress=False)


def change(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def reseal(path: Path, **changes: object) -> None:
    path.write_bytes(seal(json.loads(path.read_bytes()) | changes))
