"""Signals of an image alone: sharpness, detail, text, exposure, colour, and a perceptual hash.

All are measured on the image at one small size, so that they compare across images of any resolution. Axes: H row, W
column, 3 red, green, blue.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.features.columns import IMAGE_COLUMNS

SIDE = 128
"""Pixels of the short side at which an image is measured: what a teacher cannot lose by its own resizing."""

DARK, BRIGHT = 16, 250
REBLUR = 9
"""Pixels of the box that blurs the image again (Crete et al. 2007)."""

_HASH_SIDE = 32
_MIDDLE = 1024


@dataclass(frozen=True, slots=True)
class ImageSignals:
    """Values of :data:`~depthsieve.features.IMAGE_COLUMNS`, in that order (float32), and the perceptual hash."""

    values: NDArray[np.float32]
    phash: int


def image_signals(rgb_HW3: NDArray[np.uint8]) -> ImageSignals:
    """The signals of an upright RGB image of any size."""
    step = max(1, min(rgb_HW3.shape[:2]) // (2 * SIDE))
    part_HW3 = np.ascontiguousarray(rgb_HW3[::step, ::step])  # averaging all of 12 megapixels takes longer than `tiny`
    grey_HW = _measured(cv2.cvtColor(part_HW3, cv2.COLOR_RGB2GRAY))
    luma_HW = grey_HW.astype(np.float32)
    fine_HW, middle_HW, coarse_HW = (cv2.GaussianBlur(luma_HW, (0, 0), sigma) for sigma in (1, 2, 4))
    values = {
        "sharpness": min(_kept_by_blur(luma_HW, 0), _kept_by_blur(luma_HW, 1)),
        "detail": _spread(fine_HW - coarse_HW),
        "text": _spread(luma_HW - fine_HW) / (_spread(middle_HW - coarse_HW) + 0.5),
        "luma": float(luma_HW.mean()) / 255,
        "dark": float(np.count_nonzero(grey_HW < DARK)) / grey_HW.size,
        "bright": float(np.count_nonzero(grey_HW >= BRIGHT)) / grey_HW.size,
        "colourfulness": colourfulness(part_HW3[::2, ::2]),
    }
    return ImageSignals(np.array([values[name] for name in IMAGE_COLUMNS], np.float32), perceptual_hash(grey_HW))


def native_sharpness(rgb_HW3: NDArray[np.uint8]) -> float:
    """Sharpness as in the column of that name, but at the image's own resolution, in its middle: it tells a blurred or
    enlarged copy from its original, where the column, measured at a small size, does not."""
    height, width = rgb_HW3.shape[:2]
    top, left = (max(0, side - _MIDDLE) // 2 for side in (height, width))
    middle_HW3 = np.ascontiguousarray(rgb_HW3[top : top + _MIDDLE, left : left + _MIDDLE])
    luma_HW = cv2.cvtColor(middle_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return min(_kept_by_blur(luma_HW, 0), _kept_by_blur(luma_HW, 1))


def _measured(grey_HW: NDArray[Any]) -> NDArray[Any]:
    """The image at :data:`SIDE` pixels on its short side; of a strip a pixel high, no more is looked at than fits."""
    height, width = grey_HW.shape
    scale, longest = SIDE / min(height, width), 8 * SIDE
    size = (min(max(SIDE, round(width * scale)), longest), min(max(SIDE, round(height * scale)), longest))
    shrinks = size[0] <= width and size[1] <= height
    return np.asarray(cv2.resize(grey_HW, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def _spread(map_HW: NDArray[np.float32]) -> float:
    return float(map_HW.std())


def _kept_by_blur(luma_HW: NDArray[np.float32], axis: int) -> float:
    """The share of the differences along an axis that blurring takes away: low where the image was blurred before.

    F. Crete et al., "The blur effect: perception and estimation with a new no-reference perceptual blur metric", SPIE
    2007: their blur is 1 minus this. It compares an image with itself, so contrast and content hardly matter.
    """
    blurred_HW = cv2.blur(luma_HW, (1, REBLUR) if axis == 0 else (REBLUR, 1))
    before, after = (np.abs(np.diff(map_HW, axis=axis)) for map_HW in (luma_HW, blurred_HW))
    return float(np.maximum(before - after, 0).sum() / max(float(before.sum()), 1e-6))


def colourfulness(rgb_HW3: NDArray[Any]) -> float:
    """D. Hasler and S. Süsstrunk, "Measuring colourfulness in natural images", SPIE 2003, their metric M3."""
    red, green, blue = (rgb_HW3[..., channel].astype(np.float32) for channel in range(3))
    first, second = red - green, (red + green) / 2 - blue
    return float(np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()))


def perceptual_hash(grey_HW: NDArray[Any]) -> int:
    """64 bits, alike for images that look alike: which of the 64 lowest frequencies are above their median.

    The usual DCT hash (C. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010): a
    discrete cosine transform of the grey image at 32 x 32; the mean brightness counts for nothing. Bit 63 is the first.
    """
    small = cv2.resize(grey_HW, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
