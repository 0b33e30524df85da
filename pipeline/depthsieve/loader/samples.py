"""One sample: its key, and reading its maps and image. Axes: H row, W column, C or 3 channel."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.errors import DepthsieveError, ImageRejected, LoaderError, SourceError, StoreDamaged
from depthsieve.images import decode
from depthsieve.loader.crops import Window, to_label_shape
from depthsieve.loader.selection import Entry
from depthsieve.records import MEND
from depthsieve.sources import Source, reopen_source
from depthsieve.store import Store

Sample = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleKey:
    """One sample of one epoch: the image's number in id order, and the mask's threshold code (train where reliability
    is at least that)."""

    index: int
    epoch: int
    threshold: int


class Reader:
    """Reads windows of labels and source images, with files that are open in one process only."""

    def __init__(self, store: Store, image_roots: Mapping[str, str]) -> None:
        self.process = os.getpid()
        self._store = store
        self._sources: dict[str, Source] = {name: reopen_source(name, root) for name, root in image_roots.items()}

    def label(self, entry: Entry, window: Window) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Depth and reliability of a window."""
        label = f"{entry.id}: its label (shard {entry.shard}, row {entry.row} of {self._store.location})"
        try:
            reader = self._store.reader(entry.shard)
            return window.cut(reader.depth(entry.row)), window.cut(reader.reliability(entry.row))
        except StoreDamaged as error:
            raise StoreDamaged(f"{label}: {error}") from error
        except DepthsieveError:
            raise
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            raise StoreDamaged(f"{label} cannot be read ({error}); {MEND}") from error

    def image(self, entry: Entry, window: Window) -> torch.Tensor:
        """The window of the source image, float32 [C,H,W], RGB, 0..1."""
        source = self._sources[entry.id.partition("/")[0]]
        remedy = "restore it, name the place of the images with images=..., or train on a subset without it"
        try:
            data = source.read(entry.id)
            if len(data) != entry.source_size:
                raise LoaderError(
                    f"{entry.id}: the source image has {len(data)} bytes and had {entry.source_size} when it was "
                    f"labelled, so the label may be another image's; {remedy}"
                )
            rgb_HW3 = decode(data).rgb_HW3
        except (OSError, SourceError, ImageRejected) as error:
            reason = getattr(error, "strerror", None) or error
            raise LoaderError(f"{entry.id}: the source image cannot be read ({reason}); {remedy}") from error
        if rgb_HW3.shape[:2] != entry.source_shape:
            raise LoaderError(
                f"{entry.id}: the source image is {rgb_HW3.shape[0]}x{rgb_HW3.shape[1]} (height x width) and was "
                f"{entry.source_shape[0]}x{entry.source_shape[1]} when it was labelled; {remedy}"
            )
        part_HW3 = window.cut(to_label_shape(rgb_HW3, entry.label_shape))
        return torch.from_numpy(part_HW3).permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
