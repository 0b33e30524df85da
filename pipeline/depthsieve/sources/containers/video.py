"""Frames of a video, read by PyAV (FFmpeg's libraries).

A video is cut at its key frames. Each group of frames is decoded from its own key frame by a decoder that knows nothing
of what stands before, by one thread: so a frame's bytes do not depend on who reads it, or on what was read before.
Frames that are read in order are decoded once each. Reading gives a PPM, as :mod:`.hdf5` does.

Decisions, the same for every video:

* The first video stream counts; cover pictures do not.
* Frames are numbered as they are shown: by their time stamps, or where an old AVI has none, as the decoder returns
  them. Those that an edit list hides, and those before the first key frame, do not count: FFmpeg does not show them.
* Colours become 8-bit RGB by swscale, with the matrix and range that the frame names (BT.601, studio range where it
  names none, as the ``ffmpeg`` command has it), bicubic chroma and exact rounding. HDR is not
  tone-mapped.
* Rotation in multiples of 90 degrees is undone. Pixels are taken as they are stored where they are not square.
* A frame that the decoder calls damaged is rejected, and so are those of its group that are decoded after it.

Axes: H height, W width, 3 red, green, blue.
"""

import importlib.util
import io
import itertools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources.containers.apart import Helper
from depthsieve.sources.containers.protocol import Member, NoImages
from depthsieve.sources.containers.video_index import (
    TIMELESS,
    Header,
    Index,
    OpenedVideo,
    format_of,
    read_header,
    read_index,
    stamp_of,
)
from depthsieve.sources.ids import encode_path
from depthsieve.sources.protocol import Passed

if TYPE_CHECKING:
    from av import Packet, VideoFrame

HELD_BYTES = 64 * 1024 * 1024
"""Of decoded frames that were passed on the way to another one."""

READINGS = 8
"""Places of one video that may be read side by side, as by threads that each take a stretch of it."""

MISSING = "videos are read by PyAV, which is not installed: pip install 'depthsieve[video]'"

_SCALE = "flags=bicubic+accurate_rnd+full_chroma_int+bitexact:out_range=full"


HELPER = Helper("depthsieve.sources.containers.video.facts_of")


class VideoContainer:
    """A video file. See :class:`~.protocol.Container`; a place is the number of a frame."""

    def __init__(self, path: bytes) -> None:
        if importlib.util.find_spec("av") is None:
            raise ImageRejected(MISSING)
        self._path = path
        self._lock = threading.RLock()
        self._known_header: Header | None = None
        self._known_index: Index | None = None
        self._readings: list[_Reading] = []  # the one used last stands last
        format_of(path)

    def members(self, passed: Passed) -> Iterator[Member]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`. All packets are read, and none is decoded."""
        index, header = self._facts(whole=True, apart=True)
        assert index is not None
        taken = passed.frames.pick(index.times_N.tolist(), index.time_base)
        name = encode_path(os.path.basename(self._path))  # noqa: PTH119 (bytes)
        passed.videos.add(name, len(index.packet_N), len(taken), header.is_deep, header.is_hdr)
        for number in taken:
            yield Member(f"{number:0{index.digits}d}", header.size)
        if index.cut:
            raise ImageRejected(index.cut)

    def open(self, place: str) -> tuple[BinaryIO, int]:
        """See :class:`~depthsieve.sources.containers.protocol.Container`. Only what a header needs."""
        _, header = self._facts(whole=False, apart=True)
        return io.BytesIO(header.ppm), header.size

    def read(self, place: str) -> bytes:
        """See :class:`~depthsieve.sources.containers.protocol.Container`."""
        with self._lock:
            index, header = self._facts(whole=True, apart=False)
            assert index is not None
            known = place.isdecimal() and place == f"{int(place):0{index.digits}d}" and int(place) < len(index.packet_N)
            if not known:
                raise SourceError(f"the video has no frame {place!r}")
            return header.ppm + self._reading_for(int(place), header, index).rgb_of(int(place))

    def times(self) -> NDArray[np.float64]:
        """Seconds from the first frame that is shown to each, by number. Raises :class:`ImageRejected`."""
        index, _ = self._facts(whole=True, apart=False)
        assert index is not None
        times_N: NDArray[np.float64] = (index.times_N - index.times_N[0]) * float(index.time_base)
        return times_N

    def _reading_for(self, number: int, header: "Header", index: "Index") -> "_Reading":
        """Where the frame is nearest ahead; a new place where it is ahead of none."""
        ahead = [(one.steps_to(number), at) for at, one in enumerate(self._readings)]
        steps, at = min(ahead, default=(math.inf, -1))
        if steps < math.inf or len(self._readings) == READINGS:
            found = self._readings.pop(at if steps < math.inf else 0)
        else:
            found = _Reading(self._path, header, index)
        self._readings.append(found)
        return found

    def _facts(self, whole: bool, apart: bool) -> "tuple[Index | None, Header]":
        """What is known of the file, found out where it is not known yet: ``apart``, by a process of its own, since
        this one must go on whatever the file does to it; where frames are decoded, others see to that."""
        with self._lock:
            if self._known_header is None or (whole and self._known_index is None):
                try:
                    index, header = HELPER.ask(self._path, whole) if apart else facts_of(self._path, whole)
                except NoImages as error:
                    raise ImageRejected(str(error)) from error
                self._known_header, self._known_index = header, index or self._known_index
            return self._known_index, self._known_header


def facts_of(path: bytes, whole: bool) -> "tuple[Index | None, Header]":
    """What a video's first frame says, and with ``whole`` where all frames lie."""
    import av

    with OpenedVideo(path) as (file, stream):
        header = read_header(av, file, stream)
    if not whole:
        return None, header
    with OpenedVideo(path) as (file, stream):
        return read_index(av, file, stream, os.stat(path).st_size), header  # noqa: PTH116 (bytes)


class _Reading:
    """A video that is being decoded. Frames that are asked for in order are decoded once each."""

    def __init__(self, path: bytes, header: Header, index: Index) -> None:
        import av

        self._av: Any = av
        self._path, self._header, self._index = path, header, index
        self._opened: OpenedVideo | None = None
        self._packets: Iterator[Packet[Any]] = iter(())
        self._next = -1  # the packet that comes next, in the order of decoding
        self._ahead: list[Packet[Any]] = []  # packets of the next group that this one needs too
        self._group = -1
        self._frames: Iterator[tuple[int, VideoFrame]] = iter(())
        self._lost: dict[int, str] = {}
        self._last = -1
        each = max(1, 3 * header.width * header.height)
        self._held: OrderedDict[int, VideoFrame] = OrderedDict()
        self._room = max(2, min(32, HELD_BYTES // READINGS // each))
        self._converter: tuple[Any, Any] | None = None

    def steps_to(self, number: int) -> float:
        """How many frames would be decoded to get to one; infinitely many where it lies behind or far ahead."""
        if number in self._held or number in self._lost:
            return 0
        group = self._index.group_of(number)
        ahead = number - self._last if group == self._group else number - self._index.numbers_in(group).start + 1
        is_near = group == self._group or (group == self._group + 1 and self._is_through)
        return ahead if is_near and number > self._last else math.inf

    @property
    def _is_through(self) -> bool:
        """Whether all of the group was read, and the next follows without a search."""
        return self._last + 1 >= self._index.numbers_in(self._group).stop if self._group >= 0 else False

    def rgb_of(self, number: int) -> bytes:
        """The frame's pixels. Raises :class:`ImageRejected`."""
        frame = self._find(number)
        header = self._header
        rgb_HW3 = np.rot90(self._convert(frame), header.turns)
        if rgb_HW3.shape[:2] != (header.height, header.width):
            height, width = rgb_HW3.shape[:2]
            raise ImageRejected(
                f"has {width}x{height} pixels, where its video began with {header.width}x{header.height}: cut it there"
            )
        return rgb_HW3.tobytes()

    def _find(self, number: int) -> "VideoFrame":
        if number in self._held:
            return self._held[number]
        group = self._index.group_of(number)
        if group != self._group or (number <= self._last and number not in self._lost):
            self._group, self._last, self._lost = group, -1, {}
            self._frames = self._decode(group)
        if number not in self._lost:
            for found, frame in self._frames:
                self._last = max(self._last, found)
                self._held[found] = frame
                if len(self._held) > self._room:
                    self._held.popitem(last=False)
                if found == number:
                    return frame
        raise ImageRejected(self._lost.get(number, "its data hold no picture"))

    def _decode(self, group: int) -> Iterator[tuple[int, "VideoFrame"]]:
        """The frames of a group, by a decoder that knows nothing else; the damaged ones are lost, with the reason."""
        index = self._index
        first, end = int(index.first_G[group]), int(index.end_G[group])
        after = int(index.first_G[group + 1]) if group + 1 < len(index.first_G) else end
        numbers, found = index.numbers_in(group), set()
        waiting = iter(numbers)
        seen: dict[int, int] = {}
        broken, why = end, ""
        ahead = self._go_to(group)
        assert self._opened is not None
        context = self._opened.stream.codec_context
        context.flush_buffers()
        kept: list[Packet[Any]] = []
        for at in range(first, end + 1):
            packet = None
            if at < end:
                packet = ahead.pop(0) if ahead else self._next_packet()
                if packet is None:
                    broken, why = min(broken, at), why or "its data are no longer in the file"
                elif at >= after:
                    kept.append(packet)
            if at == end and self._group == group:
                self._ahead = kept + ahead
            try:
                frames = context.decode(packet) if packet is not None or at == end else []
            except self._av.FFmpegError as error:
                frames = []
                if at < end:
                    broken, why = min(broken, at), why or f"its data are damaged ({_words(error)})"
            for frame in frames:
                if index.has_times:
                    pts = TIMELESS if frame.pts is None else frame.pts
                    number = int(np.searchsorted(index.times_N, pts)) + seen.get(pts, 0)
                    seen[pts] = seen.get(pts, 0) + 1
                    if number not in numbers or index.times_N[number] != pts:
                        continue  # of another group
                else:
                    number = next(waiting, -1)
                    if number < 0:
                        continue
                if index.packet_N[number] >= broken:
                    self._lose(
                        group, number, why if index.packet_N[number] == broken else f"stands behind damage: {why}"
                    )
                elif frame.is_corrupt:
                    broken, why = int(index.packet_N[number]), "its data are damaged"
                    self._lose(group, number, why)
                else:
                    found.add(number)
                    yield number, frame
        for number in numbers:
            if number not in found:
                packet_of = int(index.packet_N[number])
                lost = why if packet_of == broken else f"stands behind damage: {why}" if packet_of > broken else ""
                self._lose(group, number, lost or "its data hold no picture")

    def _lose(self, group: int, number: int, why: str) -> None:
        if self._group == group:
            self._lost.setdefault(number, why)

    def _go_to(self, group: int) -> "list[Packet[Any]]":
        """Get to the first packet of a group; returns those of its packets that were read already."""
        first = int(self._index.first_G[group])
        ahead, self._ahead = self._ahead, []
        if self._opened is None:
            self._open()
        if self._next - len(ahead) == first:
            return ahead
        assert self._opened is not None
        key = self._index.key_G2[group]
        if group > 0:
            self._opened.file.seek(int(key[0] if self._index.has_times else key[1]), stream=self._opened.stream)
            self._packets = self._opened.file.demux(self._opened.stream)
            for packet in self._packets:
                if packet.is_keyframe and packet.size and stamp_of(packet) == tuple(key):
                    self._next = first + 1
                    return [packet]
                if packet.dts is not None and packet.dts > key[1] != TIMELESS:
                    break
        self._open()  # the slow way, for files that cannot be sought in
        while self._next < first and self._next_packet() is not None:
            pass
        return []

    def _open(self) -> None:
        """Open the file at its start."""
        if self._opened is not None:
            self._opened.close()
        self._opened = OpenedVideo(self._path)
        self._packets = self._opened.file.demux(self._opened.stream)
        self._next = 0

    def _next_packet(self) -> "Packet[Any] | None":
        try:
            packet = next((one for one in self._packets if one.size), None)  # the last is empty, and some in between
        except self._av.FFmpegError:
            packet = None
        self._next += 1
        return packet if packet is not None and not packet.is_corrupt else None

    def _convert(self, frame: "VideoFrame") -> NDArray[np.uint8]:
        """[H,W,3], not turned yet."""
        kind = (frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range))
        if self._converter is None or self._converter[0] != kind:
            assert self._opened is not None
            graph = self._av.filter.Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=self._index.time_base
            )
            chain = [source, graph.add("scale", _SCALE), graph.add("format", "rgb24"), graph.add("buffersink")]
            for one, other in itertools.pairwise(chain):
                one.link_to(other)
            graph.configure()
            self._converter = kind, graph
        graph = self._converter[1]
        graph.push(frame)
        pixels: NDArray[np.uint8] = graph.pull().to_ndarray()
        return pixels


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()
