"""Import the maps of one shard. Axes: N images of a shard, C channels, H and W the label shape, K the 256 codes."""

import importlib.metadata
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from depthsieve.core.errors import DepthsieveError, ImageRejected, StoreError
from depthsieve.core.records import LabelSpec, NumericsProfile, Shard, ShardResult, digest_of
from depthsieve.core.threads import torch_threads
from depthsieve.features import label_signals
from depthsieve.images.decode import decoder_versions
from depthsieve.jobs.importing.maps import Maps, Where
from depthsieve.jobs.importing.settings import settings_in
from depthsieve.jobs.importing.values import to_label
from depthsieve.labelling.batch import PreparedImage, feature_arrays
from depthsieve.labelling.image import prepare_image
from depthsieve.sources import reopen_source
from depthsieve.store import Store, schema
from depthsieve.store.layer_kinds import LayerSpec, features_spec
from depthsieve.store.layers import commit_to_layer, make_layer
from depthsieve.store.plan import decode_shard
from depthsieve.store.writer import CommitContext, ShardArrays, commit_shard, empty_arrays
from depthsieve.teachers import Teacher


class _NoTeacher:
    """Stands where a teacher would look at an image: of that, only its signals and its digest are wanted."""

    name = "none"
    embedding_size = None

    def prepare(self, rgb_HW3: np.ndarray[Any, Any], shape: tuple[int, int]) -> np.ndarray[Any, Any]:
        return np.zeros((3, 0, 0), np.float32)


NO_TEACHER = cast(Teacher, _NoTeacher())


def importing_profile() -> NumericsProfile:
    """The profile of this process: images are imported one by one, each by one thread."""
    versions = {name: importlib.metadata.version(name) for name in ("numcodecs", "numpy", "torch", "zarr")}
    return NumericsProfile(1, 1, "cpu", "any", "none", dict(sorted((versions | decoder_versions()).items())))


def imported_features(spec: LabelSpec) -> LayerSpec:
    """The layer of features that imported labels have: signals of images and labels, and no embeddings."""
    return features_spec(spec, None, "")


class ShardImporter:
    """Imports and commits the shards of a store, one call a shard; the images of a shard in so many ``threads``.

    ``on_image`` is called after each image, in one of them. Not for two threads at once.
    """

    def __init__(self, store: Store, maps: Maps, threads: int, on_image: Callable[[], object] = lambda: None) -> None:
        self._store, self._maps, self._threads, self._on_image = store, maps, threads, on_image
        self._values, _ = settings_in(store.spec)
        self._sources = {name: reopen_source(name, root) for name, root in store.sources().items()}
        self._features: dict[str, Mapping[str, np.ndarray[Any, Any]]] = {}

    def __call__(self, shard_id: str) -> ShardResult:
        """Import one shard and commit it. Files that cannot be read come back as ``error``.

        Raises :class:`OSError` where the store cannot be written.
        """
        try:
            shard, content, context = self.label_only(shard_id)
        except (DepthsieveError, OSError) as error:
            return ShardResult(shard_id, error=str(error))
        self.commit(shard, content, context)
        return ShardResult(shard_id, len(shard.images) - len(content.failures))

    def label_only(self, shard_id: str) -> tuple[Shard, ShardArrays, CommitContext]:
        """A shard, its labels, and what its commit record would say besides; nothing is committed."""
        rows = self._store.planned_rows(shard_id)
        shard = decode_shard(rows)
        arrays, features = empty_arrays(shard), feature_arrays(len(shard.images), None)
        planned = rows.select(["map", "confidence", "map_sha256"]).to_pylist()

        def import_row(row: int) -> None:
            with torch_threads(1):
                self._import(arrays, features, shard, row, planned[row])
            self._on_image()

        pool = ThreadPoolExecutor(self._threads, "import")
        try:
            for _ in pool.map(import_row, range(len(planned))):
                pass
        finally:
            pool.shutdown(cancel_futures=True)  # where one raises, the others are not wanted
        self._features[shard_id] = features
        spec = self._store.spec
        profile = digest_of(importing_profile().to_json())
        context = CommitContext(spec.fingerprint, spec.quantity, spec.unit, profile, encoding=spec.encoding)
        return shard, ShardArrays(arrays), context

    def commit(self, shard: Shard, content: ShardArrays, context: CommitContext) -> None:
        """Commit what :meth:`label_only` made; its features first, as labelling does."""
        features = self._features.pop(shard.id)
        try:
            if not self._store.is_committed(shard.id):
                layer = make_layer(self._store.root, imported_features(self._store.spec))
                labels = content.content_digest()
                commit_to_layer(layer, shard.id, labels, features, context.encoding, again=True)
            commit_shard(self._store.root, shard, content, context)
        except OSError as error:
            raise StoreError(f"cannot write to {self._store.location}: {error.strerror or error}") from error

    def _import(
        self,
        arrays: dict[str, np.ndarray[Any, Any]],
        features: dict[str, np.ndarray[Any, Any]],
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
            label = to_label(raw, self._store.spec.quantity, self._values)
            prepared = prepare_image(image, shard.shape, self._sources, NO_TEACHER, False)
            if not isinstance(prepared, PreparedImage):
                raise prepared
            code_HW = label.code_HW
            if prepared.hole_HW is not None:
                code_HW = np.where(prepared.hole_HW, 0, code_HW).astype(np.uint8)
                if not code_HW.any():
                    raise ImageRejected("its map has no valid pixel where the image is not transparent")
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
        about = label_signals(arrays["depth"][row], code_HW, arrays["histogram"][row], self._store.spec.quantity)
        features["values"][row] = np.concatenate([about, prepared.signals.values])
        features["phash"][row] = prepared.signals.phash
