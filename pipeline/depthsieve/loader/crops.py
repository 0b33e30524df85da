"""Geometry of a sample: the image brought to its label's pixels, one window and one flip for all of its maps.

Axes: H row, W column, C or 3 channel.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.errors import UsageError
from depthsieve.loader.epoch import draw_below, stream
from depthsieve.records import Shape


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a label a sample shows, in pixels of the label; ``flip``: mirrored left to right after the cut."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False

    def cut(self, map_HW: NDArray[Any]) -> NDArray[Any]:
        """This part of a map [H,W,...], as a contiguous copy."""
        part = map_HW[self.top : self.top + self.height, self.left : self.left + self.width]
        return np.array(part[:, ::-1] if self.flip else part, order="C")


def choose_window(label: Shape, crop: Shape | None, flip: bool, *key: int | str) -> Window:
    """The window of one image in one epoch; ``key`` is what its randomness depends on: seed, epoch and image id.

    ``crop`` is no larger than ``label``; None is all of it. With ``flip`` every other sample is mirrored.
    """
    height, width = crop or label
    random = stream("window", *key)
    top = draw_below(random, label[0] - height + 1)
    left = draw_below(random, label[1] - width + 1)
    return Window(top, left, height, width, flip and draw_below(stream("flip", *key), 2) == 1)


def check_crop(crop: Any) -> Shape | None:
    """``crop`` as (height, width): an int stands for a square. Raises :class:`UsageError` for anything else."""
    if crop is None:
        return None
    sides = (crop, crop) if isinstance(crop, int) else crop
    whole = isinstance(sides, tuple | list) and all(isinstance(n, int) and not isinstance(n, bool) for n in sides)
    if not whole or len(sides) != 2 or min(sides) < 1:
        raise UsageError(f"crop must be a side or (height, width) in whole pixels of the label, not {crop!r}")
    return sides[0], sides[1]


def to_label_shape(rgb_HW3: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """The upright image at label shape, under the store's mapping of pixel centres:
    ``x_source = (x + 0.5) * source_width / W - 0.5``.

    Areas are averaged where both sides shrink, else the image is interpolated bicubically.
    """
    height, width = shape
    if rgb_HW3.shape[:2] == shape:
        return rgb_HW3
    shrinks = height <= rgb_HW3.shape[0] and width <= rgb_HW3.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb_HW3, (width, height), interpolation=method), dtype=np.uint8)
