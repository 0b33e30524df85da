"""Photos with measured depth, from folders. Axes: H row, W column; 3 red, green, blue."""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.cameras import Camera
from depthsieve.core.errors import GroundTruthError
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.protocol import GroundTruth
from depthsieve.evaluation.ground_truth.scales import check_scales
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.images.decode import decode
from depthsieve.sources import Listed, Passed, Source, decode_path, open_source

LEFT_OUT = 3
"""One pair in so many is judged on, and not learnt from."""


@dataclass(frozen=True)
class Pair:
    """A photo, by its id within ``source``, and the place of its depth in ``truth``; ``camera`` is the photo's, where
    it is known and the teacher takes one."""

    id: str
    place: str
    source: Source
    truth: GroundTruth
    camera: Camera | None = None

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The upright photo [H,W,3], and its depth in metres, NaN where there is none, of whatever shape.

        Raises :class:`ImageRejected`, :class:`SourceError`, :class:`GroundTruthError` or :class:`OSError`.
        """
        rgb_HW3 = decode(self.source.read(self.id)).rgb_HW3
        return rgb_HW3, self.truth.read(self.place, self.id).metres_HW


@dataclass(frozen=True)
class Pairs:
    """``learnt`` from and ``judged``; ``without_depth`` counts images for which there is none."""

    learnt: tuple[Pair, ...] = ()
    judged: tuple[Pair, ...] = ()
    without_depth: int = 0


def find_pairs(folders: Sequence[str | Path], ground_truth: str | Path | None, settings: TruthSettings) -> Pairs:
    """The photos in ``folders`` that have depth, in ``ground_truth`` or else in the photo's own folder.

    Which of them are judged hangs on their ids alone. Raises :class:`GroundTruthError` for a folder without any,
    :class:`UsageError` where a scale is missing, and as :func:`~depthsieve.sources.open_source` and
    :func:`~depthsieve.evaluation.ground_truth.opening.open_ground_truth` do.
    """
    found: list[Pair] = []
    without = 0
    for folder in folders:
        source = open_source(folder)
        truth = open_ground_truth(ground_truth if ground_truth is not None else folder, settings)
        ids = sorted({one.id for one in source.listing(Passed()) if isinstance(one, Listed)})
        here = [Pair(one, place, source, truth) for one in ids if (place := _place(one, source, truth)) is not None]
        if not here:
            looked_for = f"; for {ids[0]} looked for {truth.looked_for(ids[0])}" if ids else ""
            raise GroundTruthError(
                f"no photo of {folder} has depth in {truth.location}{looked_for}; --ground-truth, --pattern and "
                "--replace say where it is"
            )
        check_scales([pair.place for pair in here], settings)
        found += here
        without += len(ids) - len(here)
    found.sort(key=lambda pair: hashlib.sha256(pair.id.encode()).digest())
    judged = math.ceil(len(found) / LEFT_OUT) if found else 0
    return Pairs(tuple(found[judged:]), tuple(found[:judged]), without)


def _place(image_id: str, source: Source, truth: GroundTruth) -> str | None:
    """Where the depth of an image is; None where there is none, or it is the image itself."""
    place = truth.place(image_id)
    file = truth.file(place) if place is not None else None
    own = os.path.join(source.root, os.fsdecode(decode_path(image_id.partition("/")[2])))  # noqa: PTH118
    return None if file is not None and os.path.realpath(file) == os.path.realpath(own) else place
