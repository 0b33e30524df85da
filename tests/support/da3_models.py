"""Small Depth Anything 3 models with weights that a name decides, for tests and for ``da3_official.py``.

``EXPECTED`` holds what the official code makes of them.
"""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from depthsieve.teachers.da3.network import KIND, DepthAnything3Config, DepthAnything3ForDepthEstimation
from depthsieve.teachers.da3.published import read_published

EXPECTED = Path(__file__).parent / "da3_expected.npz"
STEP = 9
"""Every so many rows and columns of a map are kept; no divisor of a patch, so that all places in a patch occur."""


@dataclass(frozen=True)
class Case:
    """A model and the shapes of the images that it was tried on.

    ``published`` is its config.json as its authors write it. ``narrow``, where the model is no published one: channels,
    layers, heads and trained side, which a published config.json only says by the name of a backbone.
    """

    published: Mapping[str, Any]
    shapes: tuple[tuple[int, int], ...]
    narrow: tuple[int, int, int, int] | None = None

    def config(self) -> dict[str, Any]:
        """config.json: the published one, or for a narrow model depthsieve's own."""
        if self.narrow is None:
            return dict(self.published)
        channels, layers, heads, side = self.narrow
        sizes = {"hidden_size": channels, "num_hidden_layers": layers, "num_attention_heads": heads, "image_size": side}
        return {"model_type": KIND, **read_published(self.published), **sizes}


def _published(name: str, net: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """As on the hub, without the official code's names of classes."""
    return {"model_name": name, "config": {"net": net, "head": head}}


def _any_view(name: str, vit: str, start: int, layers: list[int], features: int, channels: list[int]) -> dict[str, Any]:
    starts = dict.fromkeys(("alt_start", "qknorm_start", "rope_start"), start)
    net = {"name": vit, "out_layers": layers, **starts, "cat_token": True}
    return _published(name, net, {"output_dim": 2, "features": features, "out_channels": channels})


def _monocular(name: str) -> dict[str, Any]:
    starts = dict.fromkeys(("alt_start", "qknorm_start", "rope_start"), -1)
    net = {"name": "vitl", "out_layers": [1, 2, 4, 5], **starts, "cat_token": False}
    return _published(name, net, {"output_dim": 1, "features": 16, "out_channels": [8, 12, 16, 16]})


SHAPES = ((70, 70), (56, 98), (112, 42))
CASES = {
    "whole small": Case(_any_view("da3-small", "vits", 4, [5, 7, 9, 11], 64, [48, 96, 192, 384]), ((42, 70),)),
    "small": Case(_any_view("da3-small", "vits", 2, [2, 3, 4, 5], 16, [8, 12, 16, 16]), SHAPES, (48, 6, 3, 70)),
    "base": Case(_any_view("da3-base", "vitb", 3, [1, 3, 4, 6], 16, [8, 12, 16, 16]), SHAPES[1:], (64, 7, 4, 70)),
    "giant": Case(_any_view("da3-giant", "vitg", 2, [2, 3, 4, 5], 16, [8, 12, 16, 16]), SHAPES[1:], (48, 6, 3, 70)),
    "mono": Case(_monocular("da3mono-large"), SHAPES, (64, 6, 4, 70)),
    "metric": Case(_monocular("da3metric-large"), SHAPES[1:], (48, 6, 3, 70)),
}


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 numbers from -1 to 1 that ``name`` decides, the same in every release of numpy."""
    raw = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(math.prod(shape) or 1)
    unit = (raw >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return (2 * unit - 1).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight of the published name: such that outputs are of order one, and nothing is left out by being 0."""
    values = numbers(name, shape)
    if "fc_fov" in name:
        return 0.04 * values if len(shape) > 1 else 1 + 0.3 * values  # angles that a camera may have
    if name.endswith("gamma"):
        return 0.6 + 0.3 * values
    if len(shape) == 1:
        normalises = "norm" in name or name.endswith("output_conv2_aux.0.2.weight")
        return (1 if normalises and name.endswith("weight") else 0.1) + 0.3 * values
    if "token" in name or "pos_embed" in name:
        return values
    return values * np.float32(math.sqrt(3 / math.prod(shape[1:])))


def image(shape: tuple[int, int]) -> np.ndarray:
    """[1,3,*shape], as a normalised photo might be: waves and some grain."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / 50
    waves = np.stack([np.sin(9 * rows + 4 * columns), np.cos(7 * columns), np.sin(11 * rows * columns)])
    return (waves + 0.3 * numbers("grain", (3, *shape)))[None].astype(np.float32)


def photo(height: int, width: int) -> np.ndarray:
    """[height,width,3] uint8, an upright photo of that size."""
    return np.clip(127 + 70 * image((height, width))[0].transpose(1, 2, 0), 0, 255).astype(np.uint8)


PHOTOS = ((375, 500), (640, 480), (504, 378), (31, 200), (333, 222))
"""Heights and widths of photos that official preprocessing was tried on, with a longest side of 98, and its 504."""


def kept(map_HW: np.ndarray) -> np.ndarray:
    """What of a map is compared."""
    return map_HW[..., ::STEP, ::STEP]


def names_of(case: Case) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a model's weights."""
    config = DepthAnything3Config(**{key: value for key, value in case.config().items() if key != "model_type"})
    with torch.device("meta"):
        model = DepthAnything3ForDepthEstimation(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def save_metric(folder: Path) -> Path:
    """The small metric model, whose random weights would take nearly all for sky: here they take nothing for it."""
    save(folder, CASES["metric"], names_of(CASES["metric"]))
    weights = load_file(folder / "model.safetensors")
    weights["model.head.scratch.sky_output_conv2.2.bias"].fill_(-9)
    save_file(weights, folder / "model.safetensors")
    return folder


def save(folder: Path, case: Case, names: Mapping[str, tuple[int, ...]]) -> Path:
    """A folder as the hub has it: config.json, and model.safetensors with weights of these names and shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(case.config()))
    weights = {name: torch.from_numpy(weight(name, shape)) for name, shape in names.items()}
    save_file(weights, folder / "model.safetensors")
    return folder


def apart(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, as a part of the range of what is wanted."""
    assert got.shape == wanted.shape
    return float(np.abs(got - wanted).max() / np.ptp(wanted))
