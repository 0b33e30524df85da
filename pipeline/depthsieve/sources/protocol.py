"""What every source of images gives: a list of what is there, the header of one image, and its bytes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from depthsieve.core.frames import ALL_FRAMES, FrameChoice, Videos
from depthsieve.core.records import ImageRecord, RejectedImage
from depthsieve.images.headers import ImageHeader

UNKNOWN_SIZE = -1
"""The size of an image that only reading it tells, as of a row of a Parquet file."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One image as a listing shows it, not opened yet. ``size`` is in bytes, or :data:`UNKNOWN_SIZE`; ``mtime_ns`` is
    the file's, and within a container that of the container."""

    id: str
    size: int
    mtime_ns: int


@dataclass
class Passed:
    """What a listing passes over, counted as it goes on: ``hidden`` names that begin with a dot (a hidden folder counts
    once), ``other`` what does not look like an image, ``excluded`` what a user leaves out. ``frames`` says which
    frames of a video are taken, and ``videos`` is told of each."""

    hidden: int = 0
    other: int = 0
    excluded: int = 0
    frames: FrameChoice = ALL_FRAMES
    videos: Videos = field(default_factory=Videos)

    def __str__(self) -> str:
        excluded = f", {self.excluded:,} excluded" if self.excluded else ""
        return f"{self.other:,} other and {self.hidden:,} hidden files{excluded}"


class DeepGreyImage(ImageRecord):
    """An image of one channel of more than 8 bits, as depth maps are."""

    __slots__ = ()


def record_of(image_id: str, size: int, mtime_ns: int, header: ImageHeader) -> ImageRecord:
    """An image of which the header was read."""
    kind = DeepGreyImage if header.is_deep_grey else ImageRecord
    return kind(image_id, size, mtime_ns, header.width, header.height, header.orientation)


class Source(Protocol):
    """Where images come from. ``root`` is an absolute, resolved path, or a URL; it is recorded in the store.
    ``is_one_file``: the source is one file, and ``root`` the folder it lies in. ``shown`` is what messages call the
    source: that file, a list, or the root. ``at_once`` is how many images are best looked at at the same time."""

    name: str
    root: str
    shown: str
    is_one_file: bool
    at_once: int

    def listing(self, passed: Passed) -> Iterator[Listed | RejectedImage]:
        """Everything that is there now, in any order, and none of it opened.

        What looks like an image or a folder of images and cannot be one is rejected with its reason. An id may come
        twice: then it is one image. Raises :class:`SourceError` where the listing breaks off.
        """

    def look(self, listed: Listed) -> ImageRecord | RejectedImage:
        """What the header of one image says, or why it cannot be labelled. May be called by several threads at once.

        Raises :class:`SourceError` where it is not the image that is at fault.
        """

    def now(self, listed: Listed) -> Listed | RejectedImage:
        """The size and time that an image has now, or why it is no longer there. Nothing is opened but a container.

        Raises :class:`SourceError` where it is not the image that is at fault.
        """

    def is_there(self) -> bool:
        """Whether the root can be listed and holds anything: not where a disk is not mounted, or a server away."""

    def read(self, image_id: str) -> bytes:
        """One image's bytes. ``OSError`` passes through; :class:`SourceError` for an id that is not this source's, or
        would leave its root; :class:`ImageRejected` for what is no longer a regular file of a size that can be read.
        """
