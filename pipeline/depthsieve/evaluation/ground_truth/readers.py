"""Depth maps, and masks, in the bytes of a file: ``.npy``, ``.npz``, PNG, ``.pfm``. Input is hostile.

Each reader returns the values as they are stored, [H,W], and refuses what is not one map of numbers. The size that a
file declares is checked before anything is allocated. Axes: H row, W column.
"""

import io
import math
import re
import struct
import warnings
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from depthsieve.core.errors import GroundTruthError
from depthsieve.images.headers import MAX_PIXELS
from depthsieve.images.pillow_guard import own_pillow_settings

USUAL_SCALES = "1000 for millimetres, 256 for KITTI, 5000 for TUM"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_GREY = 0
_PFM = re.compile(rb"(P[Ff])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,32})\s")


def one_map(shape: tuple[int, ...], dtype: "np.dtype[Any]", scale: float | None) -> tuple[int, int]:
    """The (height, width) of an array that is one map of depth, with or without an axis of length 1 at either end.

    Raises :class:`GroundTruthError` for other shapes, too many pixels, what are no real numbers, and whole numbers
    without a ``scale``: they are metres in no format.
    """
    size = _size_of(shape, "a depth map")
    if dtype.kind not in "fiu":
        raise GroundTruthError(f"it holds values of type {dtype}, and depth is numbers")
    if dtype.kind != "f" and scale is None:
        raise GroundTruthError(f"it holds whole numbers: say how many are a metre with --scale ({USUAL_SCALES})")
    return size


def _size_of(shape: tuple[int, ...], what: str) -> tuple[int, int]:
    sides = shape
    if len(sides) == 3 and 1 in (sides[0], sides[-1]):
        sides = sides[1:] if sides[0] == 1 else sides[:-1]
    if len(sides) != 2 or min(sides) < 1:
        raise GroundTruthError(f"it holds an array of shape {list(shape)}, and {what} is [height, width]")
    if math.prod(sides) > MAX_PIXELS:
        raise GroundTruthError(f"it declares {math.prod(sides):,} pixels, more than the {MAX_PIXELS:,} allowed")
    return sides[0], sides[1]


def read_npy(data: bytes, scale: float | None) -> NDArray[Any]:
    """An array as ``numpy.save`` writes it; never a pickled one."""
    shape, fortran, dtype, body = _npy_parts(data)
    size = one_map(shape, dtype, scale)
    return _npy_values(shape, fortran, dtype, body).reshape(size)


def read_npz(data: bytes, scale: float | None, dataset: str | None) -> NDArray[Any]:
    """The array ``dataset``, or the only one, of a file as ``numpy.savez`` writes it; never a pickled one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
            if dataset is None and len(names) != 1:
                listed = ", ".join(repr(name) for name in sorted(names)[:5]) or "none"
                raise GroundTruthError(f"which array holds the depth? Name it with --dataset (there are: {listed})")
            member = names.get(dataset or "") if dataset is not None else next(iter(names.values()))
            if member is None:
                raise GroundTruthError(f"it has no array {dataset!r}")
            if archive.getinfo(member).file_size > 16 * MAX_PIXELS:
                raise GroundTruthError(f"its array {member!r} has more bytes than a depth map may have")
            unpacked = archive.read(member)
    except (GroundTruthError, MemoryError):
        raise
    except Exception as error:  # whatever zipfile and zlib make of bad bytes
        raise GroundTruthError("it is damaged or not an .npz file") from error
    return read_npy(unpacked, scale)


def _npy_parts(data: bytes) -> "tuple[tuple[int, ...], bool, np.dtype[Any], memoryview]":
    """Shape, whether columns lie together, type, and the bytes of the values."""
    file = io.BytesIO(data)
    try:
        version = npy_format.read_magic(file)
        read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about Python 2's files
            shape, fortran, dtype = read_header(file)
    except Exception as error:  # numpy has Python parse it: of its errors there are many
        raise GroundTruthError("it is not a whole .npy file") from error
    return shape, fortran, dtype, memoryview(data)[file.tell() :]


def _npy_values(shape: tuple[int, ...], fortran: bool, dtype: "np.dtype[Any]", body: memoryview) -> NDArray[Any]:
    if len(body) != dtype.itemsize * math.prod(shape):
        raise GroundTruthError(
            f"truncated or damaged .npy: {len(body):,} bytes of values instead of {dtype.itemsize * math.prod(shape):,}"
        )
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def read_png(data: bytes, scale: float | None, bits_allowed: tuple[int, ...] = (16,)) -> NDArray[Any]:
    """A PNG of one grey channel of 16 bits, or of others that are allowed."""
    width, height, bits, colour = _png_head(data)
    if colour != _PNG_GREY:
        raise GroundTruthError("a PNG in colour: depth is one grey channel of 16 bits (is this a picture of depth?)")
    if bits not in bits_allowed:
        raise GroundTruthError(f"a PNG of {bits} bits: depth needs 16 (is this a picture of depth?)")
    one_map((height, width), np.dtype(np.uint16), scale)
    return _png_values(data, (height, width))


def _png_head(data: bytes) -> tuple[int, int, int, int]:
    """Width, height, bits, and the type of colour."""
    if not data.startswith(_PNG) or len(data) < 26:
        raise GroundTruthError("it is not a PNG file")
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    return width, height, bits, colour


def _png_values(data: bytes, size: tuple[int, int], mode: str | None = None) -> NDArray[Any]:
    try:
        with own_pillow_settings(MAX_PIXELS):
            image = PngImageFile(io.BytesIO(data))
            values = np.asarray(image.convert(mode) if mode is not None else image)
    except MemoryError:
        raise
    except Exception as error:  # whatever a codec makes of bad bytes
        raise GroundTruthError("truncated or damaged PNG") from error
    if values.shape[:2] != size:
        raise GroundTruthError("damaged PNG: it does not hold the pixels that it declares")
    return values


def read_mask(data: bytes, name: str) -> NDArray[np.bool_]:
    """A mask of valid ground truth, bool [H,W]: a ``.npy`` array or a PNG, of which every value but 0 and NaN is valid
    (in a PNG with colours, every pixel that is not black)."""
    if name.lower().endswith(".npy"):
        shape, fortran, dtype, body = _npy_parts(data)
        if dtype.kind not in "bfiu":
            raise GroundTruthError(f"it holds values of type {dtype}, and a mask is numbers")
        values_HW = _npy_values(shape, fortran, dtype, body).reshape(_size_of(shape, "a mask"))
        return np.asarray((values_HW != 0) & (values_HW == values_HW))  # NaN is not equal to itself
    width, height, _, colour = _png_head(data)
    size = _size_of((height, width), "a mask")
    values = _png_values(data, size, None if colour == _PNG_GREY else "RGB")
    return np.asarray(values.reshape(*size, -1).any(axis=2))


def read_pfm(data: bytes, scale: float | None) -> NDArray[Any]:
    """A grey portable float map: rows from the bottom to the top, a negative factor for little-endian values.

    (netpbm's manual page pfm(5).) The size of the factor says units without saying which, so a factor other than 1
    needs a ``scale``, which then counts alone.
    """
    header = _PFM.match(data[:128])
    try:
        factor = float(header[4]) if header else math.nan
    except ValueError:
        factor = math.nan
    if header is None or not math.isfinite(factor) or factor == 0:
        raise GroundTruthError("it is not a .pfm file")
    if header[1] != b"Pf":
        raise GroundTruthError("a .pfm in colour: depth is one channel")
    if abs(factor) != 1 and scale is None:
        raise GroundTruthError(
            f"its header has the factor {factor:g}: say how many units are a metre with --scale (1: as they are)"
        )
    dtype = np.dtype("<f4" if factor < 0 else ">f4")
    height, width = one_map((int(header[3]), int(header[2])), dtype, scale)
    body = memoryview(data)[header.end() :]
    if len(body) != 4 * height * width:
        raise GroundTruthError(
            f"truncated or damaged .pfm: {len(body):,} bytes of values instead of {4 * height * width:,}"
        )
    return np.frombuffer(body, dtype).reshape(height, width)[::-1]
