"""``frames``: a 16-bit grey PNG a frame, whose codes mean the same in all frames of a clip: nothing flickers.

Axes: H row, W column.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from depthsieve.core.errors import StoreDamaged
from depthsieve.export.clip_target import INDEX, ClipTarget
from depthsieve.export.clips import Clip
from depthsieve.export.codecs import CODES, encode_png
from depthsieve.export.index import quantity_words, rows_json
from depthsieve.export.protocol import About, Encoded, Entries, Item


class FramesTarget(ClipTarget):
    """``CLIP/frame_00000.png``, of a folder ``FOLDER/NAME.png``, and ``clips.json``."""

    writes_reliability = False
    suffix = ".png"

    def check(self) -> None:
        super().check()
        self._looking = threading.Lock()
        self._ranges: dict[str, tuple[float, float]] = {}

    def clip_place(self, stem: str) -> str:
        return stem

    def encode(self, item: Item) -> Encoded:
        scale, offset = self._affine(self.clip_with(item.id))
        filled_HW = np.where(item.valid, item.depth_HW, offset).astype(np.float64)
        steps_HW = np.rint((filled_HW - offset) / scale) if scale else np.ones_like(filled_HW)
        codes_HW = np.where(item.valid, np.clip(steps_HW, 1, CODES), 0).astype(np.uint16)
        facts = {**self.seconds(item), "scale": scale, "offset": offset}
        return Encoded({item.path: encode_png(codes_HW, {"id": item.id})}, facts)

    def _affine(self, clip: Clip) -> tuple[float, float]:
        """What the codes of a clip stand for: scale and offset, so that 1 and 65535 are the least and the largest value
        of all its frames."""
        with self._looking:
            if clip.id not in self._ranges:
                low, high = np.inf, -np.inf
                for image_id in sorted(clip.labelled):
                    with suppress(StoreDamaged):
                        depth_HW = self.ask.depth_of(image_id)
                        if not np.isnan(depth_HW).all():
                            low, high = min(low, float(np.nanmin(depth_HW))), max(high, float(np.nanmax(depth_HW)))
                scale = (high - low) / (CODES - 1) if high > low else 0.0
                self._ranges[clip.id] = scale, (low - scale if low < np.inf else 0.0)
            return self._ranges[clip.id]

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        head = {"quantity": self.ask.quantity, "unit": self.ask.unit, "invalid": 0}
        yield INDEX, rows_json(head, "clips", self._clip_rows(entries))

    def _clip_rows(self, entries: Entries) -> Iterator[dict[str, Any]]:
        for clip, _, frames in self.by_clip(entries):
            affine = {name: frames[0].data[name] for name in ("scale", "offset")}
            images = [{"file": entry.path, **self.shown(entry)} for entry in frames]
            yield {"id": clip.id, **affine, **self.gaps(clip, frames), "images": images}

    def about(self) -> About:
        return About(
            layout="`CLIP/frame_00120.png` for frame 120 of a video, counted from 0 in it, and `FOLDER/NAME.png` for "
            "the file `NAME` of a folder of frames, in the source's folders: 16-bit grey. "
            f"`{INDEX}` has a row a clip: its `id`, `scale` and `offset`, and its `images` in the order of time, each "
            f"with its `file`, its number (`frame`) and `time`. {self.row_words}",
            depth="`offset + scale * code`, the same for all frames of a clip: "
            f"{quantity_words(self.ask)}.{self.alignment}",
            invalid="code 0. Frames that failed, or were not labelled yet, have no file.",
            precision="within half of `scale`, which is 1/65534 of the clip's range.",
            photos="not written.",
            code=_CODE,
        )


_CODE = """
import json
import cv2
import numpy as np

with open("clips.json", encoding="utf-8") as file:
    clip = json.load(file)["clips"][0]
for image in clip["images"]:
    codes = cv2.imread(image["file"], cv2.IMREAD_UNCHANGED).astype(np.float64)
    depth = np.where(codes > 0, clip["offset"] + clip["scale"] * codes, np.nan)
"""
