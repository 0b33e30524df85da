"""``ultralytics``: a dataset of YOLO depth, as its ``DepthDataset`` (from version 8.4.123) reads it."""

import math
import re
from collections import Counter
from collections.abc import Iterator

from depthsieve.core.errors import UsageError
from depthsieve.export.codecs import CODES, encode_png
from depthsieve.export.metric_codes import encode_linear
from depthsieve.export.pairs import safe_stem, too_far, with_photo
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target
from depthsieve.export.resize import resize_depth
from depthsieve.export.split import TRAIN, VAL, check_share, split_of

ASPECT = 0.02
"""How far the logarithms of the two ratios of width to height may be apart; the reader drops what is beyond."""

_IMAGES = re.compile(r"(?<=/)images(?=/)")  # the reader replaces the last folder of this name by "depth"


class UltralyticsTarget(Target):
    """``images/SPLIT/PATH.jpg``, ``depth/SPLIT/PATH.png``, ``dataset.yaml``."""

    writes_reliability = False
    wants = "metres"
    links = True

    def check(self) -> None:
        super().check()
        check_share(self.ask.options["val"])
        if not self.ask.options["depth_scale"] > 0:
            raise UsageError(f"--depth-scale must be more than 0, not {self.ask.options['depth_scale']}")

    def place(self, image_id: str) -> str:
        path = f"depth/{split_of(image_id, self.ask.options['val'])}/{safe_stem(image_id)}.png"
        return _IMAGES.sub("images_", path)

    def encode(self, item: Item) -> Encoded:
        depth_HW = item.depth_HW
        (height, width), (source_height, source_width) = depth_HW.shape, item.source_shape
        if abs(math.log(width * source_height / (height * source_width))) > ASPECT * 0.99:
            depth_HW = resize_depth(depth_HW, item.source_shape)
        code_HW, far = encode_linear(depth_HW, self.ask.options["depth_scale"])
        return Encoded(with_photo(item, encode_png(code_HW), "images"), {"too_far": far})

    def _counts(self, entries: Entries) -> Counter[str]:
        return Counter(entry.path.split("/")[1] for entry in entries())

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes]]:
        counts = self._counts(entries)
        lines = ["# Depth labels for Ultralytics YOLO: yolo depth train data=dataset.yaml model=yolo26n-depth.pt"]
        for split, other in ((TRAIN, VAL), (VAL, TRAIN)):
            found = split if counts[split] else other
            lines.append(f"{split}: images/{found} # {counts[found]} images")
        lines += ["nc: 1", "names:", "  0: depth", "channels: 3"]
        lines.append(f"depth_scale: {self.ask.options['depth_scale']} # a PNG value of this is 1 metre; 0 is invalid")
        yield "dataset.yaml", ("\n".join(lines) + "\n").encode()

    def after(self, entries: Entries) -> list[str]:
        scale, counts = self.ask.options["depth_scale"], self._counts(entries)
        told = too_far(entries, CODES / scale, "they are 0, invalid; a smaller --depth-scale holds more (256: 256 m)")
        if not counts[TRAIN] or not counts[VAL]:
            told.append(
                f"of {sum(counts.values())} images {counts[TRAIN]} are for training and {counts[VAL]} for validation, "
                "so dataset.yaml names the same folder for both; --val sets the share"
            )
        return told

    def about(self) -> About:
        scale, val = self.ask.options["depth_scale"], self.ask.options["val"]
        return About(
            layout="`images/train/PATH.jpg` with `depth/train/PATH.png`, the same in `val`, and `dataset.yaml`, which "
            f"says no folder and so goes by its own. An image is in `val` where its id's SHA-256 is among the first "
            f"{val:g} of all: no image ever moves, but photos of one scene can be in both.",
            depth=f"metres along the camera's axis, times {scale}.",
            invalid=f"0. So is what is farther than {CODES / scale:.6g} m.",
            precision=f"within 1/{2 * scale:g} m; a valid pixel nearer than that is 1.",
            photos="the source files in `images/`; written again, upright, where their reader would not show them so. "
            "Depth may be smaller; ratios of width to height agree within 2%, as the reader asks (else depth is as "
            "large as the photo).",
            code=_CODE.replace("SCALE", f"{scale}"),
        )


_CODE = """
from pathlib import Path
import numpy as np
from PIL import Image

path = next(Path("depth").rglob("*.png"))
with Image.open(path) as png:
    depth = np.array(png, "float32") / SCALE  # 0 = invalid
"""
