"""Writes what the official MoGe-2 makes of the model and scenes in ``moge_models.py``: ``moge_expected.npz``.

    python tests/support/moge_official.py CHECKOUT

CHECKOUT is https://github.com/microsoft/MoGe (its v2.py). It needs scipy; utils3d, which the parts used here do not
touch, is stood in for.
"""

import sys
import types
from typing import Any

import da3_models
import moge_models as models
import numpy as np
import torch


def build() -> Any:
    import moge.model.modules as modules
    from moge.model.dinov2.models.vision_transformer import DinoVisionTransformer
    from moge.model.v2 import MoGeModel

    channels, layers, heads, side = models.NARROW

    def narrow(pretrained: bool) -> torch.nn.Module:
        return DinoVisionTransformer(
            img_size=side,
            patch_size=14,
            embed_dim=channels,
            depth=layers,
            num_heads=heads,
            mlp_ratio=4,
            init_values=1.0,
            block_chunks=0,
            interpolate_offset=0.1,
        )

    from moge.model.dinov2.hub import backbones

    backbones.dinov2_vits14 = narrow
    assert modules
    network = MoGeModel(**models.MODEL_CONFIG)
    network.load_state_dict(
        {
            name: value if "image_" in name else torch.from_numpy(models.weight(name, tuple(value.shape)))
            for name, value in network.state_dict().items()
        }
    )
    return network.eval()


@torch.inference_mode()
def main() -> None:
    sys.path.insert(0, sys.argv[1])
    sys.modules["utils3d"] = types.ModuleType("utils3d")
    from moge.utils.geometry_torch import recover_focal_shift

    network = build()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    expected: dict[str, np.ndarray] = {
        "names": np.array([f"{name} {shape}".encode() for name, shape in shapes.items()])
    }
    for shape in models.SHAPES:
        patches = shape[0] * shape[1] // 14**2
        found = network(torch.from_numpy(models.unit_image(shape)), num_tokens=patches)
        for key, value in (("points", found["points"][0].permute(2, 0, 1)), ("mask", found["mask"][0])):
            expected[f"{shape[0]}x{shape[1]} {key}"] = da3_models.kept(value.numpy())
            print(shape, key, f"{value.min():.3f} {value.mean():.3f} {value.max():.3f}")
        expected[f"{shape[0]}x{shape[1]} scale"] = found["metric_scale"].numpy()
        print(shape, "scale", found["metric_scale"])
    for height, width, focal, shift in models.CAMERAS:
        points, mask = (torch.from_numpy(one)[None] for one in models.scene(height, width, focal, shift))
        both = recover_focal_shift(points, mask)
        alone = recover_focal_shift(points, mask, focal=torch.tensor([focal]))
        expected[f"camera {height}x{width}"] = np.array([float(both[0]), float(both[1]), float(alone[1])])
        print(height, width, focal, shift, expected[f"camera {height}x{width}"])
    np.savez_compressed(models.EXPECTED, **expected)
    print(models.EXPECTED, models.EXPECTED.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
