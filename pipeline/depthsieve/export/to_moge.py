"""``moge``: instances for training MoGe, as its ``docs/train.md`` and ``moge/utils/io.py`` describe them."""

import json
from collections.abc import Iterator, Sequence

from depthsieve.core.cameras import Camera, focal_of_view
from depthsieve.core.errors import ImageRejected, UsageError
from depthsieve.core.records import ImageFailure
from depthsieve.export.codecs import encode_png
from depthsieve.export.metric_codes import encode_log
from depthsieve.export.pairs import counted, safe_stem
from depthsieve.export.photos import PhotoFile
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target

NO_FOCAL = "its focal length is not known, and MoGe needs intrinsics"
REMEDY = "say the angle of view with --fov DEGREES, or give the store cameras with `label --cameras`"


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
        if fov is None and not self._any_focal():
            raise UsageError(
                f"none of {counted(self.ask.images, 'image')} has a known focal length, in EXIF or otherwise, and MoGe "
                f"needs intrinsics: {REMEDY}"
            )

    def _any_focal(self) -> bool:
        """Whether any photo's focal length is known."""
        return any(self.ask.store.label(image_id).camera is not None for image_id in self.ask.ids)

    def place(self, image_id: str) -> str:
        return safe_stem(image_id)

    def encode(self, item: Item) -> Encoded:
        if not item.valid.any():
            raise ImageRejected("no pixel of it is valid, and MoGe needs one")
        camera, origin = self._camera(item)
        height, width = item.source_shape
        code_HW, near, far = encode_log(item.depth_HW)
        meta = {
            "intrinsics": [
                [camera.fx / width, 0.0, camera.cx / width],
                [0.0, camera.fy / height, camera.cy / height],
                [0.0, 0.0, 1.0],
            ],
            **item.facts(),
            "focal_from": origin,
        }
        files: dict[str, bytes | PhotoFile] = {
            f"{item.path}/image.jpg": item.photo.file(applies_exif=True, kinds=("JPEG",)),
            f"{item.path}/depth.png": encode_png(code_HW, {"near": repr(near), "far": repr(far)}),
            f"{item.path}/meta.json": json.dumps(meta).encode(),
        }
        return Encoded(files, {"focal_from": origin})

    def _camera(self, item: Item) -> tuple[Camera, str]:
        """In pixels of the source, and where it is from."""
        if item.camera is not None:
            return item.camera, item.camera.origin
        fov = self.ask.options["fov"]
        if fov is None:
            raise ImageRejected(f"{NO_FOCAL}: {REMEDY}")
        height, width = item.source_shape
        return Camera.centred(focal_of_view(fov, max(width, height)), width, height, "given"), "--fov"

    def remedy(self, failed: Sequence[ImageFailure]) -> str:
        without = sum(one.reason.startswith(NO_FOCAL) for one in failed)
        if not without:
            return super().remedy(failed)
        others = "" if without == len(failed) else "; the same command tries the others again"
        return f"export into another folder with --fov for those without a focal length{others}"

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes]]:
        yield ".index.txt", "".join(f"{entry.path}\n" for entry in entries()).encode()

    def after(self, entries: Entries) -> list[str]:
        assumed = sum(entry.data["focal_from"] == "--fov" for entry in entries())
        if not assumed:
            return []
        return [
            f"{counted(assumed, 'image')} without a known focal length got that of --fov {self.ask.options['fov']:g}"
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
            "`meta.json` has normalised intrinsics: those of the store (EXIF, `label --cameras`, the teacher), "
            "or those of `--fov` (degrees along the longer side); `focal_from` says which.",
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
