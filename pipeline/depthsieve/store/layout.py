"""How an array of Zarr v3 is laid out in its file, as far as it is read directly. Axis: N rows of an array."""

import functools
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

CRC_BYTES = 4

MOST_BYTES = (1 << 31) - 1
"""Of one decoded chunk; zarr-python may try what is larger."""

_FIELDS = {"attributes", "chunk_grid", "chunk_key_encoding", "codecs", "data_type", "dimension_names", "fill_value"}
_FIELDS |= {"node_type", "shape", "storage_transformers", "zarr_format"}
_TYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {"float16", "float32", "float64"}
_PACKINGS = ("blosc", "zstd", "gzip")


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array is laid out in its one file.

    Either as one chunk, or ``by_row``: a Zarr shard that has each row as a chunk of its own, behind or before an index.
    A chunk is packed by ``packing`` ("" for not at all) and, where ``checked``, followed by its CRC-32C.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_row: bool
    index_first: bool
    packing: str
    checked: bool

    @property
    def file(self) -> str:
        """Its file, below the array's folder."""
        return "/".join(["c", *("0" for _ in self.shape)])

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        sides = self.shape[1:] if self.by_row else self.shape
        return math.prod(sides) * self.dtype.itemsize

    @property
    def packed_bounds(self) -> tuple[int, int]:
        """The fewest and the most bytes of a packed chunk. No packing makes its content much larger."""
        least, most = CRC_BYTES * self.checked, CRC_BYTES * self.checked + self.chunk_bytes
        return (least, most + self.chunk_bytes // 16 + 1024) if self.packing else (most, most)

    @property
    def index_bytes(self) -> int:
        """Bytes of the index, its checksum included."""
        return 16 * self.shape[0] + CRC_BYTES if self.by_row else 0


@functools.lru_cache(maxsize=1024)  # arrays of one label shape share their document, byte for byte
def layout_of(document: bytes) -> Layout | None:
    """The layout that a ``zarr.json`` describes; None where it is not one that is read here.

    Raises :class:`ValueError` where it is no JSON object.
    """
    body = json.loads(document)
    if not isinstance(body, dict):
        raise ValueError("zarr.json is no JSON object")
    try:
        return _layout(body)
    except (KeyError, TypeError, IndexError, AttributeError):
        return None


def _layout(body: dict[str, Any]) -> Layout | None:
    shape, dtype, codecs = tuple(body["shape"]), body["data_type"], body["codecs"]
    grid, keys = body["chunk_grid"], body["chunk_key_encoding"]
    plain = (
        body["zarr_format"] == 3
        and body["node_type"] == "array"
        and set(body) <= _FIELDS
        and not body.get("storage_transformers")
        and dtype in _TYPES
        and len(shape) > 0
        and all(isinstance(side, int) and side > 0 for side in shape)
        and grid == {"name": "regular", "configuration": {"chunk_shape": list(shape)}}
        and keys["name"] == "default"
        and keys.get("configuration", {}).get("separator", "/") == "/"
    )
    if not plain:
        return None
    by_row, index_first = codecs[0]["name"] == "sharding_indexed", False
    if by_row:
        sharding = codecs[0]["configuration"]
        index_first = sharding.get("index_location", "end") == "start"
        indexed = _chain(sharding["index_codecs"], 8) == ("", True)
        if len(codecs) > 1 or sharding["chunk_shape"] != [1, *shape[1:]] or not indexed:
            return None
        codecs = sharding["codecs"]
    itemsize = np.dtype(dtype).itemsize
    chain = _chain(codecs, itemsize)
    if chain is None:
        return None
    layout = Layout(shape, np.dtype(dtype), by_row, index_first, *chain)
    return layout if layout.chunk_bytes <= MOST_BYTES else None


def _chain(codecs: list[dict[str, Any]], itemsize: int) -> tuple[str, bool] | None:
    """Packing and whether a checksum follows; None for another chain of codecs."""
    names = [codec["name"] for codec in codecs]
    if names[0] != "bytes" or (itemsize > 1 and codecs[0]["configuration"]["endian"] != "little"):
        return None
    packing = names[1] if len(names) > 1 and names[1] in _PACKINGS else ""
    rest = names[1 + bool(packing) :]
    return (packing, bool(rest)) if rest in ([], ["crc32c"]) else None
