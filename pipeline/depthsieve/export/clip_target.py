"""What targets share that write clips: which frames a clip has, how it is called, when its frames are shown.

Axes: T frames of a clip, those without a label among them, in the order of time.
"""

import contextlib
import math
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from depthsieve.cameras.matching import stem
from depthsieve.core.clips import HOW_TO_HAVE_CLIPS, Clips, in_time
from depthsieve.core.errors import LoaderError, SourceError, UsageError
from depthsieve.export.clips import Clip, clips_to_export, odd_ones
from depthsieve.export.names import Places, safe_path
from depthsieve.export.pairs import counted, listed
from depthsieve.export.protocol import Encoded, Entries, Entry, Item, Target, VolumeTarget
from depthsieve.store.index import settled_index

NO_FRAME = "in no clip: neither of a video nor of a source labelled with --sequence"
ODD = "not as large as most frames of their clip"

INDEX = "clips.json"

_PLACE = ("id", "status", "height", "width", "label_height", "label_width")
_FIT = ("clip_scale", "clip_shift", "clip_segment")


def rate_of(times_T: NDArray[np.float64]) -> float:
    """How many of some frames, by the seconds at which they are shown, are shown a second on average; NaN where that
    is not known."""
    lasts = float(times_T[-1] - times_T[0])
    return (len(times_T) - 1) / lasts if lasts > 0 else float("nan")


class ClipTarget(Target):
    """Frames of clips, each clip under a name of its own: ``CLIP/LEAF`` is the path of a frame.

    A clip has each of its frames that the store has; where a subset or a condition chose, the chosen ones. Those
    without a label (failed, or not labelled yet) are among them, so that frames stay at even distances.
    """

    aligns = True
    as_one: ClassVar[bool] = True
    """Whether all frames of a clip decide how each is written."""
    of_one_size: ClassVar[bool] = False
    """Whether frames must be as large as the others of their clip; those that are not are left out."""
    suffix: ClassVar[str] = ""
    """Of the file of a frame."""
    clips: Mapping[str, Clip]
    fits: Mapping[str, tuple[float, float, int]]
    """Scale, shift and segment of the frames that are aligned within their clip."""

    def check(self) -> None:
        super().check()
        fps = self.ask.options["fps"]
        if fps is not None and not 0 < fps < math.inf:
            raise UsageError(f"fps (--fps) must be a number of frames a second above 0, not {fps:g}")
        index, _ = settled_index(self.ask.store, (*_PLACE, *_FIT))
        ids, states, *rest = (column.to_pylist() for column in index.columns)
        without = [one for one, status in zip(ids, states, strict=True) if status != "labelled"]
        self.fits = {
            image_id: (scale, shift, int(segment))
            for image_id, scale, shift, segment in zip(ids, *rest[4:], strict=True)
            if self.ask.quantity == "disparity" and scale is not None
        }
        self._known = Clips(ids, self.ask.store.sequences())
        self.clips = clips_to_export(self._known, self.ask.ids, () if self.ask.chosen else without)
        if not self.clips:
            raise LoaderError(
                f"target {self.ask.target} is for clips, and none of {counted(self.ask.images, 'image')} is in one: "
                f"{HOW_TO_HAVE_CLIPS}"
            )
        self._odd: frozenset[str] = frozenset()
        if self.of_one_size:
            sides = rest[:2] if self.ask.resolution == "source" else rest[2:4]
            self._leave_odd_out(dict(zip(ids, zip(*sides, strict=True), strict=True)))
        self._lock = threading.Lock()
        self._times: dict[str, NDArray[np.float64] | None] = {}

    def _leave_odd_out(self, size_of: Mapping[str, tuple[int, int]]) -> None:
        odd_of = {name: odd_ones(clip, size_of) for name, clip in self.clips.items()}
        self._odd = frozenset().union(*odd_of.values())
        self.clips = {name: clip.without(odd_of[name]) for name, clip in self.clips.items()}

    def leave_out(self, image_id: str) -> str:
        return NO_FRAME if self._known.of(image_id) is None else ODD if image_id in self._odd else ""

    def state(self, image_id: str) -> str:
        return f" {self.fits[image_id]}" if image_id in self.fits else ""

    def order(self, image_id: str) -> tuple[str, ...]:
        return (self._known.of(image_id) or "", *in_time(image_id))

    def clip(self, image_id: str) -> Clip | None:
        return self.clip_with(image_id) if self.as_one else None

    def clip_with(self, image_id: str) -> Clip:
        """The clip that an exported image is a frame of."""
        return self.clips[self._known.of(image_id) or ""]

    @property
    def alignment(self) -> str:
        """What a README says of the scales of frames."""
        if not self.fits:
            return ""
        aligned, frames = self._aligned()
        rest = "" if aligned == frames else "; the others are as the teacher had them"
        return (
            f" `depthsieve align-clips` brought {aligned:,} of {counted(frames, 'frame')} to one scale and shift a "
            f"clip (or part of one, where nothing connects them), which is applied here{rest}."
        )

    def _aligned(self) -> tuple[int, int]:
        frames = [image_id for clip in self.clips.values() for image_id in clip.labelled]
        return sum(image_id in self.fits for image_id in frames), len(frames)

    @abstractmethod
    def clip_place(self, stem: str) -> str:
        """Where a clip would best go, by the safe path of its video without a suffix, or of its folder."""

    def place(self, image_id: str) -> str:
        clip = self._known.of(image_id) or ""
        return f"{self._clip_place(clip)}/{self._leaf(image_id)}"

    def _clip_place(self, name: str) -> str:
        path = safe_path(name)
        return self.clip_place(stem(path) if self.clips[name].is_video else path)

    def _leaf(self, image_id: str) -> str:
        """What the file of a frame is called: after its number in a video, or as it is called in its folder."""
        clip = self.clip_with(image_id)
        if clip.is_video:
            return f"frame_{clip.number_of[image_id]:05d}{self.suffix}"
        return f"{stem(safe_path(image_id).rpartition('/')[2])}{self.suffix}"

    def laid_out(
        self, new: Sequence[str], known: Mapping[str, str], per_part: int
    ) -> tuple[list[tuple[str, str]], list[int]]:
        laid = self._placed(new, known)
        return laid, [at // per_part for at in range(len(laid))]

    def _placed(self, image_ids: Iterable[str], known: Mapping[str, str]) -> list[tuple[str, str]]:
        """Ids and paths, in order. A clip gets a name of its own, and its frames one each within it."""
        names = {self._known.of(image_id) or "": path.rpartition("/")[0] for image_id, path in known.items()}
        clips = Places(names.values(), are_folders=not isinstance(self, VolumeTarget))
        leaves = Places(() if isinstance(self, VolumeTarget) else known.values())
        laid = []
        for image_id in sorted(image_ids, key=self.order):
            clip = self.clip_with(image_id).id
            if clip not in names:
                names[clip] = clips.give(clip, self._clip_place(clip))
            wanted = f"{names[clip]}/{self._leaf(image_id)}"
            laid.append((image_id, wanted if isinstance(self, VolumeTarget) else leaves.give(image_id, wanted)))
        return laid

    @property
    def rate(self) -> float | None:
        """Frames a second of clips whose times are not known; None: they stay unknown."""
        rate: float | None = self.ask.options["fps"]
        return rate

    def times(self, item: Item) -> NDArray[np.float64]:
        """Seconds from the start of an item's clip to each of its frames [T]; NaN where they are not known."""
        clip, times_T = self.clip_with(item.id), self._video_times(item)
        return times_T if times_T is not None else np.array([self._at_rate(number) for number in clip.numbers])

    def _at_rate(self, number: int) -> float:
        return number / self.rate if self.rate else math.nan

    def _video_times(self, item: Item) -> NDArray[np.float64] | None:
        """When frames are shown by their video [T]; None for those of a folder, and where the video is not there any
        more, or has changed."""
        clip = self.clip_with(item.id)
        if not clip.is_video:
            return None
        with self._lock:
            if clip.id not in self._times:
                self._times[clip.id] = None
                with contextlib.suppress(SourceError):
                    times_N = item.photo.frame_times()
                    self._times[clip.id] = times_N[[*clip.numbers]] if clip.numbers[-1] < len(times_N) else None
            return self._times[clip.id]

    def seconds(self, item: Item) -> dict[str, float | None]:
        """What is recorded of a frame: when its video shows it; None where that is not known."""
        times_T, clip = self._video_times(item), self.clip_with(item.id)
        return {"seconds": None if times_T is None else round(float(times_T[clip.place_of[item.id]]), 6)}

    def shown(self, entry: Entry) -> dict[str, Any]:
        """What an index has of a frame: its number, and the seconds since its clip's start; None where unknown."""
        number = self.clip_with(entry.id).number_of[entry.id]
        time = entry.data["seconds"]
        if time is None and self.rate:
            time = round(self._at_rate(number), 6)
        return {"frame": number, "time": time}

    def by_clip(self, entries: Entries) -> Iterator[tuple[Clip, str, list[Entry]]]:
        """Each clip, its path, and the entries of its frames that were exported."""
        for clip, group in groupby(entries(), lambda entry: self.clip_with(entry.id)):
            frames = list(group)
            yield clip, frames[0].path.rpartition("/")[0], frames

    def gaps(self, clip: Clip, frames: Sequence[Entry]) -> dict[str, Any]:
        """What an index has of a clip, by the entries of its frames that were exported: how many frames it has, what
        they are called in a folder, and the numbers of those without a label."""
        have = {entry.id for entry in frames}
        names = {} if clip.is_video else {"names": [*clip.names]}
        lacking = [number for one, number in clip.number_of.items() if one not in have]
        return {"frames": len(clip.ids), **names, "without_label": lacking}

    def notes(self) -> Iterator[str]:
        folders = [clip.id for clip in self.clips.values() if not clip.is_video]
        if folders:
            what = f"{counted(folders, 'clip')} {_is(folders, 'is a folder', 'are folders')} of frames"
            yield f"{what}, in the natural order of their names (frame9 before frame10); {self.rate_words}"
        aligned, labelled = self._aligned()
        if aligned:
            frames = f"{aligned:,} of {counted(labelled, 'frame')}"
            yield f"{frames} are written as align-clips brought them to one scale a clip"
        missing = [len(clip.without_label) for clip in self.clips.values() if clip.without_label]
        if missing:
            frames = f"{counted(sum(missing), 'frame')} of {counted(len(missing), 'clip')}"
            yield f"{frames} without a label (failed, or not labelled yet): {self.stand_in}"

    @property
    def row_words(self) -> str:
        """What a README says of the order, numbers and times of frames."""
        words = "Times are seconds from the first frame of a clip's video."
        if all(clip.is_video for clip in self.clips.values()):
            return words
        return (
            f"{words} Frames of a folder are in the natural order of their names (frame9 before frame10), `names` in "
            f"`{INDEX}`, and numbered from 0 among all images of the folder that the store has; {self.rate_words}."
        )

    @property
    def rate_words(self) -> str:
        """What a user is told of the times of folders."""
        if self.rate is None:
            return "their times are not known (--fps says how many are a second)"
        default = "" if self.ask.options["fps"] else "; --fps sets another rate"
        return f"{self.rate:g} a second{default}"

    stand_in = "there is no file of them"
    """What stands for frames without a label."""

    def after(self, entries: Entries) -> Iterator[str]:
        timeless = [
            clip.id for clip, _, frames in self.by_clip(entries) if clip.is_video and frames[0].data["seconds"] is None
        ]
        if timeless:
            gone = _is(timeless, "its video is gone or has changed", "their videos are gone or have changed")
            yield f"the times of {counted(timeless, 'clip')} are not known, as {gone}: {listed(timeless)}"


class ClipVolume(ClipTarget, VolumeTarget):
    """A file a clip. A clip that has grown is written again, whole."""

    of_one_size = True

    @property
    def per_volume(self) -> int:
        return 1

    def volume_name(self, number: int, first: str) -> str:
        return first.rpartition("/")[0]

    def laid_out(
        self, new: Sequence[str], known: Mapping[str, str], per_part: int
    ) -> tuple[list[tuple[str, str]], list[int]]:
        grown = {self.clip_with(image_id).id for image_id in new}
        again = {image_id for image_id in known if self.clip_with(image_id).id in grown}
        laid = self._placed({*new, *again}, known)
        number_of = {clip: number for number, clip in enumerate(sorted(grown))}
        return laid, [number_of[self.clip_with(image_id).id] for image_id, _ in laid]

    def rows(self, samples: Iterator[tuple[Item, Encoded]]) -> Iterator[tuple[Item, Encoded] | None]:
        """Each frame of the clip that the samples are of; None for those that have no sample."""
        ahead = next(samples)
        waiting: tuple[Item, Encoded] | None = ahead
        for image_id in self.clip_with(ahead[0].id).ids:
            if waiting is not None and waiting[0].id == image_id:
                yield waiting
                waiting = next(samples, None)
            else:
                yield None


def _is(of: Sequence[str], one: str, several: str) -> str:
    return several if of[1:] else one
