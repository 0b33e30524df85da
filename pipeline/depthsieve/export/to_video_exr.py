"""``video-depth-anything`` with ``--depths exr``: the depth of each frame as an image.

Its ``run.py --save_exr`` writes ``STEM_depths_exr/frame_00000.exr`` with a float32 channel ``Z``, whatever depth is.

Axes: H row, W column.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from depthsieve.export.clip_target import ClipTarget
from depthsieve.export.index import quantity_words, rows_json
from depthsieve.export.protocol import About, Encoded, Entries, Entry, Item
from depthsieve.export.to_exr import encode_exr


class Depths(ClipTarget):
    """``CLIP_depths_exr/frame_00000.exr``, of a folder ``FOLDER_depths_exr/NAME.exr``, and ``index.json``."""

    metric_option = "metric"
    as_one = False
    suffix = ".exr"

    def clip_place(self, stem: str) -> str:
        return f"{stem}_depths_exr"

    def encode(self, item: Item) -> Encoded:
        channels = {"Z": item.depth_HW.astype("<f4"), "reliability": item.reliability_HW.astype("<f2")}
        text = {"id": item.id, "quantity": self.ask.quantity, "unit": self.ask.unit}
        facts = {**item.facts(), **self.seconds(item), "channels": item.path}
        return Encoded({item.path: encode_exr(channels, text)}, facts)

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        head = {"quantity": self.ask.quantity, "unit": self.ask.unit, "invalid": "NaN"}
        yield "index.json", rows_json(head, "images", map(self._row, entries()))

    def _row(self, entry: Entry) -> dict[str, Any]:
        return {name: value for name, value in entry.data.items() if name != "seconds"} | self.shown(entry)

    def about(self) -> About:
        return About(
            layout="`STEM_depths_exr/frame_00120.exr` for frame 120 of a video, counted from 0 in it, and "
            "`FOLDER_depths_exr/NAME.exr` for the file `NAME` of a folder of frames, in the source's folders; channels "
            "`Z` (float32), as Video Depth Anything's `run.py --save_exr` writes it, and `reliability` (half). "
            "`index.json` has a row a frame, in the order of time within each clip: its `id`, its number (`frame`), "
            f"`time`, its file (`channels`), sizes. {self.row_words}",
            depth=f"`Z`: {quantity_words(self.ask)}.{self.alignment}",
            invalid="NaN, and reliability 0. Frames that failed, or were not labelled yet, have no file.",
            precision="none is lost.",
            photos="not written.",
            code=_CODE,
        )


_CODE = """
import json
import OpenEXR  # pip install OpenEXR

with open("index.json", encoding="utf-8") as file:
    row = json.load(file)["images"][0]
with OpenEXR.File(row["channels"], separate_channels=True) as file:
    depth = file.channels()["Z"].pixels.copy()
    reliability = file.channels()["reliability"].pixels.copy()
"""
