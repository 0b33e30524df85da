"""What ground truth is, wherever it lies. Axes: H row, W column."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class GroundTruth(Protocol):
    """Maps of depth by place: a place names one map within ``location``, printable and on one line."""

    location: str

    def place(self, image_id: str) -> str | None:
        """Where the map of an image is, or None if there is none.

        Raises :class:`~depthsieve.core.errors.GroundTruthError` where there are two.
        """

    def looked_for(self, image_id: str) -> str:
        """In words, where :meth:`place` looks for the map of an image."""

    def places(self) -> Iterable[str]:
        """All maps that are there, sorted."""

    def read(self, place: str) -> NDArray[np.float32]:
        """Planar depth in metres, float32 [H,W]; 0, less, NaN or infinity where there is none.

        Raises :class:`~depthsieve.core.errors.GroundTruthError` with the reason, without the place.
        """


def in_metres(
    values_HW: NDArray[Any], scale: float | None, distance_to_depth: float | None = None
) -> NDArray[np.float32]:
    """A map as a file holds it, ``scale`` units a metre (None: metres), as planar depth in metres.

    Hostile or mistaken values are no error: what does not fit float32 becomes infinity, that is, no ground truth.
    """
    metres = np.asarray(values_HW, dtype=np.float64) / (scale or 1.0)
    if distance_to_depth is not None:
        metres = planar_depth(metres, distance_to_depth)
    with np.errstate(over="ignore"):
        return metres.astype(np.float32)


def planar_depth(distance_HW: NDArray[Any], focal: float) -> NDArray[np.float64]:
    """Distance to the camera's centre along each pixel's ray, as depth along the camera's axis.

    ``depth = distance * f / sqrt(x^2 + y^2 + f^2)`` for a pinhole camera of square pixels and focal length ``focal`` in
    pixels of this map, ``x`` and ``y`` counted from the middle of the map to a pixel's centre. (How Hypersim's
    ``depth_meters`` become planar: apple/ml-hypersim, README and issue 9.)
    """
    height, width = np.shape(distance_HW)
    x_W, y_H = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2
    return np.asarray(distance_HW * (focal / np.sqrt(x_W[None, :] ** 2 + y_H[:, None] ** 2 + focal**2)))
