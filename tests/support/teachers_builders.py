"""Small random checkpoints of the real model classes, for the tests of the teachers. Holds no test of its own."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from depthsieve.core.errors import DepthsieveError
from depthsieve.teachers import Batch, load_teacher

PATCH = 14
SIDE = 70  # pixels of the grid that the small Depth Anything was "trained" on: 5 x 5 patches


def depth_anything_config(**changes: Any) -> Any:
    """A Depth Anything of four narrow layers with the structure of the published ones."""
    backbone = transformers.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    settings: dict[str, Any] = {
        "backbone_config": backbone,
        "reassemble_hidden_size": 32,
        "neck_hidden_sizes": [8, 16, 16, 16],
        "fusion_hidden_size": 16,
        "head_hidden_size": 8,
        "patch_size": PATCH,
    }
    return transformers.DepthAnythingConfig(**(settings | changes))


def beit_config() -> Any:
    return transformers.BeitConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
        patch_size=16,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        use_relative_position_bias=True,
    )


def dpt_config(**changes: Any) -> Any:
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 64,
        "patch_size": 16,
        "backbone_out_indices": [0, 1, 2, 3],
        "neck_hidden_sizes": [8, 8, 16, 16],
        "fusion_hidden_size": 16,
        "is_hybrid": False,
    }
    return transformers.DPTConfig(**(settings | changes))


def dpt_dinov2_config() -> Any:
    """DPT on DINOv2, whose configuration does not say whether it predicts depth or disparity."""
    return dpt_config(backbone_config=depth_anything_config().backbone_config, backbone_out_indices=None)


def glpn_config() -> Any:
    return transformers.GLPNConfig(
        hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16
    )


def zoedepth_config(heads: int = 2) -> Any:
    bins = [
        {"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"},
        {"n_bins": 8, "min_depth": 0.001, "max_depth": 80.0, "name": "kitti"},
    ]
    return transformers.ZoeDepthConfig(
        backbone_config=beit_config(),
        backbone_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        bottleneck_features=16,
        num_relative_features=8,
        bin_embedding_dim=16,
        num_attractors=[4, 4, 2, 2],
        patch_transformer_hidden_size=128,
        patch_transformer_intermediate_size=32,
        patch_transformer_num_attention_heads=2,
        num_patch_transformer_layers=4,
        bin_configurations=bins[:heads],
    )


def depth_pro_config() -> Any:
    backbone = {
        "model_type": "dinov2", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 1, "patch_size": 4,
    }  # fmt: skip
    return transformers.DepthProConfig(
        patch_size=32,
        fusion_hidden_size=16,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[10, 8],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.2],
        scaled_images_feature_dims=[12, 12],
        merge_padding_value=1,
        use_fov_model=True,
        num_fov_head_layers=1,
        image_model_config=dict(backbone),
        patch_model_config=dict(backbone),
        fov_model_config=dict(backbone),
    )


def tipsv2_config() -> Any:
    """Raises :class:`KeyError` where transformers does not know the class yet."""
    backbone = transformers.CONFIG_MAPPING["tipsv2_vision_model"](
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=56, out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )  # fmt: skip
    return transformers.CONFIG_MAPPING["tipsv2_dpt"](
        backbone_config=backbone, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16, num_depth_bins=8
    )


def save(folder: Path, config: Any, processor: dict[str, Any] | None, seed: int = 0, **save_options: Any) -> Path:
    """A checkpoint of ``config``'s depth model with weights that give outputs of order one, not of 1e-7."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForDepthEstimation.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed" not in name and "token" not in name:
                weight.normal_(std=1 / math.sqrt(weight[0].numel()))
            elif "position_embeddings" in name:
                weight.normal_(std=0.5)
        if config.model_type == "depth_anything":
            model.head.conv3.bias.fill_(1.0)
        elif config.model_type == "dpt":
            model.head.head[-2].bias.fill_(1.0)
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    model.save_pretrained(folder, **save_options)
    transformers.utils.logging.set_verbosity(verbosity)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def depth_of(teacher: Any, image_BCHW: torch.Tensor) -> torch.Tensor:
    """What a teacher predicts for images, and nothing else that it says of them."""
    depth_BHW: torch.Tensor = teacher.predict(Batch.of(image_BCHW)).depth
    return depth_BHW


def refusal(name: object, kind: type[DepthsieveError], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        load_teacher(str(name), **options)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


DEPTH_ANYTHING_PROCESSOR = {
    "image_processor_type": "DPTImageProcessor",
    "size": {"height": SIDE, "width": SIDE},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": PATCH,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
DPT_SQUARE_PROCESSOR = {
    "image_processor_type": "DPTImageProcessor",
    "size": {"height": 64, "width": 64},
    "keep_aspect_ratio": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
DPT_DINOV2_PROCESSOR = DPT_SQUARE_PROCESSOR | {"size": {"height": SIDE, "width": SIDE}}
DPT_ASPECT_PROCESSOR = DPT_SQUARE_PROCESSOR | {"keep_aspect_ratio": True, "ensure_multiple_of": 32}
GLPN_PROCESSOR = {"image_processor_type": "GLPNImageProcessor", "do_resize": True, "size_divisor": 32}
ZOEDEPTH_PROCESSOR = {
    "image_processor_type": "ZoeDepthImageProcessor",
    "do_pad": True,
    "size": {"height": 96, "width": 128},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 32,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
DEPTH_PRO_PROCESSOR = {
    "image_processor_type": "DepthProImageProcessor",
    "size": {"height": 64, "width": 64},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
TIPSV2_PROCESSOR = {"image_processor_type": "Tipsv2DptImageProcessor", "size": {"height": 56, "width": 56}}
