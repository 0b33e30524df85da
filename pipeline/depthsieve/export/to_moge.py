"""``moge``: instances for training MoGe, as its ``docs/train.md`` and ``moge/utils/io.py`` describe them."""

import json
import math
from collections.abc import Iterator

from depthsieve.core.errors import ImageRejected, UsageError
from depthsieve.export.codecs import encode_png
from depthsieve.export.metric_codes import encode_log
from depthsieve.export.pairs import counted, safe_stem
from depthsieve.export.photos import PhotoFile
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target


class MogeTarget(Target):
    """``PATH/image.jpg``, ``PATH/depth.png``, ``PATH/meta.json``, ``.index.txt``."""

    writes_reliability = False
    wants = "metres"
    links = True

    def check(self) -> None:
        super().check()
        fov = self.ask.options["fov"]
        if fov is not None and not 0 < fov < 180:
            raise UsageError(f"--fov must be degrees, more than 0 and below 180, not {fov:g}")

    def place(self, image_id: str) -> str:
        return safe_stem(image_id)

    def encode(self, item: Item) -> Encoded:
        if not item.valid.any():
            raise ImageRejected("no pixel of it is valid, and MoGe needs one")
        focal, origin = self._focal(item)
        height, width = item.source_shape
        code_HW, near, far = encode_log(item.depth_HW)
        meta = {
            "intrinsics": [[focal / width, 0.0, 0.5], [0.0, focal / height, 0.5], [0.0, 0.0, 1.0]],
            "focal_from": origin,
            **item.facts(),
        }
        files: dict[str, bytes | PhotoFile] = {
            f"{item.path}/image.jpg": item.photo.file(applies_exif=True, kinds=("JPEG",)),
            f"{item.path}/depth.png": encode_png(code_HW, {"near": repr(near), "far": repr(far)}),
            f"{item.path}/meta.json": json.dumps(meta).encode(),
        }
        return Encoded(files, {"focal_from": origin})

    def _focal(self, item: Item) -> tuple[float, str]:
        """In pixels of the source, and where it is from."""
        if item.focal_px > 0:
            return item.focal_px, "EXIF"
        fov = self.ask.options["fov"]
        if fov is None:
            raise ImageRejected(
                "its focal length is not in its EXIF, and MoGe needs intrinsics: --fov says the angle of view"
            )
        return max(item.source_shape) / 2 / math.tan(math.radians(fov) / 2), "--fov"

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes]]:
        yield ".index.txt", "".join(f"{entry.path}\n" for entry in entries()).encode()

    def after(self, entries: Entries) -> list[str]:
        assumed = sum(entry.data["focal_from"] == "--fov" for entry in entries())
        if not assumed:
            return []
        return [
            f"{counted(assumed, 'image')} without a focal length in EXIF got that of --fov {self.ask.options['fov']:g}"
        ]

    def about(self) -> About:
        return About(
            layout="a folder an image, `PATH/` (the id without its suffix): `image.jpg`, `depth.png`, `meta.json`; and "
            '`.index.txt`, a path a line. In the config: `"depth_unit": 1.0` (depth is in metres) and '
            '`"finite_depth_mask": "only_known"` (unknown pixels are not sky, nor surely finite).',
            depth="metres along the camera's axis, 16 bits, logarithmic between `near` and `far` of the PNG's text "
            "chunks: `near ** (1 - t) * far ** t` with `t = (code - 1) / 65533`.",
            invalid="0, unknown. 65535, infinity, does not occur.",
            precision="relative, within `log(far / near) / 131066`: 5e-5 where far is 1000 times near.",
            photos="`image.jpg`: the source file where it is a JPEG, else written again as JPEG of quality 95. "
            "`meta.json` has normalised intrinsics: square pixels, the principal point in the middle, the focal length "
            "of EXIF, or that of `--fov` (degrees along the longer side); `focal_from` says which.",
            code=_CODE,
        )


_CODE = """
from pathlib import Path
import numpy as np
from PIL import Image

instance = Path(".index.txt").read_text("utf-8").splitlines()[0]
with Image.open(f"{instance}/depth.png") as png:
    near, far, code = float(png.info["near"]), float(png.info["far"]), np.array(png, "float64")
t = (code - 1) / 65533
depth = np.where(code > 0, near ** (1 - t) * far**t, np.nan)
"""
