"""What the rest of depthsieve asks of a model that labels images.

Arrays carry their axes in their names or in brackets: B batch, H height, W width, D numbers of an embedding.
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


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one label shape, ready for a model.

    ``image`` holds outputs of :meth:`Teacher.prepare`, float32 [B,3,H,W] on the teacher's device. ``focal_px`` is the
    horizontal focal length of each camera in pixels of this input, float32 [B] on that device, NaN where it is unknown.
    """

    image: "torch.Tensor"
    focal_px: "torch.Tensor"

    @classmethod
    def of(cls, image_BCHW: "torch.Tensor") -> "Batch":
        """Images whose focal lengths are unknown."""
        return cls(image_BCHW, image_BCHW.new_full((len(image_BCHW),), float("nan")))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a teacher says of a batch, float32 on its device.

    ``depth`` [B,H,W], of the input's height and width, is in the teacher's quantity and unit. ``confidence`` [B,H,W] is
    what the model says of its own error, 0 or more; :attr:`Teacher.confidence_better` says which end is good.
    ``embedding`` [B,D], each row of norm 1, is what the backbone made of each image: alike for images that look alike.
    """

    depth: "torch.Tensor"
    confidence: "torch.Tensor | None" = None
    embedding: "torch.Tensor | None" = None


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
