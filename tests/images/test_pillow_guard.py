"""Pillow's process-wide settings: ours while decoding, and afterwards as they were."""

import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from decoding import rejection
from hostile import encoded, photo
from patience import PATIENCE_S
from PIL import Image, ImageFile

from depthsieve.core.errors import ImageRejected
from depthsieve.images.decode import decode
from depthsieve.images.pillow_guard import own_pillow_settings


def test_what_the_process_has_set_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(photo(), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    garbage_exif = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x09\0\0\0\xff\xff\0\0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        assert "truncated" in rejection(whole[: len(whole) - 300])
        for data in (whole, garbage_exif, encoded(photo(), "WEBP")):
            assert decode(data).rgb_HW3.shape == (48, 64, 3)
        assert warnings.filters == before
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 10


def test_threads_decode_at_once_and_leave_the_settings_as_they_were() -> None:
    good, cut = encoded(photo(300, 200), "JPEG"), encoded(photo(300, 200), "PNG")[:-2000]
    expected_HW3 = decode(good).rgb_HW3
    before = (list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(40):
            if not np.array_equal(decode(good).rgb_HW3, expected_HW3):
                wrong.append("pixels")
            try:
                decode(cut)
                wrong.append("accepted")
            except ImageRejected:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (list(warnings.filters), ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == before


def test_the_last_one_out_puts_the_settings_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with own_pillow_settings(7):
        with own_pillow_settings(7):
            pass
        assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (False, 7)
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn_explicit("odd", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
        assert caught == []
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True and Image.MAX_IMAGE_PIXELS != 7


def test_a_forked_child_decodes_although_another_thread_was_inside() -> None:
    script = """
import os, threading
from PIL import Image, ImageFile
from depthsieve.images.pillow_guard import own_pillow_settings
ImageFile.LOAD_TRUNCATED_IMAGES = True
inside, leave = threading.Event(), threading.Event()
def stay():
    with own_pillow_settings(1):
        inside.set(); leave.wait()
thread = threading.Thread(target=stay); thread.start(); inside.wait()
child = os.fork()
if child == 0:
    right = ImageFile.LOAD_TRUNCATED_IMAGES and Image.MAX_IMAGE_PIXELS != 1
    with own_pillow_settings(2):
        right = right and not ImageFile.LOAD_TRUNCATED_IMAGES and Image.MAX_IMAGE_PIXELS == 2
    os._exit(0 if right and ImageFile.LOAD_TRUNCATED_IMAGES else 7)
status = os.waitpid(child, 0)[1]
leave.set(); thread.join()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], timeout=PATIENCE_S, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
