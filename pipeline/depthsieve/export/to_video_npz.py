"""``video-depth-anything`` with ``--depths npz``: the depths of a clip as one array.

Its ``run.py --save_npz`` writes ``STEM_depths.npz`` with ``depths``, float32 [T,H,W]. Here are ``reliability`` and what
says which frames those are beside it.

Axes: T frame, H row, W column.
"""

import contextlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from depthsieve.export.clip_target import INDEX, ClipVolume, rate_of
from depthsieve.export.index import quantity_words, rows_json
from depthsieve.export.protocol import About, Encoded, Entries, Item

LEVEL = 4
"""Of zlib."""

COPIED_BYTES = 1 << 22


class Depths(ClipVolume):
    """``CLIP_depths.npz`` and ``clips.json``."""

    stand_in = "their rows of `depths` are NaN, and `labelled` is False"

    metric_option = "metric"

    def clip_place(self, stem: str) -> str:
        return f"{stem}_depths.npz"

    def encode(self, item: Item) -> Encoded:
        return Encoded({}, self.seconds(item))

    def weigh(self, item: Item, encoded: Encoded) -> int:
        return sum(len(zlib.compress(one.tobytes(), LEVEL)) for one in (item.depth_HW, item.reliability_HW))

    def write_volume(self, path: Path, samples: Iterator[tuple[Item, Encoded]]) -> None:
        """Depth goes into the archive as it comes, reliability into a file beside it until that is through."""
        first = next(samples)
        clip = self.clip_with(first[0].id)
        shape = (len(clip.ids), *first[0].depth_HW.shape)
        times_T = self.times(first[0])
        labelled_T = np.zeros(shape[0], np.bool_)
        kept = path.with_suffix(".codes")
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive,
            kept.open("w+b") as codes,
        ):
            with _array(archive, "depths", np.dtype("<f4"), shape) as file:
                for row, sample in enumerate(self.rows(chain([first], samples))):
                    labelled_T[row] = sample is not None
                    if sample is None:
                        file.write(np.full(shape[1:], np.nan, "<f4").tobytes())
                        codes.write(bytes(shape[1] * shape[2]))
                    else:
                        file.write(sample[0].depth_HW.astype("<f4").tobytes())
                        codes.write(sample[0].reliability_HW.tobytes())
            codes.seek(0)
            with _array(archive, "reliability", np.dtype("u1"), shape) as file:
                while some := codes.read(COPIED_BYTES):
                    file.write(some)
            for name, values in (
                ("frames", np.array(clip.numbers, "<i8")),
                ("times", times_T.astype("<f8")),
                ("fps", np.array(rate_of(times_T), "<f8")),
                ("labelled", labelled_T),
            ):
                with _array(archive, name, values.dtype, values.shape) as file:
                    file.write(values.tobytes())
        kept.unlink()

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        head = {"quantity": self.ask.quantity, "unit": self.ask.unit, "invalid": "NaN"}
        yield INDEX, rows_json(head, "clips", self._clip_rows(entries))

    def _clip_rows(self, entries: Entries) -> Iterator[dict[str, Any]]:
        for clip, path, frames in self.by_clip(entries):
            yield {"id": clip.id, "depths": path, **self.gaps(clip, frames)}

    def about(self) -> About:
        return About(
            layout="`STEM_depths.npz` for each clip, as Video Depth Anything's `run.py --save_npz` calls it, in the "
            "source's folders: `depths` float32 [T,H,W], `reliability` uint8 [T,H,W], `frames` int64 [T] (their "
            "numbers), `times` float64 [T] (seconds; NaN where they are not known), `fps` (frames a second on "
            f"average), `labelled` bool [T]. `{INDEX}` has a row a clip: its `id`, its file, and the numbers of its "
            f"frames without a label. {self.row_words}",
            depth=f"`depths`: {quantity_words(self.ask)}.{self.alignment}",
            invalid="NaN in `depths`, and 0 in `reliability`. Frames that failed, or were not labelled yet, are "
            "all NaN and have `labelled` False: row t is frame `frames[t]` whatever failed.",
            precision="no value is rounded beyond the float16 of the store; label resolution.",
            photos="not written.",
            code=_CODE,
        )


@contextlib.contextmanager
def _array(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """A place in an archive for the values of an array, in C order."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:  # of 1980
        head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, head)
        yield file


_CODE = """
import json
import numpy as np

with open("clips.json", encoding="utf-8") as file:
    clip = json.load(file)["clips"][0]
with np.load(clip["depths"]) as arrays:
    depths, reliability = arrays["depths"], arrays["reliability"]
    frames, times, labelled = arrays["frames"], arrays["times"], arrays["labelled"]
"""
