"""The source images of labels, for targets that put photos beside or into what they write.

Axes: H row, W column, 3 red, green, blue.
"""

import functools
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.records import Shape
from depthsieve.images.decode import decode
from depthsieve.images.headers import kind_of
from depthsieve.sources import Source, decode_path, is_remote, reopen_source
from depthsieve.sources.folder import FolderSource
from depthsieve.store import Label, Store
from depthsieve.store.stored_images import to_label_shape

QUALITY = 95
"""Of JPEGs that are written here."""

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif", "PNM": ".ppm"}


@dataclass(frozen=True)
class PhotoFile:
    """A photo to be written beside labels. ``original`` is the file of this machine that holds exactly ``data``, which
    may be linked to; None where there is none, or ``data`` was changed. ``suffix`` fits its format: ``.jpg``."""

    data: bytes
    suffix: str
    original: Path | None = None


class PhotoReader:
    """Reads source images of a store's labels. Threads may use one at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sources: dict[str, Source] = {}

    @functools.cached_property
    def _roots(self) -> dict[str, str]:
        return dict(self._store.sources())

    def _source(self, image_id: str) -> Source:
        name = image_id.partition("/")[0]
        if name not in self._roots:
            raise SourceError(f"{self._store.location} does not say where its source {name!r} is")
        if name not in self._sources:
            self._sources[name] = reopen_source(name, self._roots[name])
        return self._sources[name]

    def read(self, image_id: str, content_sha256: str) -> bytes:
        """The file that was labelled. Raises :class:`SourceError` where it is not there any more, or has changed."""
        try:
            source = self._source(image_id)
            data = source.read(image_id)
        except (OSError, ImageRejected) as error:
            raise SourceError(f"its photo cannot be read ({getattr(error, 'strerror', None) or error})") from error
        if hashlib.sha256(data).hexdigest() != content_sha256:
            raise SourceError(f"its photo in {source.root} has changed since it was labelled")
        return data

    def frame_times(self, image_id: str) -> NDArray[np.float64]:
        """Of the video that an image is a frame of, the seconds from its first frame to each, by number. Raises
        :class:`SourceError` where it is not there any more."""
        source = self._source(image_id)
        try:
            if not isinstance(source, FolderSource):
                raise SourceError(f"{image_id} is no frame of a video")
            return source.frame_times(image_id)
        except (OSError, ImageRejected) as error:
            raise SourceError(f"its video cannot be read ({getattr(error, 'strerror', None) or error})") from error

    def path(self, image_id: str) -> Path | None:
        """The file of this machine that is the image; None within an archive, or in a bucket."""
        root = self._source(image_id).root
        if is_remote(root) or "::" in image_id:
            return None
        return Path(os.fsdecode(os.path.join(os.fsencode(root), decode_path(image_id.partition("/")[2]))))  # noqa: PTH118


@dataclass(frozen=True, eq=False)
class Photo:
    """The source image of one label. What it reads raises :class:`SourceError` where that is gone or has changed, and
    :class:`ImageRejected` where it cannot be decoded."""

    label: Label = field(repr=False)
    content_sha256: str
    orientation: int
    reader: PhotoReader = field(repr=False)

    @functools.cached_property
    def data(self) -> bytes:
        """The file, as it was labelled."""
        return self.reader.read(self.label.id, self.content_sha256)

    def frame_times(self) -> NDArray[np.float64]:
        """Of a frame: the seconds from the first frame of its video, as it was labelled, to each, by number."""
        _ = self.data  # raises where it has changed
        return self.reader.frame_times(self.label.id)

    def upright(self) -> NDArray[np.uint8]:
        """The photo as its teacher saw it, RGB uint8 [H,W,3], at source resolution: EXIF orientation undone, alpha over
        white."""
        return decode(self.data, self.label.store.spec.alpha).rgb_HW3

    def at(self, shape: Shape) -> NDArray[np.uint8]:
        """The photo, upright, RGB uint8 [H,W,3], on the pixels of a depth map of ``shape``; of the label's shape, it
        may be the image that the store keeps."""
        if shape == self.label.shape:
            return self.label.image()
        return to_label_shape(self.upright(), shape)

    def jpeg(self, shape: Shape) -> bytes:
        """The photo as an upright JPEG on the pixels of a depth map of ``shape``: the source file where it is one."""
        height, width = self.label.source_shape
        if shape == (height, width) and self.orientation == 1 and kind_of(self.data[:64]) == "JPEG":
            return self.data
        return jpeg(self.at(shape))

    def file(self, *, applies_exif: bool, kinds: tuple[str, ...] = ("JPEG", "PNG")) -> PhotoFile:
        """The photo as a file of its own for a reader of some ``kinds`` of files, which ``applies_exif`` or not.

        It is the source file itself, unless its reader would show it another way up than the label is, or does not read
        such files: then it is written again, upright: as JPEG of quality 95 where it was one, else as PNG.
        """
        kind = kind_of(self.data[:64])
        if kind in kinds and (applies_exif or self.orientation == 1):
            return PhotoFile(self.data, SUFFIXES[kind], self.reader.path(self.label.id))
        if kind == "JPEG" or "PNG" not in kinds:
            return PhotoFile(jpeg(self.upright()), ".jpg")
        return PhotoFile(_encoded(".png", self.upright()), ".png")


def jpeg(rgb_HW3: NDArray[np.uint8]) -> bytes:
    """A JPEG of quality 95 without subsampling. The same pixels give the same bytes, in one version of OpenCV."""
    full = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    return _encoded(".jpg", rgb_HW3, (cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full))


def _encoded(suffix: str, rgb_HW3: NDArray[np.uint8], how: tuple[Any, ...] = ()) -> bytes:
    return cv2.imencode(suffix, cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2BGR), how)[1].tobytes()
