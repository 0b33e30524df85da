"""A camera: what turns depth into points, in pixels of an upright image, and how it is known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from depthsieve.core.errors import UsageError

Origin = Literal["exif-35mm", "exif", "cameras.csv", "colmap", "given", "teacher"]
"""How a camera is known. ``exif-35mm``: EXIF's focal length as if on 35 mm film; ``exif``: its focal length in mm and
the pitch of its sensor's pixels; ``cameras.csv`` and ``colmap``: a file of cameras; ``given``: one focal length or
angle of view for all images; ``teacher``: what the teacher predicts."""

ORIGINS: tuple[str, ...] = ("", *get_args(Origin))
"""How origins are stored: the code of each is its place; 0 = the camera is not known. New ones are appended."""

GIVEN: tuple[Origin, ...] = ("cameras.csv", "colmap", "given")
"""Origins of what a user said."""

TAKEN = "given, else exif-35mm, else exif"
"""Which camera a teacher gets that takes one, as label specs have it."""

APART = 0.1
"""Focal lengths of EXIF that are farther off the given one are told of."""

WORDS = {
    "exif-35mm": "EXIF (35 mm equivalent)",
    "exif": "EXIF (focal length and sensor)",
    "cameras.csv": "the file of cameras",
    "colmap": "the COLMAP model",
    "given": "--focal-length or --fov",
    "teacher": "the teacher",
}
"""Origins as a person reads them."""


def known_from(counts: Mapping[str | None, int]) -> str:
    """How many focal lengths are known from where, in a line; ``counts`` goes by origin, None: not known."""
    parts = [f"{counts[origin]:,} from {words}" for origin, words in WORDS.items() if counts.get(origin)]
    remedy = " (say --focal-length PX, --fov DEGREES or --cameras FILE)"
    parts += [f"{counts[None]:,} not known{remedy}"] if counts.get(None) else []
    return f"focal lengths: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera, without distortion.

    ``fx``, ``fy``, ``cx`` and ``cy`` are pixels of the upright image, at the resolution of its source unless it is said
    otherwise. ``cx`` and ``cy`` count from the corner of the image, so that ``width / 2`` is the middle.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    origin: Origin

    @classmethod
    def centred(cls, focal: float, width: int, height: int, origin: Origin) -> "Camera":
        """One of square pixels that looks through the middle of an image."""
        return cls(focal, focal, width / 2, height / 2, origin)

    def scaled(self, x: float, y: float) -> "Camera":
        """The same for an image that is ``x`` times as wide and ``y`` times as high."""
        return Camera(self.fx * x, self.fy * y, self.cx * x, self.cy * y, self.origin)

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """``fx``, ``fy``, ``cx``, ``cy``."""
        return self.fx, self.fy, self.cx, self.cy


def focal_of_view(degrees: float, side: float) -> float:
    """The focal length of a camera that sees ``degrees`` along a ``side`` of its image, in pixels as that."""
    return side / 2 / math.tan(math.radians(degrees) / 2)


def check_angle(focal_length: float | None, fov: float | None) -> None:
    """Raise :class:`UsageError` for a number that is no focal length or angle of view, or for both."""
    if focal_length is not None and fov is not None:
        raise UsageError("focal_length and fov say the same (--focal-length, --fov); give one of them")
    if focal_length is not None and not (math.isfinite(focal_length) and focal_length > 0):
        raise UsageError(f"focal_length must be a number of pixels over 0, not {focal_length!r}")
    if fov is not None and not 0 < fov < 180:
        raise UsageError(f"fov must be an angle over 0 and under 180 degrees, not {fov!r}")


def is_apart(given: Camera, exif: Camera | None) -> bool:
    """Whether EXIF contradicts a camera that is given."""
    return exif is not None and abs(exif.fx / given.fx - 1) > APART
