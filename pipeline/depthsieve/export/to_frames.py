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
from depthsieve.export.clips import Clip, frame_of
from depthsieve.export.codecs import CODES, encode_png
from depthsieve.export.index import quantity_words, rows_json
from depthsieve.export.protocol import About, Encoded, Entries, Item


class FramesTarget(ClipTarget):
    """``CLIP/frame_00000.png`` and ``clips.json``."""

    writes_reliability = False

    def check(self) -> None:
        super().check()
        self._looking = threading.Lock()
        self._ranges: dict[str, tuple[float, float]] = {}

    def clip(self, image_id: str) -> Clip | None:
        return self.clips[frame_of(image_id)[0]]

    def clip_place(self, stem: str) -> str:
        return stem

    def leaf(self, number: int) -> str:
        return f"frame_{number:05d}.png"

    def encode(self, item: Item) -> Encoded:
        scale, offset = self._affine(self.clips[frame_of(item.id)[0]])
        filled_HW = np.where(item.valid, item.depth_HW, offset).astype(np.float64)
        steps_HW = np.rint((filled_HW - offset) / scale) if scale else np.ones_like(filled_HW)
        codes_HW = np.where(item.valid, np.clip(steps_HW, 1, CODES), 0).astype(np.uint16)
        facts = {**self.frame_facts(item), "scale": scale, "offset": offset}
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
        for clip, path, frames in self.by_clip(entries):
            affine = {name: frames[0].data[name] for name in ("scale", "offset")}
            shown = {str(entry.data["frame"]): entry.data["time"] for entry in frames}
            files = {"folder": path, "files": "frame_%05d.png", "times": shown}
            yield {"id": clip.id, **files, **affine, **self.gaps(clip, frames)}

    def about(self) -> About:
        return About(
            layout="`CLIP/frame_00120.png` for frame 120 of a clip, counted from 0 in its video, in the source's "
            f"folders: 16-bit grey. `{INDEX}` has a row a clip: its `id`, `folder`, `scale` and `offset`, "
            "`times` of its frames by number (seconds from the video's first frame), and the numbers of those "
            "without a label.",
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
for number in clip["times"]:
    path = clip["folder"] + "/" + clip["files"] % int(number)
    codes = cv2.imread(path, cv2.IMREAD_UNCHANGED).astype(np.float64)
    depth = np.where(codes > 0, clip["offset"] + clip["scale"] * codes, np.nan)
"""
