"""``huggingface``: Parquet files that ``datasets.load_dataset`` opens, with the columns ``image`` and ``depth_map``.

An image column is a struct of ``bytes`` and ``path`` (``datasets/features/image.py``); the schema's metadata names its
type. A float32 TIFF is decoded to Pillow's mode F, so depth keeps its values. That decoder undoes EXIF orientation;
photos have none here.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from depthsieve.export.codecs import encode_png
from depthsieve.export.index import quantity_words
from depthsieve.export.protocol import About, Encoded, Item, VolumeTarget
from depthsieve.export.to_webdataset import photo_words

GROUP_BYTES = 64 << 20
"""Of the images of a row group, which is in memory until it is written."""

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FACTS = (
    ("id", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("source_height", pa.int32()),
    ("source_width", pa.int32()),
    ("orientation", pa.int32()),
    ("focal_px", pa.float32()),
    ("focal_from", pa.string()),
    ("content_sha256", pa.string()),
)


class HuggingFaceTarget(VolumeTarget):
    """``data/train-00000.parquet``, ..."""

    def volume_name(self, number: int, first: str) -> str:
        return f"data/train-{number:05d}.parquet"

    @property
    def _images(self) -> dict[str, str]:
        """The image columns, and the suffix of the files in them."""
        photo = {} if self.ask.options["without_photos"] else {"image": ".jpg"}
        return {**photo, "depth_map": ".tiff", "reliability": ".png"}

    def encode(self, item: Item) -> Encoded:
        photo = {} if self.ask.options["without_photos"] else {"image": item.photo.jpeg(item.depth_HW.shape)}
        return Encoded({**photo, "depth_map": _tiff(item.depth_HW), "reliability": encode_png(item.reliability_HW)})

    def write_volume(self, path: Path, samples: Iterator[tuple[Item, Encoded]]) -> None:
        schema = self._schema()
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            rows: list[dict[str, Any]] = []
            held = 0
            for item, encoded in samples:
                rows.append(self._row(item, encoded))
                held += sum(len(rows[-1][name]["bytes"]) for name in self._images)
                if held >= GROUP_BYTES:
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                    rows, held = [], 0
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def _row(self, item: Item, encoded: Encoded) -> dict[str, Any]:
        images = {
            name: {"bytes": encoded.files[name], "path": f"{item.path}{suffix}"}
            for name, suffix in self._images.items()
        }
        return {**images, **item.facts(), "quantity": self.ask.quantity, "unit": self.ask.unit}

    def _schema(self) -> pa.Schema:
        fields = [*((name, _IMAGE) for name in self._images), *_FACTS, ("quantity", pa.string()), ("unit", pa.string())]
        return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": self._features()}})})

    def _features(self) -> dict[str, Any]:
        values = {name: {"dtype": str(kind).replace("float", "float32"), "_type": "Value"} for name, kind in _FACTS}
        text = {"dtype": "string", "_type": "Value"}
        return {**{name: {"_type": "Image"} for name in self._images}, **values, "quantity": text, "unit": text}

    def front_matter(self) -> str:
        return _CARD

    def about(self) -> About:
        photo = "" if self.ask.options["without_photos"] else "`image`, "
        return About(
            layout=f"`data/train-00000.parquet` and so on; columns {photo}`depth_map` (mode F, float32), "
            "`reliability` (mode L), `id`, sizes, `quantity` and `unit`.",
            depth=f"{quantity_words(self.ask)}.",
            invalid="NaN in `depth_map`, and 0 in `reliability`.",
            precision="the store's values, exactly, at label resolution.",
            photos=photo_words(self.ask.options["without_photos"]),
            code=_CODE,
        )


def _tiff(depth_HW: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(depth_HW).save(file, "TIFF")
    return file.getvalue()


_CARD = """task_categories:
- depth-estimation
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
"""

_CODE = """
from pathlib import Path

import datasets
import numpy as np

row = datasets.load_dataset(str(Path.cwd()), split="train")[0]  # the whole path of this folder
depth, reliability = np.asarray(row["depth_map"]), np.asarray(row["reliability"])
"""
