"""Bytes of an image file to an upright RGB array, or a refusal with a reason a person can read.

Input is hostile: the declared size is checked before anything is allocated, and whatever a codec makes of bad bytes
becomes one :class:`ImageRejected`. Seven formats are read (JPEG, PNG, WebP, GIF, BMP, TIFF, PNM), told from the first
bytes and never from the name; everything else is refused by name.

Decisions, the same for every image:

* Of several frames or pages (GIF, APNG, WebP, TIFF, the JPEG pairs of phones) the first one is taken.
* EXIF orientation 1..8 is undone; any other value, or EXIF that cannot be read, means upright. Orientation in XMP, and
  EXIF that a PNG puts behind its pixels, are ignored.
* 16-bit channels keep their high byte, as OpenCV's 8-bit reading does. 12-bit grey is scaled likewise.
* 32-bit and floating-point pixels have no agreed white point: refused.
* CMYK JPEGs are taken as inverted (Adobe's way); conversion to RGB is the plain one. Colour profiles are ignored: the
  published teachers are used without them.
* Where alpha is below 255 the pixel is composited over white, and below 128 it is a hole. Under transparency a file
  holds whatever its writer left there, so if alpha were dropped, two files that look the same could get different
  labels. Opaque pixels keep their exact values: an opaque image is as if alpha were dropped.

Axes: H height, W width, 3 red, green, blue.
"""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, features
from PIL import __version__ as pillow_version
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from depthsieve.errors import ImageRejected
from depthsieve.image_headers import (
    MAX_HEADER_BYTES,
    MAX_PIXELS,
    ORIENTATION_TAG,
    ImageHeader,
    LimitedFile,
    kind_of,
    make_header,
    own_pillow_settings,
    webp_header,
)

__all__ = [
    "HOLE_ALPHA",
    "MAX_HEADER_BYTES",
    "MAX_PIXELS",
    "DecodedImage",
    "ImageHeader",
    "decode",
    "decoder_versions",
    "read_header",
]

HOLE_ALPHA = 128
"""Pixels with alpha below this are holes: there is no image."""

# Not Image.open: its size check warns, depends on a setting of the process, and comes after the plugin has run.
_OPENERS: dict[str, Callable[[BinaryIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "PNM": PpmImageFile,
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright image. ``rgb_HW3`` is uint8, C-contiguous and read-only.

    ``hole_HW`` is bool, True where alpha says that there is no image, None where every pixel is opaque.
    """

    rgb_HW3: npt.NDArray[np.uint8]
    hole_HW: npt.NDArray[np.bool_] | None
    header: ImageHeader


def read_header(file: BinaryIO | Path) -> ImageHeader:
    """The header of an image file, without decoding a pixel; at most ``MAX_HEADER_BYTES`` are read.

    ``file`` is a path or a seekable binary file at its start. Raises :class:`ImageRejected` with the reason; an
    ``OSError`` of the file itself passes through.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return read_header(opened)
    limited = LimitedFile(file)
    kind = kind_of(limited.read(64))
    limited.seek(0)
    try:
        with own_pillow_settings():
            return _open(kind, cast(BinaryIO, limited), pixels=False)[1]
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:
        if limited.failure is not None:
            raise limited.failure from None
        _refuse(kind, error)


def decode(data: bytes) -> DecodedImage:
    """The image in ``data``, the whole content of a file, upright, as 8-bit RGB.

    Raises :class:`ImageRejected` with the reason for whatever is wrong with the bytes. May be called by several
    threads at once.
    """
    kind = kind_of(data[:64])
    try:
        with own_pillow_settings():
            image, header = _open(kind, io.BytesIO(data), pixels=True)
            assert image is not None
            bits = _channel_bits(image)
            image.load()
            rgb_HW3, alpha_HW = _to_rgb(image, bits)
    except (ImageRejected, MemoryError):
        raise
    except Exception as error:
        _refuse(kind, error)
    hole_HW = None
    if alpha_HW is not None and alpha_HW.min() < 255:
        rgb_HW3 = _over_white(rgb_HW3, alpha_HW)
        hole_HW = alpha_HW < HOLE_ALPHA
    if kind != "TIFF":  # which Pillow turns itself
        rgb_HW3 = _upright(rgb_HW3, header.orientation)
        hole_HW = None if hole_HW is None else _upright(hole_HW, header.orientation)
    if rgb_HW3.shape != (header.height, header.width, 3):
        raise ImageRejected(f"damaged {kind}: it does not hold the {header.width}x{header.height} pixels it declares")
    rgb_HW3.flags.writeable = False
    return DecodedImage(rgb_HW3, hole_HW, header)


def decoder_versions() -> dict[str, str]:
    """Versions of what turns a file into pixels and resizes them, for the numerics profile."""
    import cv2  # not on the decoding path

    codecs = {name: features.version(name) or "absent" for name in ("libjpeg_turbo", "libtiff", "webp", "zlib")}
    return {"pillow": pillow_version, "opencv": str(cv2.__version__), **codecs}


def _open(kind: str, file: BinaryIO, *, pixels: bool) -> tuple[ImageFile | None, ImageHeader]:
    """The opened image, nothing decoded yet, and its header; no image for a WebP of which only the header is wanted."""
    if kind == "WebP":
        header = webp_header(file)
        file.seek(0)
        return (WebPImageFile(file) if pixels else None), header
    image = _OPENERS[kind](file)
    if isinstance(image, TiffImageFile):
        image.info.pop("xmp", None)  # Pillow turns a TIFF upright itself, and would ask XMP too
        orientation = image.tag_v2.get(ORIENTATION_TAG)
        header = make_header(*image.size)
        if isinstance(orientation, int) and 1 <= orientation <= 8:
            header = ImageHeader(header.width, header.height, orientation, 0.0)
        return image, header
    exif = image.info.get("exif")
    return image, make_header(*image.size, exif if isinstance(exif, bytes) else b"")


def _refuse(kind: str, error: Exception) -> NoReturn:
    """One reason out of the many ways in which a codec says that bytes are bad."""
    text = (str(error).strip().splitlines() or [""])[0]
    cut = re.search(r"truncated|end of file|unexpected eof|not enough image data", text, re.IGNORECASE)
    if cut or isinstance(error, EOFError | struct.error):
        raise ImageRejected(f"truncated {kind}: the file ends before the image does") from error
    text = re.sub(r"<[^>]*>", "", text)[:200]  # no memory addresses: reasons are compared byte for byte
    raise ImageRejected(f"damaged {kind}: {text or type(error).__name__}") from error


def _channel_bits(image: ImageFile) -> int:
    """Bits a channel as stored in the file, from the name of Pillow's raw mode (``RGB;16B``, ``L;4``, ``1``)."""
    arguments: Any = image.tile[0][3] if image.tile else ""
    rawmode = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    found = re.match(r".*;(\d+)", rawmode) if isinstance(rawmode, str) else None
    return int(found[1]) if found else 1 if image.mode == "1" else 8


def _to_rgb(image: ImageFile, bits: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Loaded image as 8-bit RGB [H,W,3], and its alpha [H,W] where it has any."""
    mode, key = image.mode, image.info.get("transparency")
    if mode.startswith("I"):
        grey_HW = np.asarray(image)
        if not mode.startswith("I;16") and image.format not in ("PNG", "PPM"):
            raise ImageRejected("32-bit pixels have no agreed white point: convert to 8 or 16 bits")
        if bits < 16 and image.format == "TIFF":
            grey_HW = grey_HW << (16 - bits)
        alpha_HW = np.where(grey_HW == key, 0, 255).astype(np.uint8) if isinstance(key, int) else None
        grey_HW = (grey_HW >> 8).astype(np.uint8)
        return np.repeat(grey_HW[:, :, None], 3, axis=2), alpha_HW
    if mode == "F":
        raise ImageRejected("floating-point pixels have no agreed white point: convert to 8 or 16 bits")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or (mode == "P" and key is not None):
        if mode == "La":
            image_alpha: Image.Image = image.convert("LA").convert("RGBA")
        else:
            image_alpha = image.convert("RGBA")
        rgba_HW4 = np.asarray(image_alpha)
        return np.ascontiguousarray(rgba_HW4[:, :, :3]), rgba_HW4[:, :, 3]
    image.info.pop("transparency", None)
    rgb_HW3 = np.array(image.convert("RGB")) if mode != "RGB" else np.asarray(image)
    if key is None:
        return rgb_HW3, None
    colour = np.atleast_1d(key)
    colour = colour >> 8 if bits == 16 else colour * (255 // (2**bits - 1))
    return rgb_HW3, np.where((rgb_HW3 == colour).all(axis=2), 0, 255).astype(np.uint8)


def _over_white(rgb_HW3: npt.NDArray[np.uint8], alpha_HW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Composited over white, rounded; exact where alpha is 255."""
    alpha_HW1 = alpha_HW[:, :, None].astype(np.uint16)
    return ((rgb_HW3 * alpha_HW1 + 255 * (255 - alpha_HW1) + 127) // 255).astype(np.uint8)


def _upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """``array`` [H,W,...] with EXIF orientation 1..8 undone, C-contiguous."""
    if orientation >= 5:
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
