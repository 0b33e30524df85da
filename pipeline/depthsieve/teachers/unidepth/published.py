"""What config.json of a UniDepth says, and what of it is handed to the package of its authors. Imports no torch.

Source of the layout: https://github.com/lpiccinelli-eth/UniDepth, ``configs/``.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

from depthsieve.core.errors import TeacherUnsupported

ENCODERS = ("dinov2_vits14", "dinov2_vitb14", "dinov2_vitl14")
PATCH = 14


def is_published(raw: Mapping[str, Any]) -> bool:
    """Whether this is the config.json of a UniDepth, of any version."""
    model = raw.get("model")
    return "model_type" not in raw and isinstance(model, Mapping) and str(model.get("name")).startswith("UniDepth")


def pixel_bounds(raw: Mapping[str, Any]) -> tuple[int, int]:
    """The fewest and the most pixels that a UniDepth v2 works at. Raises :class:`TeacherUnsupported` where
    config.json does not say."""
    with _configured():
        limits = raw["data"]["augmentations"]["shape_constraints"]
        fewest, most = int(limits["pixels_min"]), int(limits["pixels_max"])
    if not 0 < fewest <= most:
        raise TeacherUnsupported(f"its config.json asks for {fewest} to {most} pixels")
    return fewest, most


def ratio_bounds(raw: Mapping[str, Any]) -> tuple[float, float]:
    """The least and the greatest width over height that a UniDepth v2 takes without padding. Raises as
    :func:`pixel_bounds`."""
    with _configured():
        least, greatest = map(float, raw["data"]["augmentations"]["shape_constraints"]["ratio_bounds"])
    if not 0 < least <= greatest:
        raise TeacherUnsupported(f"its config.json asks for a width of {least:g} to {greatest:g} times the height")
    return least, greatest


def read_published(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration to build the network with: nothing in it leads to other weights or another size.

    As it is published, it may name a pickled file with weights of the backbone, or have them downloaded; it sets up
    the losses of training; and it bounds the pixels to which ``infer`` would resize what is prepared here already.

    Raises :class:`TeacherUnsupported` for what is no UniDepth v2.
    """
    name = raw["model"]["name"]
    if name != "UniDepthV2":
        raise TeacherUnsupported(f"it is a {name}; UniDepthV2 is supported")
    config = copy.deepcopy(dict(raw))
    with _configured():
        encoder = config["model"]["pixel_encoder"]
        if encoder["name"] not in ENCODERS:
            raise TeacherUnsupported(f"its backbone is {encoder['name']}; {', '.join(ENCODERS)} are known")
        encoder["pretrained"] = None
        config["training"]["losses"] = {}
        config["data"]["augmentations"]["shape_constraints"] |= {"pixels_min": 1, "pixels_max": 10**15}
    return config


@contextlib.contextmanager
def _configured() -> Iterator[None]:
    """Say of settings that are missing, or not what they should be, that they are no UniDepth v2's."""
    try:
        yield
    except TeacherUnsupported:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise TeacherUnsupported(f"config.json is no UniDepth v2 configuration: {error!r}") from error
