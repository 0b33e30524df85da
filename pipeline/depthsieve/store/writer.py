"""Write one shard, whole and once, and commit it. Axes: N images, H and W the label shape, K the 256 codes.

:func:`write_array` and :func:`pack_folder` are also what layers are written with.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from depthsieve.core.encodings import Encoding
from depthsieve.core.records import ImageFailure, LabelSpec, Shard, seal, unseal
from depthsieve.storage import Root
from depthsieve.storage.local import list_folder, sync_folder
from depthsieve.store import schema


@dataclass(frozen=True)
class ShardArrays:
    """All that is stored of a shard: an array for each name in :mod:`depthsieve.store.schema`, N rows each."""

    arrays: Mapping[str, np.ndarray[Any, Any]]

    @property
    def failures(self) -> tuple[ImageFailure, ...]:
        """The failed rows, in row order."""
        ids, reasons = self.arrays["id"], self.arrays["reason"]
        rows = np.flatnonzero(self.arrays["status"] != schema.STATUS_LABELLED)
        return tuple(ImageFailure(str(ids[row]), str(reasons[row])) for row in rows)

    def content_digest(self) -> str:
        """sha256 of the decoded arrays: names, types, shapes and values, not how they are packed."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            array = self.arrays[name]
            digest.update(f"{name} {array.dtype.kind} {array.shape}\n".encode())
            if array.dtype == object:
                for text in array:
                    encoded = str(text).encode()
                    digest.update(len(encoded).to_bytes(8, "little") + encoded)
            else:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def empty_arrays(shard: Shard) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a shard before anything is labelled: what its plan knows is filled in, all else is 0."""
    count = len(shard.images)
    sizes = {"image": count, "y": shard.shape[0], "x": shard.shape[1], "code": 256}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for spec in (*schema.MAPS, *schema.ROWS):
        shape = tuple(sizes[axis] for axis in spec.dims)
        arrays[spec.name] = np.full(shape, "", object) if spec.dtype == "str" else np.zeros(shape, spec.dtype)
    for row, image in enumerate(shard.images):
        arrays["id"][row] = image.id
        arrays["source_height"][row] = image.height
        arrays["source_width"][row] = image.width
        arrays["orientation"][row] = image.orientation
    return arrays


@dataclass(frozen=True, slots=True)
class CommitContext:
    """What a commit record says beside the shard's own content.

    ``encoding`` is the label spec's, and so is ``code_version``, which says what reliability codes stand for.
    ``split_batches`` are those that did not fit into memory: (first row, rows, images at a time).
    """

    fingerprint: str
    quantity: str
    unit: str
    profile_digest: str
    split_batches: tuple[tuple[int, int, int], ...] = ()
    encoding: str = schema.ENCODING
    code_version: int = 1

    @classmethod
    def of(
        cls, spec: LabelSpec, profile_digest: str, split_batches: tuple[tuple[int, int, int], ...] = ()
    ) -> "CommitContext":
        """That of labels of a label spec."""
        about = (spec.fingerprint, spec.quantity, spec.unit)
        return cls(*about, profile_digest, split_batches, spec.encoding, spec.spec_version)


def commit_shard(root: Root, shard: Shard, content: ShardArrays, context: CommitContext) -> bool:
    """Write the shard's group under a name made of its content, then its commit record, exclusively and last.

    False when the shard was committed already, by an earlier or a faster attempt: then nothing was changed.
    Raises :class:`OSError` when the disk is full or cannot be written; then nothing was committed.
    """
    if root.entry(schema.commit_key(shard.id)) is not None:
        return False
    return create_record(root, shard.id, publish_group(root, shard, content, context))


def create_record(root: Root, shard_id: str, body: Mapping[str, Any]) -> bool:
    """Create the record that commits a shard whose group is at its place already. False as :func:`commit_shard`."""
    key = schema.commit_key(shard_id)
    if root.create(key, seal(body)):
        return True
    if unseal(root.read(key), key)["group"] != body["group"]:
        root.remove_folder(schema.group_key(body["group"]))  # somebody else was faster, with other bits
    return False


def publish_group(root: Root, shard: Shard, content: ShardArrays, context: CommitContext) -> dict[str, Any]:
    """Write the shard's group, and return what the record says that would commit it."""
    with contextlib.ExitStack() as scratch:
        packed = pack_group(root, shard, content, context, scratch)
        packed.publish()
    return packed.body


@dataclass(frozen=True)
class PackedGroup:
    """A group, whole and flushed, in a ``folder`` of a local disk, that is to be brought to its ``key`` in the store.

    ``files`` has sha256 and bytes of each. ``body`` is what the record says that commits it.
    """

    root: Root
    folder: Path
    key: str
    files: Mapping[str, Mapping[str, Any]]
    body: dict[str, Any]

    def publish(self) -> None:
        """Bring it to its place. Raises :class:`OSError`; may be called again then."""
        self.root.publish(self.folder, self.key, self.files)


def pack_group(
    root: Root, shard: Shard, content: ShardArrays, context: CommitContext, scratch: contextlib.ExitStack
) -> PackedGroup:
    """A shard's group, packed; its folder is there until ``scratch`` ends."""

    def body(group: str, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return commit_body(shard, content, context, group, files)

    def write(attempt: Path) -> None:
        _write_group(attempt, content, context)

    return pack_folder(root, (schema.SHARDS, shard.id), write, body, scratch)


def pack_folder(
    root: Root,
    place: tuple[str, str],
    write: Callable[[Path], None],
    body: Callable[[str, dict[str, dict[str, Any]]], dict[str, Any]],
    scratch: contextlib.ExitStack,
) -> PackedGroup:
    """A group at a ``place`` (where groups of its kind lie, id of its shard), whole and flushed, under a name made of
    what ``write`` puts into the path it is given; ``body`` makes its record of that name and its files. Its folder is
    there until ``scratch`` ends."""
    parent, shard_id = place
    attempt = scratch.enter_context(root.scratch(shard_id))
    write(attempt)
    sync_folder(attempt)
    files = list_folder(attempt)
    group = group_name(shard_id, files)
    return PackedGroup(root, attempt, f"{parent}/{group}", files, body(group, files))


def commit_body(
    shard: Shard, content: ShardArrays, context: CommitContext, group: str, listed: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the commit record of a shard says, before it is sealed. ``listed`` are the files of its group."""
    body = {
        "format_version": schema.FORMAT_VERSION,
        "shard": shard.id,
        "group": group,
        "fingerprint": context.fingerprint,
        "profile": context.profile_digest,
        "files": listed,
        "content_sha256": content.content_digest(),
        "images": len(shard.images),
        "failures": _failures(content),
        "histogram": content.arrays["histogram"].sum(axis=0, dtype=np.int64).tolist(),
    }
    return body | ({"split_batches": context.split_batches} if context.split_batches else {})


def _failures(content: ShardArrays) -> list[dict[str, Any]]:
    row_of = {str(image_id): row for row, image_id in enumerate(content.arrays["id"])}
    return [{"row": row_of[f.id], "id": f.id, "reason": f.reason} for f in content.failures]


def _write_group(path: Path, content: ShardArrays, context: CommitContext) -> None:
    group = zarr.create_group(path, zarr_format=3)
    encoding = schema.encoding_of(context.encoding)
    for spec in (*schema.MAPS, *schema.ROWS):
        values = content.arrays[spec.name]
        attributes = schema.array_attributes(spec.name, context.quantity, context.unit, context.code_version)
        write_array(group, spec, values, attributes, encoding)


def write_array(
    group: zarr.Group,
    spec: schema.ArraySpec,
    values: np.ndarray[Any, Any],
    attributes: dict[str, Any],
    encoding: Encoding,
) -> None:
    """Write one array of a group: a map with a chunk an image, anything else in one."""
    shape = values.shape
    compressors: Sequence[Any] = [] if spec.bare else [Crc32cCodec()]
    if spec.is_map:
        name: Any = encoding.codec  # its name: the enumeration BloscCname of zarr 3.1 is none any more in zarr 3.4
        blosc = BloscCodec(cname=name, clevel=encoding.level, shuffle="shuffle", typesize=values.dtype.itemsize)
        compressors = [blosc, Crc32cCodec()]
    array = group.create_array(
        spec.name,
        shape=shape,
        dtype=str if spec.dtype == "str" else spec.dtype,
        chunks=(1, *shape[1:]) if spec.is_map else tuple(max(1, side) for side in shape),
        shards=shape if spec.is_map else None,
        compressors=compressors,
        fill_value="" if spec.dtype == "str" else 0,
        attributes=attributes,
        dimension_names=spec.dims,
        config={"write_empty_chunks": True},
    )
    array[...] = values


def group_name(shard_id: str, listed: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of a shard's group: its id, and 12 digits of a digest over the files in it."""
    lines = "".join(f"{entry['sha256']} {path}\n" for path, entry in sorted(listed.items()))
    return f"{shard_id}-{hashlib.sha256(lines.encode()).hexdigest()[:12]}"


def whole_group(root: Root, parent: str, shard_id: str, record: str) -> tuple[str, dict[str, dict[str, Any]]] | None:
    """The one group of a shard in ``parent`` whose files have the digest in its name, and the list of its files.

    Of several, which late attempts left, the one counts that ``record`` names, what is left of the shard's record. None
    where there is none, or it is ambiguous.
    """
    found = []
    for group in root.names(parent):
        if not group.startswith(f"{shard_id}-"):
            continue
        folder = f"{parent}/{group}"
        listed = {}
        for entry in sorted(root.entries(folder), key=lambda entry: entry.key):
            data = root.read(entry.key)
            digest = hashlib.sha256(data).hexdigest()
            listed[entry.key.removeprefix(f"{folder}/")] = {"sha256": digest, "bytes": len(data)}
        if group_name(shard_id, listed) == group:
            found.append((group, listed))
    whole = [one for one in found if one[0] in record] or found
    return whole[0] if len(whole) == 1 else None
