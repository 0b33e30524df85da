"""Writes what the official Metric3D v2 makes of what is in ``metric3d_models.py``: ``metric3d_expected.npz``.

    python tests/support/metric3d_official.py CHECKOUT [SIZE [HEIGHTxWIDTH...]]

CHECKOUT is https://github.com/YvanYin/Metric3D (eb5b6fa made the file in this repository). Its network code runs as it
is; packages that it imports beside that (mmcv, timm, matplotlib) are stood in for, and what it asks of CUDA is done on
the CPU. With a size (small, large, giant2) it writes nothing, but compares the network of that published size, with
random weights, with depthsieve's own; without shapes of inputs at the published 616x1064 and three others.
"""

import functools
import itertools
import runpy
import sys
import textwrap
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import da3_models
import metric3d_models as models
import numpy as np
import torch


class Settings(dict[str, Any]):
    """A dictionary whose values are attributes too, as mmengine's."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        value = self[name]
        return Settings(value) if isinstance(value, dict) else value


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = dict(one)
    for key, value in other.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def read_config(path: Path) -> dict[str, Any]:
    """A configuration of theirs over those that it is based on."""
    own = {name: value for name, value in runpy.run_path(str(path)).items() if not name.startswith("__")}
    found: dict[str, Any] = {}
    for base in own.pop("_base_", []):
        found = merged(found, read_config(path.parent / base))
    return merged(found, {name: value for name, value in own.items() if not isinstance(value, types.ModuleType)})


def stand_in() -> None:
    """Modules that are imported beside the network, of which nothing is used here."""
    for name in ("mmcv", "mmcv.utils", "matplotlib", "matplotlib.pyplot", "timm", "timm.models"):
        sys.modules.setdefault(name, types.ModuleType(name))
    for name in ("timm.models.layers", "timm.models.registry"):
        sys.modules.setdefault(name, mock.MagicMock())
    vars(sys.modules["mmcv.utils"]).update(collect_env=None, get_git_hash=None)
    vars(sys.modules["matplotlib"])["pyplot"] = sys.modules["matplotlib.pyplot"]
    on_any_device = torch.linspace
    torch.linspace = lambda *args, device=None, **options: on_any_device(*args, **options)  # theirs asks for "cuda"
    for kind in (torch.Tensor, torch.nn.Module):
        kind.cuda = lambda self: self  # type: ignore[method-assign, assignment]


@torch.no_grad()
def build(root: Path, case: models.Case | None, size: str) -> torch.nn.Module:
    """Their whole model, of a published size or as narrow as ``case``."""
    from mono.model import backbones
    from mono.model.backbones import ViT_DINO_reg as vit
    from mono.model.monodepth_model import get_configured_monodepth_model

    config = read_config(root / f"mono/configs/HourglassDecoder/vit.raft5.{size}.py")
    if case is not None:
        channels, (quarter, seventh) = case.hidden_size, case.features

        def narrow(**options: Any) -> torch.nn.Module:
            return vit.DinoVisionTransformer(
                img_size=case.image_size,
                patch_size=14,
                embed_dim=channels,
                depth=case.num_hidden_layers,
                num_heads=case.num_attention_heads,
                block_fn=functools.partial(vit.Block, attn_class=vit.MemEffAttention),
                num_register_tokens=4,
                ffn_layer="swiglu" if case.gated else "mlp",
                multi_output=case.gated,
                **options,
            )

        backbones.narrow = narrow
        config["model"]["backbone"]["type"] = "narrow"
        config["model"]["decode_head"] |= {
            "in_channels": [channels] * 4,
            "feature_channels": [quarter, seventh, channels, channels],
            "decoder_channels": [quarter, quarter, seventh, channels, channels],
            "hidden_channels": [case.recurrent_size] * 4,
        }
        assert config["model"]["decode_head"]["iters"] == case.iterations
    network = get_configured_monodepth_model(Settings(config))
    for name, value in network.state_dict().items():
        value.copy_(torch.from_numpy(models.weight(name, tuple(value.shape))))
    return network.eval()


@torch.inference_mode()
def answer(network: torch.nn.Module, image: np.ndarray) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Depth and confidence, and depth after each step."""
    depth, confidence, more = network.inference({"input": torch.from_numpy(image)})
    steps = [step[0, 0].numpy() for step in more["predictions_list"]]
    return {"depth": depth[0, 0].numpy(), "confidence": confidence[0, 0].numpy()}, steps


def example(root: Path, network: torch.nn.Module, photo: np.ndarray, canvas: tuple[int, int]) -> dict[str, Any]:
    """The variables that the example at the end of their hubconf.py ends with, for this photo, model and size."""
    source = (root / "hubconf.py").read_text().split("if __name__ == '__main__':")[1]
    for old, new in (
        ("input_size = (616, 1064)", f"input_size = {canvas}"),
        ("intrinsic = [707.0493, 707.0493, 604.0814, 180.5066]", f"intrinsic = [{models.FOCAL}] * 2 + [0, 0]"),
    ):
        assert old in source
        source = source.replace(old, new)
    read = {-1: np.ones(photo.shape[:2]), None: photo[:, :, ::-1]}  # a depth to compare with, and BGR
    found: dict[str, Any] = {"torch": torch}
    with (
        mock.patch.object(cv2, "imread", lambda _, kind=None: read[kind]),
        mock.patch.object(cv2, "imwrite"),
        mock.patch.object(torch.hub, "load", lambda *_, **__: network),
    ):
        exec(textwrap.dedent(source), found)
    return found


def main() -> None:
    root = Path(sys.argv[1])
    sys.path.insert(0, str(root))
    stand_in()
    if len(sys.argv) > 2:
        named = [(int(height), int(width)) for height, _, width in (text.partition("x") for text in sys.argv[3:])]
        compare(root, sys.argv[2], named or SHAPES)
    else:
        write(root)


def write(root: Path) -> None:
    expected: dict[str, np.ndarray] = {}
    for name, case in models.CASES.items():
        network = build(root, case, case.official)
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        expected[f"{name} names"] = np.array([f"{key} {shape}".encode() for key, shape in shapes.items()])
        for shape in case.shapes:
            maps, steps = answer(network, da3_models.image(shape))
            for key, value in maps.items():
                expected[f"{name} {shape[0]}x{shape[1]} {key}"] = da3_models.kept(value).astype(np.float32)
                print(name, shape, key, "deciles", np.round(np.quantile(value, np.linspace(0, 1, 11)), 2))
            print(name, shape, "mean move of each step in metres:", *moves(steps))
    whole = build(root, None, "small")
    shapes = {key: tuple(value.shape) for key, value in whole.state_dict().items()}
    expected["whole names"] = np.array([f"{key} {shape}".encode() for key, shape in shapes.items()])
    maps, steps = answer(whole, da3_models.image(models.CANVAS))
    for key, value in maps.items():
        expected[f"whole {key}"] = da3_models.kept(value).astype(np.float32)
        print("whole", key, "deciles", np.round(np.quantile(value, np.linspace(0, 1, 11)), 2))
    network = build(root, models.CASES["small"], "small")
    for height, width in models.PHOTOS:
        found = example(root, network, da3_models.photo(height, width), models.CANVAS)
        key = f"photo {height}x{width}"
        for part, value in (("input", found["rgb"][0]), ("metres", found["pred_depth"])):
            expected[f"{key} {part}"] = da3_models.kept(value.numpy())
        print(key, found["pad_info"], f"{found['pred_depth'].min():.2f} to {found['pred_depth'].max():.2f} m")
    np.savez_compressed(models.EXPECTED, **expected)
    print(models.EXPECTED, models.EXPECTED.stat().st_size, "bytes")


def moves(steps: list[np.ndarray]) -> list[str]:
    return [f"{np.abs(after - before).mean():.2f}" for before, after in itertools.pairwise(steps)]


SHAPES = ((616, 1064), (616, 616), (1064, 616), (308, 532))
"""Of network inputs: wide, as published; square; upright; half."""


def compare(root: Path, size: str, shapes: Sequence[tuple[int, int]]) -> None:
    """A published size against depthsieve's own network: the largest difference, as a part of the map's range."""
    from depthsieve.teachers.metric3d import network as own
    from depthsieve.teachers.metric3d.published import config_of

    official = build(root, None, size)
    state = official.state_dict()
    print(size, f"{sum(value.numel() for value in official.parameters()) / 1e6:.1f}M weights", flush=True)
    config = config_of({name: tuple(value.shape) for name, value in state.items()})
    assert config is not None
    with torch.device("meta"):
        ours = own.Metric3DForDepthEstimation(own.Metric3DConfig(**config)).eval()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()}, assign=True)  # room for one of the giants
    for shape in shapes:
        image = da3_models.image(shape)
        wanted, steps = answer(official, image)
        with torch.inference_mode():
            got = ours(torch.from_numpy(image))
        apart = {
            key: f"{da3_models.apart(map_BHW[0].numpy(), wanted[key]):.1e}"
            for key, map_BHW in (("depth", got.predicted_depth), ("confidence", got.confidence))
        }
        spread = {key: np.round(np.quantile(value, (0, 0.1, 0.5, 0.9, 1)), 2).tolist() for key, value in wanted.items()}
        print(size, f"{shape[0]}x{shape[1]}", apart, "quantiles", spread, "moves", *moves(steps), flush=True)


if __name__ == "__main__":
    main()
