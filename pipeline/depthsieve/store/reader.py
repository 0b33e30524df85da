"""Open a store, read its labels and its index. Axes: N images of a shard, H and W the label shape, K the 256 codes."""

import dataclasses
import functools
import importlib
import operator
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.clips import Clips
from depthsieve.core.errors import (
    DepthsieveError,
    NoLabel,
    NoMetres,
    NotAligned,
    SourceError,
    StoreDamaged,
    StoreError,
    StoreNotFound,
    UsageError,
)
from depthsieve.core.recent import Recent
from depthsieve.core.records import Quantity, Shape
from depthsieve.images.panels import Panels, panels_of
from depthsieve.reliability.kinds import made_of
from depthsieve.reliability.masking import threshold_code, train_mask
from depthsieve.sources.ids import encode_path
from depthsieve.storage import Root, open_root
from depthsieve.store import schema
from depthsieve.store.arrays import KEPT_READERS, ShardReader, check_files, listed_of
from depthsieve.store.cache import ShardCache
from depthsieve.store.catalog import Catalog
from depthsieve.store.history import Event, history
from depthsieve.store.index import build_index
from depthsieve.store.layer_kinds import RELIABILITY
from depthsieve.store.layers import Layer, open_layer
from depthsieve.store.lookup import full_id, why_no_label
from depthsieve.store.root_document import spec_in
from depthsieve.store.standing import standing

if TYPE_CHECKING:
    from depthsieve.core.cameras import Camera
    from depthsieve.core.clips import ClipFit
    from depthsieve.reliability.metric import MetricFit
    from depthsieve.store.cameras import CameraReader
    from depthsieve.store.fits import FitReader
    from depthsieve.store.photos import Photos

SHOWN = 4
"""Labels that a notebook shows of a store."""

COUNTED_SHARDS = 2000
"""Shards whose records are read to show a store."""


def _no_readers() -> Recent[ShardReader]:
    return Recent(KEPT_READERS)


@dataclass(frozen=True, eq=False)
class Label:
    """One image's label, upright, at label shape. Get one with ``store[image_id]``.

    Maps are read from the store when they are first asked for, which raises :class:`StoreDamaged` where a checksum does
    not fit. In a notebook a label shows itself: photo, depth, reliability and mask side by side.

    ``shard`` and ``row`` say where it is stored, ``source_shape`` is the (height, width) of the upright source image.
    The centre of pixel x of the label is at ``(x + 0.5) * source_width / width - 0.5`` of the source, y likewise.
    """

    id: str
    store: "Store" = field(repr=False)
    shard: str
    row: int
    source_shape: Shape

    @functools.cached_property
    def shape(self) -> Shape:
        """Height and width of the label."""
        height, width = self.store.reader(self.shard).shape("depth")[1:]
        return height, width

    @functools.cached_property
    def depth(self) -> NDArray[np.float32]:
        """Float32 [H,W] in the store's :attr:`quantity`; without a meaning where :attr:`reliability` is 0."""
        return self.store.reader(self.shard).depth(self.row)

    @functools.cached_property
    def reliability(self) -> NDArray[np.uint8]:
        """Uint8 [H,W]: 0 = never train on it; 1..255 = a fixed code of expected error, larger is better."""
        return self.store.reader(self.shard).reliability(self.row)

    @property
    def quantity(self) -> Quantity:
        """What :attr:`depth` holds: "disparity" (inverse depth up to scale and shift, larger is nearer), or "depth" in
        metres."""
        return self.store.spec.quantity

    @functools.cached_property
    def camera(self) -> "Camera | None":
        """The camera of the image, in pixels of the upright source, and how it is known; None where it is not. See
        :class:`depthsieve.core.cameras.Camera` and docs/cameras.md."""
        from depthsieve.store.cameras import camera_in_labels

        found = self.store._cameras.of_shard(self.shard)
        if found is not None:
            return found[self.row]
        return camera_in_labels(float(self.store.reader(self.shard).column("focal_px")[self.row]), self.source_shape)

    @functools.cached_property
    def metric(self) -> "MetricFit":
        """The scale and shift to metres of a relative label, and how well they fit; all NaN where there are none. See
        ``depthsieve label --metric-from``, :class:`depthsieve.reliability.metric.MetricFit` and docs/metric.md."""
        return self.store._metric.fit(self.shard, self.row)

    @functools.cached_property
    def metres(self) -> NDArray[np.float32]:
        """Float32 [H,W], depth in metres: :attr:`depth` where that is in metres, else what :attr:`metric` makes of it;
        infinite where that is beyond all distance; without a meaning where :attr:`reliability` is 0.

        Raises:
            NoMetres: the label is relative, and no scale to metres is known.
        """
        if self.quantity == "depth":
            return self.depth
        from depthsieve.reliability.metric import to_metres

        if not self.metric.scale > 0:
            raise NoMetres(self._why_no_metres())
        return to_metres(self.depth, self.metric.scale, self.metric.shift)

    @functools.cached_property
    def clip(self) -> "ClipFit":
        """Where the label stands in its clip: the scale and shift that bring it to those of its segment, and how much
        labels change from the frame before; all NaN where it was not aligned. See :func:`depthsieve.align_clips`,
        :class:`depthsieve.core.clips.ClipFit` and docs/video.md."""
        return self.store._clip_fits.fit(self.shard, self.row)

    @functools.cached_property
    def aligned(self) -> NDArray[np.float32]:
        """Float32 [H,W]: ``clip.scale * depth + clip.shift``, which compares with the frames of the same clip and
        ``clip.segment``, in the store's :attr:`quantity`; it may be below 0. Without a meaning where
        :attr:`reliability` is 0.

        Raises:
            NotAligned: its clip was not aligned, or it is in none.
        """
        fit = self.clip
        if np.isnan(fit.scale):
            raise NotAligned(
                f"{self.id} was not aligned with frames of a clip; `depthsieve align-clips {self.store.location}` "
                "aligns those of videos, and of folders that were labelled with --sequence"
            )
        aligned: NDArray[np.float32] = (fit.scale * self.depth.astype(np.float64) + fit.shift).astype(np.float32)
        return aligned

    def _why_no_metres(self) -> str:
        if np.isnan(self.metric.pixels):
            what = f"the labels of {self.store.location} are relative: their values are inverse depth without a scale"
            return f"{self.id} has no metres: {what}; `depthsieve label ... --metric-from TEACHER` adds one"
        compared = f"{self.metric.pixels:.1%} of its pixels could be compared"
        return f"{self.id} has no metres: no scale fits its label to what the metric teacher saw ({compared})"

    def mask(self, drop: float = 0.10) -> NDArray[np.bool_]:
        """Bool [H,W], True = train: all valid pixels but the least reliable.

        Args:
            drop: the largest fraction of the valid pixels that is masked, from 0 up to, but not including, 1. Codes
                tie, so it can be less; pixels of reliability 0 are always masked, and not counted.

        Raises:
            UsageError: ``drop`` out of range.
        """
        histogram_256 = np.bincount(self.reliability.ravel(), minlength=256)
        return train_mask(self.reliability, threshold_code(histogram_256, drop))

    def image(self) -> NDArray[np.uint8]:
        """The photo, upright, RGB uint8 [H,W,3], at label shape and on the label's pixels.

        It is the stored image where the store has one (``label --store-images``), else the original from its source.

        Raises:
            SourceError: no stored image, and the original is not there any more, or has changed.
            StoreDamaged: the stored image is damaged.
        """
        digest = str(self.store.reader(self.shard).column("content_sha256")[self.row])
        return self.store._photos.read(self.id, self.shard, self.row, self.shape, digest)

    def to_xarray(self) -> Any:
        """An ``xarray.Dataset`` of ``depth`` and ``reliability`` with the dimensions y and x, and the attributes that
        say what they hold.

        Raises:
            UsageError: xarray is not installed.
        """
        spec = self.store.spec
        maps = {"depth": self.depth, "reliability": self.reliability}
        attributes = {
            name: schema.array_attributes(name, spec.quantity, spec.unit, self.store.code_version) for name in maps
        }
        height, width = self.source_shape
        return _xarray().Dataset(
            {name: (("y", "x"), values, attributes[name]) for name, values in maps.items()},
            attrs={"id": self.id, "source_height": height, "source_width": width},
        )

    def panels(self, drop: float = 0.10) -> Panels:
        """Photo, depth, reliability and the mask at ``drop`` as pictures, uint8 [H,W,3]. A photo that cannot be read is
        chequered. Raises as :meth:`mask`, and :class:`StoreDamaged` for a label that cannot be read."""
        maps = (self.depth, self.reliability, self.mask(drop), self.quantity)
        try:
            return panels_of(self.id, self.image(), *maps)
        except (SourceError, StoreDamaged) as error:
            return panels_of(self.id, None, *maps, no_photo=str(error))

    def _repr_png_(self) -> bytes:
        return _png([self])


@dataclass(frozen=True)
class Store(Catalog):
    """A label store, for reading. Get one with :func:`open_store`; it can be pickled (it is its location).

    It is a collection of the images that have a label: iterating gives their ids, sorted, ``len`` counts them,
    ``store["default/a.jpg"]`` is the :class:`Label` of one. What it counts is what was committed when it was first
    asked; open it again to see what was labelled since.

    With a ``layer``, reliability and histograms are read from that.
    """

    layer: Layer | None = None
    _readers: Recent[ShardReader] = field(default_factory=_no_readers, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.location, None if self.layer is None else self.layer.name, self.cache)

    def reopened(self) -> "Store":
        """The same store, sharing nothing with this one: for another process."""
        return _reopen(self.location, None if self.layer is None else self.layer.name, self.cache)

    def with_cache(self, cache: ShardCache | None) -> "Store":
        """The same store; where it is in an object store, its shards are read through that ``cache``."""
        return dataclasses.replace(self, cache=cache, _readers=_no_readers())

    def with_layer(self, name: str | None) -> "Store":
        """The same store, with reliability from the layer of that name; from the labels with None.

        Raises :class:`StoreError` that lists the layers there are.
        """
        layer = None if name is None else open_layer(self.root, name, self.fingerprint)
        return dataclasses.replace(self, layer=layer, _readers=_no_readers())

    @property
    def code_version(self) -> int:
        """The version of the label spec that says what its reliability codes stand for."""
        return self.spec.spec_version if self.layer is None else self.layer.spec.code_version

    @property
    def reliability_from(self) -> str:
        """What reliability comes from, in words."""
        if self.layer is None:
            return made_of(self.spec.signals, self.spec.calibration, imported=self.spec.kind == "imported")
        return f"layer {self.layer.name}: {made_of(self.layer.spec.signals, (self.layer.spec.detail or {})['name'])}"

    def __repr__(self) -> str:
        try:
            return f"<Store {self.location}: {self._counts()}; {self.spec.quantity} {self._made_by()}>"
        except (DepthsieveError, OSError) as error:
            return f"<Store {self.location}: {error}>"

    def _repr_png_(self) -> bytes | None:
        """For a notebook: some labels, taken at even distances, under what the store is; nothing where none is."""
        try:
            shown = self[:: max(1, -(-len(self) // SHOWN))]
            return _png(shown, repr(self)) if shown else None
        except (DepthsieveError, OSError):
            return None  # the text says what is wrong

    def _counts(self) -> str:
        committed = self.committed()
        if len(committed) > COUNTED_SHARDS:  # whose failures would take long to look up
            done = sum(self.images_of(committed).values())
            return f"{done:,} images labelled or failed, {self.pending().images:,} pending"
        stands = standing(self)
        failed = len(stands.failed) + len(stands.rejected)
        return f"{stands.labelled:,} images labelled, {failed:,} failed, {stands.pending:,} pending"

    def _made_by(self) -> str:
        generations = self.generations()
        teacher = generations[-1].teacher if generations else None
        return f"by {teacher.name}" if teacher else f"({self.spec.kind})"

    def index(self, features: bool = True) -> pa.Table:
        """One row an image: where its label is, or why it has none. Columns in :mod:`depthsieve.store.index`; without
        ``features`` only those of the place, which is faster."""
        return build_index(self, features)

    def clips(self) -> Clips:
        """The ids of the labelled frames of each clip, in the order of time: a video's, and in sources that are
        sequences a folder's. ``clips().of(id)`` is the clip of an image. See :mod:`depthsieve.core.clips`."""
        return Clips(self, self.sequences())

    def history(self, image_id: str) -> tuple[Event, ...]:
        """What became of an image, generation by generation: see :func:`depthsieve.store.history.history`."""
        return history(self, image_id)

    def reader(self, shard_id: str) -> ShardReader:
        """The arrays of a committed shard; what was opened last is kept open.

        Raises :class:`StoreError` for a shard that the layer does not have; and, here or when an array is first read,
        :class:`StoreDamaged` when a file is missing or has another size: Zarr would read a missing one as zeros.
        """
        return self._readers.get(shard_id) or self._readers.put(shard_id, self._open_shard(shard_id))

    def _groups(self, shard_id: str) -> dict[str, Mapping[str, Mapping[str, Any]]]:
        """Where the group of a shard's labels is, and its files; last the group that has its reliability."""
        record = self.commit_record(shard_id)
        groups = {schema.group_key(record["group"]): record["files"]}
        if self.layer is not None:
            found = self.layer.group_of(shard_id, record["content_sha256"])
            if found is None:
                raise StoreError(f"layer {self.layer.name!r} does not have shard {shard_id}; {self._recalibrate}")
            groups[found[0]] = found[1]
        return groups

    def _open_shard(self, shard_id: str) -> ShardReader:
        files = self._groups(shard_id)
        folder, *layered = files
        instead = {spec.name: layered[0] for spec in RELIABILITY} if layered else {}
        cache = self.cache if self.root.path is None else None
        if self.root.path is None and cache is None:  # one listing costs less than a look at each file
            for where, listed in files.items():
                check_files(self.root, where, listed)
            files = {}
        known = {where: listed_of(listed) for where, listed in files.items()}
        return ShardReader(self.root, folder, instead, known, cache)

    @property
    def _recalibrate(self) -> str:
        name = "" if self.layer is None else self.layer.name
        return f"`depthsieve recalibrate {self.location} --name {name}` adds what has kept signals"

    def check_covered(self, images: Mapping[str, int]) -> None:
        """Raise :class:`StoreError` unless the layer, if there is one, has all of the given shards, each of which has
        so many ``images``."""
        missing = images.keys() - self.layer.shards() if self.layer is not None else set()
        if self.layer is not None and missing:
            count, all_of_them = sum(images[shard] for shard in missing), sum(images.values())
            raise StoreError(
                f"layer {self.layer.name!r} of {self.location} does not have {count} of {all_of_them} images (in "
                f"{len(missing)} of {len(images)} shards); {self._recalibrate}"
            )

    @functools.cached_property
    def _places(self) -> dict[str, tuple[str, int, Shape]]:
        """Shard, row and source shape of each labelled image, by id, in the order of ids."""
        index = self.index(features=False)
        table = index.filter(pc.equal(index["status"], "labelled"))
        columns = [table[name].to_pylist() for name in ("id", "shard", "row", "height", "width")]
        return {image: (shard, row, (height, width)) for image, shard, row, height, width in zip(*columns, strict=True)}

    @functools.cached_property
    def _ids(self) -> list[str]:
        return list(self._places)

    @functools.cached_property
    def _photos(self) -> "Photos":
        from depthsieve.store.photos import Photos  # decoders, which few readers of a store need

        return Photos(self)

    @functools.cached_property
    def _cameras(self) -> "CameraReader":
        from depthsieve.store.cameras import CameraReader

        return CameraReader(self)

    @functools.cached_property
    def _metric(self) -> "FitReader[MetricFit]":
        from depthsieve.store.fits import metric_fits

        return metric_fits(self)

    @functools.cached_property
    def _clip_fits(self) -> "FitReader[ClipFit]":
        from depthsieve.store.fits import clip_fits

        return clip_fits(self)

    def place_of(self, image_id: str) -> tuple[str, int] | None:
        """The shard and row of an image's label; None where it has none."""
        found = self._places.get(image_id)
        return None if found is None else found[:2]

    @property
    def images(self) -> list[str]:
        """Ids of all labelled images, sorted."""
        return list(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, image_id: object) -> bool:
        """Whether an image has a label; the id as :meth:`label` takes it."""
        return isinstance(image_id, str) and self._find(image_id) is not None

    @overload
    def __getitem__(self, key: slice) -> list[Label]: ...
    @overload
    def __getitem__(self, key: str | SupportsIndex) -> Label: ...
    def __getitem__(self, key: str | SupportsIndex | slice) -> Label | list[Label]:
        """The label of an image by its id, as :meth:`label`; that of the n-th image in the order of ids; or a list of
        those of a slice. Raises :class:`NoLabel`, a ``KeyError``, for an id, and :class:`IndexError` for a number."""
        if isinstance(key, str):
            return self.label(key)
        if isinstance(key, slice):
            return [self.label(image_id) for image_id in self._ids[key]]
        try:
            number = operator.index(key)
        except TypeError:
            raise UsageError(f"a label is found by the id of its image, a number or a slice, not {key!r}") from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.location} has {len(self):,} labelled images, so there is no number {number}")
        return self.label(self._ids[number])

    def label(self, image_id: str) -> Label:
        """The label of one image.

        Args:
            image_id: as the index has it, ``source/path``. Where the store has one source, its name may be left out.

        Raises:
            NoLabel: the store does not know the image (then the message names ids that are like it), or has no label of
                it (then it says why). It is a ``KeyError``.
        """
        found = self._find(image_id)
        if found is None:
            raise NoLabel(why_no_label(self, image_id, self._ids))
        shard, row, source_shape = self._places[found]
        return Label(found, self, shard, row, source_shape)

    def _find(self, image_id: str) -> str | None:
        """The id of a labelled image as the index has it; a file's own name will do, unless several are that name."""
        if image_id in self._places:
            return image_id
        for named in (image_id, encode_path(image_id)):  # an id has % and control characters of a name encoded
            full = full_id(named, self._sources)
            if full in self._places:
                return full
            alike = self._by_letters.get(unicodedata.normalize("NFC", full), ())
            if len(alike) == 1:
                return alike[0]
        return None

    @functools.cached_property
    def _by_letters(self) -> dict[str, tuple[str, ...]]:
        """Ids whose letters can be written in another way (macOS has é as e and an accent), by their letters."""
        found: dict[str, tuple[str, ...]] = {}
        for image_id in self._ids:
            if not image_id.isascii():
                letters = unicodedata.normalize("NFC", image_id)
                found[letters] = (*found.get(letters, ()), image_id)
        return found

    @functools.cached_property
    def _sources(self) -> list[str]:
        return list(self.sources())

    def to_xarray(self, shard: str | None = None) -> Any:
        """The arrays of one committed shard as an ``xarray.Dataset``, read when they are used, with ``id`` as a
        coordinate. Rows of failed images are there too: ``status`` is 1, depth and reliability are 0.

        Args:
            shard: its id; None for the only one. Images of different label shapes are never in one shard.

        Raises:
            UsageError: no such shard, or several and none named; xarray is not installed.
            StoreDamaged: files of it are missing.
        """
        shards = sorted(self.committed())
        if shard is None and len(shards) == 1:
            shard = shards[0]
        if shard not in shards:
            known = ", ".join(shards[:5]) + (", ..." if len(shards) > 5 else "") if shards else "none yet"
            asked = "name one of its shards" if shard is None else f"it has no shard {shard!r}"
            raise UsageError(f"{self.location}: {asked} ({known}); store[image_id].shard is that of an image")
        xarray = _xarray()
        datasets = []
        for folder, files in self._groups(shard).items():
            check_files(self.root, folder, files)  # Zarr would read a missing one as zeros
            place = self.root.zarr(folder) if self.root.path is None else self.root.path / folder
            datasets.append(xarray.open_zarr(place, consolidated=False, chunks=None))
        return datasets[0].assign(datasets[-1][[spec.name for spec in RELIABILITY]]).set_coords("id")


def _png(labels: Sequence[Label], title: str = "") -> bytes:
    from depthsieve.images.sheet import draw_sheet, png  # Pillow, which few readers of a store need

    return png(draw_sheet([label.panels() for label in labels], 0.10, title=title))


def _xarray() -> Any:
    try:
        return importlib.import_module("xarray")
    except ImportError as error:
        raise UsageError(f"to_xarray needs the package xarray ({error}): pip install xarray") from error


def open_store(location: str | Path | Root, reliability: str | None = None) -> Store:
    """Open a label store for reading: a folder, or the URL of one in an object store (``s3://bucket/prefix``).

    With ``reliability``, the name of a layer that :func:`depthsieve.recalibrate` made, reliability is read from that.

    Raises :class:`StoreNotFound` when there is none, :class:`StoreMismatch` for another format version,
    :class:`StoreDamaged` when the root record does not fit its digest, :class:`StoreError` where there is no such layer
    or it does not have all that is labelled.
    """
    store = _reopen(location, reliability)
    if store.layer is not None:
        store.check_covered(store.images_of(store.committed()))
    return store


def _reopen(location: str | Path | Root, reliability: str | None, cache: ShardCache | None = None) -> Store:
    """The store, which may have grown since it was opened: what its layer lacks is not checked."""
    root = open_root(location) if isinstance(location, str | Path) else location
    shown = f"{root.location}/{schema.ROOT_DOCUMENT}"
    try:
        data = root.read(schema.ROOT_DOCUMENT)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreNotFound(f"{root.location} is not a label store (it has no labels.zarr)") from None
    except OSError as error:
        raise StoreError(f"cannot read {root.location}: {error.strerror or error}") from error
    return Store(root, spec_in(data, shown)[1], cache=cache).with_layer(reliability)
