"""Depth Anything as its authors run it: the official resize rule and the official position embeddings.

Both differ from transformers' own. Source: https://github.com/DepthAnything/Depth-Anything-V2, ``depth_anything_v2``:
``dpt.py`` (``image2tensor``), ``util/transform.py`` (``Resize``, lower bound) and ``dinov2.py``
(``interpolate_pos_encoding``). V1, V2, the metric models and Distill-Any-Depth share them.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import Shape
from depthsieve.teachers.preprocessing import TokenLimit, check_image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
POSITION_OFFSET = 0.1
CACHED_GRIDS = 4


def official_shape(height: int, width: int, size: Shape, multiple: int) -> Shape:
    """The (H, W) of the official "lower bound" rule for an image of ``height`` x ``width`` pixels.

    One scale for both sides, the larger of ``size[0] / height`` and ``size[1] / width``; then each side goes to the
    nearest multiple (ties to even), or the next one up where that falls under ``size``.
    """
    scale = max(size[0] / height, size[1] / width)
    rows = _to_multiple(scale * height, multiple, size[0])
    columns = _to_multiple(scale * width, multiple, size[1])
    return rows, columns


def _to_multiple(side: float, multiple: int, at_least: int) -> int:
    nearest = round(side / multiple) * multiple
    return nearest if nearest >= at_least else math.ceil(side / multiple) * multiple


@dataclass(frozen=True)
class OfficialPreprocessing:
    """RGB / 255, cv2's INTER_CUBIC (no antialias) to :func:`official_shape`, then mean and standard deviation."""

    size: Shape
    limit: TokenLimit
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    positions: str = "official"

    @property
    def spec(self) -> Mapping[str, Any]:
        """Plain JSON: everything that decides the model's input and the label shape."""
        return {
            "rule": "depth-anything-official",
            "size": list(self.size),
            "multiple": self.limit.patch,
            "interpolation": "cv2 INTER_CUBIC, float32 RGB/255",
            "mean": list(self.mean),
            "std": list(self.std),
            "position_embedding": self.positions,
            **self.limit.spec,
        }

    def label_shape(self, height: int, width: int) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.label_shape`."""
        if height < 1 or width < 1:
            raise ImageRejected(f"{width}x{height} pixels: an empty image")
        shape = official_shape(height, width, self.size, self.limit.patch)
        return self.limit.apply((height, width), shape, self.limit.patch)

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """See :meth:`depthsieve.teachers.protocol.Teacher.prepare`."""
        check_image(rgb_HW3)
        # The official code divides by 255 first; after the resize it is the same to 1e-6, on a sixth of the pixels.
        resized_HW3 = cv2.resize(rgb_HW3.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
        unit_HW3 = resized_HW3 / np.float32(255)
        normal_HW3 = (unit_HW3 - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normal_HW3.transpose(2, 0, 1), dtype=np.float32)

    def half_shape(self, shape: Shape) -> Shape | None:
        """See :meth:`depthsieve.teachers.protocol.Teacher.half_shape`: multiples of the patch, halves rounded up."""
        patch = self.limit.patch
        rows, columns = (math.ceil(side / 2 / patch) * patch for side in shape)
        return rows, columns


class OfficialPositions:
    """DINOv2's position embeddings on another grid, as the official code interpolates them.

    Bicubic, without antialias, by the scale factors ``(rows + 0.1) / side`` and ``(columns + 0.1) / side`` of the
    trained square grid; transformers goes to the exact size instead, which moves depth by 0.2% to 0.5% off-square.
    A grid of as many patches as the trained one is taken as it is when the image is square.
    """

    def __init__(self, embeddings: torch.nn.Module, patch: int) -> None:
        self._embeddings = embeddings
        self._patch = patch
        self._interpolated = functools.lru_cache(maxsize=CACHED_GRIDS)(self._interpolate)

    def __call__(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Position embeddings [1, 1 + rows * columns, dim] for an image of ``height`` x ``width`` pixels."""
        trained = self._embeddings.position_embeddings
        assert isinstance(trained, torch.Tensor)
        if embeddings.shape[1] == trained.shape[1] and height == width:
            return trained
        return self._interpolated(height // self._patch, width // self._patch)

    def _interpolate(self, rows: int, columns: int) -> torch.Tensor:
        trained = self._embeddings.position_embeddings
        assert isinstance(trained, torch.Tensor)
        count, dim = trained.shape[1] - 1, trained.shape[2]
        side = math.isqrt(count)
        grid = trained[:, 1:].float().reshape(1, side, side, dim).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(
            grid,
            scale_factor=((rows + POSITION_OFFSET) / math.sqrt(count), (columns + POSITION_OFFSET) / math.sqrt(count)),
            mode="bicubic",
        )
        assert grid.shape[-2:] == (rows, columns)
        patches = grid.permute(0, 2, 3, 1).reshape(1, rows * columns, dim)
        return torch.cat((trained[:, :1].float(), patches), dim=1).to(trained.dtype)


def use_official_positions(model: Any) -> bool:
    """Give a loaded Depth Anything model the official position embeddings; False where its backbone is no DINOv2."""
    if model.config.backbone_config.model_type != "dinov2":
        return False
    embeddings = model.backbone.embeddings
    embeddings.interpolate_pos_encoding = OfficialPositions(embeddings, model.config.patch_size)
    return True
