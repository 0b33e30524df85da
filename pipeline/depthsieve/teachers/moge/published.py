"""What a MoGe-2 says of its shape: the ``model_config`` that its authors' ``model.pt`` holds beside the weights.

``depthsieve convert-weights`` writes it into config.json. Imports no torch.
Source: https://github.com/microsoft/MoGe, ``moge/model/v2.py`` and ``modules.py``.
"""

from collections.abc import Mapping
from typing import Any

from depthsieve.core.errors import TeacherUnsupported

BACKBONES: Mapping[str, tuple[int, int, int]] = {
    "dinov2_vits14": (384, 12, 6),
    "dinov2_vitb14": (768, 12, 12),
    "dinov2_vitl14": (1024, 24, 16),
}
"""Channels, layers and heads."""

RESAMPLERS = ("conv_transpose", "bilinear", "nearest", "pixel_shuffle")
NORMS = ("none", "layer_norm", "group_norm")
REMAPS = ("linear", "sinh", "exp", "sinh_exp")
STACKS = ("neck", "points_head", "mask_head")


def is_published(raw: Mapping[str, Any]) -> bool:
    """Whether this is the config.json of a converted MoGe."""
    settings = raw.get("model_config")
    return "model_type" not in raw and isinstance(settings, Mapping) and "encoder" in settings


def read_published(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a :class:`~depthsieve.teachers.moge.network.MoGeConfig` from such a config.json.

    Raises :class:`TeacherUnsupported` for MoGe-1, and where it asks for what is not built here.
    """
    settings = raw["model_config"]
    if not isinstance(settings["encoder"], Mapping):
        raise TeacherUnsupported("it is a MoGe-1, which knows no metres; MoGe-2 is supported")
    try:
        return _arguments(settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TeacherUnsupported(f"config.json is no MoGe-2 configuration: {error!r}") from error


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    missing = [name for name in (*STACKS, "scale_head") if not settings.get(name)]
    if missing:
        raise TeacherUnsupported(f"its model has no {missing[0]}, without which there are no metres of valid pixels")
    encoder, remap = settings["encoder"], settings.get("remap_output", "linear")
    if encoder["backbone"] not in BACKBONES:
        raise TeacherUnsupported(f"its backbone is {encoder['backbone']}; {', '.join(BACKBONES)} are known")
    if remap not in REMAPS:
        raise TeacherUnsupported(f"its remap_output is {remap}; {', '.join(REMAPS)} are known")
    size, layers, heads = BACKBONES[encoder["backbone"]]
    taken = encoder["intermediate_layers"]
    return {
        "hidden_size": size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "out_layers": list(range(layers - taken, layers)) if isinstance(taken, int) else [int(one) for one in taken],
        "encoder_size": int(encoder["dim_out"]),
        **{name: _stack(name, settings[name]) for name in STACKS},
        "scale_head": [int(size) for size in settings["scale_head"]["dims"]],
        "remap": remap,
        "tokens": int(settings.get("num_tokens_range", (1200, 3600))[1]),
    }


def _stack(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one stack with the official defaults filled in, a list for each of its levels."""
    sizes = [int(size) for size in settings["dim_res_blocks"]]
    levels = len(sizes)

    def each(key: str, default: Any, count: int) -> list[Any]:
        value = settings.get(key, default)
        values = list(value) if isinstance(value, list | tuple) else [value] * count
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} of {key}, not {count}")
        return values

    found: dict[str, Any] = {
        "sizes": sizes,
        "inputs": each("dim_in", None, levels),
        "outputs": each("dim_out", None, levels),
        "blocks": each("num_res_blocks", 1, levels),
        "resamplers": each("resamplers", None, levels - 1),
        "widen": int(settings.get("dim_times_res_block_hidden", 1)),
        "norms": [settings.get("res_block_in_norm", "layer_norm"), settings.get("res_block_hidden_norm", "group_norm")],
    }
    for key, known in (("resamplers", RESAMPLERS), ("norms", NORMS)):
        if unknown := set(found[key]) - set(known):
            raise TeacherUnsupported(
                f"its {name} asks for {unknown.pop()} among its {key}; {', '.join(known)} are known"
            )
    if settings.get("activation", "relu") != "relu":
        raise TeacherUnsupported(f"its {name} asks for {settings['activation']}; only relu is known")
    return found
