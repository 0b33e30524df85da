"""What an image file declares about itself: its format, size, orientation and focal length. No pixel is decoded here.

Input is hostile. The format is told from the first bytes, never from the name, and a reader of headers gets only
``MAX_HEADER_BYTES`` of the file.
"""

import contextlib
import re
from dataclasses import dataclass, field
from math import hypot
from typing import BinaryIO

from depthsieve.core.cameras import Camera
from depthsieve.core.errors import ImageRejected
from depthsieve.images.exif import FULL_FRAME_DIAGONAL_MM, read_exif

MAX_PIXELS = 200_000_000
"""The largest image, in pixels: what the largest phone cameras take, and about a gigabyte while it is decoded."""
MAX_HEADER_BYTES = 16 * 1024 * 1024
"""How much of a file the header scan reads at most, however much metadata stands before the pixels."""

# A regular expression of the first bytes, and what they mean. The first that fits counts.
_SUPPORTED: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM", "BMP"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"P[1-6][\s#]", "PNM"),
)
_STAND_INS: tuple[tuple[bytes, str], ...] = (
    (rb"version https://git-lfs", "a Git LFS pointer and not the file itself: run `git lfs pull`"),
    (rb"(?i)\s*<(!doctype html|html)", "a web page and not the file itself: download it again"),
    (rb"\s*<\?xml[^>]*>\s*<Error>", "an error message of a server and not the file itself: download it again"),
)
A_VIDEO = "a video, whose frames are read if its name ends in .mp4, .mov, .mkv, .avi or .webm"
"""What a file of moving images is, and what to do."""

_KNOWN_OTHERS: tuple[tuple[bytes, str], ...] = (
    *_STAND_INS,
    (rb"....ftypavi[fs]", "AVIF is not read: convert to PNG or JPEG"),
    (rb"....ftyp(he[iv]|mif1|msf1)", "HEIC is not read: convert to PNG or JPEG"),
    (rb"....ftypcrx|FUJIFILMCCD-RAW|IIR[OS]|IIU\0", "camera raw is not read: convert to PNG or JPEG"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000 is not read: convert to PNG or JPEG"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL is not read: convert to PNG or JPEG"),
    (rb"8BPS", "Photoshop files are not read: convert to PNG or JPEG"),
    (rb"v/1\x01|P[Ff]\s|#\?RADIANCE", "floating-point images are not read: convert to 8 or 16 bits"),
    (rb"\s*(<\?xml.*)?<svg", "SVG is not read: convert to PNG or JPEG"),
    (rb"%PDF", "not an image but a PDF"),
    (
        rb"....ftyp|....moov|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]|FLV\x01|OggS|0&\xb2u",
        f"not an image but {A_VIDEO}",
    ),
    (rb"PK[\x03\x05]", "not an image but a zip archive, which is read if its name ends in .zip"),
    (rb"PAR1", "not an image but a Parquet file, which is read if its name ends in .parquet"),
    (rb"ARROW1", "not an image but an Arrow file, which is read if its name ends in .arrow"),
    (rb"\x89HDF", "not an image but an HDF5 file, which is read if its name ends in .h5"),
    (rb"\x93NUMPY", "not an image but a NumPy array: save it as PNG"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|Rar!|7z\xbc\xaf", "not an image but a compressed file: unpack it first"),
    (rb"\0{32}", "not an image: it begins with zeros"),
    (rb"\s*[{\[][\s\"{\[\]}]", "not an image but JSON"),
)
NOT_BUT_TEXT = "not an image but text"
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")
_A_TABLE = re.compile(rb"[^\n]*[^\s,;\t][,;\t][^\s,;\t]")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image file declares. ``width`` and ``height`` are pixels of the upright image, at least 1.

    ``orientation`` is the EXIF value 1..8 that is undone. ``focal_px`` is the focal length in pixels of the source,
    0.0 where the file does not tell: EXIF's 35 mm equivalent over 43.27 mm, times the image's diagonal.
    ``is_deep_grey``: it has one channel, of more than 8 bits. ``camera`` is what all of EXIF says, see
    :meth:`depthsieve.images.exif.Exif.focal_px`; None where it does not.
    """

    width: int
    height: int
    orientation: int
    focal_px: float
    is_deep_grey: bool = False
    camera: Camera | None = field(default=None, compare=False)


def kind_of(start: bytes) -> str:
    """The format that the first bytes (64 are enough) tell: JPEG, PNG, WebP, GIF, BMP, TIFF or PNM.

    Raises :class:`ImageRejected`, with what it is instead where that is known.
    """
    if not start:
        raise ImageRejected("empty file")
    for pattern, kind in _SUPPORTED:
        if re.match(pattern, start, re.DOTALL):
            return kind
    for pattern, reason in _KNOWN_OTHERS:
        if re.match(pattern, start, re.DOTALL):
            raise ImageRejected(reason)
    if _TEXT.fullmatch(start):
        with contextlib.suppress(UnicodeDecodeError):
            start[: len(start) - 3].decode()  # the last character may be cut
            raise ImageRejected(NOT_BUT_TEXT if not _A_TABLE.match(start) else f"{NOT_BUT_TEXT}, a table of it")
    raise ImageRejected("not an image of a known format")


def stand_in(start: bytes) -> str | None:
    """What lies in a file's place, by its first bytes: a pointer to it, or what a failed download left; else None."""
    return next((words for pattern, words in _STAND_INS if re.match(pattern, start, re.DOTALL)), None)


def make_header(width: int, height: int, exif: bytes = b"") -> ImageHeader:
    """The header of an image stored as ``width`` x ``height`` pixels. Raises :class:`ImageRejected` if too large."""
    if width * height > MAX_PIXELS:
        allowed = f"{MAX_PIXELS // 1_000_000} megapixels"
        raise ImageRejected(f"declares {width}x{height} pixels, more than the {allowed} allowed")
    said = read_exif(exif)
    focal_px = said.focal_35mm / FULL_FRAME_DIAGONAL_MM * hypot(width, height)
    focal, origin = said.focal_px(width, height)
    if said.orientation >= 5:
        width, height = height, width
    camera = Camera.centred(focal, width, height, origin) if origin else None
    return ImageHeader(width, height, said.orientation, focal_px, camera=camera)


def webp_header(file: BinaryIO) -> ImageHeader:
    """The header of a WebP, from its chunks: Pillow reads such a file whole and allocates its canvas to open it."""
    start = file.read(30)
    if len(start) < 30:
        raise ImageRejected("truncated WebP: the file ends before the image does")
    declared, present = 8 + int.from_bytes(start[4:8], "little"), file.seek(0, 2)
    if declared > present:
        raise ImageRejected(f"truncated WebP: {declared - present:,} of its {declared:,} bytes are missing")
    if start[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(start[at : at + 3], "little") for at in (24, 27))
        return make_header(width, height, _webp_exif(file) if start[20] & 0x08 else b"")
    if start[12:16] == b"VP8L" and start[20] == 0x2F:
        packed = int.from_bytes(start[21:25], "little")
        return make_header(1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))
    if start[12:16] == b"VP8 " and start[23:26] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(start[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        if width and height:
            return make_header(width, height)
    raise ImageRejected("damaged WebP: it does not begin with an image")


def _webp_exif(file: BinaryIO) -> bytes:
    """The EXIF chunk, which stands behind the pixels."""
    at = 12
    while len(head := (file.seek(at), file.read(8))[1]) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF":
            return file.read(size)
        at += 8 + size + size % 2
    return b""


class LimitedFile:
    """A file of which a parser may read ``MAX_HEADER_BYTES`` in all; remembers what went wrong with the file itself."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MAX_HEADER_BYTES
        self.failure: OSError | ImageRejected | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        except OSError as error:
            self.failure = error
            raise
        self._left -= len(data)
        if self._left < 0:
            self.failure = ImageRejected(f"its header is longer than {MAX_HEADER_BYTES // 2**20} MiB")
            raise self.failure
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
