"""From a photo to Depth Anything 3's input, as the official code makes it (``utils/io/input_processor.py``)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import Shape
from depthsieve.teachers.depth_anything import IMAGENET_MEAN, IMAGENET_STD
from depthsieve.teachers.preprocessing import TokenLimit, check_image

LONGEST_SIDE = 504


@dataclass(frozen=True)
class LongestSidePreprocessing:
    """The longest side to ``size``, then both to the nearest multiple of the patch (the higher of two as near), on 8
    bits by two calls of cv2; then ImageNet's mean and standard deviation. The official ``upper_bound_resize``."""

    size: int
    limit: TokenLimit

    @property
    def spec(self) -> Mapping[str, Any]:
        """Plain JSON: everything that decides the model's input and the label shape."""
        return {
            "rule": "depth-anything-3-official",
            "longest_side": self.size,
            "multiple": self.limit.patch,
            "interpolation": "cv2 uint8, twice, INTER_AREA to smaller, INTER_CUBIC to larger",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "position_embedding": "official, offset 0.1",
            "heads": "float32",
            **self.limit.spec,
        }

    def label_shape(self, height: int, width: int) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.label_shape`."""
        if height < 1 or width < 1:
            raise ImageRejected(f"{width}x{height} pixels: an empty image")
        rows, columns = (_nearest(side, self.limit.patch) for side in self._bounded(height, width))
        if not rows or not columns:
            raise ImageRejected(
                f"{width}x{height} pixels are too thin: with a longest side of {self.size}, the other one is under "
                f"half a patch of {self.limit.patch}"
            )
        return self.limit.apply((height, width), (rows, columns), self.limit.patch)

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """See :meth:`depthsieve.teachers.protocol.Teacher.prepare`."""
        check_image(rgb_HW3)
        height, width = rgb_HW3.shape[:2]
        bounded = self._bounded(height, width)
        resized_HW3 = _resize(_resize(rgb_HW3, bounded), shape)
        unit_HW3 = resized_HW3.astype(np.float32) / np.float32(255)
        normal_HW3 = (unit_HW3 - np.asarray(IMAGENET_MEAN, np.float32)) / np.asarray(IMAGENET_STD, np.float32)
        return np.ascontiguousarray(normal_HW3.transpose(2, 0, 1))

    def half_shape(self, shape: Shape) -> Shape | None:
        """See :meth:`depthsieve.teachers.protocol.Teacher.half_shape`: multiples of the patch, halves rounded up."""
        rows, columns = (math.ceil(side / 2 / self.limit.patch) * self.limit.patch for side in shape)
        return rows, columns

    def _bounded(self, height: int, width: int) -> Shape:
        scale = self.size / max(height, width)
        rows, columns = (max(1, round(side * scale)) for side in (height, width))
        return rows, columns


def _nearest(side: int, multiple: int) -> int:
    return (side + multiple // 2) // multiple * multiple


def _resize(rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
    if rgb_HW3.shape[:2] == shape:
        return rgb_HW3
    larger = shape[0] > rgb_HW3.shape[0] or shape[1] > rgb_HW3.shape[1]
    how = cv2.INTER_CUBIC if larger else cv2.INTER_AREA
    return np.asarray(cv2.resize(rgb_HW3, (shape[1], shape[0]), interpolation=how))
