"""Depth in the numbers that readers take: 16-bit integers with their own scale, or distance to the camera.

All functions are pure, take depth in metres with NaN where it is invalid or masked, and say how many pixels a format
cannot hold. Axes: H row, W column.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.records import Shape
from depthsieve.export.codecs import CODES

UPRIGHT_TO_FILE = {
    # EXIF orientation of the file: from the upright map to the rows and columns as the file has them. Quarter turns
    # against the clock, after a mirroring of columns.
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (1, False),
    7: (1, True),
    8: (3, False),
}


def as_in_file(map_HW: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An upright map in the order of pixels that the file has: for readers that do not look at EXIF."""
    turns, mirrored = UPRIGHT_TO_FILE[orientation]
    turned = np.rot90(map_HW, turns)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def as_in_file_shape(shape: Shape, orientation: int) -> Shape:
    """The (height, width) of an upright map in the order of pixels that the file has."""
    return shape[::-1] if UPRIGHT_TO_FILE[orientation][0] % 2 else shape


def encode_linear(metres_HW: NDArray[np.floating], steps: float, invalid: int = 0) -> tuple[NDArray[np.uint16], int]:
    """Depth times ``steps`` a metre, rounded, as uint16; ``invalid`` (0 or 65535) where there is none.

    A valid pixel never gets the code of an invalid one: what rounds to 0 is 1. What is farther than the largest code is
    invalid: clamped, it would be a wall that is not there.

    Returns:
        ``(code_HW, too_far)``: codes, and how many valid pixels were too far.
    """
    lowest, highest = (1, CODES) if invalid == 0 else (0, CODES - 1)
    valid_HW = ~np.isnan(metres_HW)
    scaled_HW = np.rint(np.where(valid_HW, metres_HW, 0).astype(np.float64) * steps)
    far_HW = valid_HW & (scaled_HW > highest)
    code_HW = np.where(valid_HW & ~far_HW, np.clip(scaled_HW, lowest, highest), invalid)
    return code_HW.astype(np.uint16), int(far_HW.sum())


def encode_log(metres_HW: NDArray[np.floating]) -> tuple[NDArray[np.uint16], float, float]:
    """MoGe's code: ``near^(1-t) far^t`` with ``t = (code - 1) / 65533``; 0 = unknown. (65535 is infinity: no label has
    it.)

    Returns:
        ``(code_HW, near, far)``: the least and the largest depth of the map; far is 1.1 times near at least, as MoGe
        writes it, and both are 1 where nothing is known.
    """
    valid_HW = ~np.isnan(metres_HW)
    if not valid_HW.any():
        return np.zeros(metres_HW.shape, np.uint16), 1.0, 1.0
    near = float(metres_HW[valid_HW].min())
    far = max(float(metres_HW[valid_HW].max()), near * 1.1)
    ratio_HW = np.log(np.where(valid_HW, metres_HW, near).astype(np.float64) / near) / np.log(far / near)
    code_HW = np.where(valid_HW, 1 + np.rint(np.clip(ratio_HW, 0, 1) * (CODES - 2)), 0)
    return code_HW.astype(np.uint16), near, far


def decode_log(code_HW: NDArray[np.uint16], near: float, far: float) -> NDArray[np.float64]:
    """What :func:`encode_log` encoded, NaN where it is unknown, and infinity where MoGe says so."""
    depth_HW = near * (far / near) ** ((code_HW.astype(np.float64) - 1) / (CODES - 2))
    return np.select([code_HW == 0, code_HW == CODES], [np.nan, np.inf], depth_HW)


def encode_inverse(
    near_large_HW: NDArray[np.floating],
) -> tuple[NDArray[np.uint16], float, float]:
    """Disparity over the whole range of 16 bits: ``low + code * step`` is what it was.

    NaN gets the code of the nearest valid pixel: for readers that know no invalid ones, that is the least wrong.

    Returns:
        ``(code_HW, low, step)``; ``step`` is 0 for a map of one value, and of a map without a valid pixel all is 0.
    """
    valid_HW = ~np.isnan(near_large_HW)
    if not valid_HW.any():
        return np.zeros(near_large_HW.shape, np.uint16), 0.0, 0.0
    values_HW = fill_nearest(near_large_HW).astype(np.float64)
    low, high = float(values_HW.min()), float(values_HW.max())
    step = (high - low) / CODES
    code_HW = np.rint((values_HW - low) / step) if step else np.zeros(values_HW.shape)
    return code_HW.astype(np.uint16), low, step


def fill_nearest(map_HW: NDArray[np.floating]) -> NDArray[np.floating]:
    """The map with the value of the nearest valid pixel (by distance) in place of each NaN."""
    invalid_HW = np.isnan(map_HW)
    if not invalid_HW.any() or invalid_HW.all():
        return map_HW
    _, nearest_HW = cv2.distanceTransformWithLabels(
        invalid_HW.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of = np.empty(int(nearest_HW.max()) + 1, map_HW.dtype)
    value_of[nearest_HW[~invalid_HW]] = map_HW[~invalid_HW]
    return np.asarray(np.where(invalid_HW, value_of[nearest_HW], map_HW))


def to_distance(metres_HW: NDArray[np.floating], focal: float) -> NDArray[np.float32]:
    """Depth along the axis as distance to the camera's centre, for a pinhole camera of square pixels whose principal
    point is the map's middle; ``focal`` in pixels of the map."""
    height, width = metres_HW.shape
    x_W = np.arange(width) + 0.5 - width / 2
    y_H = np.arange(height) + 0.5 - height / 2
    longer_HW = np.sqrt(x_W[None, :] ** 2 + y_H[:, None] ** 2 + focal**2) / focal
    return np.asarray(metres_HW * longer_HW, np.float32)
