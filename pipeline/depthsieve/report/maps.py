"""One image of a report: a thumbnail, and a script that brings its maps to the page without loss.

A page opened from disk may not read the pixels of an image file, but it may run a script beside it: so maps come as
base64 text within one, reliability codes and depth as deflated bytes. Axes: H row, W column, 3 red, green, blue.
"""

import base64
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depthsieve.core.records import Quantity, Shape
from depthsieve.images import colours
from depthsieve.images.colours import Rgb

THUMBNAIL = (240, 180)
"""Width and height that a picture of a thumbnail gets at most."""

PHOTO_QUALITY, THUMBNAIL_QUALITY = 82, 80


@dataclass(frozen=True)
class Maps:
    """A label as the page gets it: its reliability codes uint8 [H,W] as they are stored, and depth as levels uint8
    [H,W] of inverse depth, 0 farthest and 255 nearest, between ``far`` and ``near``; ``codes`` are the (darkest,
    lightest) reliability of its picture. Both are stretched over the valid pixels, as all our pictures."""

    reliability_HW: NDArray[np.uint8]
    level_HW: NDArray[np.uint8]
    far: float
    near: float
    codes: tuple[float, float]

    @classmethod
    def of(cls, depth_HW: NDArray[Any], reliability_HW: NDArray[np.uint8], quantity: Quantity) -> "Maps":
        """Those of a label, whose depth is in ``quantity``."""
        inverse_HW = np.asarray(depth_HW, np.float64)
        if quantity == "depth":
            with np.errstate(divide="ignore"):
                inverse_HW = np.where(inverse_HW > 0, 1 / inverse_HW, np.nan)
        known_HW = np.isfinite(inverse_HW) & (reliability_HW > 0)
        far, near = colours.span_of(inverse_HW[known_HW])
        scale = 255 / (near - far) if near > far else 0.0
        level_HW = (np.clip((np.where(known_HW, inverse_HW, far) - far) * scale, 0, 255)).astype(np.uint8)
        return cls(reliability_HW, level_HW, far, near, colours.span_of_codes([reliability_HW]))

    @property
    def shape(self) -> Shape:
        """Height and width."""
        return self.reliability_HW.shape[0], self.reliability_HW.shape[1]

    def pictures(self) -> tuple[Rgb, Rgb]:
        """Depth and reliability in colours, as the page draws them."""
        known_HW = np.asarray(self.reliability_HW > 0)
        depth_HW3 = colours.with_checks(colours.SPECTRAL_256[self.level_HW], known_HW)
        return depth_HW3, colours.reliability_colours(self.reliability_HW, self.codes)

    def to_json(self) -> dict[str, Any]:
        """All of it, for the script."""
        return {
            "height": self.shape[0],
            "width": self.shape[1],
            "reliability": _packed(self.reliability_HW),
            "depth": _packed(self.level_HW),
            "far": self.far,
            "near": self.near,
            "codes": self.codes,
        }


def image_script(number: int, photo_HW3: Rgb | None, labels: Sequence[Maps | None]) -> bytes:
    """The script of image ``number``: the photo at label shape (None: it cannot be read), and the maps of each store
    that is shown (None: it has no label of this image)."""
    body = {
        "photo": None if photo_HW3 is None else _text(_jpeg(Image.fromarray(photo_HW3), PHOTO_QUALITY)),
        "labels": [None if maps is None else maps.to_json() for maps in labels],
    }
    return f"depthsieve.image({number}, {json.dumps(body, allow_nan=False)});\n".encode()


@dataclass(frozen=True)
class Strip:
    """A JPEG of photo, depth and reliability side by side, each ``width`` x ``height``, one every ``stride`` pixels."""

    jpeg: bytes
    width: int
    height: int
    stride: int


def thumbnail(photo_HW3: Rgb | None, maps: Maps) -> Strip:
    """The pictures of a label, small. Between two of them the first goes on, up to the next block of the JPEG, so that
    none has the colours of its neighbour at its edge."""
    height, width = maps.shape
    if photo_HW3 is None:
        photo_HW3 = colours.with_checks(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.bool_))
    scale = min(THUMBNAIL[0] / width, THUMBNAIL[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    stride = size[0] + 16 - size[0] % 16
    tiles = [np.asarray(Image.fromarray(one).resize(size, how)) for one in (photo_HW3, *maps.pictures())]
    strip = np.concatenate([np.pad(one, ((0, 0), (0, stride - size[0]), (0, 0)), "edge") for one in tiles], axis=1)
    return Strip(_jpeg(Image.fromarray(strip), THUMBNAIL_QUALITY), *size, stride)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _packed(map_HW: NDArray[np.uint8]) -> str:
    """A map without loss: each row less the one above it, modulo 256, which deflates to half the size."""
    return _text(zlib.compress(np.diff(map_HW, axis=0, prepend=np.uint8(0)).tobytes(), 6))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
