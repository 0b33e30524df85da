"""A teacher for tests that start many processes: a plug-in without transformers, whose import takes most of the time.

Its labels follow from arithmetic on the image; mirrored images are labelled a little otherwise, so that signals differ.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import plug_in
import pytest

NAME = "light"

MODULE = '''
import hashlib

import cv2
import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

from depthsieve.teachers import Prediction, Teacher


class Light(Teacher):
    """Disparity is how bright a pixel and its surroundings are, more so to the right; the short side has 70 pixels."""

    name = "light"
    weights_digest = hashlib.sha256(b"light").hexdigest()
    quantity = "disparity"
    unit = ""
    dtype = "float32"
    preprocessing = {"rule": "short side 70"}
    embedding_size = 12
    embedding_method = "four means a channel"

    def __init__(self, request):
        self.device = torch.device(request.device)

    def label_shape(self, height, width):
        scale = 70 / min(height, width)
        return round(height * scale), round(width * scale)

    def half_shape(self, shape):
        return shape[0] // 2, shape[1] // 2

    def prepare(self, rgb_HW3, shape):
        rgb_HW3 = cv2.resize(rgb_HW3, shape[::-1], interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray((rgb_HW3.transpose(2, 0, 1) / 255 - 0.45) / 0.225, dtype=np.float32)

    def predict(self, batch):
        grey_BHW = batch.image.mean(1)
        slope_W = torch.linspace(1, 1.2, grey_BHW.shape[2])
        wide_BHW = torch.nn.functional.avg_pool2d(grey_BHW[:, None], 7, 1, 3)[:, 0]
        means_BD = adaptive_avg_pool2d(batch.image, 2).flatten(1)
        return Prediction(3 + wide_BHW * slope_W + 0.1 * grey_BHW, embedding=normalize(means_BD + 1e-3, dim=1))


def load(request):
    return Light(request)
'''


@contextmanager
def installed(folder: Path) -> Iterator[str]:
    """Its name, under which this process, and those that it starts meanwhile, find it in ``folder``."""
    site = plug_in.install(folder, NAME, package="light_teacher", module=MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
        yield NAME
