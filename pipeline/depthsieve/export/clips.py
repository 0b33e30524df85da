"""Frames by the clip that they are of: a video, whose frames have ids such as ``default/clip.mp4::000120``."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

from depthsieve.core.frames import is_frame


@dataclass(frozen=True)
class Clip:
    """A clip as it is exported. ``ids`` are its frames, in order, those without a label among them; ``numbers`` are
    theirs in the video, counted from 0; ``labelled`` are those that have a label."""

    id: str
    ids: tuple[str, ...]
    labelled: frozenset[str] = field(repr=False)

    @functools.cached_property
    def numbers(self) -> tuple[int, ...]:
        return tuple(frame_of(image_id)[1] for image_id in self.ids)

    @functools.cached_property
    def missing(self) -> tuple[int, ...]:
        """The numbers of the frames that have no label."""
        return tuple(frame_of(image_id)[1] for image_id in self.ids if image_id not in self.labelled)


def frame_of(image_id: str) -> tuple[str, int]:
    """The id of a frame's clip, and the frame's number in it."""
    clip, _, number = image_id.rpartition("::")
    return clip, int(number)


def clips_of(labelled: Iterable[str], without_label: Iterable[str]) -> dict[str, Clip]:
    """By id, the clips of some images; what is no frame is left out. A clip has at least one frame with a label."""
    frames: dict[str, set[str]] = {}
    for image_id in labelled:
        if is_frame(image_id):
            frames.setdefault(frame_of(image_id)[0], set()).add(image_id)
    have = {clip: frozenset(ids) for clip, ids in frames.items()}
    for image_id in without_label:
        if is_frame(image_id) and (clip := frame_of(image_id)[0]) in frames:
            frames[clip].add(image_id)
    return {clip: Clip(clip, tuple(sorted(ids)), have[clip]) for clip, ids in sorted(frames.items())}
