"""Names, shapes and encodings of the store format, version 1. See docs/store_format.md.

Axes: N images of a shard, H and W the label shape, K the 256 reliability codes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from depthsieve.core.encodings import EARLIER_ENCODINGS, ENCODINGS, Encoding
from depthsieve.core.errors import StoreMismatch
from depthsieve.reliability.scale import SCALES

FORMAT = "depthsieve-labels"
FORMAT_VERSION = 1


ENCODING = ENCODINGS["fast"].text
"""The default of a new store."""

ROOT_DOCUMENT = "labels.zarr/zarr.json"
SHARDS = "labels.zarr/shards"
SHARDS_DOCUMENT = "labels.zarr/shards/zarr.json"
COMMITS = "commits"
INDEX = "index.parquet"
INDEX_RECORD = "index.json"

MAX_DEPTH = 65504.0
"""The largest float16: a label that exceeds it fails its image by name."""

STATUS_LABELLED = 0
STATUS_FAILED = 1


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a shard's group. ``dims`` name the axes; ``dtype`` is numpy's name, or "str". What is ``bare`` has
    no codec but bytes: a part of it can be read by itself."""

    name: str
    dtype: str
    dims: tuple[str, ...]
    bare: bool = False

    @property
    def is_map(self) -> bool:
        """Whether it has a value a pixel: then each image is a chunk of its own."""
        return self.dims[1:] == ("y", "x")


MAPS = (
    ArraySpec("depth", "float16", ("image", "y", "x")),
    ArraySpec("reliability", "uint8", ("image", "y", "x")),
)
ROWS = (
    ArraySpec("histogram", "uint32", ("image", "code")),
    ArraySpec("id", "str", ("image",)),
    ArraySpec("status", "uint8", ("image",)),
    ArraySpec("reason", "str", ("image",)),
    ArraySpec("source_height", "int32", ("image",)),
    ArraySpec("source_width", "int32", ("image",)),
    ArraySpec("orientation", "uint8", ("image",)),
    ArraySpec("focal_px", "float32", ("image",)),
    ArraySpec("content_sha256", "str", ("image",)),
)


def encoding_of(text: str) -> Encoding:
    """The encoding that a label spec names. Raises :class:`StoreMismatch` for one of a later release."""
    found = next((one for one in (*ENCODINGS.values(), *EARLIER_ENCODINGS) if one.text == text), None)
    if found is None:
        raise StoreMismatch(f"the store has encoding {text!r}, which this depthsieve cannot write; update depthsieve")
    return found


def is_shard(name: str) -> bool:
    """Whether a name is one that :func:`shard_name` makes."""
    return re.fullmatch(r"\d{4,}-\d{6,}", name) is not None


def shard_name(generation: int, number: int) -> str:
    """The id of the ``number``-th shard of a generation, both counted from 0."""
    return f"{generation:04d}-{number:06d}"


def shard_number(shard_id: str) -> tuple[int, int]:
    """(generation, number) of a shard's id."""
    generation, number = shard_id.split("-")
    return int(generation), int(number)


def commit_key(shard_id: str) -> str:
    """Where the record is that commits a shard."""
    return f"{COMMITS}/{shard_id}.json"


def generation_key(number: int) -> str:
    """Where the record is that commits a generation."""
    return f"{COMMITS}/generation-{number:04d}.json"


def plan_key(name: str) -> str:
    """Where a file of a plan is."""
    return f"plan/{name}"


def copy_key(key: str) -> str:
    """Where the second copy is of a file that cannot be recomputed."""
    return f"copies/{key}"


def group_key(group: str) -> str:
    """Where a shard's group is."""
    return f"{SHARDS}/{group}"


def group_document(attributes: Mapping[str, Any]) -> bytes:
    """The ``zarr.json`` of a group: written here and nowhere else."""
    body = {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}
    return (json.dumps(body, indent=2, ensure_ascii=True) + "\n").encode()


def array_attributes(name: str, quantity: str, unit: str, code_version: int) -> dict[str, Any]:
    """The attributes that let a reader without our code use an array; reliability codes are of that version."""
    if name == "depth":
        meaning = (
            "depth in metres"
            if quantity == "depth"
            else "disparity: inverse depth up to an unknown scale and shift for each image; larger is nearer"
        )
        return {
            "quantity": quantity,
            "unit": unit,
            "meaning": meaning,
            "geometry": "upright RGB: EXIF orientation undone before labelling",
            "pixel_mapping": "x_source = (x + 0.5) * source_width / W - 0.5; y likewise (pixel centres)",
        }
    if name == "reliability":
        return {
            "meaning": "0 = never train on it; 1..255 = expected relative error, larger is better",
            "expected_error": SCALES[code_version].formula,
        }
    if name == "histogram":
        return {"meaning": "each image's reliability codes counted over its pixels; code 0 = invalid"}
    if name == "status":
        return {"meaning": "0 = labelled, 1 = failed (depth and reliability are 0; see reason)"}
    if name in ("source_height", "source_width"):
        return {"unit": "pixel", "meaning": "size of the upright source image"}
    if name == "orientation":
        return {"meaning": "EXIF orientation of the file, 1..8, undone before labelling"}
    if name == "focal_px":
        return {"unit": "pixel", "meaning": "focal length at source resolution, from EXIF; 0 = unknown"}
    return {}
