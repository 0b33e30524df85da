"""Import the maps of one shard. Axes: N images of a shard, C channels, H and W the label shape, K the 256 codes."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import LabelSpec, Shard
from depthsieve.features import label_signals
from depthsieve.images.decode import decoder_versions
from depthsieve.jobs.committing import Arrays, ShardMaker
from depthsieve.jobs.importing.maps import Maps, Where
from depthsieve.jobs.importing.settings import settings_in
from depthsieve.jobs.importing.values import to_label
from depthsieve.labelling.batch import PreparedImage, feature_arrays
from depthsieve.labelling.image import prepare_image
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.sources import reopen_source
from depthsieve.store import Store, schema
from depthsieve.store.layer_kinds import LayerSpec, features_spec
from depthsieve.store.layers import commit_to_layer, make_layer
from depthsieve.store.networks import network_of
from depthsieve.store.writer import CommitContext, ShardArrays
from depthsieve.teachers import Teacher


class _NoTeacher:
    """Stands where a teacher would look at an image: of that, only its signals and its digest are wanted."""

    name = "none"
    embedding_size = None
    intrinsics_in = "ignored"

    def prepare(self, rgb_HW3: np.ndarray[Any, Any], shape: tuple[int, int]) -> np.ndarray[Any, Any]:
        return np.broadcast_to(np.float32(0), (3, *shape))  # which takes no memory


NO_TEACHER = cast(Teacher, _NoTeacher())


def imported_features(spec: LabelSpec) -> LayerSpec:
    """The layer of features that imported labels have: signals of images and labels, and no embeddings."""
    return features_spec(spec, None, "")


class ShardImporter(ShardMaker):
    """Imports the maps of a shard's images."""

    title = "import"

    def __init__(self, store: Store, maps: Maps, threads: int, on_image: Callable[[], object] = lambda: None) -> None:
        super().__init__(store, threads, on_image)
        self._maps = maps
        self._values, _ = settings_in(store.spec)
        self._network = network_of(store.root, store.spec)
        self._sources = {name: reopen_source(name, root) for name, root in store.sources().items()}
        self._features: dict[str, Mapping[str, np.ndarray[Any, Any]]] = {}

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Those of what decodes photos."""
        return decoder_versions()

    def begin(self, shard: Shard, rows: pa.Table, arrays: Arrays) -> Callable[[int], object]:
        """Imports the map of a row."""
        features = self._features[shard.id] = feature_arrays(len(shard.images), None)
        planned = rows.select(["map", "confidence", "map_sha256"]).to_pylist()
        return lambda row: self._import(arrays, features, shard, row, planned[row])

    def commit(self, shard: Shard, content: ShardArrays, context: CommitContext) -> None:
        """Its features first, as labelling does."""
        features = self._features.pop(shard.id)
        if not self.store.is_committed(shard.id):
            layer = make_layer(self.store.root, imported_features(self.store.spec))
            labels = content.content_digest()
            commit_to_layer(layer, shard.id, labels, features, context.encoding, again=True)
        super().commit(shard, content, context)

    def _import(
        self,
        arrays: Arrays,
        features: Arrays,
        shard: Shard,
        row: int,
        planned: Mapping[str, Any],
    ) -> None:
        """Import the map of one row into the arrays; or say there why it is no label."""
        image = shard.images[row]
        try:
            raw = self._maps.load(Where(planned["map"], planned["confidence"]))
            if raw.sha256 != planned["map_sha256"]:
                raise ImageRejected("its map has changed since it was planned; import again to take the new one")
            label = to_label(raw, self.store.spec.quantity, self._values, self.store.code_version)
            with_photo = self._network is not None
            prepared = prepare_image(image, shard.shape, self._sources, NO_TEACHER, False, with_photo=with_photo)
            if not isinstance(prepared, PreparedImage):
                raise prepared
            code_HW = label.code_HW
            if prepared.hole_HW is not None:
                code_HW = np.where(prepared.hole_HW, 0, code_HW).astype(np.uint8)
                if not code_HW.any():
                    raise ImageRejected("its map has no valid pixel where the image is not transparent")
            if self._network is not None and prepared.photo_HW3 is not None:
                code_HW = _by_network(
                    self._network, label.depth_HW, code_HW, prepared.photo_HW3, self.store.code_version
                )
        except ImageRejected as error:
            arrays["status"][row] = schema.STATUS_FAILED
            arrays["reason"][row] = str(error)
            arrays["histogram"][row, 0] = arrays["depth"][row].size
            return
        arrays["depth"][row] = np.where(code_HW > 0, label.depth_HW, 0.0)
        arrays["reliability"][row] = code_HW
        arrays["histogram"][row] = np.bincount(code_HW.ravel(), minlength=256)
        arrays["focal_px"][row] = prepared.focal_px
        arrays["content_sha256"][row] = prepared.content_sha256
        about = label_signals(arrays["depth"][row], code_HW, arrays["histogram"][row], self.store.spec.quantity)
        features["values"][row] = np.concatenate([about, prepared.signals.values])
        features["phash"][row] = prepared.signals.phash


def _by_network(
    network: ErrorNetwork,
    depth_HW: np.ndarray[Any, np.dtype[np.float32]],
    code_HW: np.ndarray[Any, np.dtype[np.uint8]],
    photo_HW3: np.ndarray[Any, np.dtype[np.uint8]],
    version: int,
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The codes [H,W] that an error network gives the pixels that have one."""
    depth_1HW = torch.from_numpy(np.where(code_HW > 0, depth_HW, np.nan).astype(np.float32))[None]
    photo_1HW3 = torch.from_numpy(np.require(photo_HW3, requirements="W"))[None]  # torch warns of what it cannot write
    e_1HW = network.expected_error(photo_1HW3, depth_1HW, network.quantity)
    return np.asarray(encode_error(e_1HW, version=version)[0].numpy())
