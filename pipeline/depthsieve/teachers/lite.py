"""The network of the embedded teacher: an EfficientNet-Lite0 encoder and a small decoder up to the image's own size.

The encoder is M. Tan's EfficientNet-Lite0 (TensorFlow's "same" padding, ReLU6, no squeeze and excitation) with its
batch normalisations folded into the convolutions before them. Registered with transformers, so that the teacher loads
as every other one.

Array legend: B batch; C channels; H, W pixels, multiples of 32.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, pixel_shuffle, pixel_unshuffle, relu
from transformers import AutoConfig, AutoModelForDepthEstimation, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import DepthEstimatorOutput

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import Shape
from depthsieve.teachers.depth_anything import official_shape
from depthsieve.teachers.preprocessing import TokenLimit, check_image

KIND = "depthsieve_lite"
"""What ``model_type`` in config.json says."""

PATCH = 32
"""Both sides of the input are multiples of this: the encoder halves them five times."""

SHORT_SIDE = 192
"""Of the image it works on, in pixels."""

MEAN, STD = 127, 128
"""Of the image's values, 0..255."""

BLOCKS = (
    # expansion, kernel, stride, channels
    (1, 3, 1, 16),
    *((6, 3, stride, 24) for stride in (2, 1)),
    *((6, 5, stride, 40) for stride in (2, 1)),
    *((6, 3, stride, 80) for stride in (2, 1, 1)),
    *((6, 5, 1, 112) for _ in range(3)),
    *((6, 5, stride, 192) for stride in (2, 1, 1, 1)),
    (6, 3, 1, 320),
)
STEM = 32
TAPS = (0, 2, 4, 10, 15)
"""The blocks whose outputs the decoder reads: at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's sides."""


class LiteDepthConfig(PretrainedConfig):  # type: ignore[misc]
    """``decoder_sizes``: the decoder's channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's sides."""

    model_type = KIND

    def __init__(self, decoder_sizes: tuple[int, ...] = (16, 32, 48, 64, 96), **settings: Any) -> None:
        self.decoder_sizes = list(decoder_sizes)
        self.patch_size = PATCH
        self.hidden_size = BLOCKS[-1][3]
        settings.pop("patch_size", None)
        settings.pop("hidden_size", None)
        super().__init__(**settings)


@dataclass(frozen=True, slots=True)
class Features:
    """What the encoder made of an image: [B,C,h,w] each, from the finest to the coarsest."""

    feature_maps: tuple[Tensor, ...]


class SamePad(nn.Module):
    """Pads by what TensorFlow adds at stride 2 for sides that are even: a pixel more below and to the right."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.before, self.after = (kernel - 2) // 2, (kernel - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        return pad(x, (self.before, self.after, self.before, self.after))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """With a bias and "same" padding."""
    if stride == 1:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    return nn.Sequential(SamePad(kernel), nn.Conv2d(inputs, outputs, kernel, stride, groups=groups))


class Block(nn.Module):
    """An inverted residual block: expand, filter each channel, project."""

    def __init__(self, inputs: int, expansion: int, kernel: int, stride: int, outputs: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers = [convolution(inputs, inner, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        layers += [convolution(inner, inner, kernel, stride, groups=inner), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, convolution(inner, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class Lite0(nn.Module):
    """The encoder without its classifier."""

    def __init__(self, config: LiteDepthConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Sequential(convolution(3, STEM, 3, 2), nn.ReLU6(inplace=True))
        sizes = [STEM, *(block[3] for block in BLOCKS)]
        self.blocks = nn.ModuleList(Block(size, *block) for size, block in zip(sizes, BLOCKS, strict=False))

    def forward(self, image_BCHW: Tensor) -> Features:
        x, found = self.stem(image_BCHW), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in TAPS:
                found.append(x)
        return Features(tuple(found))


class Refine(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(size, size, 3, padding=1), nn.Conv2d(size, size, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(relu(self.first(relu(x))))
        return x + y


class Decoder(nn.Module):
    """From the coarsest features up: each level adds the encoder's own; the last one also sees the image's pixels."""

    def __init__(self, config: LiteDepthConfig) -> None:
        super().__init__()
        sizes = config.decoder_sizes
        taps = [BLOCKS[tap][3] for tap in TAPS]
        self.laterals = nn.ModuleList(nn.Conv2d(tap, size, 1) for tap, size in zip(taps, sizes, strict=True))
        self.whole = nn.Conv2d(taps[-1], sizes[-1], 1)
        self.place = nn.Conv2d(2, sizes[-1], 1)
        self.refine = nn.ModuleList(
            [nn.Conv2d(sizes[0], sizes[0], 3, padding=1), *(Refine(size) for size in sizes[1:])]
        )
        self.down = nn.ModuleList(nn.Conv2d(sizes[n + 1], sizes[n], 1) for n in range(len(sizes) - 1))
        self.pixels = nn.Conv2d(12, sizes[0], 3, padding=1)
        self.coarse = nn.Conv2d(sizes[1], 1, 3, padding=1)
        self.fine = nn.Conv2d(sizes[0], 4, 3, padding=1)

    def forward(self, image_BCHW: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """Disparity [B,H,W], up to scale and shift."""
        deepest = features[-1]
        x = self.laterals[-1](deepest) + self.whole(deepest.mean((2, 3), keepdim=True)) + self.place(_places(deepest))
        x = self.refine[-1](x)
        for level in range(len(self.down) - 1, 0, -1):
            x = self.refine[level](_twice(self.down[level](x)) + self.laterals[level](features[level]))
        coarse = self.coarse(relu(x))
        x = _twice(self.down[0](x)) + self.laterals[0](features[0]) + self.pixels(pixel_unshuffle(image_BCHW, 2))
        fine = pixel_shuffle(self.fine(relu(self.refine[0](relu(x)))), 2)
        both: Tensor = interpolate(coarse, scale_factor=4, mode="bilinear") + fine
        return both[:, 0]


def _twice(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="bilinear")


def _places(x: Tensor) -> Tensor:
    """Row and column, -1..1, [1,2,h,w]: a network of convolutions knows them near its margins only."""
    rows, columns = (torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in x.shape[2:])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]


class LiteDepthForDepthEstimation(PreTrainedModel):  # type: ignore[misc]
    """Disparity from an image of (x - 127) / 128, sides multiples of 32. In training, values below 0 are kept."""

    config_class = LiteDepthConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"

    def __init__(self, config: LiteDepthConfig) -> None:
        super().__init__(config)
        self.backbone = Lite0(config)
        self.decoder = Decoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, pixel_values: Tensor, **_: Any) -> DepthEstimatorOutput:
        depth_BHW = self.decoder(pixel_values, self.backbone(pixel_values).feature_maps)
        return DepthEstimatorOutput(predicted_depth=depth_BHW if self.training else relu(depth_BHW))


@dataclass(frozen=True)
class LitePreprocessing:
    """The shape of Depth Anything's rule in multiples of 32, pixels averaged where there are more, (x - 127) / 128.

    ``size`` is the short side.
    """

    size: int
    limit: TokenLimit

    @property
    def spec(self) -> Mapping[str, Any]:
        """Plain JSON: everything that decides the model's input and the label shape."""
        return {
            "rule": "depthsieve-lite",
            "size": self.size,
            "multiple": self.limit.patch,
            "interpolation": "cv2 uint8, INTER_AREA to smaller, INTER_CUBIC to larger",
            "mean": MEAN,
            "std": STD,
            **self.limit.spec,
        }

    def label_shape(self, height: int, width: int) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.label_shape`."""
        if height < 1 or width < 1:
            raise ImageRejected(f"{width}x{height} pixels: an empty image")
        shape = official_shape(height, width, (self.size, self.size), self.limit.patch)
        return self.limit.apply((height, width), shape, self.limit.patch)

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """See :meth:`depthsieve.teachers.protocol.Teacher.prepare`."""
        check_image(rgb_HW3)
        smaller = shape[0] <= rgb_HW3.shape[0] and shape[1] <= rgb_HW3.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        resized_HW3 = cv2.resize(rgb_HW3, (shape[1], shape[0]), interpolation=how)
        normal_HW3 = (resized_HW3.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
        return np.ascontiguousarray(normal_HW3.transpose(2, 0, 1))

    def half_shape(self, shape: Shape) -> Shape | None:
        """See :meth:`depthsieve.teachers.protocol.Teacher.half_shape`: multiples of 32, halves rounded up."""
        rows, columns = (math.ceil(side / 2 / self.limit.patch) * self.limit.patch for side in shape)
        return rows, columns


def register() -> None:
    """Makes transformers know the network; as often as one likes."""
    AutoConfig.register(LiteDepthConfig.model_type, LiteDepthConfig, exist_ok=True)
    AutoModelForDepthEstimation.register(LiteDepthConfig, LiteDepthForDepthEstimation, exist_ok=True)
