"""Pillow's process-wide settings, as decoding needs them and only while it runs.

What an image becomes must not depend on what else the process has set: a training script that asks Pillow for
``LOAD_TRUNCATED_IMAGES`` must not get labels of half an image, and warnings turned into errors must not reject images.
"""

import ctypes
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile, _imaging

_QUIET: Any = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def _libtiff_handlers() -> list[Any]:
    """Pillow's libtiff's two functions that set where messages go, and give back where they went; none if hidden."""
    try:
        libtiff = ctypes.CDLL(_imaging.__file__)
        setters = [libtiff.TIFFSetErrorHandler, libtiff.TIFFSetWarningHandler]
    except (OSError, AttributeError):
        return []
    for setter in setters:
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return setters


class _Guard:
    """Counts the threads inside; the first one changes the settings, the last one puts them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._found: tuple[bool, int | None, list[Any]] = (False, None, [])
        self._libtiff = _libtiff_handlers()

    def enter(self, max_pixels: int) -> None:
        with self._lock:
            if self._inside == 0:
                handlers = [setter(None) for setter in self._libtiff]
                self._found = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, handlers)
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, max_pixels
            filters: Any = warnings.filters
            if not filters or filters[0] is not _QUIET:  # first, or again: someone has replaced the list since
                filters.insert(0, _QUIET)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._put_back()

    def after_fork(self) -> None:
        """A forked child has none of the threads that were inside."""
        self._lock = threading.Lock()
        if self._inside:
            self._inside = 0
            self._put_back()

    def _put_back(self) -> None:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, handlers = self._found
        for setter, handler in zip(self._libtiff, handlers, strict=True):
            setter(handler)
        filters: Any = warnings.filters
        while _QUIET in filters:
            filters.remove(_QUIET)


_guard = _Guard()
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else, where no handler is set, it writes to stderr
os.register_at_fork(after_in_child=_guard.after_fork)


@contextmanager
def own_pillow_settings(max_pixels: int) -> Iterator[None]:
    """While any thread is inside, Pillow refuses truncated files, allows ``max_pixels``, and it and libtiff are silent.

    ``warnings.catch_warnings`` would not do: it puts a whole list back, so that two threads lose each other's filters.
    """
    _guard.enter(max_pixels)
    try:
        yield
    finally:
        _guard.leave()
