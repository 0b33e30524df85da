"""What the rest of depthsieve asks of a model that labels images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from depthsieve.core.records import Quantity, Shape

if TYPE_CHECKING:
    import torch


class Teacher(Protocol):
    """A model that labels images, with everything that decides its labels on record.

    Arrays carry their axes in their names: B batch, C channels, H height, W width.

    ``name`` is for people only. ``weights_digest`` is the hex sha256 over the content of configuration and weights.
    ``quantity`` and ``unit`` say what :meth:`predict` gives: ``disparity`` with unit ``""`` (inverse depth up to scale
    and shift, larger is nearer) or ``depth`` with unit ``"m"``. ``dtype`` is the compute type, ``attention`` the
    attention backend in use. ``preprocessing`` is plain JSON and holds everything that decides the model's input and
    the label shape; it goes into the label spec's fingerprint. ``second`` is another teacher that its predictions are
    compared with, if there is one. ``embedding_size`` is how many numbers :meth:`take_embedding` gives for an image,
    None where it gives none.
    """

    name: str
    weights_digest: str
    quantity: Quantity
    unit: str
    dtype: str
    attention: str
    preprocessing: Mapping[str, Any]
    device: "torch.device"
    second: "Teacher | None"
    embedding_size: int | None

    def label_shape(self, height: int, width: int) -> Shape:
        """The (H, W) at which an upright image of ``height`` x ``width`` pixels is labelled.

        Raises :class:`~depthsieve.core.errors.ImageRejected` when the image cannot be labelled; the message names the
        sizes and the token limit.
        """

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """The model's input for one upright uint8 RGB image: float32 [3, *shape]. Safe to call from many threads.

        ``shape`` is what :meth:`label_shape` gave for this image.
        """

    def half_shape(self, shape: Shape) -> Shape | None:
        """A shape of about half the sides at which :meth:`predict` works too; None where the model has no such."""

    def predict(self, image_BCHW: "torch.Tensor") -> "torch.Tensor":
        """The label of each image: float32 [B, H, W] on :attr:`device`, at the label shape.

        ``image_BCHW`` holds float32 outputs of :meth:`prepare`, all of one label shape (or images of its
        :meth:`half_shape`), on :attr:`device`. Safe to call from many threads.
        """

    def take_embedding(self) -> "torch.Tensor | None":
        """What the backbone made of the images of this thread's last :meth:`predict`: float32 [B, embedding_size], each
        of norm 1. It can be taken once; None where there is none."""
