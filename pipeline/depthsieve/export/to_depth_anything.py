"""``depth-anything-v2``: for ``metric_depth/`` of Depth Anything V2, whose ``dataset/vkitti2.py`` or ``hypersim.py``
read a list of lines "image depth"."""

import io
import re
from collections.abc import Iterator

import h5py
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.export.codecs import CODES, encode_png
from depthsieve.export.metric_codes import encode_linear, to_distance
from depthsieve.export.pairs import safe_stem, too_far, with_photo
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target
from depthsieve.export.resize import resize_depth
from depthsieve.export.split import TRAIN, VAL, check_share, split_of

CENTIMETRES = 100
FARTHEST = (CODES - 1) / CENTIMETRES
HYPERSIM_SHAPE, HYPERSIM_FOCAL = (768, 1024), 886.81
"""What its reader of Hypersim assumes of every file, whatever took the photo."""

_SPACE = re.compile(r"\s")


class DepthAnythingTarget(Target):
    """``depth/PATH.png`` or ``.h5``, ``image/PATH.jpg``, ``train.txt``, ``val.txt``."""

    writes_reliability = False
    wants = "metres"
    links = True

    @property
    def _hypersim(self) -> bool:
        return bool(self.ask.options["style"] == "hypersim")

    def check(self) -> None:
        super().check()
        check_share(self.ask.options["val"])
        if _SPACE.search(str(self.ask.out)):
            raise UsageError(
                f"{self.ask.out} has a space in it, and Depth Anything V2 splits the lines of its lists at spaces; "
                "export into a folder without one"
            )
        if self._hypersim and self.ask.resolution == "source":
            raise UsageError("style hypersim is 1024 x 768 whatever the photo, as its reader expects; leave --size out")

    def place(self, image_id: str) -> str:
        return f"depth/{_SPACE.sub('_', safe_stem(image_id))}.{'h5' if self._hypersim else 'png'}"

    def encode(self, item: Item) -> Encoded:
        far = 0
        if self._hypersim:
            data = _hdf5(to_distance(resize_depth(item.depth_HW, HYPERSIM_SHAPE), HYPERSIM_FOCAL))
        else:
            code_HW, far = encode_linear(item.depth_HW, CENTIMETRES, invalid=CODES)
            data = encode_png(code_HW)
        files = with_photo(item, data, "image")
        return Encoded(files, {"image": list(files)[1], "too_far": far})

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes]]:
        for split in (TRAIN, VAL):
            lines = [
                f"{self.ask.out}/{entry.data['image']} {self.ask.out}/{entry.path}\n"
                for entry in entries()
                if split_of(entry.id, self.ask.options["val"]) == split
            ]
            yield f"{split}.txt", "".join(lines).encode()

    def after(self, entries: Entries) -> list[str]:
        return too_far(entries, FARTHEST, "they are 65535, which is never trained on")

    def about(self) -> About:
        lists = (
            "`train.txt` and `val.txt` with a line `image depth` each, whole paths: copy them over "
            f"`metric_depth/dataset/splits/{'hypersim' if self._hypersim else 'vkitti2'}/`. An image is in `val.txt` "
            f"where its id's SHA-256 is among the first {self.ask.options['val']:g} of all. Spaces in names are `_`."
        )
        photos = "the source files in `image/`; written again, upright, where their reader would not show them so."
        if self._hypersim:
            return About(
                layout=f"`depth/PATH.h5`, `image/PATH.jpg` or `.png`, {lists}",
                depth="HDF5 dataset `dataset`, float32, 1024 x 768: distance to the centre of a camera whose focal "
                "length is 886.81 pixels, in metres. The reader assumes this camera of every photo and takes it out "
                "again, so what is trained on is depth along the axis, whatever took the photo.",
                invalid="NaN.",
                precision="float32 of the map resized to 1024 x 768, bilinearly among valid pixels.",
                photos=f"{photos} Photo and map need not have the same ratio of sides: the reader gives both the "
                "photo's.",
                code=_HYPERSIM_CODE,
            )
        return About(
            layout=f"`depth/PATH.png` (16 bits), `image/PATH.jpg` or `.png`, {lists}",
            depth="centimetres along the camera's axis.",
            invalid=f"65535, as what is farther than {FARTHEST:g} m: the reader trains on what is 80 m or less (and on "
            "`--max-depth` or less), and would take 0 for a depth.",
            precision="within half a centimetre.",
            photos=photos,
            code=_VKITTI_CODE,
        )


def _hdf5(distance_HW: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        opened.create_dataset("dataset", data=distance_HW, compression="gzip", compression_opts=4, shuffle=True)
    return file.getvalue()


_VKITTI_CODE = """
from pathlib import Path
import cv2

image, depth = Path("train.txt").read_text("utf-8").splitlines()[0].split(" ")
metres = cv2.imread(depth, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH) / 100.0  # 655.35 = invalid
"""

_HYPERSIM_CODE = """
from pathlib import Path
import h5py
import numpy as np

image, depth = Path("train.txt").read_text("utf-8").splitlines()[0].split(" ")
with h5py.File(depth) as file:
    distance = np.array(file["dataset"])  # NaN = invalid
x, y = np.arange(1024) - 511.5, np.arange(768) - 383.5
metres = distance * 886.81 / np.sqrt(x[None, :] ** 2 + y[:, None] ** 2 + 886.81**2)
"""
