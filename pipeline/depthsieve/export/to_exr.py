"""``exr``: depth and reliability as channels of an OpenEXR image, in float32: nothing is rounded.

Written here, so that no package is needed: one part, scan lines, ZIP compression
(https://openexr.com/en/latest/OpenEXRFileLayout.html).

Axes: H row, W column.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.export.index import index_json
from depthsieve.export.names import safe_path
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target

_MAGIC, _VERSION, _ZIP, _LINES = 20000630, 2, 3, 16
_TYPES = {np.dtype("<f2"): 1, np.dtype("<f4"): 2}


class ExrTarget(Target):
    """``PATH.exr``."""

    def place(self, image_id: str) -> str:
        return f"{safe_path(image_id)}.exr"

    @property
    def _channel(self) -> str:
        return "Z" if self.ask.quantity == "depth" else "Y"

    def encode(self, item: Item) -> Encoded:
        channels = {
            self._channel: item.depth_HW.astype("<f4"),
            "reliability": item.reliability_HW.astype("<f2"),
        }
        text = {"id": item.id, "quantity": self.ask.quantity, "unit": self.ask.unit}
        return Encoded({item.path: encode_exr(channels, text)}, {**item.facts(), "channels": item.path})

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        head = {"quantity": self.ask.quantity, "unit": self.ask.unit, "invalid": "NaN"}
        yield "index.json", index_json(head, entries)

    def about(self) -> About:
        what = "metres along the camera's axis"
        if self._channel == "Y":
            what = "disparity of the teacher, larger is nearer, up to a scale and shift of the image"
        return About(
            layout="`PATH.exr`, PATH being the id; channels "
            f"`{self._channel}` (float32) and `reliability` (half); attributes `id`, `quantity`, "
            "`unit`. `index.json` has a row an image.",
            depth=f"`{self._channel}`: {what}.",
            invalid="NaN, and reliability 0.",
            precision="none is lost.",
            photos="not written.",
            code=_CODE,
        )


def encode_exr(channels: Mapping[str, NDArray[Any]], text: Mapping[str, str]) -> bytes:
    """An OpenEXR file.

    Args:
        channels: maps [H,W] of one shape by name, little-endian float32 or float16.
        text: string attributes, by name.
    """
    named = sorted(channels.items())  # the order of channels in a file
    height, width = named[0][1].shape
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    listed = b"".join(
        name.encode() + b"\0" + struct.pack("<iB3xii", _TYPES[map_HW.dtype], 0, 1, 1) for name, map_HW in named
    )
    attributes = [
        ("channels", "chlist", listed + b"\0"),
        ("compression", "compression", bytes([_ZIP])),
        ("dataWindow", "box2i", window),
        ("displayWindow", "box2i", window),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
        *((name, "string", value.encode()) for name, value in text.items()),
    ]
    head = struct.pack("<ii", _MAGIC, _VERSION)
    for name, kind, value in attributes:
        head += name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value
    head += b"\0"
    blocks = []
    for top in range(0, height, _LINES):
        rows = range(top, min(top + _LINES, height))
        packed = _packed(b"".join(map_HW[row].tobytes() for row in rows for _, map_HW in named))
        blocks.append(struct.pack("<ii", top, len(packed)) + packed)
    at = len(head) + 8 * len(blocks)
    table = []
    for block in blocks:
        table.append(at)
        at += len(block)
    return head + struct.pack(f"<{len(table)}Q", *table) + b"".join(blocks)


def _packed(raw: bytes) -> bytes:
    """A block by the rules of ZIP: bytes at even places first, each as the difference to the one before."""
    data = np.frombuffer(raw, np.uint8)
    halves = np.concatenate([data[::2], data[1::2]])
    halves[1:] = halves[1:] - halves[:-1] + np.uint8(128)
    packed = zlib.compress(halves.tobytes(), 4)
    return packed if len(packed) < len(raw) else raw


_CODE = """
from pathlib import Path
import OpenEXR  # pip install OpenEXR

path = sorted(Path(".").rglob("*.exr"))[0]
with OpenEXR.File(str(path), separate_channels=True) as file:
    depth = next(file.channels()[name].pixels.copy() for name in ("Z", "Y") if name in file.channels())
    reliability = file.channels()["reliability"].pixels.copy()
"""
