"""What EXIF says of how a photo was taken: its orientation and its focal length.

Read here and not by Pillow, which asks XMP too and warns about damage that does not matter. Input is hostile: whatever
is bad is left out.
"""

import math
import struct
from dataclasses import dataclass

from depthsieve.core.cameras import Origin

FULL_FRAME_DIAGONAL_MM = 43.27
"""Of the 36 x 24 mm of 35 mm film. Equivalents go by the diagonal (CIPA DCG-001, which EXIF cites), whatever the ratio
of the sides."""

SENSOR_MM = (1.5, 100.0)
"""Diagonals of sensors that are believed: EXIF's pitch of pixels is often that of a print, or made up."""

BELIEVED = (0.02, 100.0)
"""Focal lengths that are believed, over the longer side of the image."""

ORIENTATION_TAG = 0x0112
_EXIF_DIRECTORY_TAG = 0x8769
_FOCAL_TAG, _FOCAL_35MM_TAG = 0x920A, 0xA405
_WIDTH_TAG, _HEIGHT_TAG = 0xA002, 0xA003
_PITCH_TAG, _PITCH_UNIT_TAG = 0xA20E, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_CROPPED = 0.02
"""Ratios of sides that differ by more are those of a photo that was cropped."""


@dataclass(frozen=True, slots=True)
class Exif:
    """What is known of a photo. Zero is unknown.

    ``orientation`` is 1..8; ``focal_35mm`` in mm as if on 35 mm film; ``focal_mm`` the lens's own; ``pixels_per_mm`` of
    the sensor, in the photo as the camera wrote it; ``width`` and ``height`` of that, as stored.
    """

    orientation: int = 1
    focal_35mm: int = 0
    focal_mm: float = 0.0
    pixels_per_mm: float = 0.0
    width: int = 0
    height: int = 0

    def focal_px(self, width: int, height: int) -> tuple[float, Origin | None]:
        """The focal length in pixels of an image of ``width`` x ``height``, as stored or upright, and how it is known;
        (0.0, None) where it is not.

        The 35 mm equivalent goes first: it has the zoom by cropping of phones in it, and needs no pitch of pixels.
        Where the ratio of sides is another than the camera wrote, the image was cropped since: then it is taken to span
        one side of the photo whole. A crop of the same ratio cannot be told from a smaller copy, and is taken for one.
        """
        taken = (self.width, self.height) if self.width and self.height else (width, height)
        if (taken[0] > taken[1]) != (width > height):
            taken = taken[1], taken[0]  # some programs turn the pixels and leave the sizes
        along = width / taken[0], height / taken[1]
        cropped = abs(math.log(along[0] / along[1])) > max(_CROPPED, 2 / min(width, height))
        found: list[tuple[float, Origin]] = []
        if self.focal_35mm:
            whole = math.hypot(*taken) * max(along) if cropped else math.hypot(width, height)
            found.append((self.focal_35mm / FULL_FRAME_DIAGONAL_MM * whole, "exif-35mm"))
        if self.focal_mm and self.pixels_per_mm:
            sensor_mm = math.hypot(*taken) / self.pixels_per_mm
            if SENSOR_MM[0] <= sensor_mm <= SENSOR_MM[1]:
                found.append((self.focal_mm * self.pixels_per_mm * max(along), "exif"))
        believed = (one for one in found if BELIEVED[0] <= one[0] / max(width, height) <= BELIEVED[1])
        return next(believed, (0.0, None))


def read_exif(block: bytes) -> Exif:
    """What an EXIF block says."""
    tiff = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return Exif()

    def rational(offset: int) -> float:
        if offset + 8 > len(tiff):
            return 0.0
        above, below = struct.unpack_from(order + "II", tiff, offset)
        return above / below if below else 0.0

    def directory(offset: int) -> tuple[dict[int, int], dict[int, float]]:
        """The single whole numbers of one directory, and its fractions, by tag."""
        values: dict[int, int] = {}
        fractions: dict[int, float] = {}
        count = struct.unpack_from(order + "H", tiff, offset)[0] if offset + 2 <= len(tiff) else 0
        for entry in range(offset + 2, min(offset + 2 + 12 * count, len(tiff) - 11), 12):
            tag, kind, length = struct.unpack_from(order + "HHI", tiff, entry)
            if length == 1 and kind in (_SHORT, _LONG):
                values.setdefault(tag, struct.unpack_from(order + ("H" if kind == _SHORT else "I"), tiff, entry + 8)[0])
            elif length == 1 and kind == _RATIONAL:
                fractions.setdefault(tag, rational(struct.unpack_from(order + "I", tiff, entry + 8)[0]))
        return values, fractions

    first, _ = directory(struct.unpack_from(order + "I", tiff, 4)[0])
    found, fractions = directory(first[_EXIF_DIRECTORY_TAG]) if _EXIF_DIRECTORY_TAG in first else ({}, {})
    orientation = first.get(ORIENTATION_TAG, 1)
    focal_35mm = found.get(_FOCAL_35MM_TAG, 0)
    unit_mm = _UNIT_MM.get(found.get(_PITCH_UNIT_TAG, 2), 0.0)
    return Exif(
        orientation if 1 <= orientation <= 8 else 1,
        focal_35mm if focal_35mm < 65535 else 0,
        fractions.get(_FOCAL_TAG, 0.0),
        fractions.get(_PITCH_TAG, 0.0) / unit_mm if unit_mm else 0.0,
        found.get(_WIDTH_TAG, 0),
        found.get(_HEIGHT_TAG, 0),
    )
