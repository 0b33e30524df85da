"""Writes what the official Depth Anything 3 makes of the models in ``da3_models.py``: ``da3_expected.npz``.

    python tests/support/da3_official.py CHECKOUT [NAME...]

CHECKOUT is https://github.com/ByteDance-Seed/Depth-Anything-3 (2c21ea8 made the file in this repository). Its network
needs einops, addict and omegaconf; torchvision, of which it uses two functions, is stood in for. With
names of published sizes (da3-small, ...) it writes nothing, but compares those with depthsieve's own network.
"""

import sys
import types
from pathlib import Path
from typing import Any

import da3_models as models
import numpy as np
import torch

from depthsieve.teachers.da3.published import NAMED, VITS, read_published


class ToTensor:
    """As torchvision's, for uint8 images."""

    def __call__(self, picture: Any) -> torch.Tensor:
        return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy()).float().div(255)


class Normalize:
    """As torchvision's."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return image.sub(self.mean).div(self.std)


def stand_in() -> None:
    torchvision, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    vars(transforms).update(ToTensor=ToTensor, Normalize=Normalize)
    vars(torchvision)["transforms"] = transforms
    sys.modules |= {"torchvision": torchvision, "torchvision.transforms": transforms}
    sys.modules |= {"imageio": types.ModuleType("imageio")}  # imported beside what runs the preprocessing, unused


def build(case: models.Case) -> torch.nn.Module:
    from depth_anything_3.model.cam_dec import CameraDec
    from depth_anything_3.model.cam_enc import CameraEnc
    from depth_anything_3.model.da3 import DepthAnything3Net
    from depth_anything_3.model.dinov2.vision_transformer import DinoVisionTransformer
    from depth_anything_3.model.dpt import DPT
    from depth_anything_3.model.dualdpt import DualDPT

    settings = case.published["config"]
    net, head = settings["net"], settings["head"]
    vit = VITS[net["name"]]
    channels, layers, heads, side = case.narrow or (vit.hidden_size, vit.layers, vit.heads, 518)
    any_view = net["cat_token"]
    starts = {key: net[key] for key in ("alt_start", "qknorm_start", "rope_start")}

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pretrained = DinoVisionTransformer(
                img_size=side,
                patch_size=14,
                embed_dim=channels,
                depth=layers,
                num_heads=heads,
                ffn_layer="swiglufused" if vit.gated else "mlp",
                cat_token=any_view,
                **starts,
            )

        def forward(self, image: torch.Tensor, **options: Any) -> Any:
            return self.pretrained.get_intermediate_layers(image, net["out_layers"], **options)

    size = channels * (2 if any_view else 1)
    kind = DualDPT if any_view else DPT
    cameras = {"cam_dec": CameraDec(dim_in=size), "cam_enc": CameraEnc(dim_out=channels)} if any_view else {}
    whole = torch.nn.Module()
    whole.model = DepthAnything3Net(Net(), kind(dim_in=size, **head), **cameras)
    weights = {
        name: torch.from_numpy(models.weight(name, tuple(value.shape))) for name, value in whole.state_dict().items()
    }
    whole.load_state_dict(weights)
    return whole.eval()


@torch.inference_mode()
def answer(network: torch.nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """Depth before the sky is filled in, and what there is of confidence, sky, camera, and depth after it."""
    inner: Any = network.model
    given = torch.from_numpy(image)[None]
    after = inner(given)
    fill, inner._process_mono_sky_estimation = inner._process_mono_sky_estimation, lambda output: output
    before = inner(given)
    inner._process_mono_sky_estimation = fill
    found = {"depth": before.depth}
    found |= {"filled": after.depth} if "sky" in after else {}
    found |= {key: after[key] for key in ("depth_conf", "sky", "intrinsics") if key in after}
    return {key: value.reshape(value.shape[-2:]).numpy() for key, value in found.items()}


def main() -> None:
    sys.path.insert(0, str(Path(sys.argv[1]) / "src"))
    stand_in()
    if len(sys.argv) > 2:
        compare(sys.argv[2:])
    else:
        write()


def write() -> None:
    from depth_anything_3.utils.io.input_processor import InputProcessor

    expected: dict[str, np.ndarray] = {}
    for name, case in models.CASES.items():
        network = build(case)
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        expected[f"{name} names"] = np.array([f"{key} {shape}".encode() for key, shape in shapes.items()])
        for shape in case.shapes:
            for key, value in answer(network, models.image(shape)).items():
                kept = value if key == "intrinsics" else models.kept(value)
                expected[f"{name} {shape[0]}x{shape[1]} {key}"] = kept.astype(np.float32)
                print(name, shape, key, value.shape, f"{value.min():.3f} {value.mean():.3f} {value.max():.3f}")
    for height, width in models.PHOTOS:
        for size in (98, 504):
            image, _, _ = InputProcessor()([models.photo(height, width)], process_res=size, num_workers=1)
            key = f"photo {height}x{width} {size}"
            expected[f"{key} shape"] = np.array(image.shape[-2:])
            if size == 98:
                expected[key] = models.kept(image[0].numpy())
    np.savez_compressed(models.EXPECTED, **expected)
    print(models.EXPECTED, models.EXPECTED.stat().st_size, "bytes")


def compare(names: list[str]) -> None:
    """Published sizes against depthsieve's own network: the largest difference, as a part of the map's range."""
    from depthsieve.teachers.da3 import network as own

    for name in names:
        settings = NAMED[name]
        starts = dict.fromkeys(("alt_start", "qknorm_start", "rope_start"), settings["net"]["alt_start"])
        published = {"model_name": name, "config": {"net": settings["net"] | starts, "head": settings["head"]}}
        case = models.Case(published, ((70, 98), (98, 56)))
        official = build(case)
        ours = own.DepthAnything3ForDepthEstimation(own.DepthAnything3Config(**read_published(published))).eval()
        ours.load_state_dict({key: official.state_dict()[key] for key in ours.state_dict()})
        for shape in case.shapes:
            wanted = answer(official, models.image(shape))
            with torch.inference_mode():
                got = ours(torch.from_numpy(models.image(shape)))
            pairs = {"depth": got.predicted_depth, "depth_conf": got.confidence, "sky": got.sky}
            apart = {key: models.apart(x[0].numpy(), wanted[key]) for key, x in pairs.items() if x is not None}
            print(name, f"{shape[0]}x{shape[1]}", {key: f"{value:.1e}" for key, value in apart.items()})
        print(name, f"{sum(value.numel() for value in official.state_dict().values()) / 1e6:.0f}M weights", flush=True)


if __name__ == "__main__":
    main()
