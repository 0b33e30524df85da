"""What every source of images gives: a scan of what is there, and the bytes of one image."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from depthsieve.records import ImageRecord, RejectedImage


@dataclass(frozen=True)
class Scan:
    """What a source holds. ``images`` and ``rejected`` are sorted by id, whatever the order of the directory.

    ``rejected`` are files that look like images, or folders, of which none can be labelled, each with its reason.
    ``skipped_hidden`` counts names that begin with a dot (a hidden folder counts once), ``skipped_other`` what does not
    look like an image, ``known`` images whose ids the caller already had.
    """

    images: tuple[ImageRecord, ...]
    rejected: tuple[RejectedImage, ...]
    skipped_hidden: int
    skipped_other: int
    known: int = 0


class Source(Protocol):
    """Where images come from. ``root`` is an absolute, resolved path, or a URL; it is recorded in the store.
    ``is_one_file``: the source is one image file, and ``root`` the folder it lies in."""

    name: str
    root: str
    is_one_file: bool

    def scan(self, progress: Callable[[int], None] | None = None, known: Collection[str] = ()) -> Scan:
        """Everything that is there now, with headers read, but for the ids in ``known``: those are only counted.

        ``progress`` is called now and then with the number of files looked at since its last call.
        """

    def is_there(self) -> bool:
        """Whether the root can be listed and holds anything: not where a disk is not mounted, or a server away."""

    def read(self, image_id: str) -> bytes:
        """One image's bytes. ``OSError`` passes through; :class:`SourceError` for an id that is not this source's, or
        would leave its root; :class:`ImageRejected` for what is no longer a regular file of a size that can be read.
        """
