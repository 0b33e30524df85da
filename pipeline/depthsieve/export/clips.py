"""Clips as they are exported: which of their frames, under which numbers, and whether those are of a video."""

import functools
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from depthsieve.core.clips import Clips
from depthsieve.core.frames import is_frame

Size = TypeVar("Size")


@dataclass(frozen=True)
class Clip:
    """A clip as it is exported. ``ids`` are its frames, in the order of time, those without a label among them;
    ``numbers`` are theirs (:meth:`Clips.numbers <depthsieve.core.clips.Clips.numbers>`); ``labelled`` are those that
    have a label."""

    id: str
    ids: tuple[str, ...]
    numbers: tuple[int, ...]
    labelled: frozenset[str] = field(repr=False)

    @functools.cached_property
    def is_video(self) -> bool:
        """Whether it is a video, which says when its frames are shown; else it is a folder of frames."""
        return is_frame(self.ids[0])

    @functools.cached_property
    def number_of(self) -> Mapping[str, int]:
        """The number of each frame, by its id."""
        return dict(zip(self.ids, self.numbers, strict=True))

    @functools.cached_property
    def place_of(self) -> Mapping[str, int]:
        """Where each frame stands among the frames, by its id."""
        return {one: at for at, one in enumerate(self.ids)}

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """What its frames are called within it."""
        return tuple(one[len(self.id) :].lstrip("/:") for one in self.ids)

    def without(self, some: Collection[str]) -> "Clip":
        """The clip less some frames; the others keep their numbers."""
        kept = [(one, number) for one, number in self.number_of.items() if one not in some]
        ids, numbers = zip(*kept, strict=True)
        return Clip(self.id, ids, numbers, self.labelled.difference(some))

    @property
    def without_label(self) -> list[str]:
        """The frames that have no label."""
        return [one for one in self.ids if one not in self.labelled]


def clips_to_export(known: Clips, labelled: Collection[str], without_label: Collection[str]) -> dict[str, Clip]:
    """By name, the clips that have one of the ``labelled`` images, of all that the store knows. Each has those of its
    frames that are among the ``labelled`` images and those ``without_label``."""
    have, wanted = frozenset(labelled), {*labelled, *without_label}
    found = {}
    for name, frames in known.items():
        chosen = [at for at, one in enumerate(frames) if one in wanted]
        ids = tuple(frames[at] for at in chosen)
        own = have.intersection(ids)
        if own:
            numbers = known.numbers(name)
            found[name] = Clip(name, ids, tuple(numbers[at] for at in chosen), own)
    return found


def odd_ones(clip: Clip, size_of: Mapping[str, Size]) -> frozenset[str]:
    """The frames of a clip whose size is not that of most of its labelled frames, or of the first of several sizes that
    are as frequent; of frames without a label the size does not count."""
    counts = Counter(size_of[one] for one in clip.ids if one in clip.labelled)
    most = counts.most_common(1)[0][0]
    return frozenset(one for one in clip.labelled if size_of[one] != most)
