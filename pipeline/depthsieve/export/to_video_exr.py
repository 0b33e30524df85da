"""``video-depth-anything`` with ``--depths exr``: the depth of each frame as an image.

Its ``run.py --save_exr`` writes ``STEM_depths_exr/frame_00000.exr`` with a float32 channel ``Z``, whatever depth is.

Axes: H row, W column.
"""

from collections.abc import Iterable, Iterator

from depthsieve.export.clip_target import ClipTarget
from depthsieve.export.index import index_json, quantity_words
from depthsieve.export.protocol import About, Encoded, Entries, Item
from depthsieve.export.to_exr import encode_exr


class Depths(ClipTarget):
    """``CLIP_depths_exr/frame_00000.exr`` and ``index.json``."""

    metric_option = "metric"

    def clip_place(self, stem: str) -> str:
        return f"{stem}_depths_exr"

    def leaf(self, number: int) -> str:
        return f"frame_{number:05d}.exr"

    def encode(self, item: Item) -> Encoded:
        channels = {"Z": item.depth_HW.astype("<f4"), "reliability": item.reliability_HW.astype("<f2")}
        text = {"id": item.id, "quantity": self.ask.quantity, "unit": self.ask.unit}
        facts = {**item.facts(), **self.frame_facts(item), "channels": item.path}
        return Encoded({item.path: encode_exr(channels, text)}, facts)

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        head = {"quantity": self.ask.quantity, "unit": self.ask.unit, "invalid": "NaN"}
        yield "index.json", index_json(head, entries)

    def about(self) -> About:
        return About(
            layout="`STEM_depths_exr/frame_00120.exr` for frame 120 of a clip, counted from 0 in its video, in the "
            "source's folders; channels `Z` (float32), as Video Depth Anything's `run.py --save_exr` writes it, and "
            "`reliability` (half). `index.json` has a row a frame: its `id`, `frame`, `time` in seconds from the "
            "video's first frame, its file (`channels`), sizes.",
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
