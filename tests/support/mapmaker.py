"""Photos and depth maps made elsewhere, for tests of importing. Axes: H row, W column."""

from pathlib import Path
from typing import Any

import numpy as np
from labelled import write_photo
from PIL import Image

import depthsieve

SHAPE = (30, 40)
"""Of a map; photos have twice its sides. Every third one is portrait."""


def shape_of(number: int) -> tuple[int, int]:
    return SHAPE[::-1] if number % 3 == 2 else SHAPE


def metres_of(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """0.5 to 60 m in whole millimetres, 0 in the first two rows."""
    map_HW = np.random.default_rng([4, number]).integers(500, 60000, shape_of(number)) / 1000
    map_HW[:2] = 0
    return map_HW.astype(np.float32)


def confidence_of(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """0 to 1; the higher ``number``, the higher."""
    return np.random.default_rng([5, number]).uniform(0, 0.1 + 0.09 * number, shape_of(number)).astype(np.float32)


def write_maps(folder: Path, numbers: Any = range(6)) -> Path:
    """``photos/``, ``mm/`` (16-bit PNG), ``m/`` (npy) and ``sure/`` (npy), each with ``even/`` and ``odd ones/``."""
    for number in numbers:
        name = f"{'odd ones' if number % 2 else 'even'}/é {number}"
        height, width = shape_of(number)
        write_photo(folder / "photos" / f"{name}.png", 2 * width, 2 * height, seed=number)
        for kind in ("mm", "m", "sure"):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((metres_of(number) * 1000).round().astype(np.uint16)).save(folder / "mm" / f"{name}.png")
        np.save(folder / "m" / f"{name}.npy", metres_of(number))
        np.save(folder / "sure" / f"{name}.npy", confidence_of(number))
    return folder


def image_id(number: int) -> str:
    return f"default/{'odd ones' if number % 2 else 'even'}/é {number}.png"


def imported(made: Path, store: Path, maps: str = "mm", **options: Any) -> depthsieve.ImportSummary:
    """Import with what the maps need said."""
    told: dict[str, Any] = {"images": made / "photos", "quantity": "depth", "threads": 1, "progress": False}
    told |= {"scale": 1000} if maps == "mm" else {}
    return depthsieve.import_labels(made / maps, store, **told | options)
