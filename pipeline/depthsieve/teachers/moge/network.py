"""MoGe-2 as a model of transformers: a map of points up to a shift along z, a mask, and a factor to metres.

Written from the architecture of https://github.com/microsoft/MoGe (``moge/model/v2.py``, ``moge/model/modules.py``).
Module names are those of the published weights. Normals are not computed.

Axes: B batch, C channels, h and w rows and columns of a level, H and W pixels of the input, multiples of the patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import AutoConfig, AutoModelForDepthEstimation, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from depthsieve.teachers.da3.backbone import Backbone

KIND = "depthsieve_moge2"
PATCH = 14
LEVELS = 5


class MoGeConfig(PretrainedConfig):  # type: ignore[misc]
    """The shape of the network. Stacks are dictionaries of :func:`depthsieve.teachers.moge.published.read_published`.

    ``tokens``: about how many patches an image has; ``remap``: what becomes of the points' numbers.
    """

    model_type = KIND
    any_view, gated, norm_eps, patch_size = False, False, 1e-6, PATCH

    def __init__(
        self,
        hidden_size: int = 384,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 6,
        out_layers: Sequence[int] = (5, 11),
        encoder_size: int = 384,
        neck: Mapping[str, Any] | None = None,
        points_head: Mapping[str, Any] | None = None,
        mask_head: Mapping[str, Any] | None = None,
        scale_head: Sequence[int] = (384, 384, 1),
        remap: str = "exp",
        tokens: int = 3600,
        image_size: int = 518,
        **settings: Any,
    ) -> None:
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads, self.out_layers = num_attention_heads, list(out_layers)
        self.encoder_size, self.scale_head = encoder_size, list(scale_head)
        self.neck, self.points_head, self.mask_head = dict(neck or {}), dict(points_head or {}), dict(mask_head or {})
        self.remap, self.tokens, self.image_size = remap, tokens, image_size
        self.alternate_from = num_hidden_layers  # a plain DINOv2
        super().__init__(**settings)


@dataclass
class MoGeOutput(ModelOutput):  # type: ignore[misc]
    """``predicted_depth`` [B,H,W]: z before it is shifted and scaled; ``points`` [B,H,W,3] the same with x and y;
    ``mask`` [B,H,W] of 0..1, valid above 0.5; ``scale`` [B] to metres; ``patches`` [B,P,C], the last features."""

    predicted_depth: Tensor | None = None
    points: Tensor | None = None
    mask: Tensor | None = None
    scale: Tensor | None = None
    patches: Tensor | None = None


def view_plane(height: int, width: int, aspect: float, like: Tensor) -> Tensor:
    """[2,height,width] of pixel centres, x then y, on a picture of width / height ``aspect`` of half diagonal 1."""
    diagonal = (1 + aspect**2) ** 0.5
    spans = [(width, aspect / diagonal), (height, 1 / diagonal)]
    x, y = (
        torch.linspace(-span * (n - 1) / n, span * (n - 1) / n, n, dtype=like.dtype, device=like.device)
        for n, span in spans
    )
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


def _norm(kind: str, size: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    return nn.GroupNorm(1 if kind == "layer_norm" else size // 32, size)


class Residual(nn.Module):
    def __init__(self, size: int, inner: int, norms: Sequence[str]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(_norm(norms[0], size), nn.ReLU(), _conv(size, inner)),
            *(_norm(norms[1], inner), nn.ReLU(), _conv(inner, size)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layers(x)
        return y


def _resampler(kind: str, inputs: int, outputs: int) -> nn.Sequential:
    """Twice as many rows and columns."""
    if kind == "conv_transpose":
        return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 2, stride=2), _conv(outputs, outputs))
    if kind == "pixel_shuffle":
        return nn.Sequential(_conv(inputs, 4 * outputs), nn.PixelShuffle(2), _conv(outputs, outputs))
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind), _conv(inputs, outputs))


def _pointwise(inputs: int | None, outputs: int | None) -> nn.Module:
    return nn.Identity() if inputs is None or outputs is None else nn.Conv2d(inputs, outputs, 1)


class Stack(nn.Module):
    """Levels from coarse to fine: each adds its own input to what the one before made, twice as large."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        sizes, norms = settings["sizes"], settings["norms"]
        self.input_blocks = nn.ModuleList(map(_pointwise, settings["inputs"], sizes))
        self.resamplers = nn.ModuleList(map(_resampler, settings["resamplers"], sizes[:-1], sizes[1:]))
        self.res_blocks = nn.ModuleList(
            nn.Sequential(*(Residual(size, settings["widen"] * size, norms) for _ in range(count)))
            for size, count in zip(sizes, settings["blocks"], strict=True)
        )
        self.output_blocks = nn.ModuleList(map(_pointwise, sizes, settings["outputs"]))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        x, outputs = self.input_blocks[0](levels[0]), []
        for number, block in enumerate(self.res_blocks):
            if number:
                x = self.resamplers[number - 1](x) + self.input_blocks[number](levels[number])
            x = block(x)
            outputs.append(self.output_blocks[number](x))
        return outputs


class Encoder(nn.Module):
    def __init__(self, config: MoGeConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.output_projections = nn.ModuleList(
            nn.Conv2d(config.hidden_size, config.encoder_size, 1) for _ in config.out_layers
        )


class MoGeForDepthEstimation(PreTrainedModel):  # type: ignore[misc]
    """Points, mask and scale of single images that were normalised by ImageNet's mean and deviation."""

    config_class = MoGeConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: MoGeConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.neck, self.points_head, self.mask_head = (
            Stack(stack) for stack in (config.neck, config.points_head, config.mask_head)
        )
        layers: list[nn.Module] = []
        for inputs, outputs in zip(config.scale_head, config.scale_head[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.scale_head = nn.Sequential(*layers[:-1])
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> MoGeOutput:
        height, width = pixel_values.shape[2:]
        rows, columns, aspect = height // PATCH, width // PATCH, width / height
        features = self.encoder.backbone(pixel_values)
        grids = [layer.transpose(1, 2).reshape(len(layer), -1, rows, columns) for layer in features.layers]
        projected = [project(x) for project, x in zip(self.encoder.output_projections, grids, strict=True)]
        levels = []
        for level in range(LEVELS):
            plane = view_plane(rows << level, columns << level, aspect, pixel_values)
            levels.append(plane.expand(len(pixel_values), -1, -1, -1))
        levels[0] = torch.cat((torch.stack(projected, dim=1).sum(dim=1), levels[0]), dim=1)
        levels = self.neck(levels)
        points_B3HW, mask_B1HW = (
            interpolate(head(levels)[-1], (height, width), mode="bilinear", align_corners=False).float()
            for head in (self.points_head, self.mask_head)
        )
        points_BHW3 = remapped(points_B3HW.permute(0, 2, 3, 1), self.config.remap)
        return MoGeOutput(
            predicted_depth=points_BHW3[..., 2],
            points=points_BHW3,
            mask=mask_B1HW[:, 0].sigmoid(),
            scale=self.scale_head(features.token)[:, 0].float().exp(),
            patches=features.layers[-1],
        )


def remapped(points_BHW3: Tensor, remap: str) -> Tensor:
    """Points from the network's numbers; ``exp`` means x and y as parts of z, and z's logarithm."""
    if remap == "linear":
        return points_BHW3
    if remap == "sinh":
        return points_BHW3.sinh()
    xy, z = points_BHW3[..., :2], points_BHW3[..., 2:].exp()
    return torch.cat((xy * z if remap == "exp" else xy.sinh(), z), dim=-1)


def register() -> None:
    """Makes transformers know the network; as often as one likes."""
    AutoConfig.register(KIND, MoGeConfig, exist_ok=True)
    AutoModelForDepthEstimation.register(MoGeConfig, MoGeForDepthEstimation, exist_ok=True)
