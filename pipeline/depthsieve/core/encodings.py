"""How a store packs its maps: the encodings a user can choose from, by name, and those of earlier releases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EncodingName = Literal["fast", "small"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How maps are packed: by blosc with byte shuffle, then crc32c.

    ``text`` is what the label spec says of it; ``pixel_bytes`` is what a pixel of label takes, on the large side.
    """

    text: str
    codec: str
    level: int
    pixel_bytes: float


ENCODINGS: Mapping[EncodingName, Encoding] = {
    "fast": Encoding("float16+uint8,blosc-lz4hc5-shuffle,crc32c", "lz4hc", 5, 2.2),
    "small": Encoding("float16+uint8,blosc-zstd9-shuffle,crc32c", "zstd", 9, 1.9),
}
"""What a new store may have, by name; docs/encoding.md says why these."""

EARLIER_ENCODINGS = (Encoding("float16+uint8,blosc-zstd3-shuffle,crc32c", "zstd", 3, 2.2),)
"""What a store may have that was made by an earlier release."""
