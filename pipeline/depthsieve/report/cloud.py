"""A label as a coloured point cloud: binary little-endian PLY. Axes: H row, W column, N points, 3 x y z.

A pinhole camera: a pixel ``(u, v)`` at depth ``z`` is at ``((u + 0.5 - cx) z / fx, -(v + 0.5 - cy) z / fy, -z)``: x to
the right, y up, looking along -z, as viewers of point clouds do (OpenGL). The camera is the label's
(:attr:`~depthsieve.store.Label.camera`), else one of square pixels that looks through the middle of the image.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.cameras import WORDS, Camera, focal_of_view
from depthsieve.core.errors import StoreError, UsageError
from depthsieve.images import colours
from depthsieve.store import Label

ASSUMED_FOV = 60.0
"""Degrees across the longer side, where no focal length is known."""

NEAREST, FARTHEST = 1.0, 10.0
"""Where the 98th and the 2nd percentile of relative disparity are put, in no unit; what is farther too."""

VERTEX = np.dtype([(axis, "<f4") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")])

COMMENT = "made by depthsieve"
"""The first comment of each file: what has it is ours to overwrite."""


@dataclass(frozen=True)
class Cloud:
    """The points of a label. ``vertices_N`` has the fields x, y, z (float32) and red, green, blue (uint8); ``left_out``
    counts pixels that are not there, invalid or masked; ``notes`` say what was assumed. ``focal_px`` is the horizontal
    focal length in pixels of the upright source image, and ``focal_from`` how it is known: an
    :data:`~depthsieve.core.cameras.Origin`, "option" (of the call) or "assumed"."""

    vertices_N: NDArray[Any]
    left_out: int
    notes: tuple[str, ...]
    focal_px: float
    focal_from: str

    @property
    def lens(self) -> str:
        """The focal length and where it comes from, in words."""
        origin = WORDS.get(self.focal_from, {"option": "--focal or --fov"}.get(self.focal_from, ""))
        return f"focal length {self.focal_px:.1f} px of the photo, {f'from {origin}' if origin else 'assumed'}"

    def ply(self) -> bytes:
        """The file."""
        lines = ["ply", "format binary_little_endian 1.0", f"comment {COMMENT}"]
        lines += [f"comment {note}" for note in (self.lens, *self.notes)]
        lines.append(f"element vertex {len(self.vertices_N)}")
        lines += [f"property float {axis}" for axis in "xyz"]
        lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
        head = "\n".join([*lines, "end_header", ""])
        return head.encode("ascii", "backslashreplace") + self.vertices_N.tobytes()


def cloud_of(label: Label, drop: float = 0.10, focal: float | None = None, fov: float | None = None) -> Cloud:
    """The points of a label: its valid pixels less those that ``drop`` masks, in the colours of the photo.

    Depth in metres gives metres, and so do relative labels that have a scale and shift to them (:attr:`Label.metric`).
    Other relative disparity has neither scale nor shift: its 98th percentile is put at distance
    1 and its 2nd at 10, so planes come out bent unless that happens to be right.

    Args:
        label: what to show.
        drop: the share of its valid pixels that is masked, as :meth:`Label.mask`.
        focal: focal length in pixels of the upright source image; default: that of the label's camera, else
            :data:`ASSUMED_FOV`. One that is said here looks through the middle of the image.
        fov: instead, the horizontal field of view in degrees, over 0 and under 180.

    Raises:
        UsageError: an invalid option, or both ``focal`` and ``fov``.
        StoreError: no pixel is left.
        StoreDamaged: the label cannot be read.
    """
    relative = label.quantity == "disparity" and not label.metric.scale > 0
    depth_HW = (label.depth if relative else label.metres).astype(np.float64)
    keep_HW = label.mask(drop) & np.isfinite(depth_HW)
    if not relative:
        keep_HW &= depth_HW > 0
    if not keep_HW.any():
        raise StoreError(f"{label.id} has no pixel that is valid and not masked, so there are no points")
    height, width = depth_HW.shape
    camera, origin, notes = _camera(label, focal, fov)
    seen = camera.scaled(width / label.source_shape[1], height / label.source_shape[0])
    if relative:
        low, high = colours.span_of(depth_HW[keep_HW])
        share_HW = np.maximum((depth_HW - low) / (high - low), 0) if high > low else np.ones_like(depth_HW)
        depth_HW = 1 / (1 / FARTHEST + share_HW * (1 / NEAREST - 1 / FARTHEST))
        notes.append(
            "the label is relative disparity, so the shape is known only up to scale and shift; assumed: its 98th "
            f"percentile is at distance {NEAREST:g} and its 2nd at {FARTHEST:g}, in no unit"
        )
    panels = label.panels(drop)
    if panels.no_photo:
        notes.append("the photo cannot be read, so points have the colours of their depth")
    rgb_HW3 = panels.depth_HW3 if panels.no_photo else panels.image_HW3
    v_N, u_N = np.nonzero(keep_HW)
    z_N = depth_HW[keep_HW]
    vertices_N = np.zeros(len(z_N), VERTEX)
    vertices_N["x"] = (u_N + 0.5 - seen.cx) / seen.fx * z_N
    vertices_N["y"] = -(v_N + 0.5 - seen.cy) / seen.fy * z_N
    vertices_N["z"] = -z_N
    for number, name in enumerate(("red", "green", "blue")):
        vertices_N[name] = rgb_HW3[keep_HW, number]
    return Cloud(vertices_N, keep_HW.size - len(z_N), tuple(notes), camera.fx, origin)


def _camera(label: Label, focal: float | None, fov: float | None) -> tuple[Camera, str, list[str]]:
    """The camera in pixels of the source, how it is known, and a note where it is assumed."""
    if focal is not None and fov is not None:
        raise UsageError("focal and fov say the same; give one of them")
    if focal is not None and not (math.isfinite(focal) and focal > 0):
        raise UsageError(f"focal must be a number of pixels over 0, not {focal!r}")
    if fov is not None and not 0 < fov < 180:
        raise UsageError(f"fov must be an angle over 0 and under 180 degrees, not {fov!r}")
    height, width = label.source_shape
    if fov is not None:
        focal = focal_of_view(fov, width)
    if focal is not None:
        return Camera.centred(focal, width, height, "given"), "option", []
    if label.camera is not None:
        return label.camera, label.camera.origin, []
    focal = focal_of_view(ASSUMED_FOV, max(height, width))
    note = (
        f"no focal length is known; assumed: {ASSUMED_FOV:g} degrees across the longer side ({focal:.0f} px); say "
        "it with --focal or --fov"
    )
    return Camera.centred(focal, width, height, "given"), "assumed", [note]


def is_ours(path: Path) -> bool:
    """Whether a file is a point cloud of ours."""
    with path.open("rb") as file:
        return f"\ncomment {COMMENT}\n".encode() in file.read(200)
