"""``npy`` and ``npz``: float32 depth and uint8 reliability as NumPy arrays, in the source's folders."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from depthsieve.export.codecs import encode_npy, encode_npz
from depthsieve.export.index import index_json, quantity_words
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target

INDEX = "index.json"


class NpyTarget(Target):
    """``depth/PATH.npy``, ``reliability/PATH.npy``, and ``index.json``."""

    layout: ClassVar[str] = "`depth/PATH.npy` (float32), `reliability/PATH.npy` (uint8)"
    code: ClassVar[str] = """
depth = np.load(row["depth"])
reliability = np.load(row["reliability"])
"""

    def encode(self, item: Item) -> Encoded:
        depth, reliability = f"depth/{item.path}.npy", f"reliability/{item.path}.npy"
        files = {depth: encode_npy(item.depth_HW), reliability: encode_npy(item.reliability_HW)}
        return Encoded(files, {**item.facts(), "depth": depth, "reliability": reliability})

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        version = self.ask.store.code_version
        head = {"quantity": self.ask.quantity, "unit": self.ask.unit, "invalid": "NaN", "code_version": version}
        yield INDEX, index_json(head, entries)

    def about(self) -> About:
        return About(
            layout=f"{self.layout}, and `{INDEX}` with a row an image: its `id`, where its arrays are, sizes. PATH is "
            "the id with what file systems refuse encoded.",
            depth=f"{quantity_words(self.ask)}.",
            invalid="NaN in depth, and 0 in reliability.",
            precision="the store's values, exactly, at label resolution.",
            photos="not written.",
            code=_START + self.code.strip(),
        )


class NpzTarget(NpyTarget):
    """``labels/PATH.npz``, compressed, and ``index.json``."""

    layout = "`labels/PATH.npz` with the arrays `depth` (float32) and `reliability` (uint8)"
    code = """
with np.load(row["labels"]) as arrays:
    depth, reliability = arrays["depth"], arrays["reliability"]
"""

    def encode(self, item: Item) -> Encoded:
        path = f"labels/{item.path}.npz"
        data = encode_npz({"depth": item.depth_HW, "reliability": item.reliability_HW})
        return Encoded({path: data}, {**item.facts(), "labels": path})


_START = """
import json
import numpy as np

with open("index.json", encoding="utf-8") as file:
    row = json.load(file)["images"][0]
"""
