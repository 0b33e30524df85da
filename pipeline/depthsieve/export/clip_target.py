"""What targets share that write videos: which frames a clip has, how it is called, when its frames are shown.

Axes: T frames of a clip, those without a label among them, in order; N all frames of the video.
"""

import contextlib
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import LoaderError, SourceError
from depthsieve.core.frames import is_frame
from depthsieve.export.clips import Clip, clips_of, frame_of
from depthsieve.export.names import Places
from depthsieve.export.pairs import counted, listed, safe_stem
from depthsieve.export.protocol import Encoded, Entries, Entry, Item, Target, VolumeTarget
from depthsieve.store.index import settled_index

NO_FRAME = "no frame of a video"

INDEX = "clips.json"


def rate_of(times_T: NDArray[np.float64]) -> float:
    """How many of some frames, by the seconds at which they are shown, are shown a second on average; NaN where that
    is not known."""
    lasts = float(times_T[-1] - times_T[0])
    return (len(times_T) - 1) / lasts if lasts > 0 else float("nan")


class ClipTarget(Target):
    """Frames of videos, each clip under a name of its own: ``CLIP/LEAF`` is the path of a frame.

    A clip has each frame of its video that the store has; where a subset or a condition chose, the chosen ones. Those
    without a label (failed, or not labelled yet) are among them, so that frames stay at even distances.
    """

    aligns = True
    clips: Mapping[str, Clip]
    fits: Mapping[str, tuple[float, float, int]]
    """Scale, shift and segment of the frames that are aligned within their clip."""

    def check(self) -> None:
        super().check()
        index, _ = settled_index(self.ask.store, ("id", "status", "clip_scale", "clip_shift", "clip_segment"))
        ids, states, *fits = (column.to_pylist() for column in index.columns)
        rows = zip(ids, states, strict=True)
        without = [] if self.ask.chosen else [image_id for image_id, status in rows if status != "labelled"]
        takes = not self.ask.options.get(self.metric_option)
        self.fits = {
            image_id: (scale, shift, int(segment))
            for image_id, scale, shift, segment in zip(ids, *fits, strict=True)
            if takes and scale is not None
        }
        self.clips = clips_of(self.ask.ids, without)
        if not self.clips:
            raise LoaderError(
                f"target {self.ask.target} is for frames of videos, and none of {counted(self.ask.images, 'image')} is "
                "one: their ids are like default/clip.mp4::000120"
            )
        self._lock = threading.Lock()
        self._times: dict[str, NDArray[np.float64] | None] = {}

    def leave_out(self, image_id: str) -> str:
        return "" if is_frame(image_id) else NO_FRAME

    def state(self, image_id: str) -> str:
        return f" {self.fits[image_id]}" if image_id in self.fits else ""

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
        """Where a clip would best go, by the safe path of its video without a suffix."""

    @abstractmethod
    def leaf(self, number: int) -> str:
        """What a frame is called within its clip."""

    def place(self, image_id: str) -> str:
        clip, number = frame_of(image_id)
        return f"{self.clip_place(safe_stem(clip))}/{self.leaf(number)}"

    def laid_out(
        self, new: Sequence[str], known: Mapping[str, str], per_part: int
    ) -> tuple[list[tuple[str, str]], list[int]]:
        laid = self._placed(new, known)
        return laid, [at // per_part for at in range(len(laid))]

    def _placed(self, image_ids: Iterable[str], known: Mapping[str, str]) -> list[tuple[str, str]]:
        """Ids and paths. Names are given to clips; a frame's follows."""
        names = {frame_of(image_id)[0]: path.rpartition("/")[0] for image_id, path in known.items()}
        places = Places(names.values())
        laid = []
        for image_id in image_ids:
            clip, number = frame_of(image_id)
            if clip not in names:
                names[clip] = places.give(clip, self.clip_place(safe_stem(clip)))
            laid.append((image_id, f"{names[clip]}/{self.leaf(number)}"))
        return laid

    def times(self, item: Item) -> NDArray[np.float64] | None:
        """Seconds from the first frame of an item's video to each of its N frames; None where the video is not there
        any more, or has changed."""
        clip = frame_of(item.id)[0]
        with self._lock:
            if clip not in self._times:
                self._times[clip] = None
                with contextlib.suppress(SourceError):
                    times_N = item.photo.frame_times()
                    self._times[clip] = times_N if max(self.clips[clip].numbers) < len(times_N) else None
            return self._times[clip]

    def frame_facts(self, item: Item) -> dict[str, Any]:
        """What the index has of a frame: its number in the video, and the seconds since that one's first frame."""
        number, times_N = frame_of(item.id)[1], self.times(item)
        return {"frame": number, "time": None if times_N is None else round(float(times_N[number]), 6)}

    def by_clip(self, entries: Entries) -> Iterator[tuple[Clip, str, list[Entry]]]:
        """Each clip, its path, and the entries of its frames that were exported."""
        for clip, group in groupby(entries(), lambda entry: frame_of(entry.id)[0]):
            frames = list(group)
            yield self.clips[clip], frames[0].path.rpartition("/")[0], frames

    def gaps(self, clip: Clip, frames: Sequence[Entry]) -> dict[str, Any]:
        """What an index has of a clip, by the entries of its frames that were exported: how many frames it has, and the
        numbers of those without a label."""
        have = {entry.data["frame"] for entry in frames}
        return {"frames": len(clip.ids), "without_label": [number for number in clip.numbers if number not in have]}

    def notes(self) -> Iterator[str]:
        aligned, labelled = self._aligned()
        if aligned:
            frames = f"{aligned:,} of {counted(labelled, 'frame')}"
            yield f"{frames} are written as align-clips brought them to one scale a clip"
        missing = [len(clip.missing) for clip in self.clips.values() if clip.missing]
        if missing:
            frames = f"{counted(sum(missing), 'frame')} of {counted(len(missing), 'clip')}"
            yield f"{frames} without a label (failed, or not labelled yet): {self.stand_in}"

    stand_in = "there is no file of them"
    """What stands for frames without a label."""

    def after(self, entries: Entries) -> Iterator[str]:
        timeless = [clip.id for clip, _, frames in self.by_clip(entries) if frames[0].data["time"] is None]
        if timeless:
            gone = "their videos are gone or have" if timeless[1:] else "its video is gone or has"
            yield (f"the times of {counted(timeless, 'clip')} are not known, as {gone} changed: {listed(timeless)}")


class ClipVolume(ClipTarget, VolumeTarget):
    """A file a clip. A clip that has grown is written again, whole."""

    @property
    def per_volume(self) -> int:
        return 1

    def clip(self, image_id: str) -> Clip | None:
        return self.clips[frame_of(image_id)[0]]

    def leaf(self, number: int) -> str:
        return f"{number:06d}"

    def volume_name(self, number: int, first: str) -> str:
        return first.rpartition("/")[0]

    def laid_out(
        self, new: Sequence[str], known: Mapping[str, str], per_part: int
    ) -> tuple[list[tuple[str, str]], list[int]]:
        grown = {frame_of(image_id)[0] for image_id in new}
        again = {image_id for image_id in known if frame_of(image_id)[0] in grown}
        laid = self._placed(sorted({*new, *again}), known)
        number_of = {clip: number for number, clip in enumerate(sorted(grown))}
        return laid, [number_of[frame_of(image_id)[0]] for image_id, _ in laid]

    def rows(self, samples: Iterator[tuple[Item, Encoded]]) -> Iterator[tuple[int, tuple[Item, Encoded] | None]]:
        """Each frame of the clip that the samples are of, by its number; None for those that have no sample."""
        ahead = next(samples)
        waiting: tuple[Item, Encoded] | None = ahead
        for image_id in self.clips[frame_of(ahead[0].id)[0]].ids:
            if waiting is not None and waiting[0].id == image_id:
                yield frame_of(image_id)[1], waiting
                waiting = next(samples, None)
            else:
                yield frame_of(image_id)[1], None
