"""Metric3D v2 as a model of transformers, so that it loads as every other teacher does.

Written from the architecture of https://github.com/YvanYin/Metric3D (``mono/model/backbones/ViT_DINO_reg.py``,
``mono/model/decode_heads/RAFTDepthNormalDPTDecoder5.py``, ``mono/configs/HourglassDecoder/vit.raft5.*.py``). Module
names are those of the published weights, so nothing is renamed while they load.

Axes: B batch, N tokens, C channels, H and W pixels, multiples of 28.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForDepthEstimation, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from depthsieve.teachers.metric3d.decoder import Decoder
from depthsieve.teachers.metric3d.encoder import REGISTERS, Encoder
from depthsieve.teachers.metric3d.published import CANVAS, KIND, PATCH


class Metric3DConfig(PretrainedConfig):  # type: ignore[misc]
    """The shape of the network; the defaults are those of the small one.

    ``gated``: SwiGLU in place of an MLP. ``every_quarter``: the decoder takes four layers of the encoder, not the last
    one alone. ``features``: channels at 1/4 and 1/7 of the image's size; ``recurrent_size`` those of the recurrent
    units, which take ``iterations`` steps. ``canvas``: height and width that images are padded to.
    """

    model_type = KIND
    patch_size = PATCH

    def __init__(
        self,
        hidden_size: int = 384,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 6,
        gated: bool = False,
        every_quarter: bool = False,
        features: Sequence[int] = (96, 192),
        recurrent_size: int = 48,
        iterations: int = 4,
        image_size: int = 518,
        canvas: Sequence[int] = CANVAS,
        **settings: Any,
    ) -> None:
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads, self.gated, self.every_quarter = num_attention_heads, gated, every_quarter
        self.features, self.recurrent_size, self.iterations = list(features), recurrent_size, iterations
        self.image_size, self.canvas = image_size, list(canvas)
        super().__init__(**settings)


@dataclass
class Metric3DOutput(ModelOutput):  # type: ignore[misc]
    """``predicted_depth`` [B,H,W] in metres for a camera with a focal length of 1,000 pixels; ``confidence`` [B,H,W],
    trained as 1 - abs(error) / truth, also below 0; ``patches`` [B,P,C], the last features, normalised."""

    predicted_depth: Tensor | None = None
    confidence: Tensor | None = None
    patches: Tensor | None = None


class Network(nn.Module):
    def __init__(self, config: Metric3DConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)


class Metric3DForDepthEstimation(PreTrainedModel):  # type: ignore[misc]
    """Depth of single images that were normalised by ImageNet's mean and deviation.

    The decoder computes in float32 whatever the encoder does: float16 steps are 0.1 m at its 200 m.
    """

    config_class = Metric3DConfig
    base_model_prefix = "depth_model"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = ("decoder",)

    def __init__(self, config: Metric3DConfig) -> None:
        super().__init__(config)
        self.depth_model = Network(config)
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> Metric3DOutput:
        layers, last = self.depth_model.encoder(pixel_values)
        rows, columns = (side // PATCH for side in pixel_values.shape[2:])
        depth, confidence = self.depth_model.decoder([layer.float() for layer in layers], rows, columns)
        return Metric3DOutput(predicted_depth=depth, confidence=confidence, patches=last[:, 1 + REGISTERS :])


def register() -> None:
    """Makes transformers know the network; as often as one likes."""
    AutoConfig.register(KIND, Metric3DConfig, exist_ok=True)
    AutoModelForDepthEstimation.register(Metric3DConfig, Metric3DForDepthEstimation, exist_ok=True)
