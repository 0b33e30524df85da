"""Made ground truth for the labels of made stores, and files of it in every format."""

import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from storemaker import SPEC

from depthsieve.evaluation.comparing import evaluate_labels
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.protocol import GroundTruth
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.evaluation.result import Evaluation
from depthsieve.store import Store

LABEL, SOURCE = (14, 28), (28, 56)
COUNT = 10
METRIC = dataclasses.replace(SPEC, quantity="depth", unit="m")


def truth_of(number: int, shape: tuple[int, int] = SOURCE) -> np.ndarray:
    """Metres, with holes: a tilted wall with noise."""
    random = np.random.default_rng([3, number])
    rows, columns = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1]), indexing="ij")
    truth_HW = (1.5 + 6 * rows + 2 * columns + random.uniform(0, 1, shape)).astype(np.float32)
    truth_HW[random.random(shape) < 0.1] = 0
    return truth_HW


def write_truth(folder: Path, numbers: Iterable[int] = range(COUNT)) -> Path:
    """A folder of ``0.npy``, ``1.npy``, ..."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        np.save(folder / f"{number}.npy", truth_of(number))
    return folder


def evaluated(store: Store, truth: Path, **options: Any) -> Evaluation:
    """Without a progress bar."""
    return evaluate_labels(store, truth, progress=False, **options)


DEPTH_HW = np.array([[1.0, 2.5, 0.0], [4.0, 80.25, 0.5]], dtype=np.float32)
METRES_HW = np.where(DEPTH_HW > 0, DEPTH_HW, np.float32(np.nan))
"""How ``DEPTH_HW`` is read."""


def npy(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


def png(values: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(values).save(held, "PNG")
    return held.getvalue()


def pfm(array: np.ndarray, factor: str = "-1.0", kind: str = "Pf") -> bytes:
    order = "<f4" if factor.startswith("-") else ">f4"
    height, width = array.shape[:2]
    return f"{kind}\n{width} {height}\n{factor}\n".encode() + array[::-1].astype(order).tobytes()


def hdf5(**datasets: Any) -> bytes:
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return held.getvalue()


def opened(folder: Path, files: dict[str, bytes], **settings: Any) -> GroundTruth:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return open_ground_truth(folder, TruthSettings(**settings))
