"""What the published weights of Metric3D v2 say of their network: its config.json, from names and shapes alone.

Its authors' files hold weights and no settings, so ``depthsieve convert-weights`` writes what follows from them.
Imports no torch. Source: https://github.com/YvanYin/Metric3D, ``mono/configs/HourglassDecoder/vit.raft5.*.py``.
"""

from collections.abc import Mapping
from typing import Any

from depthsieve.core.errors import TeacherUnsupported

KIND = "depthsieve_metric3d2"
"""What ``model_type`` is."""

PATCH = 14
MULTIPLE = 2 * PATCH
"""Sides of the network's input are multiples of this: its finest level has 7 pixels for 2 patches."""

CANVAS = (616, 1064)
HEAD = 64
"""Channels of an attention head in every DINOv2."""

ITERATIONS: Mapping[int, int] = {384: 4, 1024: 8, 1536: 8}
"""Steps of the decoder by the encoder's channels: of the small, large and giant network. Weights do not say this."""

_TRAINED = "depth_model.encoder.pos_embed"
_QUARTER = "depth_model.decoder.token2feature.read_0.sample.0.weight"
_SEVENTH = "depth_model.decoder.token2feature.read_1.sample.weight"
_RECURRENT = "depth_model.decoder.context_zqr_convs.0.weight"
_LAYER = "depth_model.encoder.blocks.0."


def config_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """config.json for weights of these names and shapes; None where they are not Metric3D v2's.

    Raises :class:`TeacherUnsupported` for an encoder of a size that was not published.
    """
    if not all(name in shapes for name in (_TRAINED, _QUARTER, _SEVENTH, _RECURRENT)):
        return None
    size = shapes[_TRAINED][2]
    if size not in ITERATIONS:
        known = ", ".join(map(str, ITERATIONS))
        raise TeacherUnsupported(
            f"it looks like a Metric3D v2 whose encoder has {size} channels; how many steps its decoder takes is known "
            f"for {known} only"
        )
    layers = {int(name.removeprefix(_LAYER).split(".")[0]) for name in shapes if name.startswith(_LAYER)}
    gated = f"{_LAYER}0.mlp.w12.weight" in shapes
    return {
        "model_type": KIND,
        "hidden_size": size,
        "num_hidden_layers": len(layers),
        "num_attention_heads": size // HEAD,
        "gated": gated,
        "every_quarter": gated,  # both are the giant's alone
        "features": [shapes[_QUARTER][0], shapes[_SEVENTH][1]],
        "recurrent_size": shapes[_RECURRENT][1],
        "iterations": ITERATIONS[size],
    }
