"""Open a store, read its labels and its index. Axes: N images of a shard, H and W the label shape, K the 256 codes."""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zarr

from depthsieve.errors import StoreDamaged, StoreError, StoreMismatch, StoreNotFound
from depthsieve.records import LabelSpec, Shape, Shard, canonical_json, digest_of, unseal
from depthsieve.store import plan, schema
from depthsieve.store.index import build_index


@dataclass(frozen=True, slots=True)
class Label:
    """One image's label, upright, at label shape.

    ``depth_HW`` is float32 in the store's quantity; ``reliability_HW`` is uint8: 0 = never train on it, 1..255 = a
    fixed code of expected error, larger is better. ``source_shape`` is the (height, width) of the upright source image.
    """

    id: str
    depth_HW: np.ndarray[Any, np.dtype[np.float32]]
    reliability_HW: np.ndarray[Any, np.dtype[np.uint8]]
    source_shape: Shape


class ShardReader:
    """The arrays of one committed shard, by row. Reading raises :class:`StoreDamaged` where a checksum does not fit."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arrays: dict[str, Any] = {}

    def _read(self, name: str, rows: Any) -> Any:
        try:
            if name not in self._arrays:
                self._arrays[name] = zarr.open_array(self._folder / name, mode="r")
            return self._arrays[name][rows]
        except (OSError, ValueError, RuntimeError, KeyError) as error:  # what zarr and its codecs raise
            reason = "a checksum does not fit" if "checksum" in str(error) else str(error)
            raise StoreDamaged(f"{self._folder / name} cannot be read: {reason}; restore it from a copy") from error

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """A whole one-dimensional array, or ``histogram`` [N,K]."""
        return np.asarray(self._read(name, ...))

    def depth(self, row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Depth of one image, float32 [H,W]."""
        return np.asarray(self._read("depth", row), dtype=np.float32)

    def reliability(self, row: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Reliability of one image, uint8 [H,W]."""
        return np.asarray(self._read("reliability", row), dtype=np.uint8)


@dataclass(frozen=True)
class Store:
    """A label store on disk, for reading. Make one with :func:`open_store`; it can be pickled (it is its path)."""

    path: Path
    spec: LabelSpec
    _readers: dict[str, ShardReader] = field(default_factory=dict, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.path,)

    @property
    def fingerprint(self) -> str:
        """The label spec's fingerprint."""
        return self.spec.fingerprint

    def generations(self) -> list[plan.Generation]:
        """All committed generations, oldest first."""
        records = sorted((self.path / "commits").glob("generation-*.json"))
        found = [plan.Generation.from_json(self._record(path)) for path in records]
        for number, generation in enumerate(found):
            if generation.number != number:
                missing = self.path / "commits" / f"generation-{number:04d}.json"
                raise StoreDamaged(f"{missing} is missing, and later ones are there; restore it from a copy")
        return found

    def read_plan(self, generation: plan.Generation) -> tuple[pa.Table, pa.Table]:
        """The plan and the rejects of a generation. Raises :class:`StoreDamaged` unless both have their digests."""
        path = self.plan_path(generation.number)
        digests = {path: generation.plan_sha256, path.with_suffix(".rejected.parquet"): generation.rejected_sha256}
        planned, rejected = (pq.read_table(BytesIO(_checked(file, digest))) for file, digest in digests.items())
        return planned, rejected

    def commit_record(self, shard_id: str) -> dict[str, Any]:
        """The record that commits a shard, its own digest checked."""
        return self._record(self.path / "commits" / f"{shard_id}.json")

    def _record(self, path: Path) -> dict[str, Any]:
        body = unseal(path.read_bytes(), str(path))
        if body["fingerprint"] != self.fingerprint:
            raise StoreMismatch(
                f"{path} belongs to another label spec than the store; it was copied here from elsewhere"
            )
        return body

    def committed(self) -> set[str]:
        """Ids of all committed shards."""
        names = {path.stem for path in (self.path / "commits").glob("*.json")}
        return {name for name in names if not name.startswith("generation-")}

    def pending(self) -> Iterator[str]:
        """Ids of the shards that are planned and not committed, in order."""
        committed = self.committed()
        for generation in self.generations():
            for number in range(generation.shards):
                shard_id = schema.shard_name(generation.number, number)
                if shard_id not in committed:
                    yield shard_id

    def plan_path(self, generation: int) -> Path:
        """The plan of a generation; the rejects lie beside it as ``.rejected.parquet``."""
        return self.path / "plan" / f"generation-{generation:04d}.parquet"

    @functools.cached_property
    def _plans(self) -> dict[int, pq.ParquetFile]:
        return {}

    def _plan_file(self, number: int) -> pq.ParquetFile:
        """The plan of a generation for reading shard by shard; its digest is checked when it is opened."""
        if number not in self._plans:
            (digest,) = (found.plan_sha256 for found in self.generations() if found.number == number)
            self._plans[number] = pq.ParquetFile(BytesIO(_checked(self.plan_path(number), digest)))
        return self._plans[number]

    def planned_shard(self, shard_id: str) -> Shard:
        """A shard as its plan has it."""
        generation, number = schema.shard_number(shard_id)
        return plan.decode_shard(self._plan_file(generation), number)

    def count_planned(self, shard_ids: Iterable[str]) -> dict[str, int]:
        """How many images each of these shards has, from the plans' row groups."""
        counts = {}
        for shard_id in shard_ids:
            generation, number = schema.shard_number(shard_id)
            counts[shard_id] = self._plan_file(generation).metadata.row_group(number).num_rows
        return counts

    def index(self) -> pa.Table:
        """One row an image: where its label is, or why it has none. Columns in :mod:`depthsieve.store.index`."""
        return build_index(self)

    def sources(self) -> Mapping[str, str]:
        """Name and root of every source, as the newest generation that knows it has it."""
        roots: dict[str, str] = {}
        for generation in self.generations():
            roots |= generation.sources
        return roots

    def snapshot(self) -> str:
        """A digest of what is committed now: generations and shards."""
        return digest_of([sorted(self.committed()), [generation.plan_sha256 for generation in self.generations()]])

    def reader(self, shard_id: str) -> ShardReader:
        """The arrays of a committed shard; opened once a store object.

        Raises :class:`StoreDamaged` when a file is missing or has another size: Zarr would read a missing one as zeros.
        """
        if shard_id not in self._readers:
            record = self.commit_record(shard_id)
            folder = self.path / "labels.zarr" / "shards" / record["group"]
            for name, entry in record["files"].items():
                path = folder / name
                size = path.stat().st_size if path.is_file() else None
                if size != entry["bytes"]:
                    found = "is missing" if size is None else f"has {size} bytes instead of {entry['bytes']}"
                    raise StoreDamaged(f"{path} {found}; restore it from a copy")
            self._readers[shard_id] = ShardReader(folder)
        return self._readers[shard_id]

    @functools.cached_property
    def _places(self) -> dict[str, tuple[str, int, Shape]]:
        table = self.index().filter(pc.field("status") == "labelled")
        columns = [table[name].to_pylist() for name in ("id", "shard", "row", "height", "width")]
        return {image: (shard, row, (height, width)) for image, shard, row, height, width in zip(*columns, strict=True)}

    @property
    def images(self) -> list[str]:
        """Ids of all labelled images, sorted."""
        return sorted(self._places)

    def label(self, image_id: str) -> Label:
        """The label of one image. Raises :class:`KeyError` for an id that is not labelled."""
        shard_id, row, shape = self._places[image_id]
        reader = self.reader(shard_id)
        return Label(image_id, reader.depth(row), reader.reliability(row), shape)

    def __len__(self) -> int:
        return len(self._places)


def open_store(path: str | Path) -> Store:
    """Open a label store for reading.

    Raises :class:`StoreNotFound` when there is none, :class:`StoreMismatch` for another format version,
    :class:`StoreDamaged` when the root record does not fit its digest.
    """
    path = Path(path).absolute()
    root = path / "labels.zarr" / "zarr.json"
    try:
        attributes = json.loads(root.read_bytes())["attributes"]
    except (FileNotFoundError, NotADirectoryError):
        raise StoreNotFound(f"{path} is not a label store (it has no labels.zarr)") from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{root} is not readable as JSON; restore it from a copy") from error
    if not isinstance(attributes, dict) or attributes.get("format") != schema.FORMAT:
        raise StoreNotFound(f"{path} holds a labels.zarr that depthsieve did not make")
    if attributes.get("format_version") != schema.FORMAT_VERSION:
        version = attributes.get("format_version")
        raise StoreMismatch(
            f"{path} has store format {version}, this depthsieve reads {schema.FORMAT_VERSION}; update depthsieve"
        )
    body = unseal(canonical_json(attributes).encode(), str(root))
    spec = body["label_spec"]
    try:
        tuples = {name: tuple(spec[name]) for name in ("signals", "parents")}
        return Store(path, LabelSpec(**spec | tuples))
    except (KeyError, TypeError) as error:
        raise StoreMismatch(f"{path} has a label spec that this depthsieve does not know; update depthsieve") from error


def _checked(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StoreDamaged(f"{path} is missing; restore it from a copy") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StoreDamaged(f"{path} does not fit the digest in its record; restore it from a copy")
    return data
