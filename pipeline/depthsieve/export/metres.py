"""Where a label becomes metres: the one place that knows whether it can.

Axes: H row, W column.
"""

from collections.abc import Set

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.reliability.metric import to_metres
from depthsieve.store import Label, Store
from depthsieve.store.index import settled_index
from depthsieve.store.layer_kinds import METRIC
from depthsieve.store.layers import find_layer

NO_FIT = "relative, and without a scale to metres"


class Metres:
    """Turns labels of a store into metres: those that are in metres, and relative ones that have a scale and shift to
    them (`label --metric-from`). ``origin`` says which fits those are, None where none are needed. Raises
    :class:`UsageError` where the store has neither."""

    def __init__(self, store: Store) -> None:
        self.origin: str | None = None
        self._fitted: Set[str] | None = None
        if store.spec.quantity == "depth":
            return
        layer = find_layer(store.root, METRIC, store.fingerprint)
        if layer is not None:
            self.origin = layer.spec.digest
            index, _ = settled_index(store, ("id", "metric_scale"), "labelled")
            self._fitted = set(index["id"].filter(pc.is_valid(index["metric_scale"])).to_pylist())
        if not self._fitted:
            raise UsageError(
                f"relative disparity has no metres: {store.location} holds inverse depth up to an unknown scale and "
                "shift for each image; `depthsieve label ... --metric-from TEACHER` adds those, or label with a metric "
                "teacher, or choose a target that takes relative depth"
            )

    def leave_out(self, image_id: str) -> str:
        """Why an image has no metres; empty where it has."""
        return "" if self._fitted is None or image_id in self._fitted else NO_FIT

    def depth(self, label: Label, depth_HW: NDArray[np.float32]) -> NDArray[np.float32]:
        """A label's depth [H,W] in metres, NaN where it has none, or is beyond all distance; of the same shape as
        ``depth_HW``, which is NaN where it is invalid."""
        if self._fitted is not None:
            depth_HW = to_metres(depth_HW, label.metric.scale, label.metric.shift)
        with np.errstate(invalid="ignore"):
            return np.where((depth_HW > 0) & (depth_HW < np.inf), depth_HW, np.float32(np.nan))
