"""Rendered scenes with exact depth: for the demo, the tests and the embedded teacher.

`render_scene(seed)` draws a small world (a room, a table top, a street or a park; of the family `foreign`: a
warehouse, ruins or a canyon; of the family `wild`: anything, crowded), looks at it through a pinhole camera, and
gives the photograph and the exact disparity. The same seed, size and kind give the same bytes, whatever was rendered
before and however many threads there are. (Another CPU generation or numpy build may move the last bit of a sine, and
so an RGB value by one step.)

Array legend: N scenes; H, W pixels; 3 colour channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depthsieve.scenes.building import FAMILIES, KINDS, build
from depthsieve.scenes.shading import paint
from depthsieve.scenes.solids import cast

__all__ = ["FAMILIES", "KINDS", "Scene", "render_scene", "render_scenes"]


@dataclass(frozen=True)
class Scene:
    """One rendered photograph and what is true about it.

    Attributes:
        rgb_HW3: uint8, upright RGB.
        disparity_HW: float32, 1 / z-depth in 1 / metres at pixel centres, free of noise; 0 where there is only sky.
        kind: one of `FAMILIES`.
        focal_px: focal length in pixels; the principal point is the image's centre.
        seed: what it was rendered from.
    """

    rgb_HW3: NDArray[np.uint8]
    disparity_HW: NDArray[np.float32]
    kind: str
    focal_px: float
    seed: int

    @property
    def depth_HW(self) -> NDArray[np.float32]:  # noqa: N802 - axis suffix
        """z-depth in metres, infinite for sky."""
        with np.errstate(divide="ignore"):
            depth_HW: NDArray[np.float32] = np.float32(1) / self.disparity_HW
        return depth_HW


def render_scene(
    seed: int, height: int = 168, width: int = 224, kind: str | None = None, *, family: str = "home"
) -> Scene:
    """Renders the scene of `seed` (0 to 2**64 - 1). Another size shows the same world from the same place.

    The seed draws one of the family's kinds, unless `kind` names one; a kind of any family will do.

    Raises:
        ValueError: for a negative seed, a side under 8 pixels or an unknown kind or family.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must lie in 0..2**64-1, not {seed}")
    if min(height, width) < 8:
        raise ValueError(f"a scene needs at least 8x8 pixels, not {height}x{width}")
    if family not in FAMILIES:
        raise ValueError(f"unknown family of scenes {family!r}; there are {', '.join(FAMILIES)}")
    kinds = [known for members in FAMILIES.values() for known in members]
    if kind is not None and kind not in kinds:
        raise ValueError(f"unknown kind of scene {kind!r}; there are {', '.join(kinds)}")
    world = build(seed, kind, family)
    depth_HW, index_HW, rays = cast(world, height, width)
    with np.errstate(divide="ignore"):
        disparity_HW = np.float32(1) / depth_HW
    rgb_HW3 = paint(world, depth_HW, index_HW, rays, seed)
    return Scene(rgb_HW3, disparity_HW, world.kind, world.camera.focal_px(height, width), seed)


def render_scenes(
    seeds: Iterable[int], height: int = 168, width: int = 224
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Many scenes: RGB [N,H,W,3] uint8 and disparity [N,H,W] float32, byte for byte those of `render_scene`.

    Scenes are rendered one after another, each vectorised over its pixels and its solids: so its arrays stay in the
    cache, and every solid costs only the pixels it can cover, which one array over all scenes could not exploit.
    """
    chosen = list(seeds)
    rgb_NHW3 = np.empty((len(chosen), height, width, 3), np.uint8)
    disparity_NHW = np.empty((len(chosen), height, width), np.float32)
    for row, seed in enumerate(chosen):
        scene = render_scene(seed, height, width)
        rgb_NHW3[row], disparity_NHW[row] = scene.rgb_HW3, scene.disparity_HW
    return rgb_NHW3, disparity_NHW
