"""Labels at another resolution. Axes: H row, W column.

Pixel centres map as everywhere: ``x_label = (x + 0.5) * label_width / width - 0.5``.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.records import Shape


def resize_depth(depth_HW: NDArray[np.float32], shape: Shape) -> NDArray[np.float32]:
    """Depth at another ``shape``: interpolated bilinearly among the valid pixels around a place (NaN is invalid), each
    with its share of what they weigh together. A pixel is invalid where the nearest one is."""
    if depth_HW.shape == shape:
        return depth_HW
    size = shape[::-1]
    valid_HW = ~np.isnan(depth_HW)
    known_HW = np.where(valid_HW, depth_HW, np.float32(0))
    if valid_HW.all():
        return np.asarray(cv2.resize(known_HW, size, interpolation=cv2.INTER_LINEAR), np.float32)
    weight_HW = cv2.resize(valid_HW.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    sum_HW = cv2.resize(known_HW, size, interpolation=cv2.INTER_LINEAR)
    kept_HW = resize_codes(valid_HW.astype(np.uint8), shape) > 0
    out_HW = np.full(shape, np.nan, np.float32)
    np.divide(sum_HW, weight_HW, out=out_HW, where=kept_HW & (weight_HW > 0))
    return out_HW


def resize_codes(codes_HW: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Reliability at another ``shape``: of the nearest pixel."""
    if codes_HW.shape == shape:
        return codes_HW
    return np.asarray(cv2.resize(codes_HW, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
