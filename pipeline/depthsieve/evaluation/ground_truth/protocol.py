"""What ground truth is, wherever it lies."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from depthsieve.evaluation.ground_truth.values import TruthMap


class GroundTruth(Protocol):
    """Maps of depth by place: a place names one map within ``location``, printable and on one line."""

    location: str

    def place(self, image_id: str) -> str | None:
        """Where the map of an image is, or None if there is none.

        Raises :class:`~depthsieve.core.errors.GroundTruthError` where there are two.
        """

    def looked_for(self, image_id: str) -> str:
        """In words, where :meth:`place` looks for the map of an image."""

    def nearest(self, image_ids: Iterable[str]) -> dict[str, tuple[str, float]]:
        """For the images that have one, the place of the map that is nearest in time, and how many seconds apart; no
        place twice. Raises :class:`~depthsieve.core.errors.UsageError` where maps have no times."""

    def places(self) -> Iterable[str]:
        """All maps that are there, sorted."""

    def mask_place(self, image_id: str) -> str | None:
        """Where the mask of an image is; None where there is none, or masks are not asked for."""

    def file(self, place: str) -> Path | None:
        """The file of a map that is alone in its file."""

    def read(self, place: str, image_id: str) -> TruthMap:
        """The map at ``place``, which is that of the image.

        Raises :class:`~depthsieve.core.errors.GroundTruthError` with the reason, without the place.
        """
