"""A store whose labels are the exact depth of rendered scenes, in metres: what exports in metres are held to."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from storemaker import SPEC, Picture, make_store

from depthsieve.scenes import render_scene
from depthsieve.store import Store

METRIC = dataclasses.replace(SPEC, quantity="depth", unit="m")
SHAPE = (28, 42)
SOURCE = (56, 84)
SCENES = {"a.jpg": 1, "a.png": 2, "b/c d.jpg": 3, "b/images/e.png": 4}
"""Names that readers stumble over, and the seed of each."""


def scene_picture(name: str, seed: int, **changes: Any) -> Picture:
    """A rendered scene as a picture with its exact depth; sky is 80 m away, a corner is invalid."""
    scene = render_scene(seed, *SOURCE)
    reliability_HW = np.full(SHAPE, 200, np.uint8)
    reliability_HW[:3, :5] = 0
    fields: dict[str, Any] = {
        "rgb_HW3": scene.rgb_HW3,
        "depth_HW": exact_depth(seed),
        "reliability_HW": reliability_HW,
        "focal_px": scene.focal_px,
    }
    return Picture(name, label=SHAPE, **{"source": SOURCE, **fields, **changes})


def exact_depth(seed: int) -> NDArray[np.float32]:
    """At label shape, as float16 keeps it."""
    return np.minimum(render_scene(seed, *SHAPE).depth_HW, 80).astype(np.float16).astype(np.float32)


def metric_store(folder: Path, *more: Picture, names: dict[str, int] | None = None) -> Store:
    """A store of :data:`SCENES`, and ``more`` pictures."""
    chosen = SCENES if names is None else names
    return make_store(folder, [*(scene_picture(name, seed) for name, seed in chosen.items()), *more], spec=METRIC)
