"""Small Metric3D v2 models with weights that a name decides, for tests and for ``metric3d_official.py``.

``EXPECTED`` holds what the official code makes of them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import da3_models
import numpy as np
import torch
from safetensors.torch import save_file

from depthsieve.teachers.metric3d.published import KIND

EXPECTED = Path(__file__).parent / "metric3d_expected.npz"
CANVAS = (112, 196)
"""In place of 616 x 1064: as many patches of 28 as fit a test."""


@dataclass(frozen=True)
class Case:
    """A model, in the words of its config.json, and the shapes of network inputs that it was tried on."""

    official: str
    """Which of ``vit.raft5.*.py`` it is a narrow one of."""
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    gated: bool
    features: tuple[int, int]
    recurrent_size: int
    iterations: int
    shapes: tuple[tuple[int, int], ...]
    image_size: int = 70

    def config(self) -> dict[str, Any]:
        """config.json."""
        own = {key: value for key, value in vars(self).items() if key not in ("official", "shapes")}
        return {"model_type": KIND, **own, "every_quarter": self.gated, "canvas": list(CANVAS)}


CASES = {
    "small": Case("small", 64, 4, 2, False, (16, 24), 12, 4, ((56, 112), (84, 84), (112, 56))),
    "giant": Case("giant2", 48, 8, 3, True, (12, 16), 8, 8, ((56, 112), (84, 56))),
}

PHOTOS = ((90, 200), (150, 150), (160, 90))
"""Heights and widths of photos that were taken through the official ``hubconf.py``: wide, square and upright."""

FOCAL = 140.0
"""Focal length of the photos, in their pixels."""


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight of the published name, such that each step of the decoder moves depth by metres, and neither depth nor
    confidence is the same everywhere or at a limit."""
    name = name.replace(".downsample.1.", ".norm3.")  # published under both names
    values = da3_models.weight(name, shape)
    if "decoder_mono.upconv_1.out_conv" in name:
        return 0.03 * values  # of order one: what it fuses has grown
    if name.endswith(("depth_regressor.2.weight", "update_block.mask.2.weight")):
        return 4 * values  # bins and neighbours that count differently
    if name.endswith("flow_head.conv2d.weight"):
        return values * np.array([0.15, 0.1], np.float32)[:, None, None, None]  # units of 100 m, and of 1
    if name.endswith("flow_head.conv2d.bias"):
        return np.array([-0.01, 0.06], np.float32)
    return values


def names_of(rows: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official network's weights, as ``EXPECTED`` holds them."""
    named = (row.decode().split(" ", 1) for row in rows)
    return {name: tuple(int(side) for side in re.findall(r"\d+", shape)) for name, shape in named}


def weights(names: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(weight(name, shape)) for name, shape in names.items()}


def save(folder: Path, case: Case, names: Mapping[str, tuple[int, ...]], **changes: Any) -> Path:
    """A folder as ``depthsieve convert-weights`` makes it, with weights of these names and shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(case.config() | changes))
    save_file(weights(names), folder / "model.safetensors")
    return folder
