"""Write one shard, whole and once, and commit it. Axes: N images, H and W the label shape, K the 256 codes."""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from depthsieve.records import ImageFailure, Shard, seal
from depthsieve.store import files, schema


@dataclass(frozen=True)
class ShardArrays:
    """All that is stored of a shard: an array for each name in :mod:`depthsieve.store.schema`, N rows each."""

    arrays: Mapping[str, np.ndarray[Any, Any]]

    @property
    def failures(self) -> tuple[ImageFailure, ...]:
        """The rows that stand failed, in row order."""
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


@dataclass(frozen=True, slots=True)
class CommitContext:
    """What a commit record says beside the shard's own content."""

    fingerprint: str
    quantity: str
    unit: str
    profile_digest: str


def commit_shard(store: Path, shard: Shard, content: ShardArrays, context: CommitContext) -> bool:
    """Write the shard's group under a name made of its content, then its commit record, exclusively and last.

    False when the shard was committed already, by an earlier or a faster attempt: then nothing was changed.
    Raises :class:`OSError` when the disk is full or cannot be written; then nothing was committed.
    """
    record = store / "commits" / f"{shard.id}.json"
    if record.exists():
        return False
    scratch = store / "tmp"
    attempt = files.scratch_name(scratch, shard.id)
    try:
        _write_group(attempt, content, context)
        listed = _listing(attempt)
        group = f"{shard.id}-{_listing_digest(listed)[:12]}"
        _move_into_place(attempt, store / "labels.zarr" / "shards" / group, listed)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
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
    return files.write_exclusive(record, seal(body), scratch)


def _failures(content: ShardArrays) -> list[dict[str, Any]]:
    row_of = {str(image_id): row for row, image_id in enumerate(content.arrays["id"])}
    return [{"row": row_of[f.id], "id": f.id, "reason": f.reason} for f in content.failures]


def _write_group(path: Path, content: ShardArrays, context: CommitContext) -> None:
    group = zarr.create_group(path, zarr_format=3)
    for spec in (*schema.MAPS, *schema.ROWS):
        values = content.arrays[spec.name]
        attributes = schema.array_attributes(spec.name, context.quantity, context.unit)
        _write_array(group, spec, values, attributes)


def _write_array(
    group: zarr.Group, spec: schema.ArraySpec, values: np.ndarray[Any, Any], attributes: dict[str, Any]
) -> None:
    shape = values.shape
    is_map = spec in schema.MAPS
    compressors: Sequence[Any] = [Crc32cCodec()]
    if is_map:
        typesize = values.dtype.itemsize
        blosc = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=typesize)
        compressors = [blosc, Crc32cCodec()]
    array = group.create_array(
        spec.name,
        shape=shape,
        dtype=str if spec.dtype == "str" else spec.dtype,
        chunks=(1, *shape[1:]) if is_map else shape,
        shards=shape if is_map else None,
        compressors=compressors,
        fill_value="" if spec.dtype == "str" else 0,
        attributes=attributes,
        dimension_names=spec.dims,
        config={"write_empty_chunks": True},
    )
    array[...] = values


def _listing(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file of a group, flushed to the disk: its sha256 and its size in bytes, by path below the group."""
    listed = {}
    for where, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = Path(where, name)
            files.sync(path)
            key = path.relative_to(folder).as_posix()
            listed[key] = {"sha256": files.sha256_of(path), "bytes": path.stat().st_size}
        files.sync(Path(where))
    return listed


def _listing_digest(listed: Mapping[str, Mapping[str, Any]]) -> str:
    lines = "".join(f"{entry['sha256']} {path}\n" for path, entry in sorted(listed.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _move_into_place(attempt: Path, final: Path, listed: Mapping[str, Any]) -> None:
    """Rename the finished attempt. A group of that name is the same content from an attempt that was not committed;
    it is kept if it is whole, and replaced if a power cut tore it."""
    if final.is_dir():
        if _listing(final) == listed:
            return
        shutil.rmtree(final)
    attempt.rename(final)
    files.sync(final.parent)
