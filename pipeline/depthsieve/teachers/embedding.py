"""What a teacher's backbone makes of an image, as a few hundred numbers: a by-product of the forward pass.

Images that look alike get numbers that are alike. Axes: B batch, P patches, C channels of the backbone, h and w rows
and columns of patches, D numbers of an embedding.
"""

import functools
import threading
from typing import Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

QUARTERS = 2
"""Patches are averaged over so many rows and columns: what is where counts too, and tells scenes of a kind apart."""

MOST = 384
"""The most numbers that are kept of an image."""

METHOD = f"backbone, last features, {QUARTERS}x{QUARTERS} means, at most {MOST} by random projection, norm 1"

_SEED = 20406


class BackboneEmbedding:
    """Catches what the backbone of a model returns during a pass of its thread. ``size`` is D; None where the model has
    no backbone that is known here, and then nothing is caught."""

    def __init__(self, model: Any) -> None:
        self._seen = threading.local()
        self.size: int | None = None
        backbone = _backbone(model)
        if backbone is not None:
            self.size = min(MOST, backbone.config.hidden_size * QUARTERS * QUARTERS)
            self._patch: int = backbone.config.patch_size
            backbone.register_forward_hook(self._remember)

    def _remember(self, module: Any, inputs: Any, output: Any) -> None:
        maps = getattr(output, "feature_maps", None)
        self._seen.features = maps[-1] if maps else output.last_hidden_state

    def take(self, height: int, width: int) -> torch.Tensor | None:
        """Float32 [B,D] of this thread's last pass, each of norm 1; it can be taken once. ``height`` and ``width`` are
        those of the images of the pass, in pixels."""
        features = self._seen.__dict__.pop("features", None)
        return None if features is None else embed(features, (height // self._patch, width // self._patch))


def embed(features: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Float32 [B,D] of norm 1, of the last features of a backbone: [B,C,h,w], or [B,tokens,C] with the h * w patches of
    the ``grid`` at the end."""
    if features.ndim == 3:
        patches_BPC = features[:, features.shape[1] - grid[0] * grid[1] :]
        features = patches_BPC.transpose(1, 2).reshape(len(features), -1, *grid)
    means_BD = adaptive_avg_pool2d(features.float(), QUARTERS).flatten(1)
    if means_BD.shape[1] > MOST:
        means_BD = means_BD @ _projection(means_BD.shape[1]).to(means_BD.device)
    embedding_BD: torch.Tensor = normalize(means_BD)
    return embedding_BD


@functools.cache
def _projection(size: int) -> torch.Tensor:
    """A fixed random matrix [size,MOST]: it keeps angles to a few hundredths (Johnson and Lindenstrauss 1984).

    Its entries are signs, taken from the raw bits of a generator, and so the same in every release of numpy.
    """
    bits = np.random.Philox(key=_SEED + size).random_raw(-(-size * MOST // 64))
    signs = np.unpackbits(bits.astype("<u8").view(np.uint8))[: size * MOST].astype(np.float32) * 2 - 1
    return torch.from_numpy(signs.reshape(size, MOST)).div(MOST**0.5)


def _backbone(model: Any) -> Any:
    """The module that turns an image into features, a vision transformer; None where there is none that is known."""
    for name in ("backbone", "dpt"):
        module = getattr(model, name, None)
        config = getattr(module, "config", None)
        sizes = (getattr(config, "hidden_size", None), getattr(config, "patch_size", None))
        if isinstance(module, torch.nn.Module) and all(isinstance(size, int) for size in sizes):
            return module
    return None
