"""What ``--mask`` really masks of the images of an export: codes tie, so it may be less than was asked for.

Axes: N images, K the 256 reliability codes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from depthsieve.export.pairs import counted
from depthsieve.reliability.masking import drop_fraction, masked_counts, threshold_codes
from depthsieve.store import Store
from depthsieve.training.selection import Entry


@dataclass(frozen=True)
class Masked:
    """Of ``images``, how many have nothing masked as their least reliable pixels tie, and the ``share`` of the valid
    pixels of all images that is masked, 0..1."""

    images: int
    tied: int
    share: float

    @property
    def ties(self) -> str:
        """A sentence about the images that have nothing masked; empty where there are none."""
        if not self.tied:
            return ""
        return f"Of {counted(self.images, 'image')}, {self.tied:,} have nothing masked, since their codes tie."


def masked_of(store: Store, entries: Iterable[Entry], drop: float) -> Masked:
    """What is masked of some images at ``drop``, by the histograms of their labels."""
    rows: dict[str, list[int]] = {}
    for entry in entries:
        rows.setdefault(entry.shard, []).append(entry.row)
    fraction = drop_fraction(drop)
    images = tied = masked = valid = 0
    for shard, places in sorted(rows.items()):
        histogram_NK = store.reader(shard).column("histogram")[places]
        masked_N, valid_N = masked_counts(histogram_NK, threshold_codes(histogram_NK, drop))
        images += len(places)
        tied += int(np.count_nonzero((masked_N == 0) & (valid_N * float(fraction) >= 1)))
        masked, valid = masked + int(masked_N.sum()), valid + int(valid_N.sum())
    return Masked(images, tied, masked / max(valid, 1))
