"""Layers of a store: arrays beside the labels, added at any time, under records of their own. See docs/store_format.md.

There are two kinds. ``signals`` holds the raw signals that reliability was made of; a store has at most one such layer.
``reliability`` holds the reliability that another calibration makes of them.

Axes: N images of a shard, H and W the label shape, K the 256 reliability codes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import zarr

from depthsieve.errors import StoreDamaged, StoreError, StoreMismatch, UsageError
from depthsieve.records import MEND, LabelSpec, canonical_json, digest_of, seal, unseal
from depthsieve.storage import Root
from depthsieve.store import schema
from depthsieve.store.arrays import check_files
from depthsieve.store.writer import ShardArrays, publish_folder, write_array

Kind = Literal["signals", "reliability"]

FOLDER = "layers"
FORMAT = "depthsieve-layer"
SIGNALS = "signals"
"""The name of the layer of kept signals."""

LEASE = "layer-"
"""Begins the name of the lease on a layer of reliability that shards are being added to."""

RELIABILITY = (
    next(spec for spec in schema.MAPS if spec.name == "reliability"),
    next(spec for spec in schema.ROWS if spec.name == "histogram"),
)
"""The arrays of a layer of reliability: those of the labels that it stands for."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_GROUP = re.compile(r"\d{4}-\d{6}-[0-9a-f]{12}")


def check_name(name: str) -> str:
    """``name``, if a layer of reliability can be called that. Raises :class:`UsageError`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == SIGNALS:
        raise UsageError(
            f"a layer cannot be called {name!r}: use up to 100 letters, digits and . _ + -, a letter or digit first, "
            f"and not {SIGNALS!r}; name it with --name"
        )
    return name


@dataclass(frozen=True)
class LayerSpec:
    """What a layer holds, and the label spec that it belongs to, by its ``fingerprint``.

    ``calibration`` is that of a layer of reliability: its whole content, as in its file, and besides its ``name``, its
    ``digest``, and whether it is ``transferred`` to a teacher that it was not fitted on. None for kept signals.
    """

    name: str
    kind: Kind
    fingerprint: str
    signals: tuple[str, ...]
    calibration: Mapping[str, Any] | None = None

    @property
    def arrays(self) -> tuple[schema.ArraySpec, ...]:
        """The arrays of each of its groups."""
        if self.kind == "reliability":
            return RELIABILITY
        return tuple(schema.ArraySpec(name, "float16", ("image", "y", "x")) for name in self.signals)

    @property
    def digest(self) -> str:
        """Of all that it says."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "format_version": schema.FORMAT_VERSION,
            "name": self.name,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "signals": list(self.signals),
        }
        return body if self.calibration is None else body | {"calibration": dict(self.calibration)}

    def document(self) -> bytes:
        """The ``zarr.json`` of the layer, with the sealed spec as its attributes."""
        return schema.group_document(json.loads(seal(self.to_json())))


def signals_spec(spec: LabelSpec) -> LayerSpec:
    """What the kept signals of a store are: nothing else than its label spec decides it."""
    return LayerSpec(SIGNALS, "signals", spec.fingerprint, tuple(sorted(spec.signals)))


@dataclass(frozen=True)
class Layer:
    """A layer that is there. Make one with :func:`open_layer` or :func:`make_layer`."""

    root: Root
    spec: LayerSpec

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def shards_key(self) -> str:
        """Where its groups lie."""
        return f"{FOLDER}/{self.name}/shards"

    def group_key(self, group: str) -> str:
        """Where one group lies."""
        return f"{self.shards_key}/{group}"

    def commit_key(self, shard_id: str) -> str:
        """Where the record lies that commits a shard to the layer."""
        return f"{FOLDER}/{self.name}/{schema.commit_key(shard_id)}"

    def shards(self) -> set[str]:
        """Ids of the shards that it has records of."""
        return {name.removesuffix(".json") for name in self.root.names(f"{FOLDER}/{self.name}/{schema.COMMITS}")}

    def record(self, shard_id: str) -> dict[str, Any] | None:
        """The record of a shard, None where there is none. Raises :class:`StoreDamaged`, :class:`StoreMismatch`."""
        key = self.commit_key(shard_id)
        try:
            body = unseal(self.root.read(key), f"{self.root.location}/{key}")
        except FileNotFoundError:
            return None
        wrong = [name for name, value in self.names_in_record(shard_id).items() if body.get(name) != value]
        if wrong:
            raise StoreMismatch(
                f"{self.root.location}/{key} has another {wrong[0]} than its layer; it was copied here from elsewhere"
            )
        named = _GROUP.fullmatch(str(body.get("group"))) and isinstance(body.get("labels"), str)
        if not named or not isinstance(body.get("files"), dict):
            raise StoreDamaged(f"{self.root.location}/{key} does not say what it commits; {MEND}")
        return body

    def names_in_record(self, shard_id: str) -> dict[str, str]:
        """What the record of a shard says of where it belongs."""
        return {"shard": shard_id, "layer": self.name, "fingerprint": self.spec.fingerprint}

    def folder_of(self, shard_id: str, labels: str) -> str | None:
        """Where the group of a shard lies, all of its files seen to be there; None where the layer does not have it, or
        has it for other labels than those of the digest ``labels``. Raises :class:`StoreDamaged`."""
        record = self.record(shard_id)
        if record is None or record["labels"] != labels:
            return None
        folder = self.group_key(record["group"])
        check_files(self.root, folder, record["files"])
        return folder


def layer_names(root: Root) -> list[str]:
    """Names of the layers of a store, sorted."""
    return [name for name in root.names(FOLDER) if root.entry(document_key(name)) is not None]


def document_key(name: str) -> str:
    """Where the document lies that makes a layer."""
    return f"{FOLDER}/{name}/zarr.json"


def shards_document_key(name: str) -> str:
    """Where the document lies that makes its groups one Zarr group."""
    return f"{FOLDER}/{name}/shards/zarr.json"


def find_layer(root: Root, name: str, fingerprint: str) -> Layer | None:
    """A layer of the store of that fingerprint; None where there is none of that name.

    Raises :class:`StoreDamaged`, and :class:`StoreMismatch` for one of another store or of a later release.
    """
    key = document_key(name)
    try:
        data = root.read(key)
    except (FileNotFoundError, NotADirectoryError):
        return None
    spec = spec_in(data, f"{root.location}/{key}")
    if (spec.name, spec.fingerprint) != (name, fingerprint):
        raise StoreMismatch(f"{root.location}/{key} belongs to another layer or store; it was copied here")
    return Layer(root, spec)


def open_layer(root: Root, name: str, fingerprint: str) -> Layer:
    """A layer of reliability. Raises :class:`StoreError` that lists those there are, and as :func:`find_layer`."""
    layer = find_layer(root, name, fingerprint) if _NAME.fullmatch(name) else None
    if layer is None or layer.spec.kind != "reliability":
        others = ", ".join(other for other in layer_names(root) if other != SIGNALS)
        there = f"there are: {others}" if others else "there is none; `depthsieve recalibrate` makes one"
        raise StoreError(f"{root.location} has no layer of reliability called {name!r}; {there}")
    return layer


def make_layer(root: Root, spec: LayerSpec) -> Layer:
    """The layer of that spec, made if it is not there yet. Several processes may do so at once.

    Raises :class:`StoreMismatch` where one of that name is something else.
    """
    found = find_layer(root, spec.name, spec.fingerprint)
    if found is None:
        for key, data in layer_documents(spec).items():
            root.write(key, data)
            root.write(schema.copy_key(key), data)
    elif found.spec != spec:
        raise StoreMismatch(
            f"{root.location} has a layer {spec.name!r} of another {'calibration' if spec.calibration else 'kind'}; "
            "name another: --name NAME"
        )
    return Layer(root, spec)


def layer_documents(spec: LayerSpec) -> dict[str, bytes]:
    """The documents that make a layer, by key; the one that is opened last."""
    return {shards_document_key(spec.name): schema.group_document({}), document_key(spec.name): spec.document()}


def spec_in(data: bytes, shown: str) -> LayerSpec:
    """The spec in a layer's document, which is called ``shown``. Raises :class:`StoreDamaged` for one that is not what
    was written, :class:`StoreMismatch` for one of a later release."""
    try:
        attributes = json.loads(data)["attributes"]
        body = unseal(canonical_json(attributes).encode(), shown)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreDamaged(f"{shown} is not a readable record of a layer; {MEND}") from error
    version = body.get("format_version")
    kind: Any = body.get("kind")
    if body.get("format") != FORMAT or version != schema.FORMAT_VERSION or kind not in get_args(Kind):
        raise StoreMismatch(f"{shown} is a layer that this depthsieve does not know; use the release that made it")
    calibration: Any = body.get("calibration")
    try:
        if kind == "reliability":
            calibration["name"], calibration["digest"], calibration["transferred"]
        signals = tuple(map(str, body["signals"]))
        return LayerSpec(str(body["name"]), kind, str(body["fingerprint"]), signals, calibration)
    except (KeyError, TypeError) as error:
        raise StoreDamaged(f"{shown} is not a readable record of a layer; {MEND}") from error


def commit_to_layer(layer: Layer, shard_id: str, labels: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> bool:
    """Write a shard's group of a layer, then its record, last. ``labels`` is the digest of the labels' content that it
    belongs to; ``arrays`` are those of the spec, by name.

    False where the layer has the shard already, for these labels: then nothing was changed. One for other labels, which
    were never committed or are no more, is replaced. Raises :class:`OSError` when the disk is full or cannot be
    written, and :class:`StoreDamaged` where the record that stands cannot be read.
    """
    before = layer.record(shard_id)
    if before is not None and before["labels"] == labels:
        return False
    body = publish_to_layer(layer, shard_id, labels, arrays)
    group, data = body["group"], seal(body)
    if before is None:
        if layer.root.create(layer.commit_key(shard_id), data):
            return True
        before = layer.record(shard_id)  # somebody else was faster
        if before is not None and before["labels"] == labels:
            if before["group"] != group:  # with other bits
                layer.root.remove_folder(layer.group_key(group))
            return False
    layer.root.write(layer.commit_key(shard_id), data)
    if before is not None and before["group"] != group:
        layer.root.remove_folder(layer.group_key(before["group"]))
    return True


def publish_to_layer(
    layer: Layer, shard_id: str, labels: str, arrays: Mapping[str, np.ndarray[Any, Any]]
) -> dict[str, Any]:
    """Write the group of a shard, and return what the record says that would commit it."""

    def write(path: Path) -> None:
        group = zarr.create_group(path, zarr_format=3, attributes={"shard": shard_id, "labels": labels})
        for spec in layer.spec.arrays:
            write_array(group, spec, arrays[spec.name], _attributes(layer.spec, spec.name))

    group, listed = publish_folder(layer.root, layer.shards_key, shard_id, write)
    return record_body(layer, shard_id, labels, arrays, (group, listed))


def record_body(
    layer: Layer,
    shard_id: str,
    labels: str,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    written: tuple[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, Any]:
    """What the record of a shard says, before it is sealed. ``written`` are the name of its group, and its files."""
    content = {spec.name: arrays[spec.name] for spec in layer.spec.arrays}
    return {
        "format_version": schema.FORMAT_VERSION,
        **layer.names_in_record(shard_id),
        "group": written[0],
        "labels": labels,
        "files": written[1],
        "content_sha256": ShardArrays(content).content_digest(),
        "images": len(next(iter(content.values()))),
    }


def _attributes(spec: LayerSpec, name: str) -> dict[str, Any]:
    if spec.kind == "reliability":
        return schema.array_attributes(name, "", "")
    meaning = f"disagreement of the label by the signal {name}, relative to the label: |difference| / (label + median)"
    return {"meaning": meaning, "unit": "1"}
