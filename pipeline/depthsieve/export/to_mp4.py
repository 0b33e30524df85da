"""``mp4``: each clip as a video to look at: photo and depth in colours side by side, shown when the frames were.

H.264, 4:2:0, BT.709, by one thread, so that the same clip gives the same bytes in one version of PyAV.

Axes: H row, W column, 3 red, green, blue (uint8); N frames of a video; K the 256 reliability codes.
"""

import importlib.util
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import StoreDamaged, UsageError
from depthsieve.export.clip_target import INDEX, ClipVolume
from depthsieve.export.clips import Clip
from depthsieve.export.index import rows_json
from depthsieve.export.protocol import About, Encoded, Entries, Item
from depthsieve.export.side_by_side import Panel, side_by_side
from depthsieve.images import colours

QUALITY = "18"
"""The constant rate factor of x264: that of Video Depth Anything's videos."""

ALIKE = "cpu-independent=1"
"""Without it x264 chose other bytes for the same pictures in 3 to 8 of 100 videos, on a loaded machine."""

CLOCK = 90_000
"""Ticks a second."""

TIMELESS_RATE = 25
"""Frames a second of a clip whose times are not known, where --fps says nothing."""

LOOKED_AT = 128
"""Frames of a clip that tell its range of colours, at most, and about as many pixels a side of each."""

PIXEL_BYTES = 0.1
"""What a pixel takes, roughly."""

Span = tuple[float, float]


class Mp4Target(ClipVolume):
    """``CLIP_vis.mp4`` and ``clips.json``."""

    stand_in = "the frame before each stays on the screen"

    def check(self) -> None:
        if importlib.util.find_spec("av") is None:
            raise UsageError("videos are written by PyAV, which is not installed: pip install 'depthsieve[video]'")
        super().check()
        self._looking = threading.Lock()
        self._spans: dict[str, tuple[Span, Span]] = {}

    @property
    def rate(self) -> float:
        return float(self.ask.options["fps"] or TIMELESS_RATE)

    def clip_place(self, stem: str) -> str:
        return f"{stem}_vis.mp4"

    def encode(self, item: Item) -> Encoded:
        """The picture of a frame, RGB."""
        clip = self.clip_with(item.id)
        span, codes = self._span(clip)
        facts: dict[str, Any] = {**self.seconds(item)}
        time = "" if facts["seconds"] is None else f"   {facts['seconds']:.3f} s"
        height, width = item.depth_HW.shape
        panels = [
            Panel(item.photo.at((height, width)), f"{clip.number_of[item.id]:06d}{time}"),
            Panel(
                colours.depth_colours(item.depth_HW, self.ask.quantity, item.valid, span),
                "",
                colours.SPECTRAL_256,
                f"far {self._in_words(span[0])}",
                f"{self._in_words(span[1])} near",
            ),
        ]
        if self.ask.options["with_reliability"]:
            shown_HW3 = colours.reliability_colours(item.reliability_HW, codes)
            words = f"doubtful {codes[0]:.0f}", f"{codes[1]:.0f} reliable"
            panels.append(Panel(shown_HW3, "", colours.VIRIDIS_256, *words))
        picture_HW3 = side_by_side(panels)
        facts["height"], facts["width"], _ = picture_HW3.shape
        return Encoded({"rgb": picture_HW3.tobytes()}, facts)

    def weigh(self, item: Item, encoded: Encoded) -> int:
        return round(PIXEL_BYTES * int(encoded.entry["height"]) * int(encoded.entry["width"]))

    def _in_words(self, disparity: float) -> str:
        """An end of the range: metres where depth is."""
        if self.ask.quantity == "disparity":
            return f"{disparity:.3g}"
        return f"{1 / disparity:.3g} m" if disparity > 0 else "inf m"

    def _span(self, clip: Clip) -> tuple[Span, Span]:
        """The range of colours of a clip, in disparity, and that of reliability codes: the percentiles of
        :data:`~depthsieve.images.colours.SHOWN_PERCENT` of frames at even distances, together."""
        with self._looking:
            if clip.id not in self._spans:
                ids = sorted(clip.labelled)
                seen, counts_K = [], np.zeros(256, np.int64)
                for image_id in ids[:: -(-len(ids) // LOOKED_AT)]:
                    with suppress(StoreDamaged):
                        depth_HW = self.ask.depth_of(image_id)
                        step = max(1, max(depth_HW.shape) // LOOKED_AT)
                        seen.append(depth_HW[::step, ::step][~np.isnan(depth_HW[::step, ::step])])
                        label = self.ask.store.label(image_id)
                        counts_K += self.ask.store.reader(label.shard).column("histogram")[label.row]
                values = np.concatenate(seen).astype(np.float64) if seen else np.zeros(0)
                if self.ask.quantity == "depth":
                    values = 1 / values[values > 0]
                self._spans[clip.id] = colours.span_of(values), colours.span_of_counts(counts_K)
            return self._spans[clip.id]

    def write_volume(self, path: Path, samples: Iterator[tuple[Item, Encoded]]) -> None:
        """Each frame is shown at its own time, and until the next one that is there."""
        first = next(samples)
        ticks = _ticks(self.times(first[0]), self.rate)
        with _Film(path, first[1].entry["height"], first[1].entry["width"]) as film:
            for tick, sample in zip(ticks, self.rows(chain([first], samples)), strict=False):
                if sample is not None:
                    rgb = sample[1].files["rgb"]
                    assert isinstance(rgb, bytes)
                    film.show(tick, rgb)
            film.end(ticks[-1])

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        head = {"quantity": self.ask.quantity, "unit": self.ask.unit}
        yield INDEX, rows_json(head, "clips", self._clip_rows(entries))

    def _clip_rows(self, entries: Entries) -> Iterator[dict[str, Any]]:
        for clip, path, frames in self.by_clip(entries):
            (low, high), codes = self._span(clip)
            if self.ask.quantity == "depth":
                low, high = (1 / one if one > 0 else None for one in (low, high))  # type: ignore[assignment]
            row = {"id": clip.id, "video": path, **self.gaps(clip, frames), "far": low, "near": high}
            yield {**row, "doubtful": codes[0], "reliable": codes[1]}

    def about(self) -> About:
        third = ", and reliability" if self.ask.options["with_reliability"] else ""
        return About(
            layout="`STEM_vis.mp4` for each clip, in the source's folders: photo, depth in colours"
            f"{third}, side by side; H.264. Each frame is shown at its own time in the video, until the next one. "
            f"`{INDEX}` has a row a clip: its `id`, its file, what its colours stand for, and the numbers of its "
            f"frames without a label. {self.row_words}",
            depth="colours for looking, not for measuring: near red, far blue, over one range for the whole clip: "
            f"`far` and `near` of `{INDEX}`, {'metres' if self.ask.quantity == 'depth' else 'disparity of the teacher'}"
            ", the 2nd and the 98th percentile of its frames together; what lies beyond has the same colours. The line "
            f"below says them, with the frame's number and time.{self.alignment}",
            invalid="a grey chequerboard. A frame that failed, or was not labelled yet, is not there: the one before "
            "it stays on the screen.",
            precision="256 colours, compressed.",
            photos="at the left, on the pixels of the depth.",
            code=_CODE,
        )


def _ticks(times_T: NDArray[np.float64], rate: float) -> list[int]:
    """When frames are shown, in ticks, each later than the one before; and when the last one ends."""
    ticks: list[int] = []
    for time in times_T.tolist():
        ticks.append(max(round(CLOCK * time), ticks[-1] + 1 if ticks else 0))
    lasts = ticks[-1] - ticks[-2] if ticks[1:] else round(CLOCK / rate)
    return [*ticks, ticks[-1] + lasts]


class _Film:
    """A video that is being written."""

    def __init__(self, path: Path, height: int, width: int) -> None:
        import av
        from av.video.reformatter import ColorRange, Colorspace

        self._frame: Any = av.VideoFrame
        self._to = {"dst_colorspace": Colorspace.ITU709, "dst_color_range": ColorRange.MPEG}
        self._shape = (height, width, 3)
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._file: Any = av.open(str(path), "w", "mp4", options=options)
        self._stream: Any = self._file.add_stream("libx264", options={"crf": QUALITY, "x264-params": ALIKE})
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt, context.thread_count = width, height, "yuv420p", 1
        self._stream.time_base = context.time_base = Fraction(1, CLOCK)
        context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
        context.color_range = 1  # studio
        self._start: int | None = None
        self._waiting: tuple[int, bytes] | None = None
        self._lasts: dict[int, int] = {}

    def __enter__(self) -> "_Film":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def show(self, tick: int, rgb: bytes) -> None:
        """Show a picture from a time on, which counts from that of the first one."""
        self.end(tick, last=False)
        self._start = tick if self._start is None else self._start
        self._waiting = (tick - self._start, rgb)

    def end(self, tick: int, last: bool = True) -> None:
        """Take the picture that is shown off the screen; with ``last`` there comes no other."""
        if self._waiting is not None:
            assert self._start is not None
            pts, rgb = self._waiting
            picture = self._frame.from_ndarray(np.frombuffer(rgb, np.uint8).reshape(self._shape), "rgb24")
            frame = picture.reformat(format="yuv420p", **self._to)
            frame.pts, frame.time_base = pts, Fraction(1, CLOCK)
            self._lasts[pts] = tick - self._start - pts
            self._mux(frame)
        if last:
            self._mux(None)

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            packet.duration = self._lasts.pop(packet.pts)
            self._file.mux(packet)


_CODE = """
import json
import av

with open("clips.json", encoding="utf-8") as file:
    clip = json.load(file)["clips"][0]
with av.open(clip["video"]) as video:
    for frame in video.decode(video=0):
        seconds, picture = frame.time, frame.to_ndarray(format="rgb24")
"""
