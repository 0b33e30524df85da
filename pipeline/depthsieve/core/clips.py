"""Clips: images that are the frames of one sequence, and their order in time. Nothing here opens a file.

:class:`Clips` is the one place that says which clip and which frame an image is; whoever needs neighbours in time asks
it. What a clip is follows from ids alone, so nothing about it is stored with a label:

* The frames of a video: the clip of ``source/clip.mp4::000120`` is ``source/clip.mp4``.
* In a source that is a sequence (``label --sequence``, which the store remembers), the images of one folder, without
  those in folders below it: the clip of ``source/run 1/frame9.png`` is ``source/run 1``. A container counts as a
  folder, and so do folders in it: that of ``source/a.tar::b/9.png`` is ``source/a.tar::b``, that of
  ``source/a.tar::9.png`` is ``source/a.tar``.

Frames follow one another in the natural order of their ids, in which numbers count as such: ``frame9`` stands before
``frame10``. A frame's number counts from 0: in a video, where it stands in the order of presentation, whichever frames
were taken; in a folder, its place in that order among the images that are asked about.

Shards hold images in the order of their ids, so a clip of one label shape lies in rows that follow one another, and
where numbers have leading zeros, also in time.
"""

import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from depthsieve.core.frames import is_frame, number_in_video


class ClipFit(NamedTuple):
    """Where a frame stands in its clip. ``scale * label + shift`` compares with that of all frames of one ``segment``,
    which are counted from 0.

    ``residual`` is the median difference to the frame that it was fitted to, over the spread of its label (from the 5th
    to the 95th percentile); ``pixels`` the share of its reliable pixels, 0..1, that show the same spot of the scene in
    the frame before. ``change`` is the median difference to the label of the frame before at those pixels, over the
    mean spread of the two, and ``change_aligned`` the same once both are aligned. The last four are NaN in the first
    frame of a segment, and changes also where there is no photo. All are NaN for an image that nobody looked at.
    """

    scale: float
    shift: float
    segment: float
    residual: float
    pixels: float
    change: float
    change_aligned: float


CLIP_COLUMNS = ClipFit._fields

HOW_TO_HAVE_CLIPS = (
    "label videos, or say that the folders of a source are clips with `depthsieve label SOURCE STORE --sequence`"
)
"""What a user can do where a store has none."""

NO_CLIP = ClipFit(*[math.nan] * len(CLIP_COLUMNS))
"""Of an image that is in no clip, or that nobody looked at."""


def clip_of(image_id: str, sequences: Container[str] = ()) -> str | None:
    """The clip that an image is a frame of; None for one that is in none. ``sequences`` are the names of the sources
    whose folders are clips, as :meth:`Store.sequences <depthsieve.store.catalog.Catalog.sequences>` returns them."""
    if is_frame(image_id):
        return image_id.rpartition("::")[0]
    if image_id.partition("/")[0] not in sequences:
        return None
    return image_id[: max(image_id.rfind("/"), image_id.rfind("::"))]


def in_time(image_id: str) -> tuple[str, str]:
    """The key that sorts the frames of a clip as they follow one another. Equal numbers (``9``, ``09``) go by their
    digits."""
    return re.sub("[0-9]+", _by_size, image_id), image_id


class Clips(Mapping[str, Sequence[str]]):
    """The clips among some images: by name, in order, the ids of each one's frames in the order of time. Images of no
    clip are left out."""

    def __init__(self, image_ids: Iterable[str], sequences: Container[str] = ()) -> None:
        """``sequences``: as :func:`clip_of` takes them."""
        self._sequences = sequences
        found: dict[str, list[str]] = {}
        for image_id in image_ids:
            clip = self.of(image_id)
            if clip is not None:
                found.setdefault(clip, []).append(image_id)
        self._frames = {clip: sorted(found[clip], key=in_time) for clip in sorted(found)}

    def __getitem__(self, clip: str) -> Sequence[str]:
        return self._frames[clip]

    def __iter__(self) -> Iterator[str]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def of(self, image_id: str) -> str | None:
        """The clip that an image is a frame of, whether it is one of these images or not; None: it is in none."""
        return clip_of(image_id, self._sequences)

    def numbers(self, clip: str) -> Sequence[int]:
        """The numbers of a clip's frames, in order."""
        frames = self[clip]
        return [number_in_video(one) for one in frames] if is_frame(frames[0]) else range(len(frames))


def _by_size(number: re.Match[str]) -> str:
    """Digits, as text that sorts as the number does; there may be too many of them for an int."""
    digits = number[0].lstrip("0")
    return f"{len(digits):06}{digits}"
