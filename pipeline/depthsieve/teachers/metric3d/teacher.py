"""The Metric3D v2 teacher: what its network says, as labels in metres."""

from typing import Any

import torch

from depthsieve.core.records import Quantity
from depthsieve.teachers.checkpoints import Checkpoint
from depthsieve.teachers.embedding import MOST, QUARTERS, embed
from depthsieve.teachers.huggingface import DTYPES, HuggingFaceTeacher
from depthsieve.teachers.metric3d.preprocessing import CanvasPreprocessing
from depthsieve.teachers.metric3d.published import PATCH
from depthsieve.teachers.preprocessing import Preprocessing
from depthsieve.teachers.protocol import Batch, Prediction

CANONICAL_FOCAL = 1000.0
"""Focal length in pixels of the camera that the network's depth is that of; that of the resized image makes metres."""

FARTHEST = 300.0
"""Metres are limited to this, as in the official ``hubconf.py``."""


class Metric3DTeacher(HuggingFaceTeacher):
    """A loaded Metric3D v2; see :class:`depthsieve.teachers.protocol.Teacher`.

    Its confidence, where it falls below 0, is 0.
    """

    def __init__(
        self, checkpoint: Checkpoint, model: Any, preprocessing: Preprocessing, quantity: Quantity, dtype: str
    ) -> None:
        super().__init__(checkpoint, model, preprocessing, quantity, dtype)
        assert isinstance(preprocessing, CanvasPreprocessing)
        self._canvas = preprocessing
        self.embedding_size = min(MOST, self._model.config.hidden_size * QUARTERS * QUARTERS)
        self.confidence_better = "higher"
        self.confidence_meaning = "trained as 1 - abs(error) / truth; 0 where that is less"
        self.intrinsics_in = "needed"

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Prediction:
        """See :meth:`depthsieve.teachers.protocol.Teacher.predict`."""
        height, width = batch.image.shape[2:]
        padded, (top, left) = self._canvas.padded(batch.image)
        output = self._model(pixel_values=padded.to(DTYPES[self.dtype], memory_format=torch.channels_last))
        inside = slice(top, top + height), slice(left, left + width)
        metres_BHW = output.predicted_depth[:, *inside] * (batch.focal_px / CANONICAL_FOCAL)[:, None, None]
        grid = output.patches.transpose(1, 2).unflatten(2, (padded.shape[2] // PATCH, padded.shape[3] // PATCH))
        seen = (slice(part.start // PATCH, -(-part.stop // PATCH)) for part in inside)  # no patch of nothing but margin
        return Prediction(
            metres_BHW.clamp(0, FARTHEST).contiguous(),
            confidence=output.confidence[:, *inside].clamp(min=0).contiguous(),
            embedding=embed(grid[:, :, *seen], (0, 0)),
        )
