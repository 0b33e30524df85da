"""``webdataset``: tar shards that the library webdataset reads, four files a sample.

Its reader (``webdataset/tariterators.py``) ends a key at the first dot of a file's name, groups files of one key that
follow one another, and skips what begins with ``__``; its decoders (``autodecode.py``) make 8 bits of every PNG, and
arrays of ``npy``. So keys hold no dots, and depth is ``npy``. Its image decoder does not look at EXIF: photos are
written upright.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from depthsieve.export.codecs import encode_npy
from depthsieve.export.index import quantity_words
from depthsieve.export.names import safe_path
from depthsieve.export.protocol import About, Encoded, Item, VolumeTarget


class WebDatasetTarget(VolumeTarget):
    """``labels-000000.tar``, ..."""

    def volume_name(self, number: int, first: str) -> str:
        return f"labels-{number:06d}.tar"

    def place(self, image_id: str) -> str:
        """The key: the path, its dots made ``_``, and a name that begins with two of them made to begin otherwise."""
        key = safe_path(image_id).replace(".", "_")
        return f"%5F{key[1:]}" if key.startswith("__") else key

    def encode(self, item: Item) -> Encoded:
        facts = {**item.facts(), "quantity": self.ask.quantity, "unit": self.ask.unit}
        photo = {} if self.ask.options["without_photos"] else {"jpg": item.photo.jpeg(item.depth_HW.shape)}
        files = {
            **photo,
            "depth.npy": encode_npy(item.depth_HW),
            "reliability.npy": encode_npy(item.reliability_HW),
            "json": json.dumps(facts).encode(),
        }
        return Encoded(files)

    def write_volume(self, path: Path, samples: Iterator[tuple[Item, Encoded]]) -> None:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for item, encoded in samples:
                for field, data in encoded.files.items():
                    assert isinstance(data, bytes)
                    member = tarfile.TarInfo(f"{item.path}.{field}")  # of no owner, and of 1970
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
                archive.members = []  # type: ignore[attr-defined]  # else it keeps all of them

    def about(self) -> About:
        photo = "" if self.ask.options["without_photos"] else "`jpg`, "
        return About(
            layout=f"`labels-000000.tar` and so on; a sample has {photo}`depth.npy` (float32), `reliability.npy` "
            "(uint8) and `json` (its `id`, sizes). Keys are ids without dots.",
            depth=f"{quantity_words(self.ask)}.",
            invalid="NaN in `depth.npy`, and 0 in `reliability.npy`.",
            precision="the store's values, exactly, at label resolution.",
            photos=photo_words(self.ask.options["without_photos"]),
            code=_CODE,
        )


def photo_words(without: bool) -> str:
    """What a README says of photos that lie on the pixels of their depth."""
    if without:
        return "left out."
    return (
        "JPEG, upright, of the same size as the depth, pixel by pixel: the source file itself where it is a JPEG of "
        "that size, else written again at quality 95."
    )


_CODE = """
import glob
import webdataset

shards = sorted(glob.glob("labels-*.tar"))
dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8")
sample = next(iter(dataset))
depth, reliability, facts = sample["depth.npy"], sample["reliability.npy"], sample["json"]
"""
