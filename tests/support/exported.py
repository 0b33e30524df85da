"""What the tests of exports share: a small store, its labels as they should come out, and a folder's bytes."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from storemaker import Picture, made_label, make_store

import depthsieve
from depthsieve.store import Store

PICTURES = (
    Picture("a.jpg", (28, 56), (14, 28)),
    Picture("a.png", (28, 56), (14, 28)),
    Picture("b/c.d.png", (56, 28), (28, 14)),
    Picture("b/e f.png", (30, 50), (14, 28)),
    Picture("failed.png", (28, 56), (14, 28), failed=True),
)
"""Two label shapes; one source is not of its label's aspect; one image has no label."""


def small_store(folder: Path, **changes: Any) -> Store:
    """A store of :data:`PICTURES`, with its images."""
    return make_store(folder, PICTURES, **changes)


def export(store: Store | Path, out: Path, target: str, **options: Any) -> depthsieve.ExportSummary:
    """Without a progress bar, in one thread."""
    location = store.location if isinstance(store, Store) else store
    return depthsieve.export_labels(location, out, target=target, **{"progress": False, "threads": 1} | options)


def labels_of(store: Store, drop: float | None = None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By id, depth (NaN where invalid or masked) and reliability (0 there), read from the store."""
    found = {}
    for image_id in store:
        label = store[image_id]
        keep_HW = label.reliability > 0 if drop is None else label.mask(drop)
        found[image_id] = (np.where(keep_HW, label.depth, np.nan), np.where(keep_HW, label.reliability, 0))
    return found


def bytes_of(folder: Path) -> dict[str, str]:
    """sha256 of every file, those of its own record too, by its path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


__all__ = ["PICTURES", "bytes_of", "export", "labels_of", "made_label", "small_store"]
