"""DINOv2 with register tokens, which take up what the image is about as a whole (https://arxiv.org/abs/2309.16588).

Axes: B batch, N tokens: class, registers, then the patches by rows; C channels. Names of modules are those of the
published weights.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from depthsieve.teachers.da3.backbone import CACHED_GRIDS, LAYER_EPS, Layer, PatchEmbed, interpolated_positions

REGISTERS = 4
LEVELS = 4
"""How many sets of tokens the decoder takes."""


class Encoder(nn.Module):
    """The decoder's four inputs. ``config`` is a :class:`~depthsieve.teachers.metric3d.network.Metric3DConfig`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, side = config.hidden_size, config.image_size // config.patch_size
        self.config = config
        self.patch_embed = PatchEmbed(config.patch_size, size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        self.register_tokens = nn.Parameter(torch.zeros(1, REGISTERS, size))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, size))
        layers = nn.ModuleList(Layer(config, normalised=False) for _ in range(config.num_hidden_layers))
        self.blocks = nn.ModuleList([layers])  # published in one chunk
        self.norm = nn.LayerNorm(size, eps=LAYER_EPS)
        self._positions = functools.lru_cache(maxsize=CACHED_GRIDS)(self._interpolated)

    def forward(self, image_BCHW: Tensor) -> tuple[list[Tensor], Tensor]:
        """Four [B,N,C] for the decoder, and the last layer's, normalised. The four are the outputs at each quarter of
        the layers if ``config.every_quarter``, and else the last one, normalised, four times."""
        rows, columns = (side // self.config.patch_size for side in image_BCHW.shape[2:])
        x = self.patch_embed(image_BCHW)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self._positions(rows, columns)
        x = torch.cat((x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]), dim=1)
        quarters = []
        for number, layer in enumerate(self.blocks[0].children(), start=1):
            x = layer(x, None)
            if number * LEVELS % self.config.num_hidden_layers == 0:
                quarters.append(x)
        last = self.norm(x)
        return (quarters if self.config.every_quarter else [last] * LEVELS), last

    def _interpolated(self, rows: int, columns: int) -> Tensor:
        return interpolated_positions(self.pos_embed, rows, columns)
