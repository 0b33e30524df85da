"""What a video file is: its container, its first frame, and where its frames lie. Nothing else of it is decoded.

Input is hostile: the container's format is told from the first bytes, so that no playlist is followed, and only the
file itself is opened.
"""

import os
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import ImageRejected
from depthsieve.images.headers import make_header
from depthsieve.sources.containers.protocol import Descriptor, NoImages

if TYPE_CHECKING:
    from av import Packet

FIRST_PACKETS = 300
"""Packets in which a video's first frame must be found."""

_FORMATS = (
    (rb"....(ftyp|moov|mdat|free|skip|wide|pnot)", "mov"),
    (rb"\x1aE\xdf\xa3", "matroska"),
    (rb"RIFF....AVI ", "avi"),
)
_HDR = {16, 18}  # PQ (SMPTE ST 2084) and HLG (ARIB STD-B67)
TIMELESS = -(1 << 62)
"""The time stamp of packets and frames that have none."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a video's first frame says: ``width`` and ``height`` once ``turns`` quarter turns to the left have made it
    upright."""

    width: int
    height: int
    turns: int
    is_deep: bool
    is_hdr: bool

    @property
    def ppm(self) -> bytes:
        return b"P6\n%d %d\n255\n" % (self.width, self.height)

    @property
    def size(self) -> int:
        return len(self.ppm) + 3 * self.width * self.height


@dataclass(frozen=True)
class Index:
    """Where a video's frames are: D packets in the order they are decoded, N frames in the order they are shown, G
    groups. ``packet_N`` is a frame's packet; a group's packets are those from ``first_G`` to before ``end_G``; of them
    the frames from ``shown_G`` to before the next group's. ``times_N`` are in ``time_base``. ``key_G2`` has the
    (pts, dts) of a group's key frame. ``has_times``: frames are told by their time stamps. ``cut`` says that and how
    the file breaks off."""

    packet_N: NDArray[np.int64]
    times_N: NDArray[np.int64]
    first_G: NDArray[np.int64]
    end_G: NDArray[np.int64]
    shown_G: NDArray[np.int64]
    key_G2: NDArray[np.int64]
    has_times: bool
    time_base: Fraction
    cut: str

    @property
    def digits(self) -> int:
        return max(6, len(str(len(self.packet_N) - 1)))

    def group_of(self, number: int) -> int:
        return int(np.searchsorted(self.shown_G, number, side="right")) - 1

    def numbers_in(self, group: int) -> range:
        last = self.shown_G[group + 1] if group + 1 < len(self.shown_G) else len(self.packet_N)
        return range(int(self.shown_G[group]), int(last))


class OpenedVideo:
    """An open file and its video stream, to be closed."""

    def __init__(self, path: bytes) -> None:
        import av

        kind = format_of(path)
        self._raw: BinaryIO | None = None
        name: Any = os.fsdecode(path)
        try:
            name.encode()
        except UnicodeEncodeError:
            name = self._raw = open(path, "rb")  # noqa: PTH123, SIM115 (bytes)
        try:
            options = {} if self._raw else {"protocol_whitelist": "file"}
            self.file: Any = av.open(name, format=kind, options=options)
        except av.FFmpegError as error:
            self._close_raw()
            raise ImageRejected(
                "damaged or cut-off video: what says where its frames lie is missing or broken"
            ) from error
        shown = [one for one in self.file.streams.video if not one.disposition & one.disposition.attached_pic]
        if not shown:
            self.close()
            raise NoImages("no video in it, only sound or other data")
        self.stream = shown[0]
        if self.stream.codec_context is None:
            self.close()
            raise ImageRejected("a video in a code that FFmpeg does not know")
        self.stream.codec_context.thread_count = 1
        self.stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}

    def __del__(self) -> None:
        self._close_raw()  # PyAV closes its own

    def __enter__(self) -> tuple[Any, Any]:
        return self.file, self.stream

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        self._close_raw()

    def _close_raw(self) -> None:
        if self._raw is not None:
            self._raw.close()


def read_header(av: Any, file: Any, stream: Any) -> Header:
    """Decode the first frame, since only frames tell their rotation."""
    make_header(stream.codec_context.width, stream.codec_context.height)
    frame = None
    try:
        for count, packet in enumerate(file.demux(stream)):
            try:
                frame = next(iter(stream.codec_context.decode(packet if packet.size else None)), None)
            except av.FFmpegError:
                frame = None  # the next one may be sound
            if frame is not None or count == FIRST_PACKETS or not packet.size:
                break
    except av.FFmpegError:
        frame = None
    if frame is None:
        declared = f": it declares {stream.frames:,}" if stream.frames else ""
        raise ImageRejected(f"damaged or cut-off video without a frame that can be decoded{declared}")
    turns = round(frame.rotation / 90) % 4
    width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
    made = make_header(width, height)
    bits = max(part.bits for part in frame.format.components)
    return Header(made.width, made.height, turns, bits > 8, int(frame.color_trc) in _HDR)


def read_index(av: Any, file: Any, stream: Any, size: int) -> Index:
    """Read all packets. What stands behind a break is not there."""
    pts, dts, keys, shown = [], [], [], []
    broken = False
    is_vp8 = stream.codec_context.name == "vp8"
    try:
        for packet in file.demux(stream):
            if not packet.size:
                continue
            if packet.is_corrupt:
                broken = True
                break
            pts.append(TIMELESS if packet.pts is None else packet.pts)
            dts.append(TIMELESS if packet.dts is None else packet.dts)
            keys.append(packet.is_keyframe)
            hidden = packet.is_discard or (is_vp8 and not bytes(memoryview(packet)[:1])[0] & 0x10)
            shown.append(not hidden)
    except av.FFmpegError:
        broken = True
    pts_D, dts_D = np.array(pts, np.int64), np.array(dts, np.int64)
    key_D, shown_D = np.array(keys, np.bool_), np.array(shown, np.bool_)
    if not len(pts_D):
        raise ImageRejected(f"damaged video: it declares {stream.frames:,} frames, and none is in the file")
    if not key_D.any():
        key_D[0] = True
    has_times = bool((pts_D != TIMELESS).all())
    order_D = pts_D if has_times else np.arange(len(pts_D))
    first_G = np.flatnonzero(key_D)
    # A key frame that is shown before an earlier one starts no group of its own.
    first_G = first_G[order_D[first_G] >= np.maximum.accumulate(order_D[first_G])]
    group_D = np.searchsorted(order_D[first_G], order_D, side="right") - 1
    shown_D &= (group_D >= 0) & (np.arange(len(pts_D)) >= first_G[0])
    packet_N = np.flatnonzero(shown_D)
    packet_N = packet_N[np.argsort(order_D[packet_N], kind="stable")]
    end_G = first_G + 1
    np.maximum.at(end_G, group_D[packet_N], packet_N + 1)
    times_N = (pts_D if has_times else np.maximum.accumulate(np.maximum(dts_D, 0)))[packet_N]
    return Index(
        packet_N=packet_N,
        times_N=times_N,
        first_G=first_G,
        end_G=end_G,
        shown_G=np.searchsorted(group_D[packet_N], np.arange(len(first_G))),
        key_G2=np.stack([pts_D[first_G], dts_D[first_G]], axis=1),
        has_times=has_times,
        time_base=Fraction(stream.time_base.numerator, stream.time_base.denominator),
        cut=_cut(file, stream, len(pts_D), size, broken),
    )


def _cut(file: Any, stream: Any, packets: int, size: int, broken: bool) -> str:
    """How a file breaks off, or ""."""
    declared = stream.frames
    outside = any(entry.pos + entry.size > size for entry in stream.index_entries)
    if (broken or outside) and declared > packets:
        return f"cut off: {packets:,} of the {declared:,} frames that it declares are there, and are taken"
    return f"cut off behind frame {packets:,}; those before it are taken" if broken or outside else ""


def stamp_of(packet: "Packet[Any]") -> tuple[int, int]:
    return (
        TIMELESS if packet.pts is None else packet.pts,
        TIMELESS if packet.dts is None else packet.dts,
    )


def format_of(path: bytes) -> str:
    """FFmpeg's name of the container's format, by the first bytes."""
    start = Descriptor(path).at(0, 16)
    if not start:
        raise ImageRejected("empty file")
    for pattern, name in _FORMATS:
        if re.match(pattern, start, re.DOTALL):
            return name
    raise ImageRejected("no video: it does not begin as an MP4, QuickTime, Matroska, WebM or AVI file does")
