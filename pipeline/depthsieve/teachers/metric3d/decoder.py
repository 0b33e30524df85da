"""Metric3D v2's decoder: a first guess of depth, confidence and normals by DPT, which is then refined step by step.

The steps are those of RAFT-Stereo (https://arxiv.org/abs/2109.07547) without correlations: gated recurrent convolutions
at 1/14, 1/7 and 1/4 of the image's size. Normals go into every step, and so depth depends on them.

Axes: B batch, N tokens, C channels, h and w rows and columns of a level. Names of modules are those of the published
weights.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from depthsieve.teachers.metric3d.encoder import REGISTERS

NEAREST, FARTHEST = 0.1, 200.0
"""Metres that the canonical camera can see (``depth_normalize`` of the official configurations)."""

BINS = 256
DEPTH_UNIT = 100.0
"""Metres of a unit of the map that is refined; its 0 is at :data:`FARTHEST`."""

STATE = 6
"""Channels of that map: depth, confidence, and x, y, z and concentration of the normal."""

NORMAL_CHANNELS = 128
LEAST_CONCENTRATION = 0.01
FACTOR = 4
"""The finest level is this much smaller than the image."""

NEIGHBOURS = 9


def _conv(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2)


def _resized(x_BChw: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x_BChw, size=like.shape[2:], mode="bilinear", align_corners=True)


class Readout(nn.Module):
    """Each patch, with what the class and register tokens say of the image."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.project_patch = nn.Linear(size, size)
        self.project_learn = nn.Linear((1 + REGISTERS) * size, size, bias=False)

    def forward(self, x_BNC: Tensor) -> Tensor:
        learned, patches = x_BNC[:, : 1 + REGISTERS], x_BNC[:, 1 + REGISTERS :]
        whole = self.project_learn(learned.flatten(1))[:, None]
        return functional.gelu(self.project_patch(patches) + whole)


class Reassemble(nn.Module):
    """Tokens as a map [B,C,h,w], which ``sample`` then brings to its level's channels and size."""

    def __init__(self, size: int, sample: nn.Module) -> None:
        super().__init__()
        self.readoper, self.sample = Readout(size), sample

    def forward(self, x_BNC: Tensor, rows: int, columns: int) -> Tensor:
        y: Tensor = self.sample(self.readoper(x_BNC).transpose(1, 2).unflatten(2, (rows, columns)))
        return y


class Rectified(nn.Module):
    """Adds to what is above 0 of its input; the official one rectifies that in place."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(size, size), _conv(size, size)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        y: Tensor = self.conv2(functional.relu(self.conv1(x)))
        return x + y


class Fusion(nn.Module):
    """Adds a level to what comes from coarser ones, and refines the sum."""

    def __init__(self, inputs: int, outputs: int, *, coarsest: bool = False) -> None:
        super().__init__()
        self.way_trunk = Rectified(inputs)
        if not coarsest:
            self.way_branch = Rectified(inputs)
        self.out_conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, level: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        x = self.way_trunk(x if level is None else x + self.way_branch(level))
        if size is not None:
            x = functional.interpolate(x, size=size, mode="bilinear", align_corners=True)
        y: Tensor = self.out_conv(x)
        return y


class ChannelNorm(nn.LayerNorm):
    """Over the channels of each pixel."""

    def forward(self, x_BChw: Tensor) -> Tensor:
        return super().forward(x_BChw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(inputs, size), _conv(size, size)
        self.norm1, self.norm2, self.norm3 = ChannelNorm(size), ChannelNorm(size), ChannelNorm(size)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, size, 1), self.norm3)  # published under both names

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(self.downsample(x) + y)


def _context(inputs: int, size: int) -> nn.ModuleList:
    """What the hidden state of a level starts from, and what every step is told."""
    return nn.ModuleList(nn.Sequential(Residual(inputs, size), _conv(size, size)) for _ in range(2))


class ConvGRU(nn.Module):
    """A gated recurrent unit whose products are convolutions; ``context`` is added before each gate."""

    def __init__(self, size: int, inputs: int) -> None:
        super().__init__()
        self.convz, self.convr, self.convq = (_conv(size + inputs, size) for _ in range(3))

    def forward(self, hidden: Tensor, context: tuple[Tensor, Tensor, Tensor], *inputs: Tensor) -> Tensor:
        for_update, for_reset, for_candidate = context
        both = torch.cat((hidden, *inputs), dim=1)
        update = torch.sigmoid(self.convz(both) + for_update)
        reset = torch.sigmoid(self.convr(both) + for_reset)
        candidate = torch.tanh(self.convq(torch.cat((reset * hidden, *inputs), dim=1)) + for_candidate)
        return (1 - update) * hidden + update * candidate


class Changes(nn.Module):
    """By how much the map is to change."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1d, self.conv2d = _conv(size, size), _conv(size, 2)
        self.conv1n, self.conv2n = _conv(size, size), _conv(size, STATE - 2)

    def forward(self, x: Tensor) -> Tensor:
        depth, normal = self.conv2d(functional.relu(self.conv1d(x))), self.conv2n(functional.relu(self.conv1n(x)))
        return torch.cat((depth, normal), dim=1)


def _pooled(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=2, padding=1)


class UpdateBlock(nn.Module):
    """A step. Hidden states and contexts are listed from fine to coarse: 1/4, 1/7, 1/14."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gru08, self.gru16, self.gru32 = ConvGRU(size, STATE + size), ConvGRU(size, 2 * size), ConvGRU(size, size)
        self.flow_head = Changes(size)
        self.mask = nn.Sequential(_conv(size, size), nn.ReLU(), nn.Conv2d(size, FACTOR**2 * NEIGHBOURS, 1))

    def forward(self, hidden: list[Tensor], contexts: list[tuple[Tensor, Tensor, Tensor]], state: Tensor) -> Tensor:
        """The changes [B,STATE,h,w]; ``hidden`` is replaced. The coarsest level moves thrice, the next one twice."""
        from_fine = _resized(_pooled(hidden[0]), hidden[1])
        for finest_moved in (2, 1, 0):
            hidden[2] = self.gru32(hidden[2], contexts[2], _pooled(hidden[1]))
            if finest_moved < 2:
                hidden[1] = self.gru16(hidden[1], contexts[1], from_fine, _resized(hidden[2], hidden[1]))
        hidden[0] = self.gru08(hidden[0], contexts[0], state, _resized(hidden[1], hidden[0]))
        changes: Tensor = self.flow_head(hidden[0])
        return changes

    def enlarged(self, map_BChw: Tensor, hidden: Tensor) -> Tensor:
        """``FACTOR`` times as large: each pixel is a mean of the 3x3 around, by weights that ``hidden`` says. Beyond
        the border there are zeros."""
        channels, height, width = map_BChw.shape[1:]
        weights = (0.25 * self.mask(hidden)).unflatten(1, (1, NEIGHBOURS, FACTOR, FACTOR)).softmax(dim=2)
        around = functional.unfold(map_BChw, 3, padding=1).reshape(-1, channels, NEIGHBOURS, 1, 1, height, width)
        means: Tensor = (weights * around).sum(dim=2).permute(0, 1, 4, 2, 5, 3)
        return means.reshape(-1, channels, FACTOR * height, FACTOR * width)


class Levels(nn.Module):
    """The encoder's four inputs as maps, the finest first: 1/4, 1/7, 1/14 and 1/14 of the image's size."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, (quarter, seventh) = config.hidden_size, config.features
        self.read_3, self.read_2 = Reassemble(size, nn.Identity()), Reassemble(size, nn.Identity())
        self.read_1 = Reassemble(size, nn.ConvTranspose2d(size, seventh, 2, stride=2))
        self.read_0 = Reassemble(size, nn.Sequential(nn.Conv2d(size, quarter, 1)))

    def forward(self, layers: list[Tensor], rows: int, columns: int) -> list[Tensor]:
        readers = (self.read_0, self.read_1, self.read_2, self.read_3)
        maps = [read(layer, rows, columns) for read, layer in zip(readers, layers, strict=True)]
        # the official code enlarges before its convolution of one pixel, which comes to the same
        maps[0] = functional.interpolate(maps[0], size=(7 * rows // 2, 7 * columns // 2), mode="nearest")
        return maps


class Trunk(nn.Module):
    """From the coarsest level to the finest: [B,C + 2,h,w] at 1/4 of the image's size."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, (quarter, seventh) = config.hidden_size, config.features
        self.upconv_3 = Fusion(size, size, coarsest=True)
        self.upconv_2, self.upconv_1 = Fusion(size, seventh), Fusion(seventh, quarter + 2)

    def forward(self, maps: list[Tensor]) -> Tensor:
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        x = self.upconv_2(self.upconv_3(maps[3]), maps[2], sizes[1])
        y: Tensor = self.upconv_1(x, maps[1], sizes[0])
        return y


class ContextEncoder(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        size, (quarter, seventh) = config.recurrent_size, config.features
        self.outputs04, self.outputs08 = _context(quarter, size), _context(seventh, size)
        self.outputs16 = _context(config.hidden_size, size)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Hidden states and contexts of the three levels."""
        heads = (self.outputs04, self.outputs08, self.outputs16)
        hidden = [head[0](x).tanh() for head, x in zip(heads, maps, strict=True)]
        return hidden, [head[1](x).relu() for head, x in zip(heads, maps, strict=True)]


class Decoder(nn.Module):
    """Depth and confidence. ``config`` is a :class:`~depthsieve.teachers.metric3d.network.Metric3DConfig`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        quarter, size = config.features[0], config.recurrent_size
        self.config = config
        self.token2feature, self.decoder_mono = Levels(config), Trunk(config)
        self.depth_regressor = nn.Sequential(_conv(quarter, BINS), nn.ReLU(), nn.Conv2d(BINS, BINS, 1))
        normal: list[nn.Module] = [_conv(quarter, NORMAL_CHANNELS), nn.ReLU()]
        for outputs in (NORMAL_CHANNELS, NORMAL_CHANNELS, 3):
            normal += [nn.Conv2d(NORMAL_CHANNELS, outputs, 1), nn.ReLU()]
        self.normal_predictor = nn.Sequential(*normal[:-1])
        self.context_feature_encoder = ContextEncoder(config)
        self.context_zqr_convs = nn.ModuleList(_conv(size, 3 * size) for _ in range(3))
        self.update_block = UpdateBlock(size)

    def forward(self, layers: list[Tensor], rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Metres of the canonical camera and confidence, [B,H,W] each, from tokens [B,N,C] of ``rows * columns``
        patches, both even."""
        maps = self.token2feature(layers, rows, columns)
        state = self._first_guess(self.decoder_mono(maps))
        # The official decoder has rectified the two coarser levels in place by now.
        hidden, contexts = self.context_feature_encoder([maps[0], maps[1].relu(), maps[2].relu()])
        gates = [conv(x).chunk(3, dim=1) for conv, x in zip(self.context_zqr_convs, contexts, strict=True)]
        for _ in range(self.config.iterations):
            state = state + self.update_block(hidden, gates, state)
        depth_BHW, confidence_BHW = self.update_block.enlarged(state[:, :2], hidden[0]).unbind(dim=1)
        return (depth_BHW * DEPTH_UNIT + FARTHEST).clamp(NEAREST, FARTHEST), confidence_BHW

    def _first_guess(self, features: Tensor) -> Tensor:
        """[B,STATE,h,w]. Depth is the mean of bins that are spread evenly over its logarithm."""
        shared, confidence, concentration = features[:, :-2], features[:, -2:-1], features[:, -1:]
        bins = torch.linspace(math.log(NEAREST), math.log(FARTHEST), BINS, device=features.device).exp()
        metres = (self.depth_regressor(shared).softmax(dim=1) * bins[:, None, None]).sum(dim=1, keepdim=True)
        depth = (metres.clamp(NEAREST, FARTHEST) - FARTHEST) / DEPTH_UNIT
        normal = self.normal_predictor(shared)
        normal = normal / (normal.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
        concentration = functional.elu(concentration) + 1 + LEAST_CONCENTRATION
        return torch.cat((depth, confidence, normal, concentration), dim=1)
