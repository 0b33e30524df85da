"""DINOv2, and what Depth Anything 3 made of it, for one view of a scene.

From layer ``alternate_from`` on, queries and keys are normalised and turned by their place (rotary embeddings), and a
learned camera token replaces the class token. Every second of those layers looks at all views at once; with one view it
differs from the others in this alone: all patches have the same place.

Axes: B batch, N tokens (the class or camera token, then the patches by rows), P patches, C channels, E heads, D
channels of a head, Q = D / 4. Names of modules are those of the published weights.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ROTARY_BASE = 100.0
LAYER_EPS = 1e-6
"""Of the layers' normalisations; those of queries, keys and outputs have torch's 1e-5."""

POSITION_OFFSET = 0.1
CACHED_GRIDS = 4


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and sines [N,D] by which channels are turned."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x_BEND: Tensor) -> Tensor:
        """Channels of the first half turn by the token's row, those of the second by its column: c with c + Q."""
        pairs = x_BEND.reshape(*x_BEND.shape[:-1], 2, 2, -1)
        turned = torch.stack((-pairs[..., 1, :], pairs[..., 0, :]), dim=-2).flatten(-3)
        return x_BEND * self.cos.to(x_BEND.dtype) + turned * self.sin.to(x_BEND.dtype)


def rotation(places_N2: Tensor, size: int) -> Rotation:
    """The rotation of heads of ``size`` channels for tokens at these rows and columns."""
    half = size // 2
    exponents = torch.arange(0, half, 2, device=places_N2.device).float() / half
    angles = places_N2.float()[:, :, None] * (1 / ROTARY_BASE**exponents)
    angles_ND = torch.cat((angles, angles), dim=-1).flatten(1)
    return Rotation(angles_ND.cos(), angles_ND.sin())


def places(rows: int, columns: int, *, apart: bool, device: torch.device) -> Tensor:
    """Rows and columns [N,2] of tokens: 0, 0 for the camera's; patches from 1, 1 on, all at 1, 1 if not ``apart``."""
    grid = torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))
    patches_P2 = grid + 1 if apart else torch.ones_like(grid)
    return torch.cat((torch.zeros_like(patches_P2[:1]), patches_P2))


class Attention(nn.Module):
    def __init__(self, size: int, heads: int, *, normalised: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(size, 3 * size)
        self.q_norm = nn.LayerNorm(size // heads) if normalised else nn.Identity()
        self.k_norm = nn.LayerNorm(size // heads) if normalised else nn.Identity()
        self.proj = nn.Linear(size, size)

    def forward(self, x_BNC: Tensor, turn: Rotation | None) -> Tensor:
        query, key, value = self.qkv(x_BNC).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = self.q_norm(query), self.k_norm(key)
        if turn is not None:
            query, key = turn(query), turn(key)
        seen_BEND = functional.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(seen_BEND.transpose(1, 2).flatten(2))
        return projected


class Mlp(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return y


class GatedMlp(nn.Module):
    """SwiGLU, with about as many weights as an MLP of four times the size: 2/3 of that, up to a multiple of 8."""

    def __init__(self, size: int) -> None:
        super().__init__()
        inner = (int(4 * size * 2 / 3) + 7) // 8 * 8
        self.w12, self.w3 = nn.Linear(size, 2 * inner), nn.Linear(inner, size)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        y: Tensor = self.w3(functional.silu(gate) * value)
        return y


class LayerScale(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Layer(nn.Module):
    def __init__(self, config: Any, *, normalised: bool) -> None:
        super().__init__()
        size = config.hidden_size
        self.norm1 = nn.LayerNorm(size, eps=LAYER_EPS)
        self.attn = Attention(size, config.num_attention_heads, normalised=normalised)
        self.ls1 = LayerScale(size)
        self.norm2 = nn.LayerNorm(size, eps=LAYER_EPS)
        self.mlp = GatedMlp(size) if config.gated else Mlp(size)
        self.ls2 = LayerScale(size)

    def forward(self, x: Tensor, turn: Rotation | None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), turn))
        y: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return y


class PatchEmbed(nn.Module):
    def __init__(self, patch: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, size, patch, stride=patch)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        patches_BPC: Tensor = self.proj(image_BCHW).flatten(2).transpose(1, 2)
        return patches_BPC


@dataclass(frozen=True, slots=True)
class Features:
    """What the backbone made of images: each output layer's normalised patches [B,P,C]; the last class token [B,C].

    Of any-view models, patches are [B,P,2C]: those of the last layer that looks at one view come first, and are not
    normalised. So is their camera token [B,2C], which is in the class token's place, with nothing normalised.
    """

    layers: tuple[Tensor, ...]
    token: Tensor


class Backbone(nn.Module):
    """Features of the layers ``config.out_layers``. ``config`` is a
    :class:`~depthsieve.teachers.da3.network.DepthAnything3Config`, or has the same settings."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, side = config.hidden_size, config.image_size // config.patch_size
        self.config = config
        self.patch_embed = PatchEmbed(config.patch_size, size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        if config.any_view:
            self.camera_token = nn.Parameter(torch.zeros(1, 2, size))  # the first is the reference view's
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, size))
        self.blocks = nn.ModuleList(
            Layer(config, normalised=number >= config.alternate_from) for number in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(size, eps=config.norm_eps)
        self._positions = functools.lru_cache(maxsize=CACHED_GRIDS)(self._interpolated)
        self._rotations = functools.lru_cache(maxsize=CACHED_GRIDS)(self._turned)

    def forward(self, image_BCHW: Tensor) -> Features:
        config = self.config
        rows, columns = (side // config.patch_size for side in image_BCHW.shape[2:])
        x = self.patch_embed(image_BCHW)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self._positions(rows, columns)
        own, outputs = x, []  # own: what the last layer made that looks at one view
        for number, layer in enumerate(self.blocks):
            rotary = number >= config.alternate_from
            if number == config.alternate_from:
                x = torch.cat((self.camera_token[:, :1].expand(len(x), -1, -1), x[:, 1:]), dim=1)
            over_views = rotary and number % 2 == 1
            x = layer(x, self._rotations(rows, columns)[over_views] if rotary else None)
            if not over_views:
                own = x
            if number in config.out_layers:
                outputs.append((own, x))
        layers = tuple(
            torch.cat((own[:, 1:], self.norm(x[:, 1:])), dim=-1) if config.any_view else self.norm(x[:, 1:])
            for own, x in outputs
        )
        token = torch.cat((own[:, 0], x[:, 0]), dim=-1) if config.any_view else self.norm(x[:, 0])
        return Features(layers, token)

    def _turned(self, rows: int, columns: int) -> tuple[Rotation, Rotation]:
        """Of layers that look at one view, and of those that look at all."""
        device, size = self.pos_embed.device, self.config.hidden_size // self.config.num_attention_heads
        one, every = (rotation(places(rows, columns, apart=apart, device=device), size) for apart in (True, False))
        return one, every

    def _interpolated(self, rows: int, columns: int) -> Tensor:
        return interpolated_positions(self.pos_embed, rows, columns)


def interpolated_positions(trained: Tensor, rows: int, columns: int) -> Tensor:
    """Position embeddings [1,N,C] on this grid: bicubic, by the factors (side + 0.1) / trained side."""
    side = math.isqrt(trained.shape[1] - 1)
    if rows == columns == side:
        return trained
    grid = trained[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = ((rows + POSITION_OFFSET) / side, (columns + POSITION_OFFSET) / side)
    grid = functional.interpolate(grid, scale_factor=factors, mode="bicubic")
    assert grid.shape[2:] == (rows, columns)
    return torch.cat((trained[:, :1].float(), grid.flatten(2).transpose(1, 2)), dim=1).to(trained.dtype)
