"""The image that a label was made of, at the label's shape: the stored one, or the original from its source."""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import ImageRejected, SourceError, StoreDamaged, StoreError
from depthsieve.core.records import Shape
from depthsieve.images.decode import decode
from depthsieve.sources import Source, reopen_source
from depthsieve.store.catalog import Catalog
from depthsieve.store.layer_kinds import IMAGES
from depthsieve.store.layers import find_layer
from depthsieve.store.stored_images import StoredImages, to_label_shape


class Photos:
    """Reads the images of a store's labels. Threads may use one at once."""

    def __init__(self, store: Catalog) -> None:
        self._store = store
        has_images = find_layer(store.root, IMAGES, store.fingerprint) is not None
        self._stored = StoredImages(store) if has_images else None
        self._sources: dict[str, Source] = {}

    def read(self, image_id: str, shard: str, row: int, shape: Shape, content_sha256: str) -> NDArray[np.uint8]:
        """One image, upright, RGB uint8 [H,W,3], of the label's ``shape`` on its pixels.

        ``content_sha256`` is that of the file which was labelled. Raises :class:`SourceError` where neither the stored
        image nor that file is there, and :class:`StoreDamaged` for a stored image that is damaged.
        """
        stored = self._stored_image(shard, row, shape)
        return self._original(image_id, shape, content_sha256) if stored is None else stored

    def _stored_image(self, shard: str, row: int, shape: Shape) -> NDArray[np.uint8] | None:
        if self._stored is None:
            return None
        try:
            return self._stored.image(shard, row, shape)
        except StoreDamaged:
            raise
        except StoreError:  # the layer does not have this shard yet
            return None

    @functools.cached_property
    def _roots(self) -> Mapping[str, str]:
        return self._store.sources()

    def _original(self, image_id: str, shape: Shape, content_sha256: str) -> NDArray[np.uint8]:
        name = image_id.partition("/")[0]
        root: Any = self._roots.get(name)
        if root is None:
            raise SourceError(f"{image_id}: {self._store.location} does not say where its source {name!r} is")
        try:
            if name not in self._sources:  # kept: a video that is open goes on with the next frame
                self._sources[name] = reopen_source(name, root)
            data = self._sources[name].read(image_id)
            if hashlib.sha256(data).hexdigest() != content_sha256:
                raise SourceError("it has changed since it was labelled")
            return to_label_shape(decode(data, self._store.spec.alpha).rgb_HW3, shape)
        except (OSError, SourceError, ImageRejected) as error:
            reason = getattr(error, "strerror", None) or error
            raise SourceError(
                f"{image_id}: its image cannot be read from {root} ({reason}), and {self._store.location} has no copy; "
                "restore it there (`depthsieve label --store-images` keeps a copy beside each label)"
            ) from error
