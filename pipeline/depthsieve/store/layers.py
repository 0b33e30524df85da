"""Layers of a store: arrays beside the labels, added at any time, under records of their own. See docs/store_format.md.

What they may hold is in :mod:`depthsieve.store.layer_kinds`. Axes: N images of a shard, H and W the label shape.
"""

import contextlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from depthsieve.core.errors import StoreDamaged, StoreError, StoreMismatch
from depthsieve.core.records import MEND, seal, unseal
from depthsieve.storage import Root
from depthsieve.store import schema
from depthsieve.store.arrays import check_files
from depthsieve.store.layer_kinds import KINDS, LayerSpec, is_name, is_single, spec_in
from depthsieve.store.writer import PackedGroup, ShardArrays, pack_folder, write_array

FOLDER = "layers"

LEASE = "layer-"
"""Begins the name of the lease on a layer of reliability that shards are being added to."""

_GROUP = re.compile(r"\d{4}-\d{6}-[0-9a-f]{12}")


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
    def add_again(self) -> str | None:
        """The command that adds a shard again that was taken out; None where that needs new labels."""
        command = KINDS[self.spec.kind].add_again
        return command and command.format(store=shlex.quote(self.root.location), layer=shlex.quote(self.name))

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
        found = self.group_of(shard_id, labels)
        if found is None:
            return None
        check_files(self.root, *found)
        return found[0]

    def group_of(self, shard_id: str, labels: str) -> tuple[str, Mapping[str, Mapping[str, Any]]] | None:
        """As :meth:`folder_of`, its files not looked at, and what the record says of them."""
        record = self.record(shard_id)
        if record is None or record["labels"] != labels:
            return None
        return self.group_key(record["group"]), record["files"]


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
    layer = find_layer(root, name, fingerprint) if is_name(name) else None
    if layer is None or layer.spec.kind != "reliability":
        others = ", ".join(other for other in layer_names(root) if not is_single(other))
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
        if is_single(spec.name):
            raise StoreMismatch(
                f"{root.location} has a layer {spec.name!r} that was made in another way, by other settings or another "
                f"release; remove {FOLDER}/{spec.name} and {schema.copy_key(FOLDER)}/{spec.name} there to make it again"
            )
        other = KINDS[spec.kind].detail if found.spec.kind == spec.kind else "kind"
        raise StoreMismatch(f"{root.location} has a layer {spec.name!r} of another {other}; name another: --name NAME")
    return Layer(root, spec)


def layer_documents(spec: LayerSpec) -> dict[str, bytes]:
    """The documents that make a layer, by key; the one that is opened last."""
    return {shards_document_key(spec.name): schema.group_document({}), document_key(spec.name): spec.document()}


def commit_to_layer(
    layer: Layer,
    shard_id: str,
    labels: str,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    encoding: str = schema.ENCODING,
    again: bool = False,
) -> bool:
    """Write a shard's group of a layer, then its record, last. ``labels`` is the digest of the labels' content that it
    belongs to; ``arrays`` are those of the spec, by name; maps are packed in the
    ``encoding`` of the labels.

    False where the layer has the shard already, for these labels: then nothing was changed, unless it is to be written
    ``again``. One for other labels, which were never committed or are no more, is replaced. Raises :class:`OSError`
    when the disk is full or cannot be written, and :class:`StoreDamaged` where the record that is there cannot be read.
    """
    before = layer.record(shard_id)
    if before is not None and before["labels"] == labels and not again:
        return False
    return record_in_layer(layer, publish_to_layer(layer, shard_id, labels, arrays, encoding), before)


def record_in_layer(layer: Layer, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
    """Write the record of a shard whose group is at its place already; ``before`` is the one that was there. Returns
    and raises as :func:`commit_to_layer`."""
    shard_id, labels, group, data = body["shard"], body["labels"], body["group"], seal(body)
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
    layer: Layer,
    shard_id: str,
    labels: str,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    encoding: str = schema.ENCODING,
) -> dict[str, Any]:
    """Write the group of a shard, and return what the record says that would commit it."""
    with contextlib.ExitStack() as scratch:
        packed = pack_for_layer(layer, (shard_id, labels), arrays, encoding, scratch)
        packed.publish()
    return packed.body


def pack_for_layer(
    layer: Layer,
    of: tuple[str, str],
    arrays: Mapping[str, np.ndarray[Any, Any]],
    encoding: str,
    scratch: contextlib.ExitStack,
) -> PackedGroup:
    """The group of a shard, packed; its folder is there until ``scratch`` ends. ``of`` are the id of the shard and the
    digest of its labels; other arguments as :func:`commit_to_layer`."""
    shard_id, labels = of

    def write(path: Path) -> None:
        group = zarr.create_group(path, zarr_format=3, attributes={"shard": shard_id, "labels": labels})
        attributes, packed = KINDS[layer.spec.kind].attributes, schema.encoding_of(encoding)
        for spec in layer.spec.arrays:
            write_array(group, spec, arrays[spec.name], attributes(spec.name, layer.spec), packed)

    def body(group: str, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return record_body(layer, shard_id, labels, arrays, (group, files))

    return pack_folder(layer.root, (layer.shards_key, shard_id), write, body, scratch)


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
        "images": next(len(content[spec.name]) for spec in layer.spec.arrays if spec.dims[0] == "image"),
    }
