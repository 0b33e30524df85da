"""What the rest of depthsieve asks of a model that labels images.

Arrays carry their axes in their names or in brackets: B batch, H height, W width, D numbers of an embedding, 4 the
intrinsics of a camera: fx, fy, cx, cy, in pixels of the image that they belong to. Its origin is the corner of the top
left pixel, so that the middle of an image is (W / 2, H / 2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from depthsieve.core.records import Quantity, Shape

if TYPE_CHECKING:
    import torch

Better = Literal["higher", "lower"]
"""Which end of a confidence means a good pixel: ``lower`` is an uncertainty."""

IntrinsicsUse = Literal["ignored", "used", "needed"]
"""What a teacher makes of a camera's intrinsics: nothing; better labels where they are known; or no label without."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one label shape, ready for a model.

    ``image`` holds outputs of :meth:`Teacher.prepare`, float32 [B,3,H,W] on the teacher's device. ``intrinsics`` are
    those of each camera in pixels of this input, float32 [B,4] on that device, all NaN where they are unknown.
    """

    image: "torch.Tensor"
    intrinsics: "torch.Tensor"

    @classmethod
    def of(cls, image_BCHW: "torch.Tensor") -> "Batch":
        """Images whose cameras are unknown."""
        return cls(image_BCHW, image_BCHW.new_full((len(image_BCHW), 4), float("nan")))

    @property
    def focal_px(self) -> "torch.Tensor":
        """The horizontal focal length of each camera in pixels of this input, [B], NaN where it is unknown."""
        return self.intrinsics[:, 0]

    def seen_as(self, image_BChw: "torch.Tensor", *, mirrored: bool = False) -> "Batch":
        """The same cameras for other views of these images, of any size: ``mirrored`` if left and right are swapped."""
        across, down = (image_BChw.shape[axis] / self.image.shape[axis] for axis in (3, 2))
        intrinsics_B4 = self.intrinsics * self.intrinsics.new_tensor([across, down, across, down])
        if mirrored:
            intrinsics_B4[:, 2] = image_BChw.shape[3] - intrinsics_B4[:, 2]
        return Batch(image_BChw, intrinsics_B4)


def centred_intrinsics(focal_px: float, source: Shape, shape: Shape) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """Of a camera that looks through the middle of its image, for that image at another ``shape``: float32 [4].

    ``focal_px`` is the focal length in pixels of an upright image of shape ``source``; NaNs where it is 0: unknown.
    """
    if not focal_px > 0:
        return np.full(4, np.nan, np.float32)
    across, down = shape[1] / source[1], shape[0] / source[0]
    return np.array([focal_px * across, focal_px * down, shape[1] / 2, shape[0] / 2], np.float32)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a teacher says of a batch, on its device, float32 but for the masks. What it has nothing of is None.

    Attributes:
        depth: [B,H,W], of the input's height and width, in the teacher's quantity and unit, 0 or more. It may be
            anything where a pixel is not ``valid`` or ``sky``.
        confidence: [B,H,W], what the model says of its own error, 0 or more; :attr:`Teacher.confidence_better` says
            which end is good. It may be anything where a pixel is not ``valid``.
        embedding: [B,D], each row of norm 1, what the backbone made of each image: alike for images that look alike.
        valid: bool [B,H,W], False where the model has no label. Stored as depth 0 and reliability 0.
        sky: bool [B,H,W], True at sky. In metres it has no label, as where a pixel is not ``valid``. Disparity is set
            to the least of the image's other pixels: sky is as far as the farthest of them.
        intrinsics: [B,4], what the model takes the camera for, in pixels of this input; NaN where it does not say.
    """

    depth: "torch.Tensor"
    confidence: "torch.Tensor | None" = None
    embedding: "torch.Tensor | None" = None
    valid: "torch.Tensor | None" = None
    sky: "torch.Tensor | None" = None
    intrinsics: "torch.Tensor | None" = None


class Teacher(Protocol):
    """A model that labels images, with everything that decides its labels on record. A subclass inherits the defaults.

    Attributes:
        name: for people only.
        weights_digest: hex sha256 over the content of configuration and weights.
        quantity: what :meth:`predict` returns: ``disparity`` (inverse depth up to scale and shift, larger is nearer)
            or ``depth``.
        unit: ``"m"`` for ``depth``, empty for ``disparity``.
        dtype: what the model computes in: ``float32``, ``bfloat16`` or ``float16``.
        preprocessing: plain JSON with everything that decides the model's input and the label shape; it goes into the
            fingerprint of the label spec.
        device: where images must be and predictions are.
        attention: the attention backend in use.
        confidence_better: which end of ``Prediction.confidence`` means a good pixel; None where it returns none.
        confidence_meaning: what it is, in words, such as "exp(x) + 1, trained as the inverse of the error".
        intrinsics_in: what :meth:`predict` makes of ``Batch.intrinsics``. Where they are "needed", an image of an
            unknown camera fails by name.
        intrinsics_out: whether it returns ``Prediction.intrinsics``.
        embedding_size: how many numbers ``Prediction.embedding`` has for an image; None where it returns none.
        embedding_method: how embeddings are made, in words; those of two methods do not compare.
    """

    name: str
    weights_digest: str
    quantity: Quantity
    unit: str
    dtype: str
    preprocessing: Mapping[str, Any]
    device: "torch.device"
    attention: str = "unknown"
    confidence_better: Better | None = None
    confidence_meaning: str = ""
    intrinsics_in: IntrinsicsUse = "ignored"
    intrinsics_out: bool = False
    embedding_size: int | None = None
    embedding_method: str = ""

    def label_shape(self, height: int, width: int) -> Shape:
        """The (H, W) at which an upright image of ``height`` x ``width`` pixels is labelled.

        Raises :class:`~depthsieve.core.errors.ImageRejected` when the image cannot be labelled; the message names the
        sizes and the token limit.
        """
        ...

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """The model's input for one upright uint8 RGB image: float32 [3, *shape]. Safe to call from many threads.

        ``shape`` is what :meth:`label_shape` returned for this image.
        """
        ...

    def half_shape(self, shape: Shape) -> Shape | None:
        """A shape of about half the sides at which :meth:`predict` works too; None where the model has no such."""
        return None

    def predict(self, batch: Batch) -> Prediction:
        """The label of each image. Safe to call from many threads.

        The images are all of one label shape, or of its :meth:`half_shape`.
        """
        ...
