"""The layer of stored images: each image at its label's shape, as JPEG, so that training need not decode the original.

Per shard ``data`` uint8 holds all JPEGs end to end; the one of row i is ``data[offset[i]:offset[i + 1]]``, and
``crc32c[i]`` its CRC-32C. A row whose label failed, or whose image could not be kept, is empty.

Axes: N images of a shard, H and W the label shape, 3 red, green, blue.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import google_crc32c
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import DepthsieveError, StoreDamaged, StoreError
from depthsieve.core.recent import Recent
from depthsieve.core.records import MEND, Shape
from depthsieve.store.arrays import KEPT_READERS, ShardReader, check_files, listed_of
from depthsieve.store.catalog import Catalog
from depthsieve.store.lacking import read_lacking
from depthsieve.store.layer_kinds import IMAGES, LayerSpec
from depthsieve.store.layers import find_layer

QUALITY = 90
"""JPEG quality where nobody chose one: about 100 KB an image at 518; docs/encoding.md has what it costs."""

_SUBSAMPLING = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420


def to_label_shape(rgb_HW3: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """The upright image at label shape, under the store's mapping of pixel centres:
    ``x_source = (x + 0.5) * source_width / W - 0.5``.

    Areas are averaged where both sides shrink, else the image is interpolated bicubically.
    """
    height, width = shape
    if rgb_HW3.shape[:2] == shape:
        return rgb_HW3
    shrinks = height <= rgb_HW3.shape[0] and width <= rgb_HW3.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb_HW3, (width, height), interpolation=method), dtype=np.uint8)


def images_spec(fingerprint: str, quality: int) -> LayerSpec:
    """What a store's layer of images is."""
    detail = {
        "format": "JPEG",
        "quality": quality,
        "subsampling": "4:2:0",
        "colour": "RGB, upright, alpha over white",
        "resampling": "areas averaged where both sides shrink, else bicubic; pixel centres as in the labels",
    }
    return LayerSpec(IMAGES, IMAGES, fingerprint, detail=detail)


def quality_of(spec: LayerSpec) -> int:
    """The JPEG quality of a layer of images."""
    return int((spec.detail or {})["quality"])


def encode_image(rgb_HW3: NDArray[np.uint8], shape: Shape, quality: int) -> bytes:
    """The upright image as JPEG at label shape. The same pixels give the same bytes, in one version of OpenCV."""
    bgr_HW3 = cv2.cvtColor(to_label_shape(rgb_HW3, shape), cv2.COLOR_RGB2BGR)
    how = (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SUBSAMPLING)
    return cv2.imencode(".jpg", bgr_HW3, how)[1].tobytes()


def pack_images(images: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """The arrays of the layer's group for a shard, from the JPEG of each row; empty where there is none."""
    offset_N = np.zeros(len(images) + 1, np.uint64)
    np.cumsum([len(one) for one in images], out=offset_N[1:])
    sums_N = np.array([google_crc32c.value(one) for one in images], np.uint32)
    return {"data": np.frombuffer(b"".join(images), np.uint8), "offset": offset_N, "crc32c": sums_N}


def empty_rows(offset: NDArray[np.uint64]) -> NDArray[np.intp]:
    """The rows that have no image, from a shard's offsets."""
    return np.flatnonzero(np.diff(offset) == 0)


class StoredImages:
    """Reads the stored images of a store. Threads may use one at once. Raises :class:`StoreError` where it has none."""

    def __init__(self, store: Catalog) -> None:
        layer = find_layer(store.root, IMAGES, store.fingerprint)
        if layer is None:
            raise StoreError(f"{store.location} has no stored images; `depthsieve label --store-images` keeps them")
        self.layer = layer
        self._store = store
        self._readers: Recent[ShardReader] = Recent(KEPT_READERS)

    def reader(self, shard_id: str) -> ShardReader:
        """The layer's arrays of a shard. Raises :class:`StoreError` where the layer does not have it."""
        return self._readers.get(shard_id) or self._readers.put(shard_id, self._open(shard_id))

    def _open(self, shard_id: str) -> ShardReader:
        root, cache = self._store.root, self._store.cache
        found = self.layer.group_of(shard_id, self._store.commit_record(shard_id)["content_sha256"])
        if found is None:
            raise StoreError(
                f"{self._store.location} has no stored images of shard {shard_id}; `depthsieve label --store-images` "
                "adds what is missing"
            )
        folder, files = found
        if root.path is None and cache is None:  # one listing costs less than a look at each file
            check_files(root, folder, files)
            return ShardReader(root, folder)
        return ShardReader(root, folder, listed={folder: listed_of(files)}, cache=None if root.path else cache)

    def missing(self, shards: Iterable[str]) -> list[str]:
        """Those of the shards that the layer does not have, in order."""
        has = self.layer.shards()
        return [shard_id for shard_id in shards if shard_id not in has]

    def lacking(self) -> dict[str, dict[int, str]]:
        """Rows of the shards that it has whose labelled image it lacks, and why."""
        return read_lacking(self.layer)

    def jpeg(self, shard_id: str, row: int) -> bytes:
        """The JPEG of one row, its checksum checked; empty where none was kept. Raises :class:`StoreDamaged`."""
        reader = self.reader(shard_id)
        start, stop = (int(value) for value in reader.read_range("offset", row, row + 2))
        if not 0 <= start <= stop <= reader.shape("data")[0]:
            raise self._damaged(shard_id, row, f"its bytes are to be at {start} to {stop}")
        data = reader.read_range("data", start, stop).tobytes() if stop > start else b""
        if google_crc32c.value(data) != int(reader.read_range("crc32c", row, row + 1)[0]):
            raise self._damaged(shard_id, row, "a checksum does not fit")
        return data

    def image(self, shard_id: str, row: int, shape: Shape) -> NDArray[np.uint8] | None:
        """One image, RGB uint8 [H,W,3], of the label's ``shape``; None where none was kept. Raises likewise."""
        data = self.jpeg(shard_id, row)
        if not data:
            return None
        rgb_HW3 = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if rgb_HW3 is None or rgb_HW3.shape != (*shape, 3):
            found = "cannot be decoded" if rgb_HW3 is None else f"is {rgb_HW3.shape[0]}x{rgb_HW3.shape[1]}"
            raise self._damaged(shard_id, row, f"it {found}, where the label is {shape[0]}x{shape[1]}")
        return np.asarray(rgb_HW3, np.uint8)

    def _damaged(self, shard_id: str, row: int, reason: str) -> DepthsieveError:
        place = f"stored image of shard {shard_id}, row {row} of {self._store.location}"
        return StoreDamaged(f"{place}: {reason}; {MEND}")
