"""What labelling a video costs over the same frames as JPEGs, in one run.

    python benchmarks/video.py [PHOTOS] [--frames 240] [--width 1280] [--rounds 3] [--teacher tiny] [--json OUT]

Makes an H.264 video by moving a window over photos (or over made-up ones), and a folder of the same frames as JPEGs of
quality 95. The sides take turns: reading and decoding all frames by one thread, all of them and one in ten, and
labelling them into a fresh store from a loaded teacher. Ratios are of video over JPEGs: above 1 the video is slower.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

import depthsieve
from depthsieve.core.frames import FrameChoice
from depthsieve.images.decode import decode
from depthsieve.sources import Listed, Passed, open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, nargs="?", help="a folder with JPEGs")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--teacher", default="tiny")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video-") as name:
        found = compare(Path(name), arguments)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The medians and ranges of the ratios, and what the sides took."""
    film, frames = folder / "film.mp4", folder / "frames"
    write(film, frames, arguments)
    stores = iter(range(1_000_000))

    def label(source: Path, every: int) -> None:
        depthsieve.label(
            source,
            folder / f"store-{next(stores)}",
            teacher=arguments.teacher,
            every=every,
            batch_size=4,
            threads=2,
            progress=False,
        )

    sides: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "decode": (lambda: read(film, 1), lambda: read(frames, 1)),
        "decode, one frame in ten": (lambda: read(film, 10), lambda: read(frames, 1, stride=10)),
        "label": (lambda: label(film, 1), lambda: label(frames, 1)),
    }
    label(frames, 1)  # the first pays for what is loaded once
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in sides}
    for _ in range(arguments.rounds):
        for name, both in sides.items():
            for side, taken in zip(both, seconds[name], strict=True):
                start = time.perf_counter()
                side()
                taken.append(time.perf_counter() - start)
    found: dict[str, Any] = {"frames": arguments.frames, "bytes": film.stat().st_size}
    found["bytes as JPEGs"] = sum(path.stat().st_size for path in frames.iterdir())
    for name, (video, jpegs) in seconds.items():
        ratios = [one / other for one, other in zip(video, jpegs, strict=True)]
        found[name] = {
            "video over JPEGs": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
            "seconds, video": round(statistics.median(video), 3),
            "seconds, JPEGs": round(statistics.median(jpegs), 3),
        }
    return found


def read(path: Path, every: int, stride: int = 1) -> None:
    """Read and decode the frames in order."""
    source = open_source(path)
    passed = Passed(frames=FrameChoice(every))
    ids = sorted(one.id for one in source.listing(passed) if isinstance(one, Listed))
    for image in ids[::stride]:
        decode(source.read(image))


def write(film: Path, frames: Path, arguments: argparse.Namespace) -> None:
    """The video, and the folder of its decoded frames as JPEGs."""
    width, height = arguments.width, arguments.width * 9 // 16
    with av.open(str(film), "w") as file:
        stream: Any = file.add_stream("libx264", rate=30, options={"preset": "medium", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in windows(arguments.photos, width, height, arguments.frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    frames.mkdir()
    source = open_source(film)
    for number, image in enumerate(one.id for one in source.listing(Passed()) if isinstance(one, Listed)):
        bgr = cv2.cvtColor(decode(source.read(image)).rgb_HW3, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(frames / f"{number:06d}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])


def windows(photos: Path | None, width: int, height: int, count: int) -> Any:
    """Frames that move over one photo after another, 60 over each."""
    paths = sorted(photos.glob("*.jpg")) if photos else []
    wide = (width + 240, height + 60)
    for number in range(count):
        if number % 60 == 0:
            if paths:
                picture = cv2.cvtColor(cv2.imread(str(paths[number // 60 % len(paths)])), cv2.COLOR_BGR2RGB)
            else:
                coarse = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
                picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
            picture = cv2.resize(picture, wide, interpolation=cv2.INTER_AREA)
        x, y = 4 * (number % 60), number % 60
        yield np.ascontiguousarray(picture[y : y + height, x : x + width])


if __name__ == "__main__":
    main()
