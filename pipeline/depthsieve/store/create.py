"""Make a store and add generations to it. Only the holder of the store's plan lease calls these."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depthsieve.core.errors import StoreDamaged, StoreError, StoreMismatch, StoreNotFound
from depthsieve.core.records import DatasetNote, LabelSpec, NumericsProfile, TeacherRequest, seal, unseal
from depthsieve.core.spill import spill_database
from depthsieve.core.tables import REJECTED_SCHEMA, REMOVED_SCHEMA
from depthsieve.storage import Root
from depthsieve.storage.local import sync
from depthsieve.storage.together import together
from depthsieve.store import index, plan, schema
from depthsieve.store.reader import Store, open_store

HARMLESS = {"leases", "tmp", "copies", ".DS_Store"}
"""What a run that was killed before it made the store, or a file browser, may have left in a store's folder."""


def check_root(root: Root) -> None:
    """Raise :class:`StoreError` where a store can be seen not to fit, without writing anything."""
    try:
        if root.path is not None and root.path.exists() and not root.path.is_dir():
            raise StoreError(f"{root.location} is a file; name a new folder for the labels")
        names = set(root.names(""))
        if "labels.zarr" not in names and names - HARMLESS:
            raise StoreError(f"{root.location} is not empty and not a label store; name a new folder for the labels")
        if root.path is not None:
            above = next(folder for folder in (root.path, *root.path.parents) if folder.exists())
            if not os.access(above, os.W_OK | os.X_OK):
                raise StoreError(
                    f"cannot write to {above}: permission denied; name another folder or fix its permissions"
                )
    except OSError as error:
        raise StoreError(f"cannot use {root.location}: {error.strerror or error}; name another folder") from error


def prepare_root(root: Root) -> None:
    """Make the folder of a store, or check that it is one. Raises :class:`StoreError` where nothing can be written."""
    check_root(root)
    try:
        root.prepare()
    except OSError as error:
        raise StoreError(
            f"cannot write to {root.location}: {error.strerror or error}; name another folder or fix its permissions"
        ) from error


def open_or_create(root: Root, spec: LabelSpec) -> Store:
    """The store at ``root``, made if it is not there yet.

    Raises :class:`StoreMismatch` with the differences when it holds labels of another spec.
    """
    try:
        store = open_store(root)
    except StoreNotFound:
        return _create(root, spec)
    check_spec(store, spec)
    if store.fingerprint != spec.fingerprint:  # a run that planned nothing left it: it is empty
        root.remove_folder("labels.zarr")
        return _create(root, spec)
    return store


def check_spec(store: Store, spec: LabelSpec) -> None:
    """Raise :class:`StoreMismatch` if the store holds anything under another spec; it shows what differs."""
    empty = not any(
        name != "zarr.json" for folder in (schema.COMMITS, schema.SHARDS) for name in store.root.names(folder)
    )
    if store.fingerprint == spec.fingerprint or empty:
        return
    if store.spec.kind != spec.kind:
        raise StoreMismatch(
            f"{store.location} holds labels of kind {store.spec.kind!r}, and these would be {spec.kind!r}; two "
            "never mix in one store: name a new one"
        )
    if store.spec.parents != spec.parents:
        raise StoreMismatch(_other_parents(store, spec))
    differences = "; ".join(_differences(store.spec.to_json(), spec.to_json()))
    raise StoreMismatch(
        f"{store.location} holds labels of another label spec, and two never mix in one store ({differences}); "
        "name a new store, or use the teacher and options it was made with"
    )


def _other_parents(store: Store, spec: LabelSpec) -> str:
    """Why a fused store takes no labels that are fused of these parents."""
    generations = store.generations()
    known = f" ({', '.join(generations[-1].parents)})" if generations else ""
    if sorted(store.spec.parents) == sorted(spec.parents):
        return (
            f"{store.location} was fused of these stores in another order{known}, and the order counts; name them in "
            "that order, or name a new store"
        )
    return f"{store.location} was fused of other stores{known}; name those, or name a new store"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*old, *new}):
        left, right = old.get(key), new.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            found += _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key}: {_short(left)} in the store, {_short(right)} now")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:16]}...{text[-4:]}"


def _create(root: Root, spec: LabelSpec) -> Store:
    documents = root_documents(spec)
    last = {schema.ROOT_DOCUMENT: documents.pop(schema.ROOT_DOCUMENT)}
    _write_twice(root, documents)
    _write_twice(root, last)
    return open_store(root)


def root_documents(spec: LabelSpec) -> dict[str, bytes]:
    """The documents that make a store, by key; the one that a reader opens last."""
    sealed = seal(
        {
            "format": schema.FORMAT,
            "format_version": schema.FORMAT_VERSION,
            "label_spec": spec.to_json(),
            "fingerprint": spec.fingerprint,
        }
    )
    return {
        schema.SHARDS_DOCUMENT: schema.group_document({}),
        schema.ROOT_DOCUMENT: schema.group_document(json.loads(sealed)),
    }


def add_generation(
    store: Store,
    tables: Iterable[pa.Table],
    rejected: pa.Table,
    removed: pa.Table,
    sources: Mapping[str, str],
    profile: NumericsProfile,
    made_by: TeacherRequest | tuple[str, ...],
    datasets: Mapping[str, DatasetNote] | None = None,
    excluded: Mapping[str, tuple[str, ...]] | None = None,
    frames: Mapping[str, str] | None = None,
    sequences: Mapping[str, bool] | None = None,
    *,
    shard_size: int | None = None,
) -> plan.Generation:
    """Write a plan, then the record that commits it; all of it twice, since it cannot be made again.

    ``tables`` are the plan's rows as :func:`depthsieve.store.plan.encode_parts` takes them; ``removed`` are ids that
    leave the store. ``made_by`` is the request for the teacher, or where the stores or maps are that labels are made
    of. ``datasets`` is what is newly known of sources, by name, and ``excluded`` what is left out of them from now on,
    ``frames`` which frames of their videos are taken, ``sequences`` whether their folders are clips;
    ``shard_size`` is that of shards where a trial chose it.
    """
    number = len(store.generations())
    files: dict[str, dict[str, Any]] = {}

    def write(written: Mapping[str, bytes]) -> None:
        _write_twice(store.root, {schema.plan_key(name): data for name, data in written.items()})
        files.update({name: plan.file_entry(data) for name, data in written.items()})

    listed = [plan.SHARDS_SCHEMA.empty_table()]
    for part, (data, shards) in enumerate(plan.encode_parts(tables)):
        write({plan.part_name(number, part): data})
        listed.append(shards)
    shard_table = pa.concat_tables(listed)
    write(
        {
            plan.table_name(number, "shards"): plan.encode_table(shard_table, plan.SHARDS_SCHEMA),
            plan.table_name(number, "rejected"): plan.encode_table(rejected, REJECTED_SCHEMA),
            plan.table_name(number, "removed"): plan.encode_table(removed, REMOVED_SCHEMA),
        }
    )
    generation = plan.Generation(
        number=number,
        fingerprint=store.fingerprint,
        files=files,
        images=sum(shard_table["images"].to_pylist()),
        rejected=len(rejected),
        removed=len(removed),
        shards=len(shard_table),
        sources=sources,
        profile=profile,
        teacher=made_by if isinstance(made_by, TeacherRequest) else None,
        parents=() if isinstance(made_by, TeacherRequest) else made_by,
        datasets=dict(datasets or {}),
        excluded=dict(excluded or {}),
        frames=dict(frames or {}),
        sequences=dict(sequences or {}),
        shard_size=shard_size,
    )
    key = schema.generation_key(number)
    sealed = seal(generation.to_json())
    if not store.root.create(key, sealed):
        raise StoreMismatch(f"{store.location}/{key} appeared while it was planned; run the same command again")
    store.root.write(schema.copy_key(key), sealed)
    store.look_again()
    return generation


def _write_twice(root: Root, documents: Mapping[str, bytes]) -> None:
    keys = {name: data for key, data in documents.items() for name in (schema.copy_key(key), key)}
    together(root, [partial(root.write, key, data) for key, data in keys.items()])


def write_index(store: Store) -> None:
    """Bring ``index.parquet``, which is for other tools, up to date. It is derived and can be deleted at any time.

    It is sorted on the disk, so memory does not grow with it, and it is left alone if nothing was committed since it
    was written. Raises :class:`OSError` or :class:`RunError` where there is no room.
    """
    snapshot = store.snapshot()  # of before the rows: what is committed meanwhile makes it out of date again
    if index_fault(store, snapshot, thorough=False)[0] is None:
        return
    with store.root.scratch("index") as folder, spill_database(folder) as database:
        path = folder / schema.INDEX
        with pq.ParquetWriter(path, index.SCHEMA, compression="zstd") as writer:
            for table in index.stream_index(store, database):
                writer.write_table(table)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        record = {"snapshot": snapshot, "sha256": digest, "bytes": path.stat().st_size}
        if store.root.path is None:
            store.root.write(schema.INDEX, path.read_bytes())
        else:
            sync(path)
            path.replace(store.root.path / schema.INDEX)
    store.root.write(schema.INDEX_RECORD, seal(record))


def index_fault(
    store: Store, snapshot: str | None = None, thorough: bool = True
) -> tuple[tuple[str, str] | None, bool]:
    """What is wrong with the index, as a file and words, or None; and whether it is no more than behind or not there.

    ``thorough`` reads all of it; else its size must do.
    """
    try:
        data = store.root.read(schema.INDEX_RECORD)
        record = unseal(data, schema.INDEX_RECORD)
    except FileNotFoundError:
        return (schema.INDEX_RECORD, "is missing"), True
    except StoreDamaged:
        return (schema.INDEX_RECORD, "does not fit its digest"), False
    if seal(record) != data:
        return (schema.INDEX_RECORD, "does not fit its digest"), False
    entry = store.root.entry(schema.INDEX)
    if entry is None:
        return (schema.INDEX, "is missing"), True
    if record["snapshot"] != (snapshot or store.snapshot()):
        return (schema.INDEX, "is older than what is committed"), True
    whole = entry.size == record["bytes"]
    if whole and thorough:
        whole = hashlib.sha256(store.root.read(schema.INDEX)).hexdigest() == record["sha256"]
    return (None if whole else (schema.INDEX, "does not fit its digest")), False
