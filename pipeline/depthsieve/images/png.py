"""A PNG without its texts and its colour profile, which no pixel depends on.

Image generators put megabytes of text before the pixels, and Pillow refuses what unpacks to more than it allows. Here
such chunks are left out before Pillow sees the file.
"""

import io
import struct
from typing import BinaryIO

_LEFT_OUT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_PIXELS = b"IDAT"
_SIGNATURE_BYTES, _FRAME_BYTES = 8, 12  # a chunk has its length, its name and a checksum beside its data


def without_text(data: bytes) -> bytes:
    """The file in ``data`` without such chunks; ``data`` itself where there are none."""
    parts, start, at = [], 0, _SIGNATURE_BYTES
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name in _LEFT_OUT:
            parts.append(data[start:at])
            start = at + length + _FRAME_BYTES
        at += length + _FRAME_BYTES
    return b"".join([*parts, data[start:]]) if parts else data


def header_only(file: BinaryIO) -> BinaryIO:
    """What stands before the pixels, such chunks skipped, and the start of the first chunk of pixels."""
    kept = io.BytesIO()
    kept.write(file.read(_SIGNATURE_BYTES))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in _LEFT_OUT:
            file.seek(length + 4, 1)
            continue
        kept.write(head)
        if name == _PIXELS:
            break
        kept.write(file.read(length + 4))
    kept.seek(0)
    return kept
