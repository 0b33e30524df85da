"""``png``: 16-bit depth and 8-bit reliability, a PNG each, in the source's folders."""

from collections.abc import Iterable, Iterator

from depthsieve.export.codecs import encode_png, to_affine16
from depthsieve.export.index import index_json, quantity_words
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target

INDEX = "depth.json"


class PngTarget(Target):
    """``depth/PATH.png``, ``reliability/PATH.png``, and ``depth.json``."""

    def encode(self, item: Item) -> Encoded:
        coded = to_affine16(item.depth_HW)
        depth, reliability = f"depth/{item.path}.png", f"reliability/{item.path}.png"
        text = {
            "depthsieve:id": item.id,
            "depthsieve:quantity": self.ask.quantity,
            "depthsieve:unit": self.ask.unit,
            "depthsieve:scale": repr(coded.scale),
            "depthsieve:offset": repr(coded.offset),
            "depthsieve:invalid": "0",
        }
        entry = {"depth": depth, "reliability": reliability, "scale": coded.scale, "offset": coded.offset}
        files = {depth: encode_png(coded.codes_HW, text), reliability: encode_png(item.reliability_HW)}
        return Encoded(files, {**item.facts(), **entry})

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        head = {"quantity": self.ask.quantity, "unit": self.ask.unit, "invalid": 0, "value": "offset + scale * code"}
        head |= {"code_version": self.ask.store.code_version}
        yield INDEX, index_json(head, entries)

    def about(self) -> About:
        return About(
            layout=f"`depth/PATH.png` (16 bits), `reliability/PATH.png` (8 bits), and `{INDEX}` with a row an image: "
            "its `id`, both paths, `scale` and `offset`, sizes. PATH is the id with what file systems refuse encoded.",
            depth=f"{quantity_words(self.ask)}: `offset + scale * code`, with the image's own "
            "`scale` and `offset`, which the PNG's text chunks have too.",
            invalid="code 0 in depth, and 0 in reliability.",
            precision="within half of the image's `scale`: 1/131068 of the range of its valid values.",
            photos="not written.",
            code=_CODE,
        )


_CODE = """
import json
import numpy as np
from PIL import Image

with open("depth.json", encoding="utf-8") as file:
    row = json.load(file)["images"][0]
code = np.asarray(Image.open(row["depth"]))
depth = np.where(code > 0, row["offset"] + row["scale"] * code.astype(np.float64), np.nan)
reliability = np.asarray(Image.open(row["reliability"]))
"""
