"""The MoGe-2 teacher: what its network says, as labels in metres."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import Quantity, Shape
from depthsieve.core.threads import torch_threads
from depthsieve.teachers.checkpoints import Checkpoint
from depthsieve.teachers.depth_anything import IMAGENET_MEAN, IMAGENET_STD
from depthsieve.teachers.embedding import MOST, QUARTERS, embed
from depthsieve.teachers.huggingface import DTYPES, HuggingFaceTeacher
from depthsieve.teachers.moge.camera import focal_and_shift
from depthsieve.teachers.moge.network import PATCH
from depthsieve.teachers.preprocessing import Preprocessing, TokenLimit, check_image
from depthsieve.teachers.protocol import Batch, Prediction

VALID = 0.5


@dataclass(frozen=True)
class TokensPreprocessing:
    """About ``tokens`` patches in the image's aspect, to which it is resized in torch, bilinear with antialias; then
    ImageNet's mean and standard deviation. It is what the official encoder makes of a photo."""

    tokens: int
    limit: TokenLimit

    @property
    def spec(self) -> Mapping[str, Any]:
        """Plain JSON: everything that decides the model's input and the label shape."""
        return {
            "rule": "moge-2",
            "tokens": self.tokens,
            "multiple": self.limit.patch,
            "interpolation": "torch bilinear, antialias, float32 RGB/255",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "position_embedding": "official, offset 0.1",
            "camera": "focal length and shift by least squares over 64x64 points, float64",
            **self.limit.spec,
        }

    def label_shape(self, height: int, width: int) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.label_shape`."""
        if height < 1 or width < 1:
            raise ImageRejected(f"{width}x{height} pixels: an empty image")
        aspect = width / height
        rows, columns = round(math.sqrt(self.tokens / aspect)), round(math.sqrt(self.tokens * aspect))
        if not rows or not columns:
            raise ImageRejected(f"{width}x{height} pixels are too thin: no row or column of its {self.tokens} patches")
        shape = rows * self.limit.patch, columns * self.limit.patch
        return self.limit.apply((height, width), shape, self.limit.patch)

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """See :meth:`depthsieve.teachers.protocol.Teacher.prepare`."""
        check_image(rgb_HW3)
        with torch_threads(1):  # other bits with two
            unit_CHW = torch.from_numpy(np.ascontiguousarray(rgb_HW3.transpose(2, 0, 1), np.float32)).div(255)
            resized_CHW = interpolate(unit_CHW[None], shape, mode="bilinear", antialias=True)[0].numpy()
        mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        return np.ascontiguousarray((resized_CHW - mean) / std, dtype=np.float32)

    def half_shape(self, shape: Shape) -> Shape | None:
        """See :meth:`depthsieve.teachers.protocol.Teacher.half_shape`: multiples of the patch, halves rounded up."""
        rows, columns = (math.ceil(side / 2 / self.limit.patch) * self.limit.patch for side in shape)
        return rows, columns


class MoGeTeacher(HuggingFaceTeacher):
    """A loaded MoGe-2; see :class:`depthsieve.teachers.protocol.Teacher`.

    A known focal length goes before its own. Where no camera fits its points, nothing is valid.
    """

    def __init__(
        self, checkpoint: Checkpoint, model: Any, preprocessing: Preprocessing, quantity: Quantity, dtype: str
    ) -> None:
        super().__init__(checkpoint, model, preprocessing, quantity, dtype)
        self.embedding_size = min(MOST, self._model.config.hidden_size * QUARTERS * QUARTERS)
        self.intrinsics_in = "used"
        self.intrinsics_out = True

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Prediction:
        """See :meth:`depthsieve.teachers.protocol.Teacher.predict`."""
        height, width = batch.image.shape[2:]
        diagonal = math.hypot(height, width)
        output = self._model(pixel_values=batch.image.to(DTYPES[self.dtype], memory_format=torch.channels_last))
        valid_BHW = output.mask > VALID
        points_BHW3, seen_BHW = output.points.cpu().numpy(), valid_BHW.cpu().numpy()
        known = [2 * focal / diagonal if math.isfinite(focal) else None for focal in batch.intrinsics[:, 0].tolist()]
        found = [focal_and_shift(*one) for one in zip(points_BHW3, seen_BHW, known, strict=True)]
        focal_B, shift_B = batch.intrinsics.new_tensor(found).T
        shifted_BHW = output.points[..., 2] + shift_B[:, None, None]
        focal_px_B = focal_B * diagonal / 2
        middle = [torch.where(focal_px_B.isnan(), torch.nan, side / 2) for side in (width, height)]
        return Prediction(
            (shifted_BHW * output.scale[:, None, None]).contiguous(),
            embedding=embed(output.patches, (height // PATCH, width // PATCH)),
            valid=valid_BHW & (shifted_BHW > 0),
            intrinsics=torch.stack((focal_px_B, focal_px_B, *middle), dim=1),
        )
