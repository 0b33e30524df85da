"""Which frames of a video are taken, and what a listing finds in videos. Nothing here opens a file.

A frame's id is ``source/clip.mp4::000120``: its number in the order of presentation, counted from 0, in six digits or
as many as the video's last frame needs, so that ids sort as the frames are shown.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from depthsieve.core.errors import UsageError

VIDEO_SUFFIXES = frozenset({".avi", ".mkv", ".mov", ".mp4", ".webm"})

FRAME_ID = r"(?is).*\.(?:avi|mkv|mov|mp4|webm)::[0-9]{6,}"
"""A regular expression of the ids of frames, for Python and DuckDB alike."""


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """Every ``every``-th frame, or with ``fps`` the frames that are seen at the ticks of a clock of that rate, which
    starts with the first frame."""

    every: int = 1
    fps: Fraction | None = None

    @classmethod
    def of(cls, every: int | None, fps: float | None) -> "FrameChoice | None":
        """What a user says; None where that is nothing. Raises :class:`UsageError` for what is invalid."""
        if every is not None and fps is not None:
            raise UsageError("--every and --fps do not go together: say which frames to take in one way")
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise UsageError(f"every must be a whole number of at least 1, not {every!r}")
        if fps is not None and not (isinstance(fps, int | float) and 0 < fps < math.inf):
            raise UsageError(f"fps must be a number of frames a second above 0, not {fps!r}")
        if fps is not None:
            return cls(fps=Fraction(str(fps)))
        return cls(every) if every is not None else None

    @classmethod
    def parse(cls, text: str) -> "FrameChoice":
        """The choice that ``str`` wrote."""
        kind, _, value = text.partition(" ")
        return cls(fps=Fraction(value)) if kind == "fps" else cls(int(value))

    def __str__(self) -> str:
        return f"fps {self.fps}" if self.fps is not None else f"every {self.every}"

    @property
    def option(self) -> str:
        """As a user says it."""
        return f"--fps {float(self.fps):g}" if self.fps is not None else f"--every {self.every}"

    def holds(self, earlier: "FrameChoice") -> bool:
        """Whether each frame that ``earlier`` takes of a video is among those that this one takes."""
        if self.fps is not None and earlier.fps is not None:
            return (self.fps / earlier.fps).denominator == 1
        return self.fps is None and earlier.every % self.every == 0 if earlier.fps is None else self.every == 1

    def pick(self, times: Sequence[int], time_base: Fraction) -> Sequence[int]:
        """The numbers of the frames that are taken, in order, of frames shown at sorted ``times`` in ``time_base``.

        The last frame is taken to last as long as the one before it.
        """
        if self.fps is None:
            return range(0, len(times), self.every)
        step = 1 / (self.fps * time_base)
        ends = [*times[1:], 2 * times[-1] - times[max(0, len(times) - 2)]] if len(times) else []
        first = times[0] if len(times) else 0
        # The first tick at or after a frame's start belongs to it if the frame is still shown then.
        ticks = [-((first - start) * step.denominator // step.numerator) for start in times]
        return [
            number
            for number, (tick, end) in enumerate(zip(ticks, ends, strict=True))
            if tick * step.numerator < (end - first) * step.denominator or (number == 0 == len(times) - 1)
        ]


ALL_FRAMES = FrameChoice()


def is_frame(image_id: str) -> bool:
    """Whether an image is a frame of a video, by its id."""
    return re.fullmatch(FRAME_ID, image_id) is not None


def number_in_video(image_id: str) -> int:
    """Which frame of its video a frame is."""
    return int(image_id.rpartition("::")[2])


@dataclass
class Videos:
    """The videos that a listing opened: how many, the ``frames`` in them, and those ``taken``. ``deep`` have more than
    8 bits a channel, ``hdr`` a transfer function of HDR (PQ, HLG); the first of each is named."""

    count: int = 0
    frames: int = 0
    taken: int = 0
    deep: int = 0
    hdr: int = 0
    first_deep: str = ""
    first_hdr: str = ""

    def add(self, name: str, frames: int, taken: int, deep: bool, hdr: bool) -> None:
        """Count one."""
        self.count += 1
        self.frames += frames
        self.taken += taken
        self.deep += deep
        self.hdr += hdr
        self.first_deep = self.first_deep or (name if deep else "")
        self.first_hdr = self.first_hdr or (name if hdr else "")

    def notes(self, choice: FrameChoice) -> tuple[str, ...]:
        """What a person should know of them, a line each."""
        if not self.count:
            return ()
        lines = []
        videos, frames = _counted(self.count, "video"), _counted(self.frames, "frame")
        if choice == ALL_FRAMES:
            lines.append(f"{videos} with {frames}, all of them taken: --every N or --fps F takes fewer")
        else:
            lines.append(f"{videos} with {frames}, of which {choice.option} takes {self.taken:,}")
        if self.hdr:
            lines.append(
                f"{_counted(self.hdr, 'video')} in HDR (PQ or HLG), such as {self.first_hdr}: taken without tone "
                "mapping, so colours are flatter than a player shows them"
            )
        if self.deep:
            lines.append(
                f"{_counted(self.deep, 'video')} of more than 8 bits a channel, such as {self.first_deep}: rounded to 8"
            )
        return tuple(lines)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"
