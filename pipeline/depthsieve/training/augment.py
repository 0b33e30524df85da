"""How samples are varied in training: window, scale, mirroring and colours. Axes: H row, W column, 3 channel (RGB).

All randomness comes from :class:`depthsieve.training.epoch.Draws` alone, keyed by seed, epoch and image id.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.core.records import Shape
from depthsieve.core.settings import whole_number
from depthsieve.training.arguments import check_flag
from depthsieve.training.epoch import Draws

_GREY = np.array([[0.299, 0.587, 0.114]], np.float32)  # ITU-R BT.601, as PIL and torchvision have it

MOST_BLUR = 50.0
"""Pixels. A wider blur takes seconds an image and leaves nothing to see."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How samples vary from epoch to epoch; by default they do not.

    Geometry moves image, depth, reliability and mask alike; colours are the image's only.

    Args:
        crop: (height, width) of a random window, or a side, of what is served; None serves whole labels.
        scale: (least, most) magnification, drawn uniformly: the window is ``crop / scale`` pixels of the label, and is
            resized to ``crop``. Where that does not fit into a label, the least is what just fits; without a crop it is
            1. The image is averaged (shrunk) or interpolated linearly; depth and reliability are those of the nearest
            pixel: a value between two of them was never predicted.
        flip: mirror every other sample left to right, at random.
        jitter: largest change of brightness, contrast, saturation (factors within 1 - x .. 1 + x) and hue (within
            -x .. x of the colour wheel, at most 0.5), applied in random order, as torchvision's ``ColorJitter`` does.
        jitter_share, grey_share, blur_share: probabilities, 0..1, that a sample's colours are jittered, that it is made
            grey, and that it is blurred; applied in this order.
        blur_sigma: (least, most) standard deviation of the Gaussian blur, in pixels of the sample, at most 50.

    Raises:
        UsageError: a value out of range, or a ``scale`` below 1 without a ``crop``.
    """

    crop: int | tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_share: float = 1.0
    grey_share: float = 0.0
    blur_share: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    @classmethod
    def strong(
        cls,
        *,
        crop: int | tuple[int, int] | None = None,
        scale: tuple[float, float] = (1.0, 1.0),
        flip: bool = True,
        jitter: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.25),
        jitter_share: float = 0.8,
        grey_share: float = 0.2,
        blur_share: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
    ) -> "Augment":
        """The strong perturbations of Depth Anything's students, except CutMix, which mixes samples.

        The paper (Yang et al., CVPR 2024, section 3.2) names colour jitter and Gaussian blur and gives no values; these
        are those of its authors' UniMatch (``dataset/semi.py``), which perturbs in the same way.
        """
        return cls(
            crop=crop,
            scale=scale,
            flip=flip,
            jitter=jitter,
            jitter_share=jitter_share,
            grey_share=grey_share,
            blur_share=blur_share,
            blur_sigma=blur_sigma,
        )

    def __post_init__(self) -> None:
        fixed: dict[str, Any] = {
            "crop": check_crop(self.crop),
            "scale": _ordered(self, "scale"),
            "flip": check_flag("flip", self.flip),
            "jitter": _numbers(self, "jitter", 4),
            "blur_sigma": _ordered(self, "blur_sigma"),
        }
        fixed |= {name: _numbers(self, name, 0)[0] for name in _SHARES}
        for name, value in fixed.items():
            object.__setattr__(self, name, value)
        for name in _SHARES:
            if getattr(self, name) > 1:
                raise UsageError(f"{name} must be from 0 to 1, not {getattr(self, name)!r}")
        if self.jitter[3] > 0.5:
            raise UsageError(f"the hue of jitter must be at most 0.5, half the colour wheel, not {self.jitter[3]!r}")
        if self.blur_sigma[1] > MOST_BLUR:
            raise UsageError(
                f"blur_sigma must be at most {MOST_BLUR:g} pixels, not {self.blur_sigma!r}: nothing is left to see"
            )
        if self.crop is None and self.scale[1] < 1:
            raise UsageError(f"a scale below 1 shows more than the window; it needs a crop, not scale={self.scale}")

    @property
    def shape(self) -> Shape | None:
        """(height, width) of what is served; None where it is the label's."""
        return self.crop  # type: ignore[return-value]  # __post_init__ made a pair of it

    def fits(self, label: Shape) -> bool:
        """Whether a label is large enough for a window."""
        return all(side * self.scale[1] >= want for side, want in zip(label, self.shape or label, strict=True))

    def identity(self) -> dict[str, Any]:
        """The settings as plain values."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    def colours(self, rgb_HW3: NDArray[np.uint8], *key: int | str) -> NDArray[np.uint8]:
        """The image with its colours varied; ``key`` is what the randomness depends on. Never writes into the image."""
        if any(self.jitter) and _happens(self.jitter_share, "jitter", *key):
            rgb_HW3 = _jittered(rgb_HW3, self.jitter, *key)
        if _happens(self.grey_share, "grey", *key):
            rgb_HW3 = np.repeat(cv2.transform(rgb_HW3, _GREY).reshape(*rgb_HW3.shape[:2], 1), 3, axis=2)
        if _happens(self.blur_share, "blur", *key):
            least, most = self.blur_sigma
            sigma = least + (most - least) * Draws("sigma", *key).unit()
            rgb_HW3 = np.asarray(cv2.GaussianBlur(rgb_HW3, (0, 0), sigma), np.uint8)
        return rgb_HW3


_SHARES = ("jitter_share", "grey_share", "blur_share")


def check_crop(crop: Any) -> Shape | None:
    """``crop`` as (height, width): one number is a square. Raises :class:`UsageError` for anything else."""
    if crop is None:
        return None
    sides = [whole_number(side) for side in (crop if isinstance(crop, tuple | list) else (crop, crop))]
    found = [side for side in sides if side is not None and side > 0]
    if len(sides) != 2 or len(found) != 2:
        raise UsageError(f"crop must be a side or (height, width) in whole pixels of the label, not {crop!r}")
    return found[0], found[1]


def _numbers(augment: Augment, name: str, count: int) -> tuple[float, ...]:
    """The option as ``count`` finite numbers of at least 0; with 0 it is one number."""
    given = getattr(augment, name)
    values = given if count else (given,)
    try:
        found = tuple(float("nan") if isinstance(value, str | bool) else float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        found = ()
    if len(found) != max(count, 1) or not all(0 <= value < float("inf") for value in found):
        wanted = f"{count} numbers" if count else "a number"
        raise UsageError(f"{name} must be {wanted} of at least 0, not {given!r}")
    return found


def _ordered(augment: Augment, name: str) -> tuple[float, ...]:
    least, most = _numbers(augment, name, 2)
    if not 0 < least <= most:
        raise UsageError(f"{name} must be (least, most), both above 0, not {getattr(augment, name)!r}")
    return least, most


def _happens(share: float, *purpose: int | str) -> bool:
    return share > 0 and Draws(f"{purpose[0]} or not", *purpose[1:]).unit() < share


def _jittered(
    rgb_HW3: NDArray[np.uint8], strengths: tuple[float, float, float, float], *key: int | str
) -> NDArray[np.uint8]:
    random = Draws("jitter", *key)
    order = sorted(range(4), key=[random.bits() for _ in range(4)].__getitem__)
    image_HW3 = rgb_HW3.astype(np.float32)
    for number in order:
        strength, change = strengths[number], 2 * random.unit() - 1
        if strength:
            factor = strength * change if number == 3 else max(0.0, 1 + strength * change)
            image_HW3 = _CHANGES[number](image_HW3, np.float32(factor))
            np.clip(image_HW3, 0, 255, out=image_HW3)
    return np.rint(image_HW3, out=image_HW3).astype(np.uint8)


def _brightness(image_HW3: NDArray[np.float32], factor: np.float32) -> NDArray[np.float32]:
    return np.multiply(image_HW3, factor, out=image_HW3)


def _contrast(image_HW3: NDArray[np.float32], factor: np.float32) -> NDArray[np.float32]:
    mean = np.float32(_grey(image_HW3).mean(dtype=np.float64))
    image_HW3 *= factor
    image_HW3 += (1 - factor) * mean
    return image_HW3


def _saturation(image_HW3: NDArray[np.float32], factor: np.float32) -> NDArray[np.float32]:
    mix = factor * np.eye(3, dtype=np.float32) + (1 - factor) * np.repeat(_GREY, 3, axis=0)
    return np.asarray(cv2.transform(image_HW3, mix), np.float32)


def _hue(image_HW3: NDArray[np.float32], turn: np.float32) -> NDArray[np.float32]:
    hsv_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2HSV)  # hue 0..360; value as large as the image's
    hue_HW = hsv_HW3[..., 0]
    hue_HW += 360 * turn
    np.mod(hue_HW, np.float32(360), out=hue_HW)
    return np.asarray(cv2.cvtColor(hsv_HW3, cv2.COLOR_HSV2RGB), np.float32)


def _grey(image_HW3: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.transform(image_HW3, _GREY), np.float32)


_CHANGES: tuple[Callable[[NDArray[np.float32], np.float32], NDArray[np.float32]], ...] = (
    _brightness,
    _contrast,
    _saturation,
    _hue,
)
