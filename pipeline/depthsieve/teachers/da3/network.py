"""Depth Anything 3 as a model of transformers, so that it loads as every other teacher does.

Written from the architecture of https://github.com/ByteDance-Seed/Depth-Anything-3 (``model/da3.py``, ``model/dinov2``,
``model/dpt.py``, ``model/dualdpt.py``, ``model/cam_dec.py``), for one view. Module names are those of the published
weights, so nothing is renamed while they load.

Axes: B batch, P patches by rows, C channels, H and W pixels, multiples of the patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForDepthEstimation, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from depthsieve.teachers.da3.backbone import Backbone
from depthsieve.teachers.da3.head import CameraHead, DepthHead

KIND = "depthsieve_da3"
"""What ``model_type`` is; the published config.json has none."""


class DepthAnything3Config(PretrainedConfig):  # type: ignore[misc]
    """The shape of the network; the defaults are DA3-SMALL's.

    ``any_view``: of the main series, which predicts confidence and the camera, and normalises from layer
    ``alternate_from`` on; others predict the sky. ``metric``: whether depth times focal length is metres (None: not
    known). ``gated``: SwiGLU in place of an MLP.
    """

    model_type = KIND
    norm_eps = 1e-5
    """Of the backbone's last normalisation."""

    def __init__(
        self,
        any_view: bool = True,
        metric: bool | None = False,
        hidden_size: int = 384,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 6,
        gated: bool = False,
        alternate_from: int = 4,
        out_layers: Sequence[int] = (5, 7, 9, 11),
        features: int = 64,
        out_channels: Sequence[int] = (48, 96, 192, 384),
        image_size: int = 518,
        patch_size: int = 14,
        **settings: Any,
    ) -> None:
        self.any_view, self.metric = any_view, metric
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads, self.gated = num_attention_heads, gated
        self.alternate_from, self.out_layers = alternate_from, list(out_layers)
        self.features, self.out_channels = features, list(out_channels)
        self.image_size, self.patch_size = image_size, patch_size
        super().__init__(**settings)


@dataclass
class DepthAnything3Output(ModelOutput):  # type: ignore[misc]
    """``predicted_depth`` [B,H,W] over 0, up to scale; ``confidence`` [B,H,W] of 1 or more, higher is better, and
    ``field_of_view`` [B,2] in radians, vertical and horizontal, of any-view models; ``sky`` [B,H,W] of 0 or more, of
    the others; ``patches`` [B,P,C], the last features, normalised."""

    predicted_depth: Tensor | None = None
    confidence: Tensor | None = None
    sky: Tensor | None = None
    field_of_view: Tensor | None = None
    patches: Tensor | None = None


class Network(nn.Module):
    def __init__(self, config: DepthAnything3Config) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"pretrained": Backbone(config)})
        self.head = DepthHead(config)
        if config.any_view:
            self.cam_dec = CameraHead(config)


class DepthAnything3ForDepthEstimation(PreTrainedModel):  # type: ignore[misc]
    """Depth of single images that were normalised by ImageNet's mean and deviation.

    The heads compute in float32 whatever the backbone does, as in the official code: depth is an exponential.
    """

    config_class = DepthAnything3Config
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = ("head", "cam_dec")

    def __init__(self, config: DepthAnything3Config) -> None:
        super().__init__(config)
        self.model = Network(config)
        self.post_init()

    def forward(self, pixel_values: Tensor, **_: Any) -> DepthAnything3Output:
        features = self.model.backbone["pretrained"](pixel_values)
        height, width = pixel_values.shape[2:]
        logits_B2HW = self.model.head(tuple(layer.float() for layer in features.layers), height, width)
        output = DepthAnything3Output(
            predicted_depth=logits_B2HW[:, 0].exp(), patches=features.layers[-1][..., -self.config.hidden_size :]
        )
        if self.config.any_view:
            output["confidence"] = logits_B2HW[:, 1].exp() + 1
            output["field_of_view"] = self.model.cam_dec(features.token.float())
        else:
            output["sky"] = logits_B2HW[:, 1].relu()
        return output


def register() -> None:
    """Makes transformers know the network; as often as one likes."""
    AutoConfig.register(KIND, DepthAnything3Config, exist_ok=True)
    AutoModelForDepthEstimation.register(DepthAnything3Config, DepthAnything3ForDepthEstimation, exist_ok=True)
