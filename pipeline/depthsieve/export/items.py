"""From a label in a store to what a target gets of it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.recent import Recent
from depthsieve.core.records import Quantity
from depthsieve.export.metres import Metres
from depthsieve.export.photos import Photo, PhotoReader
from depthsieve.export.protocol import Item, Wants
from depthsieve.export.resize import resize_codes, resize_depth
from depthsieve.export.settings import Resolution
from depthsieve.store import Label, Store

KEPT_SHARDS = 64
"""Shards whose rows of numbers are kept."""

_COLUMNS = ("orientation", "content_sha256")


@dataclass(frozen=True)
class ItemReader:
    """Reads the labels of a store as targets want them; ``aligned``: as ``align-clips`` brought them to one scale a
    clip, where it did. Threads may use one at once.

    Raises :class:`UsageError` where metres are wanted and the store has none.
    """

    store: Store
    wants: Wants
    resolution: Resolution
    mask: float | None
    aligned: bool = False
    _photos: PhotoReader = field(init=False, repr=False)
    _metres: Metres | None = field(init=False, repr=False)
    _columns: Recent[dict[str, Any]] = field(default_factory=lambda: Recent(KEPT_SHARDS), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_photos", PhotoReader(self.store))
        object.__setattr__(self, "_metres", Metres(self.store) if self.wants == "metres" else None)

    @property
    def quantity(self) -> Quantity:
        """Of the depth of items."""
        return "depth" if self._metres else self.store.spec.quantity

    @property
    def unit(self) -> str:
        """Of the depth of items: "m", or "1" where it has none."""
        return "m" if self.quantity == "depth" else "1"

    @property
    def metres_from(self) -> str | None:
        """Which fits the metres of relative labels come from; None where there are none in it."""
        return self._metres.origin if self._metres else None

    def leave_out(self, image_id: str) -> str:
        """Why an image cannot be read as it is wanted; empty where it can."""
        return self._metres.leave_out(image_id) if self._metres else ""

    def read(self, label: Label, path: str) -> Item:
        """A label of the store, which goes to ``path``. Raises :class:`StoreDamaged`."""
        rows = self._rows(label.shard)
        shape = label.source_shape if self.resolution == "source" else label.shape
        depth_HW = resize_depth(self.depth(label), shape)
        codes_HW = resize_codes(label.reliability, shape)
        orientation, digest = int(rows["orientation"][label.row]), str(rows["content_sha256"][label.row])
        return Item(
            id=label.id,
            path=path,
            depth_HW=depth_HW,
            reliability_HW=np.where(np.isnan(depth_HW), np.uint8(0), codes_HW),
            label_shape=label.shape,
            source_shape=label.source_shape,
            orientation=orientation,
            camera=label.camera,
            content_sha256=digest,
            photo=Photo(label, digest, orientation, self._photos),
        )

    def depth(self, label: Label) -> NDArray[np.float32]:
        """A label's depth [H,W] at label resolution, in the target's quantity; NaN where it is invalid or masked."""
        valid_HW = label.reliability > 0 if self.mask is None else label.mask(self.mask)
        aligned = self.aligned and not np.isnan(label.clip.scale)
        depth_HW = np.where(valid_HW, label.aligned if aligned else label.depth, np.float32(np.nan))
        return depth_HW if self._metres is None else self._metres.depth(label, depth_HW)

    def _rows(self, shard: str) -> dict[str, Any]:
        found = self._columns.get(shard)
        if found is None:
            reader = self.store.reader(shard)
            found = self._columns.put(shard, {name: reader.column(name) for name in _COLUMNS})
        return found
