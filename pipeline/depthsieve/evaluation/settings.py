"""What can be set about an evaluation."""

from dataclasses import dataclass
from typing import Literal

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.ground_truth.settings import TruthSettings

ALIGNMENTS = ("auto", "none", "scale", "scale-shift")


@dataclass(frozen=True)
class EvaluateSettings(TruthSettings):
    """The options of :func:`depthsieve.evaluate_labels`; the command line has the same names and defaults.

    ``min_depth`` and ``max_depth``: metres between which ground truth counts. ``align``: what is fitted by least
    squares, image by image, in the label's own quantity: "none", "scale", "scale-shift", or "auto": scale and shift for
    disparity, nothing for metres.

    ``pattern``: where in the folder an image's ground truth is; ``{dir}`` is the folder that the image lies in,
    relative to its source, ``{stem}`` its name without the suffix, ``{name}`` with it, ``{source}`` the source's name.
    None: ``{dir}/{stem}`` with one of the suffixes of :data:`depthsieve.evaluation.ground_truth.settings.SUFFIXES`.
    ``replace``: pairs of texts; the first one, where it stands in an image's path, is replaced by the second before
    that.

    ``scale``: how many units of the files are a metre. None: values are metres, and whole numbers are refused.
    ``dataset``: which one in HDF5 files; None: the only one, and ``depths`` in a ``.mat`` file. ``count_from``, 0 or 1:
    what number the first image has, where one file holds all maps. ``distance_to_depth``: the ground truth is distance
    to the camera's centre; make it planar, for this focal length in pixels of the ground truth.

    Raises :class:`UsageError` for a value that cannot be meant.
    """

    min_depth: float = 0.001
    max_depth: float = 80.0
    align: Literal["auto", "none", "scale", "scale-shift"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_depth < self.max_depth < float("inf"):
            raise UsageError(
                f"the range of depth needs 0 < min_depth < max_depth, not {self.min_depth} and {self.max_depth}"
            )
        if self.align not in ALIGNMENTS:
            raise UsageError(f"align must be one of {', '.join(ALIGNMENTS)}, not {self.align!r}")

    @property
    def depth_range(self) -> tuple[float, float]:
        """``min_depth`` and ``max_depth``."""
        return self.min_depth, self.max_depth
