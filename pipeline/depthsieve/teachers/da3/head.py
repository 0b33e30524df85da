"""Depth Anything 3's heads: DPT from four layers of patches to a map of the image's size, and the field of view.

Axes: B batch, P patches by rows, C channels, h and w rows and columns of a map. Names of modules are those of the
published weights; rays, poses and Gaussians, which those hold too, are not computed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

INNER = 32
"""Channels before the last convolution."""

PLACE_BASE = 100.0
PLACE_GAIN = 0.1


def add_places(x_BChw: Tensor, aspect: float) -> Tensor:
    """Adds sines and cosines of each pixel's column to the first half of the channels, and of its row to the second.

    Columns and rows are those of pixel centres, on a picture of width / height ``aspect`` whose half diagonal is 1.
    """
    channels, height, width = x_BChw.shape[1:]
    diagonal = (aspect**2 + 1) ** 0.5
    across = _waves(width, aspect / diagonal, channels // 2, x_BChw)
    down = _waves(height, 1 / diagonal, channels // 2, x_BChw)
    return torch.cat(
        (x_BChw[:, : channels // 2] + across[:, None], x_BChw[:, channels // 2 :] + down[:, :, None]), dim=1
    )


def _waves(count: int, span: float, channels: int, like: Tensor) -> Tensor:
    """[channels, count] for ``count`` pixel centres that share the range from -span to span."""
    last = span * (count - 1) / count
    centres = torch.linspace(-last, last, count, device=like.device)
    exponents = torch.arange(channels // 2, device=like.device).float() / (channels / 2)
    angles = (1 / PLACE_BASE**exponents)[:, None] * centres
    return (PLACE_GAIN * torch.cat((angles.sin(), angles.cos()))).to(like.dtype)


def _resized(x_BChw: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(x_BChw, size=size, mode="bilinear", align_corners=True)


class Residual(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(size, size, 3, padding=1), nn.Conv2d(size, size, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(relu(self.conv1(relu(x))))
        return x + y


class Fusion(nn.Module):
    """Adds a finer level to what is there, refines the sum, and enlarges it."""

    def __init__(self, size: int, *, coarsest: bool = False) -> None:
        super().__init__()
        if not coarsest:
            self.resConfUnit1 = Residual(size)
        self.resConfUnit2 = Residual(size)
        self.out_conv = nn.Conv2d(size, size, 1)

    def forward(self, level: Tensor, coarser: Tensor | None, size: tuple[int, int]) -> Tensor:
        x = level if coarser is None else coarser + self.resConfUnit1(level)
        y: Tensor = self.out_conv(_resized(self.resConfUnit2(x), size))
        return y


def _output(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, INNER, 3, padding=1), nn.ReLU(), nn.Conv2d(INNER, outputs, 1))


class Scratch(nn.Module):
    """The four levels' adapters, their fusion, and the outputs."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.features
        for number, channels in enumerate(config.out_channels, start=1):
            self.add_module(f"layer{number}_rn", nn.Conv2d(channels, size, 3, padding=1, bias=False))
            self.add_module(f"refinenet{number}", Fusion(size, coarsest=number == 4))
        self.output_conv1 = nn.Conv2d(size, size // 2, 3, padding=1)
        self.output_conv2 = _output(size // 2, 2 if config.any_view else 1)
        if not config.any_view:
            self.sky_output_conv2 = _output(size // 2, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[B,C,h,w] of twice the finest map's size."""
        levels = [self.get_submodule(f"layer{number}_rn")(level) for number, level in enumerate(maps, start=1)]
        sizes = [(2 * levels[0].shape[2], 2 * levels[0].shape[3]), *((x.shape[2], x.shape[3]) for x in levels)]
        x = None
        for number in (4, 3, 2, 1):
            x = self.get_submodule(f"refinenet{number}")(levels[number - 1], x, sizes[number - 1])
        y: Tensor = self.output_conv1(x)
        return y


class DepthHead(nn.Module):
    """From four layers of patches to logits at the image's size: depth, and either confidence or sky.

    ``config`` is a :class:`~depthsieve.teachers.da3.network.DepthAnything3Config`. Any-view models normalise the
    patches, and add each pixel's place before the levels are resized and once more at full size.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        inputs = config.hidden_size * (2 if config.any_view else 1)
        first, second, _, fourth = config.out_channels
        self.config = config
        self.norm = nn.LayerNorm(inputs) if config.any_view else nn.Identity()
        self.projects = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for channels in config.out_channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(config)

    def forward(self, layers: tuple[Tensor, ...], height: int, width: int) -> Tensor:
        """Logits [B,2,height,width]: depth, then confidence of any-view models and sky of others."""
        placed, patch = self.config.any_view, self.config.patch_size
        maps = []
        for patches_BPC, project, resize in zip(layers, self.projects, self.resize_layers, strict=True):
            x = self.norm(patches_BPC).transpose(1, 2).unflatten(2, (height // patch, width // patch))
            x = project(x)
            maps.append(resize(add_places(x, width / height) if placed else x))
        x = _resized(self.scratch(maps), (height, width))
        if placed:
            logits: Tensor = self.scratch.output_conv2(add_places(x, width / height))
            return logits
        return torch.cat((self.scratch.output_conv2(x), self.scratch.sky_output_conv2(x)), dim=1)


class CameraHead(nn.Module):
    """From the camera token to the field of view; the pose, which one view cannot have, is not computed."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = 2 * config.hidden_size
        self.backbone = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU())
        self.fc_fov = nn.Sequential(nn.Linear(size, 2), nn.ReLU())

    def forward(self, camera_BC: Tensor) -> Tensor:
        """Radians [B,2]: vertical, horizontal."""
        fov_B2: Tensor = self.fc_fov(self.backbone(camera_BC))
        return fov_B2
