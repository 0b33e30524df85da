"""Helpers for tests of decoding: headers, reasons of refusal, files with EXIF."""

import io

import pytest
from hostile import encoded, exif
from PIL import Image

from depthsieve.core.errors import ImageRejected
from depthsieve.images.decode import ImageHeader, decode, read_header

FORMATS_WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF")


def with_exif(image: Image.Image, kind: str, orientation: int, focal_35mm: int | None = None) -> bytes:
    if kind == "TIFF":
        return encoded(image, kind, tiffinfo={0x0112: orientation})
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    return encoded(image, kind, exif=exif(orientation, focal_35mm), **options)


def header_of(data: bytes) -> ImageHeader:
    return read_header(io.BytesIO(data))


def rejection(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        decode(data)
    return str(caught.value)
