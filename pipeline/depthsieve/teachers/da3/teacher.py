"""The Depth Anything 3 teacher: what its network says, as labels."""

import torch

from depthsieve.core.records import Quantity
from depthsieve.teachers.checkpoints import Checkpoint
from depthsieve.teachers.embedding import MOST, QUARTERS, embed
from depthsieve.teachers.huggingface import DTYPES, HuggingFaceTeacher
from depthsieve.teachers.preprocessing import Preprocessing
from depthsieve.teachers.protocol import Batch, Prediction

SKY = 0.3
"""Pixels are sky from this value on (``compute_sky_mask`` in the official ``utils/alignment.py``)."""

METRIC_FOCAL = 300.0
"""Metres are depth x focal length / this, by the official README; the focal length is that of the model's input."""


class DepthAnything3Teacher(HuggingFaceTeacher):
    """A loaded Depth Anything 3; see :class:`depthsieve.teachers.protocol.Teacher`.

    The main series and the monocular model predict depth up to a factor, which is labelled as disparity, its inverse.
    The metric model's depth is that of a camera of focal length :data:`METRIC_FOCAL`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: "torch.nn.Module",
        preprocessing: Preprocessing,
        quantity: Quantity,
        dtype: str,
    ) -> None:
        super().__init__(checkpoint, model, preprocessing, quantity, dtype)
        config = self._model.config
        self._patch: int = config.patch_size
        self.embedding_size = min(MOST, config.hidden_size * QUARTERS * QUARTERS)
        if config.any_view:
            self.confidence_better = "higher"
            self.confidence_meaning = "exp(x) + 1, which weighted the error of depth in training"
            self.intrinsics_out = True
        if quantity == "depth":
            self.intrinsics_in = "needed"

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Prediction:
        """See :meth:`depthsieve.teachers.protocol.Teacher.predict`."""
        height, width = batch.image.shape[2:]
        output = self._model(pixel_values=batch.image.to(DTYPES[self.dtype], memory_format=torch.channels_last))
        depth_BHW = output.predicted_depth
        if self.quantity == "depth":
            focal_B = batch.intrinsics[:, :2].mean(dim=1)
            depth_BHW = depth_BHW * (focal_B / METRIC_FOCAL)[:, None, None]
        else:
            depth_BHW = 1 / depth_BHW
        return Prediction(
            depth_BHW.contiguous(),
            confidence=None if output.confidence is None else output.confidence.contiguous(),
            embedding=embed(output.patches, (height // self._patch, width // self._patch)),
            sky=None if output.sky is None else output.sky >= SKY,
            intrinsics=None if output.field_of_view is None else intrinsics_of(output.field_of_view, height, width),
        )


def intrinsics_of(fov_B2: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Focal lengths and centre [B,4] in pixels of a camera that sees these angles: vertical, horizontal, in radians.

    NaN where an angle is 0, by which the network says nothing; the official code has a huge focal length there.
    """
    tangents_B2 = torch.tan(fov_B2.float() / 2)
    fy_B, fx_B = height / 2 / tangents_B2[:, 0], width / 2 / tangents_B2[:, 1]
    intrinsics_B4 = torch.stack(
        (fx_B, fy_B, torch.full_like(fx_B, width / 2), torch.full_like(fx_B, height / 2)), dim=1
    )
    intrinsics_B4[(tangents_B2 <= 1e-6).any(dim=1)] = torch.nan
    return intrinsics_B4
