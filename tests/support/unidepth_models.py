"""Folders such as UniDepth's authors publish. Holds no test of its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def config(**model: Any) -> dict[str, Any]:
    """A config.json with what is read of it here, and what their package builds a ViT-S of."""
    encoder = {"name": "dinov2_vits14", "pretrained": "weights.pth", "stacking_fn": "last", "output_idx": [3, 6, 9, 12]}
    encoder |= {"use_norm": True, "num_register_tokens": 0, "lr": 2e-6}
    decoder = {"name": "Decoder", "hidden_dim": 64, "dropout": 0.0, "depths": [1, 1, 1], "out_dim": 8, "kernel_size": 3}
    limits = {"ratio_bounds": [0.5, 2.5], "pixels_max": 600000, "pixels_min": 200000, "shape_mult": 14}
    sizes = {"num_heads": 4, "expansion": 2, "layer_scale": 1.0}
    return {
        "training": {"losses": {"depth": {"name": "SILog"}}, "drop_path": 0.0, "use_checkpoint": False},
        "data": {"augmentations": {"shape_constraints": limits}},
        "model": {"name": "UniDepthV2", "pixel_encoder": encoder, "pixel_decoder": decoder, **sizes, **model},
    }


def save(folder: Path, body: dict[str, Any]) -> Path:
    """A folder with this config.json and weights of no model."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(body))
    save_file({"weight": np.zeros(1, np.float32)}, folder / "model.safetensors")
    return folder
