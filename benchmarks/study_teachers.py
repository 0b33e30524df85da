"""Trains small teachers for `study_networks.py`, with transformers' own classes, in a few minutes each on one core.

    python tools/train_tiny.py render --scenes runs/scenes --shards 0:24
    python benchmarks/study_teachers.py --scenes runs/scenes --out runs/study/teachers     # skips what is there

Each is a folder that `--teacher FOLDER` loads. They differ in class, size, input and scenes, and one has learnt next to
nothing, on purpose. The same seed and machine make the same weights. None of them is good for labelling anything.

Array legend: B batch; C channels; H, W pixels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "tools"))
import train_tiny_v1
from train_tiny import SceneBatches, aligned_loss, normalised, rate_at, training_loss

import depthsieve.teachers

BATCH = 12
SEED = 18
MAX_DEPTH = 80.0
FARTHEST = 20
"""Metres that the metric teacher can say."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Recipe:
    """``shards``: which of the rendered ones, by their number modulo 3: `home` scenes are 0, wild ones 1 and 2."""

    build: Callable[[], nn.Module]
    processor: dict[str, Any]
    shape: tuple[int, int]
    colours: tuple[tuple[float, ...], tuple[float, ...]]
    shards: tuple[int, ...]
    steps: int
    rate: float
    metric: bool = False


def depth_anything(layers: int, start: bool) -> nn.Module:
    """Of `tiny-v1`'s class; ``start``: from its weights, of which four layers stay, else from random ones."""
    model = train_tiny_v1.build_model(layers)
    if start:
        train_tiny_v1.start_from(model, Path(depthsieve.teachers.__path__[0]) / "tiny-v1")
    return model


def narrow_depth_anything() -> nn.Module:
    """A third of the width of `tiny-v1`, four layers."""
    backbone = transformers.Dinov2Config(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        patch_size=14,
        image_size=126,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=64,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=[16, 24, 32, 48],
        fusion_hidden_size=24,
        head_hidden_size=16,
    )
    model = transformers.DepthAnythingForDepthEstimation(config)
    nn.init.constant_(model.head.conv3.bias, 0.4)
    model.head.activation2 = nn.Identity()
    return model


def dpt() -> nn.Module:
    """DPT on a plain ViT, of square inputs as the published ones."""
    config = transformers.DPTConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        image_size=128,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[24, 32, 64, 96],
        fusion_hidden_size=32,
        is_hybrid=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.DPTForDepthEstimation(config)
    nn.init.constant_(model.head.head[-2].bias, 0.4)
    model.head.head[-1] = nn.Identity()
    return model


def glpn() -> nn.Module:
    """GLPN, whose encoder is SegFormer's: it says metres."""
    config = transformers.GLPNConfig(
        hidden_sizes=[24, 48, 96, 128],
        depths=[1, 1, 2, 1],
        num_attention_heads=[1, 2, 3, 4],
        mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=48,
        max_depth=FARTHEST,
    )
    return transformers.GLPNForDepthEstimation(config)


def dpt_processor(height: int, width: int, colours: tuple[tuple[float, ...], ...], **more: Any) -> dict[str, Any]:
    return {
        "image_processor_type": "DPTImageProcessor",
        "size": {"height": height, "width": width},
        "image_mean": colours[0],
        "image_std": colours[1],
        "resample": 3,
        "do_pad": False,
        **more,
    }


AS_TINY_V1 = dpt_processor(126, 126, IMAGENET, keep_aspect_ratio=True, ensure_multiple_of=14)
RECIPES = {
    "untrained": Recipe(narrow_depth_anything, AS_TINY_V1, (126, 168), IMAGENET, (0,), 60, 2e-3),
    "da-4": Recipe(lambda: depth_anything(4, True), AS_TINY_V1, (126, 168), IMAGENET, (1, 2), 350, 6e-4),
    "dpt": Recipe(dpt, dpt_processor(128, 128, HALVES), (128, 128), HALVES, (0, 1, 2), 900, 2e-3),
    "glpn": Recipe(
        glpn,
        {"image_processor_type": "GLPNImageProcessor", "size_divisor": 32, "do_rescale": True},
        (128, 160),
        PLAIN,
        (0,),
        250,
        1.5e-3,
        metric=True,
    ),
}


class ChosenShards(SceneBatches):
    """Batches of one size, from some of the shards."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        super().__init__(folder, 0, BATCH, 1.0, SEED)
        self.recipe = recipe

    def _shards(self) -> list[Any]:
        names = [path.name.removesuffix("_disparity.npy") for path in sorted(self.folder.glob("*_disparity.npy"))]
        names = [name for name in names if int(name) % 3 in self.recipe.shards]
        if not names:
            raise SystemExit(f"{self.folder} has no shards for this teacher: render some with tools/train_tiny.py")
        return [
            tuple(np.load(self.folder / f"{n}_{kind}.npy", mmap_mode="r") for kind in ("rgb", "disparity"))
            for n in names
        ]

    def batch_of_step(self, step: int) -> tuple[Tensor, Tensor]:
        """uint8 RGB [B,H,W,3] and float32 disparity [B,H,W]; the same whenever it is asked for."""
        dice = np.random.default_rng((SEED, step))
        if step % 100 == 0 or not hasattr(self, "held"):
            self.held = self._shards()
        rows = [self._draw(dice, self.held, *self.recipe.shape) for _ in range(self.batch)]
        return tuple(torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))  # type: ignore[return-value]


def metric_loss(metres_BHW: Tensor, disparity_BHW: Tensor) -> Tensor:
    """The scale-invariant logarithmic loss of GLPN, and some L1 on the logarithm, up to `FARTHEST`."""
    known_BHW = disparity_BHW >= 1 / FARTHEST
    log_BHW = torch.where(known_BHW, metres_BHW.clamp_min(1e-3).log() + disparity_BHW.clamp_min(1e-3).log(), 0.0)
    count_B = known_BHW.sum((1, 2)).clamp_min(1)
    mean_B, square_B = log_BHW.sum((1, 2)) / count_B, (log_BHW**2).sum((1, 2)) / count_B
    return ((square_B - 0.5 * mean_B**2).clamp_min(1e-8).sqrt() + 0.3 * log_BHW.abs().sum((1, 2)) / count_B).mean()


def train(name: str, recipe: Recipe, scenes: Path, folder: Path) -> None:
    """Train one teacher, and write it whole."""
    torch.manual_seed(SEED)
    model = recipe.build().to(memory_format=torch.channels_last).train()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    batches = ChosenShards(scenes, recipe)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in recipe.colours)
    began, shown = time.process_time(), []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * rate_at(step / recipe.steps, step)
        rgb_BHW3, disparity_BHW = batches.batch_of_step(step)
        image_BCHW = ((rgb_BHW3.permute(0, 3, 1, 2).float() / 255 - mean) / std).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction_BHW = model(pixel_values=image_BCHW).predicted_depth
        prediction_BHW = prediction_BHW.float()
        if recipe.metric:
            loss = metric_loss(prediction_BHW, disparity_BHW)
        else:
            target_BHW = normalised(disparity_BHW)
            loss = training_loss(prediction_BHW, target_BHW)
            loss = loss + 2 * aligned_loss(prediction_BHW, target_BHW, disparity_BHW >= 1 / MAX_DEPTH)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shown.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == recipe.steps:
            print(
                f"{name}: step {step + 1}, {time.process_time() - began:.0f} s, loss {np.mean(shown[-50:]):.4f}",
                flush=True,
            )
    save(model, recipe, folder)


def save(model: nn.Module, recipe: Recipe, folder: Path) -> None:
    """As a folder that `--teacher` takes; the last ReLU, which hinders training, is the class's own again."""
    scratch = folder.with_name(f".{folder.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    model.to(memory_format=torch.contiguous_format).save_pretrained(scratch)
    (scratch / "preprocessor_config.json").write_text(json.dumps(recipe.processor, indent=1) + "\n")
    scratch.replace(folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path, required=True, help="shards that tools/train_tiny.py rendered")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(RECIPES), choices=RECIPES)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.only:
        if not (chosen.out / name).exists():
            train(name, RECIPES[name], chosen.scenes, chosen.out / name)


if __name__ == "__main__":
    main()
