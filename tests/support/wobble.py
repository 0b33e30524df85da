"""A teacher whose disparity has another scale and shift in every frame, and frames whose number it can read.

Axes: H height, W width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import plug_in
import pytest
from PIL import Image

NAME = "wobble"
SCALES = (1.0, 1.3, 0.8, 1.1, 0.7)
SHIFTS = (0.0, 0.5, -0.2, 0.3, 0.1)
"""Of the frames of number 0, 1, 2, ..., over and over."""

HEIGHT, WIDTH = 90, 120

MODULE = f"""
import hashlib

import numpy as np
import torch

from depthsieve.teachers import Prediction, Teacher


class Wobble(Teacher):
    '''Disparity is how bright the surroundings of a pixel are, scaled and shifted by the number in the first pixel.'''

    name = "wobble"
    weights_digest = hashlib.sha256(b"wobble").hexdigest()
    quantity = "disparity"
    unit = ""
    dtype = "float32"
    preprocessing = {{"rule": "as it is"}}
    embedding_size = 12
    embedding_method = "four means a channel"

    def __init__(self, request):
        self.device = torch.device(request.device)

    def label_shape(self, height, width):
        return height, width

    def prepare(self, rgb_HW3, shape):
        return np.ascontiguousarray(rgb_HW3.transpose(2, 0, 1), dtype=np.float32)

    def predict(self, batch):
        number_B = batch.image[:, 0, 0, 0].long() % {len(SCALES)}
        scale_B, shift_B = torch.tensor({SCALES})[number_B], torch.tensor({SHIFTS})[number_B]
        wide_BHW = torch.nn.functional.avg_pool2d(batch.image.mean(1)[:, None], 7, 1, 3)[:, 0]
        means_BD = torch.nn.functional.adaptive_avg_pool2d(batch.image, 2).flatten(1)
        embedding = torch.nn.functional.normalize(means_BD - 128, dim=1)
        return Prediction((1 + wide_BHW / 64) * scale_B[:, None, None] + shift_B[:, None, None], embedding=embedding)


def load(request):
    return Wobble(request)
"""


def scene(seed: int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """Blobs with some detail on them, RGB [H,W,3]; no two seeds alike."""
    random = np.random.default_rng(seed)
    coarse = random.integers(30, 220, (height // 12, width // 12, 3)).astype(np.uint8)
    fine = random.integers(-12, 13, (height // 3, width // 3, 3)).astype(np.float32)
    size = (width, height)
    blobs = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return np.clip(blobs + cv2.resize(fine, size), 0, 255).astype(np.uint8)


def static_frame(number: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A scene that stands still, and a bright patch that moves through it."""
    return numbered(patched(scene(seed), number), number)


def patched(frame_HW3: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.uint8]:
    """A bright patch, further to the right in each frame."""
    patch = np.random.default_rng(99).integers(200, 250, (24, 24, 3), dtype=np.uint8)
    at = (5 * number) % (frame_HW3.shape[1] - 24)
    frame_HW3[30:54, at : at + 24] = patch
    return frame_HW3


def numbered(frame_HW3: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.uint8]:
    """A frame that says its number."""
    frame_HW3[0, 0, 0] = number
    return frame_HW3


def write_frame(path: Path, frame_HW3: npt.NDArray[Any]) -> Path:
    """A frame as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame_HW3).save(path)
    return path


@contextmanager
def installed(folder: Path) -> Iterator[str]:
    """Its name, under which this process finds it in ``folder``."""
    site = plug_in.install(folder, NAME, package="wobble_teacher", module=MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield NAME
