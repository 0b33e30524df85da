"""What the config.json of a published Depth Anything 3 says. Imports no torch.

Its authors' files are no transformers configurations. They hold ``model_name`` and, in most repositories, ``config``:
the settings by which the official code builds its objects, as in its ``configs/*.yaml``
(https://github.com/ByteDance-Seed/Depth-Anything-3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from depthsieve.core.errors import TeacherUnsupported

VIEWS = "depth_anything_3"
"""The official package, as ``config`` names it."""


@dataclass(frozen=True, slots=True)
class Vit:
    """A size of DINOv2: channels, layers, heads, and whether its layers' MLPs are gated (SwiGLU)."""

    hidden_size: int
    layers: int
    heads: int
    gated: bool = False


VITS: Mapping[str, Vit] = {
    "vits": Vit(384, 12, 6),
    "vitb": Vit(768, 12, 12),
    "vitl": Vit(1024, 24, 16),
    "vitg": Vit(1536, 40, 24, gated=True),
}


def _any_view(vit: str, out_layers: list[int], start: int, features: int, out_channels: list[int]) -> dict[str, Any]:
    starts = dict.fromkeys(("alt_start", "qknorm_start", "rope_start"), start)
    return {
        "net": {"name": vit, "out_layers": out_layers, **starts, "cat_token": True},
        "head": {"output_dim": 2, "features": features, "out_channels": out_channels},
    }


_MONOCULAR = {
    "net": {"name": "vitl", "out_layers": [4, 11, 17, 23], "alt_start": -1, "cat_token": False},
    "head": {"output_dim": 1, "features": 256, "out_channels": [256, 512, 1024, 1024]},
}
NAMED: Mapping[str, Mapping[str, Any]] = {
    "da3-small": _any_view("vits", [5, 7, 9, 11], 4, 64, [48, 96, 192, 384]),
    "da3-base": _any_view("vitb", [5, 7, 9, 11], 4, 128, [96, 192, 384, 768]),
    "da3-large": _any_view("vitl", [11, 15, 19, 23], 8, 256, [256, 512, 1024, 1024]),
    "da3-giant": _any_view("vitg", [19, 27, 33, 39], 13, 256, [256, 512, 1024, 1024]),
    "da3mono-large": _MONOCULAR,
    "da3metric-large": _MONOCULAR,
}
"""The settings of a ``model_name``, for files that hold nothing else."""


def is_published(raw: Mapping[str, Any]) -> bool:
    """Whether this is the config.json of a Depth Anything 3 as its authors publish it."""
    if "model_type" in raw:
        return False
    return str(raw.get("model_name", "")).startswith("da3") or VIEWS in str(raw.get("config"))


def read_published(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a :class:`~depthsieve.teachers.da3.network.DepthAnything3Config` from such a config.json.

    Raises :class:`TeacherUnsupported` where it asks for what no monocular Depth Anything 3 has.
    """
    name = str(raw.get("model_name", ""))
    settings = raw.get("config") or NAMED.get(name)
    if name.startswith("da3nested") or (isinstance(settings, Mapping) and "anyview" in settings):
        raise TeacherUnsupported(
            "nested Depth Anything 3 (two networks in one) is not supported; label with depth-anything-3-giant or, "
            "for metres, depth-anything-3-metric-large"
        )
    if settings is None:
        raise TeacherUnsupported(f"its config.json names {name!r}; of such, {', '.join(NAMED)} are known")
    try:
        return _arguments(name, settings["net"], settings["head"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TeacherUnsupported(f"config.json is no Depth Anything 3 configuration: {error!r}") from error


def _arguments(name: str, net: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, Any]:
    start = int(net["alt_start"])
    any_view = start >= 0
    wanted = {
        "qknorm_start": (net.get("qknorm_start", -1), start),
        "rope_start": (net.get("rope_start", -1), start),
        "cat_token": (net.get("cat_token", True), any_view),
        "output_dim": (head["output_dim"], 2 if any_view else 1),
        "pos_embed": (head.get("pos_embed", any_view), any_view),
        "use_sky_head": (head.get("use_sky_head", not any_view), not any_view),
        "activation": (head.get("activation", "exp"), "exp"),
    }
    for key, (value, known) in wanted.items():
        if value != known:
            raise TeacherUnsupported(f"its config.json asks for {key} {value}; published models have {known} here")
    vit = VITS[net["name"]]
    return {
        "any_view": any_view,
        "metric": "metric" in name if name else (False if any_view else None),
        "hidden_size": vit.hidden_size,
        "num_hidden_layers": vit.layers,
        "num_attention_heads": vit.heads,
        "gated": vit.gated,
        "alternate_from": start if any_view else vit.layers,
        "out_layers": [int(layer) for layer in net["out_layers"]],
        "features": int(head["features"]),
        "out_channels": [int(channels) for channels in head["out_channels"]],
    }
