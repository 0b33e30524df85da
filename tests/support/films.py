"""Stores of frames of small real videos, with labels that are made up, for tests of what is made of clips."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from storemaker import Picture, make_store
from videos import HEIGHT, WIDTH, write_video

from depthsieve.sources.containers.video import VideoContainer
from depthsieve.store import Store

LABEL = (12, 16)


def film(
    folder: Path,
    path: str,
    numbers: Sequence[int],
    *,
    failed: Collection[int] = (),
    pending: Collection[int] = (),
    **options: Any,
) -> list[Picture]:
    """A video ``folder/images/PATH`` of 24 frames, and the pictures of a store of these frames of it."""
    target = folder / "images" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        write_video(target, **{"frames": 24, "options": {"preset": "ultrafast"}} | options)
    container = VideoContainer(str(target).encode())
    made = []
    for number in numbers:
        data = container.read(f"{number:06d}")
        rgb_HW3 = np.frombuffer(data[-3 * WIDTH * HEIGHT :], np.uint8).reshape(HEIGHT, WIDTH, 3)
        states = {"failed": number in failed, "pending": number in pending}
        made.append(Picture(f"{path}::{number:06d}", (HEIGHT, WIDTH), LABEL, rgb_HW3=rgb_HW3, **states))
    return made


def frames_in(folder: str, *names: str, failed: Collection[str] = (), **options: Any) -> list[Picture]:
    """The pictures of a store of a folder of frames of these names."""
    path = f"{folder}/" if folder else ""
    return [Picture(f"{path}{name}", (HEIGHT, WIDTH), LABEL, failed=name in failed, **options) for name in names]


def film_store(folder: Path, *films: Sequence[Picture], **options: Any) -> Store:
    """A store of films that :func:`film` made in the same folder."""
    return make_store(folder, [picture for pictures in films for picture in pictures], **options)
