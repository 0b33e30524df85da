"""``kitti``: depth as KITTI's benchmark has it, 16 bits of 1/256 metre."""

from depthsieve.export.codecs import CODES, encode_png
from depthsieve.export.metric_codes import encode_linear
from depthsieve.export.pairs import safe_stem, too_far, with_photo
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target

STEPS = 256
FARTHEST = CODES / STEPS


class KittiTarget(Target):
    """``depth/PATH.png`` and ``image/PATH.jpg``."""

    writes_reliability = False
    wants = "metres"
    resolutions = ("source", "label")
    links = True

    def place(self, image_id: str) -> str:
        return f"depth/{safe_stem(image_id)}.png"

    def encode(self, item: Item) -> Encoded:
        code_HW, far = encode_linear(item.depth_HW, STEPS)
        return Encoded(with_photo(item, encode_png(code_HW), "image"), {"too_far": far})

    def after(self, entries: Entries) -> list[str]:
        return too_far(entries, FARTHEST, "they are 0, unknown")

    def about(self) -> About:
        return About(
            layout="`depth/PATH.png` (16 bits) and `image/PATH.jpg` or `.png`. PATH is the id without its suffix.",
            depth="metres along the camera's axis, times 256.",
            invalid=f"0. So is what is farther than {FARTHEST:.6g} m, the most that 16 bits hold. (KITTI's own laser "
            "reaches about 85 m.)",
            precision="within 1/512 m; a valid pixel nearer than that is 1.",
            photos="the source files in `image/`; written again, upright, where their reader would not show them so.",
            code=_CODE,
        )


_CODE = """
from pathlib import Path
import cv2

path = next(Path("depth").rglob("*.png"))
depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype("float32") / 256  # 0 = unknown
"""
