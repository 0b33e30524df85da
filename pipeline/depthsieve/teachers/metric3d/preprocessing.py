"""From a photo to Metric3D v2's input, as the official ``hubconf.py`` makes it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import Shape
from depthsieve.teachers.depth_anything import IMAGENET_MEAN, IMAGENET_STD
from depthsieve.teachers.metric3d.published import MULTIPLE
from depthsieve.teachers.preprocessing import TokenLimit, check_image

MEAN, STD = (255 * np.asarray(values, np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))
MARGIN = (np.round(MEAN) - MEAN) / STD
"""A pixel of the margin after normalisation: the mean colour, which the official code rounds to 8 bits."""


@dataclass(frozen=True)
class CanvasPreprocessing:
    """The largest size that fits into ``canvas``, bilinear on 8 bits by cv2, rounded down to whole pixels; then
    ImageNet's mean and standard deviation. The rest of the canvas is filled while the teacher predicts."""

    canvas: Shape
    limit: TokenLimit

    @property
    def spec(self) -> Mapping[str, Any]:
        """Plain JSON: everything that decides the model's input and the label shape."""
        return {
            "rule": "metric3d-v2-official",
            "canvas": list(self.canvas),
            "interpolation": "cv2 uint8, INTER_LINEAR",
            "margin": "mean colour, 8 bits",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "position_embedding": "official, offset 0.1",
            "decoder": "float32",
            **self.limit.spec,
        }

    def label_shape(self, height: int, width: int) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.label_shape`."""
        if height < 1 or width < 1:
            raise ImageRejected(f"{width}x{height} pixels: an empty image")
        canvas = self.limit.apply((height, width), self.canvas, MULTIPLE)
        scale = min(canvas[0] / height, canvas[1] / width)
        rows, columns = int(height * scale), int(width * scale)
        if not rows or not columns:
            raise ImageRejected(
                f"{width}x{height} pixels are too thin: fitted into {canvas[1]}x{canvas[0]}, one side is under a pixel"
            )
        return rows, columns

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """See :meth:`depthsieve.teachers.protocol.Teacher.prepare`."""
        check_image(rgb_HW3)
        resized_HW3 = cv2.resize(rgb_HW3, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
        normal_HW3 = (resized_HW3.astype(np.float32) - MEAN) / STD
        return np.ascontiguousarray(normal_HW3.transpose(2, 0, 1))

    def half_shape(self, shape: Shape) -> Shape | None:
        """See :meth:`depthsieve.teachers.protocol.Teacher.half_shape`: halves rounded up."""
        return (shape[0] + 1) // 2, (shape[1] + 1) // 2

    def padded(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, Shape]:
        """Images in the middle of their canvas, and the row and column at which they start.

        The canvas of what is half a label's size has half the sides too, rounded up to what the network takes.
        """
        count, _, height, width = image_B3HW.shape
        canvas = self.canvas
        if self.limit.oversize == "shrink":
            canvas = self.limit.apply((height, width), canvas, MULTIPLE)
        half = tuple(math.ceil(side / 2 / MULTIPLE) * MULTIPLE for side in canvas)
        rows, columns = half if height <= half[0] and width <= half[1] else canvas
        top, left = (rows - height) // 2, (columns - width) // 2
        whole = torch.from_numpy(MARGIN).to(image_B3HW)[:, None, None].repeat(count, 1, rows, columns)
        whole[:, :, top : top + height, left : left + width] = image_B3HW
        return whole, (top, left)
