"""Where a label becomes metres: the one place that knows whether it can.

Axes: H row, W column.
"""

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.store import Label, Store


class Metres:
    """Turns labels of a store into metres. Raises :class:`UsageError` where the store has none."""

    def __init__(self, store: Store) -> None:
        if store.spec.quantity != "depth":
            raise UsageError(
                f"relative disparity has no metres: {store.location} holds inverse depth up to an unknown scale and "
                "shift for each image; label with a metric teacher, or choose a target that takes relative depth"
            )

    def depth(self, label: Label, depth_HW: NDArray[np.float32]) -> NDArray[np.float32]:
        """A label's depth [H,W] in metres, NaN where it has none; of the same shape as ``depth_HW``, which is NaN where
        it is invalid."""
        with np.errstate(invalid="ignore"):
            return np.where(depth_HW > 0, depth_HW, np.float32(np.nan))
