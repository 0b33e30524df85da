"""Cuts that ``align-clips`` finds where there is none, and cuts that it misses, on clips made of photos.

    python benchmarks/clip_cuts.py PHOTOS
    python benchmarks/clip_cuts.py PHOTOS --keep frames/      # labels once, and goes on with what is there

A pan is a window of 480x360 that slides over a photo of 1280 pixels width, by 4, 12 or 32 pixels a frame, 24 frames;
over every other photo to the left. It has no cut: each that is found is false. Clips with cuts are put together of
parts of 8 frames of such pans:

* ``photos``: three photos, at each speed;
* ``far``: one photo, from its left end to a window further to the right that shows nothing of the first;
* ``mirrored``: one photo, and the same one mirrored.

A cut is missed where no segment begins at its frame. All frames are JPEGs of quality 92, labelled by ``--teacher``.

A second table is of what is harder to follow (zoom, rotation, noise, ...): 8 frames of each photo, then 2 of another.
Nothing is labelled there: cuts are told by photos, and a blurred photo stands in for the label.

Axes: H row, W column, 3 blue, green, red.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, PANORAMA, FRAMES, PART = 480, 360, 1280, 24, 8
SPEEDS = {"slow": 4, "middle": 12, "fast": 32}
"""Pixels a frame."""


Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Made:
    """A clip: what it shows, the names of its frames in order, and the numbers of those that follow a cut."""

    kind: str
    frames: tuple[str, ...]
    cuts: frozenset[int] = frozenset()


def write_frames(photos: list[Path], folder: Path) -> None:
    """``PHOTO/SPEED/00.jpg`` for each photo and speed, and ``PHOTO/mirrored/00.jpg``, the middle one mirrored."""
    for number, path in enumerate(photos):
        photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
        height, width = photo.shape[:2]
        size = (PANORAMA, max(HEIGHT + FRAMES, round(height * PANORAMA / width)))
        photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if width > PANORAMA else cv2.INTER_CUBIC)
        for name, speed in [*SPEEDS.items(), ("mirrored", SPEEDS["middle"])]:
            (folder / path.stem / name).mkdir(parents=True)
            for frame in range(FRAMES if name != "mirrored" else PART):
                x = frame * speed
                if number % 2:
                    x = PANORAMA - WIDTH - x
                y = (photo.shape[0] - HEIGHT - FRAMES) // 2 + frame
                window = photo[y : y + HEIGHT, x : x + WIDTH]
                window = window[:, ::-1] if name == "mirrored" else window
                target = folder / path.stem / name / f"{frame:02d}.jpg"
                cv2.imwrite(str(target), window, (cv2.IMWRITE_JPEG_QUALITY, 92))


def clips(photos: list[Path]) -> Iterator[Made]:
    """All clips."""
    stems = [path.stem for path in photos]

    def part(stem: str, speed: str, first: int = 0) -> tuple[str, ...]:
        return tuple(f"{stem}/{speed}/{frame:02d}.jpg" for frame in range(first, first + PART))

    for number, stem in enumerate(stems):
        for speed in SPEEDS:
            whole = sum((part(stem, speed, first) for first in range(0, FRAMES, PART)), ())
            yield Made(f"pan, {speed}", whole)
            second, third = (stems[(number + step) % len(stems)] for step in (1, 5))
            three = part(stem, speed) + part(second, speed, PART) + part(third, speed, 2 * PART)
            yield Made("photos", three, frozenset({PART, 2 * PART}))
        yield Made("far", part(stem, "slow") + part(stem, "fast", 2 * PART), frozenset({PART}))
        yield Made("mirrored", part(stem, "middle") + part(stem, "mirrored"), frozenset({PART}))


def judge(store: Any, made: Made) -> dict[str, Any]:
    """What the fitter makes of a clip."""
    labels = (store[f"default/{name}"] for name in made.frames)
    frames = ((one.depth, one.reliability, one.image()) for one in labels)
    return {"kind": made.kind, "clip": made.frames[0].rpartition("/")[0], **fitted(frames, made.cuts)}


def fitted(frames: Iterator[tuple[Any, Any, Any]], cuts: frozenset[int]) -> dict[str, Any]:
    """What the fitter makes of frames: label, reliability, photo."""
    from depthsieve.reliability.clips import ClipFitter, frame_of

    fitter = ClipFitter()
    for one in frames:
        fitter.add(frame_of(*one))
    fits = fitter.finish()
    found = {number for number in range(1, len(fits)) if fits[number].segment != fits[number - 1].segment}
    return {
        "follow": len(fits) - 1 - len(cuts),
        "cuts": len(cuts),
        "false": sorted(found - cuts),
        "missed": sorted(cuts - found),
        "change": [fit.change for fit in fits if not math.isnan(fit.change)],
        "aligned": [fit.change_aligned for fit in fits if not math.isnan(fit.change_aligned)],
    }


def strained(photo_HW3: Picture, random: np.random.Generator) -> dict[str, list[Picture]]:
    """8 frames of a photo of each kind that is hard to follow."""
    height, width = photo_HW3.shape[:2]
    photo_HW3 = cv2.resize(photo_HW3, (1600, max(HEIGHT + 80, round(height * 1600 / width))))

    def shown(x: float, y: float = 0, zoom: float = 1, angle: float = 0) -> Picture:
        middle = (300 + x, photo_HW3.shape[0] / 2 + y)
        to_window = cv2.getRotationMatrix2D(middle, angle, zoom)
        to_window[:, 2] += (WIDTH / 2 - middle[0], HEIGHT / 2 - middle[1])
        return np.asarray(cv2.warpAffine(photo_HW3, to_window, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT))

    def noisy(picture: NDArray[Any], by: float) -> Picture:
        return np.clip(picture + random.normal(0, by, picture.shape), 0, 255).astype(np.uint8)

    def squeezed(picture: Picture) -> Picture:
        coded = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 20))[1]
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)

    kinds: dict[str, Callable[[int], Picture]] = {
        "zoom by 1% a frame": lambda n: shown(500, zoom=1.01**n),
        "zoom by 4% a frame": lambda n: shown(500, zoom=1.04**n),
        "rotation by 1.5 degrees a frame": lambda n: shown(500, angle=1.5 * n),
        "pan by 7.3 pixels, unsteady hand": lambda n: shown(7.3 * n, random.normal(0, 3), 1, random.normal(0, 0.4)),
        "pan by 12, noise of 8 levels": lambda n: noisy(shown(12 * n), 8),
        "pan by 12, noise of 16 levels": lambda n: noisy(shown(12 * n), 16),
        "pan by 12, JPEG of quality 20": lambda n: squeezed(shown(12 * n)),
        "pan by 12, an eighth of the light, noise of 3": lambda n: noisy(shown(12 * n) / 8, 3),
        "pan by 12, exposure up and down by 35%": lambda n: noisy(shown(12 * n) * (1 + 0.15 * (-1) ** n), 0),
        "pan by 32, motion blur of 31": lambda n: np.asarray(cv2.blur(shown(32 * n), (31, 1))),
        "pan by 64 (13% of the width)": lambda n: shown(64 * n),
        "pan by 128 (27% of the width)": lambda n: shown(128 * n),
    }
    return {kind: [of(number) for number in range(PART)] for kind, of in kinds.items()}


def judge_strained(photos: Sequence[Path]) -> list[dict[str, Any]]:
    """What the fitter makes of them."""
    random = np.random.default_rng(0)
    made = [strained(cv2.imread(str(path), cv2.IMREAD_COLOR), random) for path in photos]

    def frames(pictures: Sequence[Picture]) -> Iterator[tuple[Any, Any, Any]]:
        for picture in pictures:
            label_HW = (1 + cv2.blur(picture, (31, 31)).mean(2) / 64).astype(np.float32)
            yield label_HW, np.full(label_HW.shape, 200, np.uint8), picture

    rows = []
    for number, kinds in enumerate(made):
        for kind, pictures in kinds.items():
            other = made[(number + 3) % len(made)][kind][:2]
            rows.append({"kind": kind, **fitted(frames([*pictures, *other]), frozenset({PART}))})
    return rows


def show(rows: Sequence[dict[str, Any]], with_change: bool) -> None:
    """A table in Markdown."""
    more = " change as labelled | aligned |" if with_change else ""
    print(f"| clips | of | frames that follow one | false cuts | cuts | missed |{more}")
    print(f"| --- | --- | --- | --- | --- | --- |{' --- | --- |' if with_change else ''}")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of = [row for row in rows if row["kind"] == kind]
        false, missed = (sum(len(row[name]) for row in of) for name in ("false", "missed"))
        follow, cuts = (sum(row[name] for row in of) for name in ("follow", "cuts"))
        means = [np.mean([one for row in of for one in row[name]]) for name in ("change", "aligned")]
        more = "".join(f" {one:.2%} |" for one in means) if with_change else ""
        print(f"| {kind} | {len(of)} | {follow} | {false} | {cuts} | {missed} |{more}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--teacher", default="tiny")
    parser.add_argument("--keep", type=Path, help="frames and labels are left there, and taken from there")
    parser.add_argument("--json", type=Path, help="write what was found in each clip")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run(arguments, arguments.keep or Path(scratch))


def run(arguments: argparse.Namespace, folder: Path) -> None:
    import depthsieve

    photos = sorted(path for path in arguments.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not (folder / "frames").exists():
        write_frames(photos, folder / "frames")
    depthsieve.label(folder / "frames", folder / "labels", teacher=arguments.teacher, sequence=True)
    store = depthsieve.open_store(folder / "labels")
    rows = [judge(store, made) for made in clips(photos)]
    show(sorted(rows, key=lambda row: not row["kind"].startswith("pan")), with_change=True)
    print()
    hard = judge_strained(photos)
    show(hard, with_change=False)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *hard]))


if __name__ == "__main__":
    main()
