"""Images with planted faults, of which it is known what they are: the set that ``curate``'s cuts are judged by.

``make_planted(folder)`` writes 300 images, and the photos that are at hand, and returns what each is: rendered scenes
and real photos that are good; blurred, black and flat ones, pages of text; and copies of good ones: resized, cropped,
compressed again. Axes: H row, W column, 3 red, green, blue.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from depthsieve.scenes import render_scene

HEIGHT, WIDTH = 480, 640
COUNTS = {
    "good": 140,
    "blurred": 20,
    "black": 15,
    "flat": 15,
    "text": 20,
    "resized": 30,
    "cropped": 30,
    "compressed": 30,
}
COPIES = ("resized", "cropped", "compressed")
LONGEST = 1280
"""Photos are made this small first: they are there for what they show."""

_TEXT = """the of and to in depth label image teacher student shard store pixel surface camera measure distance between
every other light shadow road wall window report section figure table number 12 2024 3.5 result we show that method"""
WORDS = _TEXT.split()


@dataclass(frozen=True)
class Planted:
    """What one image is: a kind of :data:`COUNTS`, or "photo"; ``of`` names the image that a copy was made of."""

    name: str
    kind: str
    of: str | None = None


def make_planted(folder: Path, photos: Path | None = None, seed: int = 0, share: float = 1.0) -> list[Planted]:
    """Write the set, another one for each ``seed``. ``share`` scales how many there are of each kind; at least two of
    each are made."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    counts = {kind: max(2, round(count * share)) for kind, count in COUNTS.items()}
    scenes = 10_000 * seed
    found: list[Planted] = []
    good: list[tuple[str, np.ndarray[Any, Any]]] = []

    def keep(kind: str, number: int, rgb_HW3: np.ndarray[Any, Any], of: str | None = None, quality: int = 92) -> str:
        name = f"{kind}-{number:03d}.jpg"
        Image.fromarray(rgb_HW3).save(folder / name, quality=quality)
        found.append(Planted(name, kind, of))
        return name

    for number in range(counts["good"]):
        rgb_HW3 = _scene(scenes + 1000 + number, random)
        good.append((keep("good", number, rgb_HW3), rgb_HW3))
    for number, path in enumerate(sorted(photos.iterdir()) if photos and photos.is_dir() else []):
        with Image.open(path) as image:
            rgb = image.convert("RGB")
            rgb.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
            rgb_HW3 = np.asarray(rgb)
        good.append((keep("photo", number, rgb_HW3), rgb_HW3))
    for number in range(counts["blurred"]):
        rgb_HW3 = _scene(scenes + 5000 + number, random)
        sigma = random.uniform(0.008, 0.02) * HEIGHT  # 4 to 10 pixels of 480: out of focus, or shaken
        if number % 2:
            rgb_HW3 = cv2.GaussianBlur(rgb_HW3, (0, 0), sigma)
        else:
            rgb_HW3 = _shaken(rgb_HW3, 4 * sigma, random.uniform(0, np.pi))
        keep("blurred", number, rgb_HW3)
    for number in range(counts["black"]):
        dark_HW3 = _scene(scenes + 6000 + number, random) * random.uniform(0.0, 0.04)
        dark_HW3 = dark_HW3 + random.normal(0, 1.5, (HEIGHT, WIDTH, 3))
        keep("black", number, np.clip(dark_HW3, 0, 255).astype(np.uint8))
    for number in range(counts["flat"]):
        keep("flat", number, _flat(random))
    for number in range(counts["text"]):
        keep("text", number, _page(random))
    for kind in COPIES:
        for number in range(counts[kind]):
            name, rgb_HW3 = good[int(random.integers(len(good)))]
            copy_HW3, quality = _copy(kind, rgb_HW3, random)
            keep(kind, number, copy_HW3, name, quality)
    return found


def _scene(seed: int, random: np.random.Generator) -> np.ndarray[Any, Any]:
    family = ("home", "foreign")[seed % 2]
    rgb_HW3 = render_scene(seed, HEIGHT, WIDTH, family=family).rgb_HW3
    noise_HW3 = random.normal(0, 2, rgb_HW3.shape)
    return np.clip(rgb_HW3 + noise_HW3, 0, 255).astype(np.uint8)


def _shaken(rgb_HW3: np.ndarray[Any, Any], length: float, angle: float) -> np.ndarray[Any, Any]:
    side = int(length) | 1
    kernel = np.zeros((side, side), np.float32)
    half = (side - 1) / 2
    for step in np.linspace(-half, half, 4 * side):
        kernel[round(half + step * np.sin(angle)), round(half + step * np.cos(angle))] = 1
    return np.asarray(cv2.filter2D(rgb_HW3, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT))


def _flat(random: np.random.Generator) -> np.ndarray[Any, Any]:
    """A wall or a sky: one colour, a slow change of light, noise."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / HEIGHT
    slope = random.uniform(-25, 25, 2)
    light_HW = slope[0] * y + slope[1] * x
    colour = random.uniform(60, 220, 3)
    return np.clip(colour + light_HW[..., None] + random.normal(0, 2, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)


def _page(random: np.random.Generator) -> np.ndarray[Any, Any]:
    """A scanned or photographed page of text: black on paper, or light on dark, one or two columns, a little turned."""
    size = int(random.integers(11, 20))
    paper, ink = (random.uniform(225, 255), random.uniform(0, 60)) if random.random() < 0.8 else (30.0, 220.0)
    page = Image.new("L", (WIDTH, HEIGHT), int(paper))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    columns = int(random.integers(1, 3))
    for column in range(columns):
        left, right = 30 + column * (WIDTH - 30) // columns, (column + 1) * (WIDTH - 30) // columns
        top = int(random.integers(20, 60))
        while top < HEIGHT - 30:
            line = ""
            while font.getlength(line + "  word") < right - left:
                line += str(random.choice(WORDS)) + " "
            if random.random() < 0.12:  # the end of a paragraph
                line = line[: len(line) // 2]
            draw.text((left, top), line, int(ink), font)
            top += int(size * 1.4)
    turned = page.rotate(float(random.uniform(-3, 3)), Image.Resampling.BICUBIC, fillcolor=int(paper))
    shade_HW = np.asarray(turned, np.float32) + np.linspace(-15, 15, WIDTH)[None] * random.uniform(-1, 1)
    noisy_HW3 = shade_HW[..., None] * random.uniform(0.94, 1, 3) + random.normal(0, 2, (HEIGHT, WIDTH, 3))
    return np.clip(noisy_HW3, 0, 255).astype(np.uint8)


def _copy(kind: str, rgb_HW3: np.ndarray[Any, Any], random: np.random.Generator) -> tuple[np.ndarray[Any, Any], int]:
    height, width = rgb_HW3.shape[:2]
    if kind == "resized":
        scale = random.uniform(0.4, 0.9)
        return cv2.resize(rgb_HW3, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA), 92
    if kind == "cropped":
        share = random.uniform(0.8, 0.95)  # of each side
        h, w = round(height * share), round(width * share)
        top, left = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
        return np.ascontiguousarray(rgb_HW3[top : top + h, left : left + w]), 92
    return rgb_HW3, int(random.integers(15, 60))
