"""A small MoGe-2 with weights that a name decides, for tests and for ``moge_official.py``.

``EXPECTED`` holds what the official code makes of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import da3_models
import numpy as np
import torch
from safetensors.torch import save_file

from depthsieve.teachers.moge.network import KIND
from depthsieve.teachers.moge.published import read_published

EXPECTED = Path(__file__).parent / "moge_expected.npz"
SHAPES = ((70, 70), (56, 98), (84, 42))
NARROW = (48, 4, 3, 70)
"""Channels, layers, heads and trained side of the backbone."""

_STACK: dict[str, Any] = {
    "dim_res_blocks": [32, 32, 16, 16, 8],
    "res_block_in_norm": "none",
    "res_block_hidden_norm": "none",
    "resamplers": ["conv_transpose", "conv_transpose", "pixel_shuffle", "bilinear"],
}
MODEL_CONFIG: dict[str, Any] = {
    "encoder": {"backbone": "dinov2_vits14", "intermediate_layers": [1, 2, 3], "dim_out": 32},
    "neck": _STACK | {"dim_in": [34, 2, 2, 2, 2], "dim_out": None, "num_res_blocks": [0, 2, 1, 1, 0]},
    "points_head": _STACK
    | {"dim_in": [32, 32, 16, 16, 8], "dim_out": [None, None, None, None, 3], "num_res_blocks": [0, 1, 1, 1, 0]},
    "mask_head": _STACK
    | {"dim_in": [32, 32, 16, 16, 8], "dim_out": [None, None, None, None, 1], "num_res_blocks": 1}
    | {"res_block_in_norm": "layer_norm"},
    "normal_head": _STACK
    | {"dim_in": [32, 32, 16, 16, 8], "dim_out": [None, None, None, None, 3], "num_res_blocks": [0, 1, 1, 1, 0]},
    "scale_head": {"dims": [48, 24, 1]},
    "remap_output": "exp",
    "num_tokens_range": [16, 36],
}


def config() -> dict[str, Any]:
    """config.json of the narrow model, in depthsieve's own form: a published one says sizes by a backbone's name."""
    channels, layers, heads, side = NARROW
    sizes = {"hidden_size": channels, "num_hidden_layers": layers, "num_attention_heads": heads, "image_size": side}
    return {"model_type": KIND, **read_published({"model_config": MODEL_CONFIG}), **sizes}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """As of Depth Anything 3's; of which points' logarithms are made that stay within a few units."""
    values = da3_models.weight(name, shape)
    return 0.1 * values if name.startswith("points_head.output_blocks") else values


def save(folder: Path, names: Mapping[str, tuple[int, ...]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config()))
    weights = {name: torch.from_numpy(weight(name, shape)) for name, shape in names.items()}
    save_file(weights, folder / "model.safetensors")
    return folder


def unit_image(shape: tuple[int, int]) -> np.ndarray:
    """[1,3,*shape] of 0..1, as the official code takes it."""
    return np.clip(0.5 + 0.25 * da3_models.image(shape), 0, 1).astype(np.float32)


CAMERAS = ((48, 64, 1.1, 0.7), (60, 40, 2.0, -1.5), (64, 64, 0.8, 0.2))
"""Height, width, focal length in half diagonals, and shift, of made-up scenes whose camera is to be found."""


def scene(height: int, width: int, focal: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Points [height,width,3] of a bumpy scene without its shift along z, with some noise; a mask without a corner."""
    diagonal = np.hypot(height, width)
    y, x = ((2 * np.arange(side) + 1 - side) / diagonal for side in (height, width))
    u, v = np.meshgrid(x, y, indexing="xy")
    depth = 3 + np.sin(5 * u) + np.cos(4 * v + u)
    xyz = np.stack([u * depth / focal, v * depth / focal, depth - shift], axis=-1)
    noise = 0.02 * da3_models.numbers("scene", (height, width, 3))
    return (xyz + noise).astype(np.float32), ~((u < -0.4) & (v < -0.4))
