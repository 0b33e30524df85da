"""Small videos made by PyAV, each with something that films in the wild have.

A frame of 64x48 shows a ramp, its own number as a row of blocks, and a block that moves. Axes: H height, W width.
"""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av import open as open_video
from av.video.reformatter import ColorRange, Colorspace, ColorTrc

WIDTH, HEIGHT, FRAMES = 64, 48, 40


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    """The frame of that number, [H,W,3] RGB."""
    image_HW3 = np.zeros((height, width, 3), np.uint8)
    image_HW3[:, :, 0] = np.linspace(20, 200, width)[None]
    image_HW3[:, :, 1] = np.linspace(200, 30, height)[:, None]
    at = number % (width - 16)
    image_HW3[12:28, at : at + 16] = (230, 230, 40)
    for bit in range(6):
        image_HW3[-8:, 8 * bit : 8 * bit + 8] = 235 if number >> bit & 1 else 20
    return image_HW3


def number_of(rgb_HW3: npt.NDArray[Any]) -> int:
    """Which frame a picture is, by its blocks."""
    return sum(1 << bit for bit in range(6) if rgb_HW3[-6:-2, 8 * bit + 2 : 8 * bit + 6].mean() > 128)


def write_video(
    path: Path,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    frames: int = FRAMES,
    times: Sequence[int] | None = None,
    rate: int = 25,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    trc: ColorTrc | None = None,
    keys: int = 12,
) -> Path:
    """A video whose n-th frame is ``picture(n)``, shown at ``times`` in thousandths of a second (none: at ``rate``), a
    key frame every ``keys`` frames, turned by ``rotation`` degrees when it is shown."""
    with open_video(str(path), "w", container_options=container_options or {}) as file:
        stream: Any = file.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.gop_size = keys
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if trc is not None:
            stream.codec_context.color_trc = trc
            stream.codec_context.colorspace = Colorspace.ITU709
            stream.codec_context.color_range = ColorRange.MPEG
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            frame = VideoFrame.from_ndarray(picture(number), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    return path


def write_sound(path: Path) -> Path:
    """A second of silence, and no picture."""
    from av import AudioFrame

    with open_video(str(path), "w") as file:
        stream: Any = file.add_stream("aac", rate=16000)
        for start in range(0, 16000, 1000):
            frame = AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    return path


FIRST = "+faststart"
UNEVEN = [int(40 * number + 400 * (number > 10) + 13 * (number % 3)) for number in range(FRAMES)]


def write_all(folder: Path) -> dict[str, Path]:
    """All of them, by what is the matter with each."""
    folder.mkdir(parents=True, exist_ok=True)
    quick = {"preset": "ultrafast", "bf": "0"}
    deep = {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"}
    made = {
        "constant": write_video(folder / "constant.mp4", options=quick),
        "uneven": write_video(folder / "uneven.mp4", times=UNEVEN, options=quick),
        "turned": write_video(folder / "turned.mov", rotation=90, options=quick),
        "deep": write_video(folder / "deep.mkv", "libx265", "yuv420p10le", trc=ColorTrc.SMPTE2084, options=deep),
        "b-frames": write_video(
            folder / "b frames.mp4", options={"preset": "medium", "bf": "3", "x264-params": "open-gop=1:threads=1"}
        ),
        "webm": write_video(folder / "vp9.webm", "libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
        "avi": write_video(folder / "old.avi", "mpeg4", options={"bf": "0"}),
    }
    whole = write_video(folder / "cut.mp4", options=quick, container_options={"movflags": FIRST})
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) * 6 // 10])
    made["cut"] = whole
    made["empty"] = folder / "empty.mp4"
    made["empty"].write_bytes(b"")
    made["liar"] = folder / "liar.mp4"
    made["liar"].write_bytes(lies(made["constant"].read_bytes()))
    made["sound"] = write_sound(folder / "sound.mp4")
    return made


def lies(data: bytes) -> bytes:
    """The same video, whose table of sizes declares 2 GB for each of as many frames as a number holds."""
    at = data.index(b"stsz")
    return data[: at + 8] + struct.pack(">II", 2 * 1024**3, 0xFFFFFFF0) + data[at + 16 :]
