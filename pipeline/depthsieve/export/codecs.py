"""Maps as bytes of common files, and back: what exports write, imports read.

Axes: H row, W column.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

PNG_START = b"\x89PNG\r\n\x1a\n"
_TEXT = b"tEXt"
_UNICODE = b"iTXt"

CODES = 65535
"""The largest code of a 16-bit map; 0 is invalid."""


def encode_png(map_HW: NDArray[np.uint8] | NDArray[np.uint16], text: Mapping[str, str] | None = None) -> bytes:
    """A grey PNG of 8 or 16 bits, with text chunks before its pixels. The same map gives the same bytes, in one version
    of OpenCV."""
    made, data = cv2.imencode(".png", map_HW, (cv2.IMWRITE_PNG_COMPRESSION, 3))
    assert made
    png = data.tobytes()
    end_of_header = len(PNG_START) + 25
    chunks = b"".join(_text_chunk(key, value) for key, value in (text or {}).items())
    return png[:end_of_header] + chunks + png[end_of_header:]


def _text_chunk(key: str, value: str) -> bytes:
    if value.isascii() and value.isprintable():
        return _chunk(_TEXT, key.encode("ascii") + b"\0" + value.encode("ascii"))
    return _chunk(_UNICODE, key.encode("ascii") + b"\0\0\0\0\0" + value.encode())


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def decode_png(data: bytes) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], dict[str, str]]:
    """A grey PNG's map [H,W] in its own depth, and its text chunks. Raises :class:`ValueError` for anything else."""
    if not data.startswith(PNG_START):
        raise ValueError("not a PNG")
    map_HW: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if map_HW is None or map_HW.ndim != 2:
        raise ValueError("not a grey PNG, or damaged")
    return map_HW, png_text(data)


def png_text(data: bytes) -> dict[str, str]:
    """The text chunks of a PNG that stand before its pixels; packed ones are left out."""
    found: dict[str, str] = {}
    at = len(PNG_START)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        key, _, value = body.partition(b"\0")
        if name == _TEXT:
            found[key.decode("latin-1")] = value.decode("latin-1")
        elif name == _UNICODE and value[:1] == b"\0":
            found[key.decode("latin-1")] = value[2:].partition(b"\0")[2].partition(b"\0")[2].decode()
        elif name == b"IDAT":
            break
        at += length + 12
    return found


@dataclass(frozen=True, slots=True)
class Affine16:
    """A map in 16 bits: ``codes_HW`` 1..65535 stand for ``offset + scale * code``, 0 is invalid."""

    codes_HW: NDArray[np.uint16]
    scale: float
    offset: float


def to_affine16(values_HW: NDArray[np.float32]) -> Affine16:
    """A float map, NaN where invalid, in 16 bits over its own range: values are kept within half of ``scale``, which is
    1/65534 of the range. A map of one value has scale 0, one without any valid pixel offset 0 too."""
    valid_HW = ~np.isnan(values_HW)
    if not valid_HW.any():
        return Affine16(np.zeros(values_HW.shape, np.uint16), 0.0, 0.0)
    low, high = float(np.nanmin(values_HW)), float(np.nanmax(values_HW))
    scale = (high - low) / (CODES - 1)
    offset = low - scale
    filled_HW = np.where(valid_HW, values_HW, low).astype(np.float64)
    codes_HW = np.rint((filled_HW - offset) / scale) if scale else np.ones(values_HW.shape)
    return Affine16(np.where(valid_HW, np.clip(codes_HW, 1, CODES), 0).astype(np.uint16), scale, offset)


def from_affine16(coded: Affine16) -> NDArray[np.float32]:
    """What :func:`to_affine16` coded: float32, NaN where invalid."""
    values_HW = coded.offset + coded.scale * coded.codes_HW.astype(np.float64)
    return np.where(coded.codes_HW > 0, values_HW, np.nan).astype(np.float32)


def encode_npy(array: NDArray[Any]) -> bytes:
    """A ``.npy`` file, version 1.0, C order."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def encode_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A compressed ``.npz`` file without times, so that equal arrays give equal bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # of 1980
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, encode_npy(array))
    return file.getvalue()
