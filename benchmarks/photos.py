"""What the benchmarks label: photos, repeated under other names, or rendered scenes; and large teachers."""

import shutil
from pathlib import Path

from depthsieve.teachers import presets

VARIANTS = {
    # hidden size, layers, heads, layers that are read, neck, fusion
    "vit-s": (384, 12, 6, (3, 6, 9, 12), (48, 96, 192, 384), 64),
    "vit-b": (768, 12, 12, (3, 6, 9, 12), (96, 192, 384, 768), 128),
    "vit-l": (1024, 24, 16, (5, 12, 18, 24), (256, 512, 1024, 1024), 256),
}
"""Depth Anything V2's sizes (its repository, ``depth_anything_v2/dpt.py``)."""


def gather(source: Path | None, target: Path, count: int) -> Path:
    """``count`` photos: those given, repeated under other names, or rendered scenes of 2 megapixels as JPEG."""
    target.mkdir()
    if source is None:
        source = _render(target.parent / "rendered", min(count, 16))
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for number in range(count):
        original = files[number % len(files)]
        shutil.copy(original, target / f"{number:05d}{original.suffix}")
    return target


def _render(folder: Path, count: int) -> Path:
    from PIL import Image

    from depthsieve.scenes import render_scene

    folder.mkdir()
    for seed in range(count):
        image = Image.fromarray(render_scene(seed, 600, 850).rgb_HW3).resize((1700, 1200), Image.Resampling.BICUBIC)
        image.save(folder / f"{seed:05d}.jpg", quality=92)
    return folder


def find_teacher(name: str, folder: Path) -> str:
    """What to ask for: the folder of an embedded teacher, another folder, or one of :data:`VARIANTS` made in
    ``folder``."""
    if name in presets.FOLDERS:
        return str(Path(presets.__file__).parent / presets.FOLDERS[name])
    if name in VARIANTS:
        _make(name, folder / name)
        return str(folder / name)
    return name


def _make(name: str, folder: Path) -> None:
    """Depth Anything V2's architecture with random weights: speed does not depend on their values."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

    hidden, layers, heads, stages, neck, fusion = VARIANTS[name]
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=518,
        patch_size=14,
        out_features=[f"stage{stage}" for stage in stages],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=hidden,
        neck_hidden_sizes=list(neck),
        fusion_hidden_size=fusion,
        head_hidden_size=32,
    )
    model = DepthAnythingForDepthEstimation(config)
    torch.nn.init.constant_(model.head.conv3.bias, 1.0)
    model.save_pretrained(folder)
    size = {"height": 518, "width": 518}
    DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
