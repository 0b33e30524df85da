"""Read the cameras of a store: each image's intrinsics, and how they are known. Axes: N images, 4 fx, fy, cx, cy."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from depthsieve.core.cameras import ORIGINS, Camera, Origin
from depthsieve.core.recent import Recent
from depthsieve.core.records import Shape
from depthsieve.core.tables import CAMERA_SCHEMA
from depthsieve.store.catalog import Catalog
from depthsieve.store.layer_kinds import CAMERAS
from depthsieve.store.layer_rows import LayerRows

KEPT_SHARDS = 64
"""Shards whose cameras are kept in memory."""

_INTRINSICS = CAMERA_SCHEMA.names[:4]


class CameraReader(LayerRows):
    """The cameras of a store, shard by shard; the layer is looked for once."""

    def __init__(self, store: Catalog) -> None:
        super().__init__(store, CAMERAS)
        self._kept: Recent[tuple[Sequence[Camera | None] | None]] = Recent(KEPT_SHARDS)

    def of_shard(self, shard_id: str) -> Sequence[Camera | None] | None:
        """Those of a shard's rows; None where the layer does not have the shard."""
        found = self._kept.get(shard_id)
        if found is None:
            reader = self.arrays(shard_id)
            names = ("intrinsics", "origin")
            rows = None if reader is None else cameras_of({name: reader.column(name) for name in names})
            found = self._kept.put(shard_id, (rows,))
        return found[0]

    def columns(self, shard_N: pa.Array, row_N: pa.Array, known_N: pa.Array) -> dict[str, pa.Array]:
        """Columns of :data:`~depthsieve.core.tables.CAMERA_SCHEMA` for images at these rows of shards; null where not
        ``known_N``, and not known."""
        intrinsics_N4 = np.full((len(shard_N), 4), np.nan)
        origin_N = np.zeros(len(shard_N), np.int64)
        for stored, places, rows in self.by_shard(shard_N, row_N, known_N, ("intrinsics", "origin")):
            intrinsics_N4[places], origin_N[places] = stored["intrinsics"][rows], stored["origin"][rows]
        unknown_N = origin_N == 0
        columns = {name: pa.array(intrinsics_N4[:, number], mask=unknown_N) for number, name in enumerate(_INTRINSICS)}
        named = pa.array(ORIGINS, pa.string()).take(pa.array(origin_N, mask=unknown_N))
        return columns | {"camera": named}


def camera_arrays(cameras_N: Sequence[Camera | None]) -> dict[str, NDArray[Any]]:
    """The arrays of a shard in the layer: NaN and 0 where a camera is not known."""
    unknown = (np.nan,) * 4
    return {
        "intrinsics": np.array([one.intrinsics if one else unknown for one in cameras_N], np.float64).reshape(-1, 4),
        "origin": np.array([ORIGINS.index(one.origin) if one else 0 for one in cameras_N], np.uint8),
    }


def cameras_of(arrays: Mapping[str, NDArray[Any]]) -> list[Camera | None]:
    """What :func:`camera_arrays` was made of."""
    found: list[Camera | None] = []
    for (fx, fy, cx, cy), code in zip(arrays["intrinsics"].tolist(), arrays["origin"].tolist(), strict=True):
        # An origin of a later release has no name here, and its camera counts as not known.
        origin = cast(Origin, ORIGINS[code]) if 0 < code < len(ORIGINS) else None
        found.append(Camera(fx, fy, cx, cy, origin) if origin else None)
    return found


def camera_in_labels(focal_px: float, source_shape: Shape) -> Camera | None:
    """The camera of a label that the layer does not have: EXIF's 35 mm equivalent, as all labels have it."""
    height, width = source_shape
    return Camera.centred(focal_px, width, height, "exif-35mm") if focal_px > 0 else None
