"""Geometry of a sample: the image brought to its label's pixels, one window, one size and one flip for all its maps.

Axes: H row, W column, C or 3 channel.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.records import Shape
from depthsieve.training.augment import Augment
from depthsieve.training.epoch import Draws


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a label a sample shows, in pixels of the label. ``shape``: what it is resized to, None = as it is;
    ``flip``: mirrored left to right after that."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    shape: Shape | None = None

    @property
    def resizes(self) -> bool:
        """Whether the sample has another size than the part of the label."""
        return self.shape is not None and self.shape != (self.height, self.width)

    def is_all_of(self, label: Shape) -> bool:
        """Whether it shows a whole label, pixel by pixel."""
        return (self.height, self.width) == label and not self.flip and not self.resizes

    def cut(self, map_HW: NDArray[Any]) -> NDArray[Any]:
        """The sample's part of a map [H,W,...]. Where it is resized, each pixel is the one whose centre is nearest."""
        part = self._part(map_HW)
        if self.resizes:
            assert self.shape is not None
            rows, columns = (
                (2 * np.arange(to) + 1) * of // (2 * to)
                for of, to in zip((self.height, self.width), self.shape, strict=True)
            )
            part = part.take(rows, axis=0).take(columns, axis=1)
        return part[:, ::-1] if self.flip else part

    def cut_image(self, rgb_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The sample's part of the image. Where it is resized, areas are averaged, or else interpolated linearly."""
        part = self._part(rgb_HW3)
        if self.resizes:
            assert self.shape is not None
            height, width = self.shape
            method = cv2.INTER_AREA if height <= self.height and width <= self.width else cv2.INTER_LINEAR
            part = np.asarray(cv2.resize(part, (width, height), interpolation=method), np.uint8)
        return np.asarray(cv2.flip(part, 1), np.uint8) if self.flip else part

    def _part(self, map_HW: NDArray[Any]) -> NDArray[Any]:
        return map_HW[self.top : self.top + self.height, self.left : self.left + self.width]


def choose_window(label: Shape, augment: Augment, *key: int | str) -> Window:
    """The window of one image in one epoch; ``key`` is what its randomness depends on: seed, epoch and image id.

    ``augment`` fits into the ``label``.
    """
    shape = augment.shape or label
    height, width = shape
    least, most = augment.scale
    if (least, most) != (1.0, 1.0):
        least = max(least, *(want / side for want, side in zip(shape, label, strict=True)))
        scale = least + (most - least) * Draws("scale", *key).unit()
        height, width = (min(side, max(1, int(want / scale + 0.5))) for want, side in zip(shape, label, strict=True))
    random = Draws("window", *key)
    top, left = random.below(label[0] - height + 1), random.below(label[1] - width + 1)
    return Window(top, left, height, width, augment.flip and Draws("flip", *key).below(2) == 1, shape)
