"""Make a store and add generations to it. Only the holder of the store's lock calls these."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from depthsieve.errors import StoreError, StoreMismatch, StoreNotFound
from depthsieve.records import LabelSpec, NumericsProfile, RejectedImage, seal
from depthsieve.store import files, plan, schema
from depthsieve.store.index import build_index
from depthsieve.store.reader import Store, open_store

HARMLESS = {"lock", "tmp", ".DS_Store"}
"""What a run that was killed before it made the store, or a file browser, may have left in a store's folder."""


def check_folder(path: Path) -> None:
    """Raise :class:`StoreError` where a store can be seen not to fit, without writing anything."""
    try:
        if path.is_dir() and not (path / "labels.zarr").exists():
            if {entry.name for entry in path.iterdir()} - HARMLESS:
                raise StoreError(f"{path} is not empty and not a label store; name a new folder for the labels")
        elif path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file; name a new folder for the labels")
        above = next(folder for folder in (path, *path.parents) if folder.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            raise StoreError(f"cannot write to {above}: permission denied; name another folder or mend its rights")
    except OSError as error:
        raise StoreError(f"cannot use {path}: {error.strerror}; name another folder") from error


def prepare_folder(path: Path) -> None:
    """Make the folder of a store, or see that it is one. Raises :class:`StoreError` where nothing can be written."""
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = files.scratch_name(path / "tmp", "probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"cannot write to {path}: {error.strerror}; name another folder or mend its rights") from error


def open_or_create(path: Path, spec: LabelSpec) -> Store:
    """The store at ``path``, made if it is not there yet.

    Raises :class:`StoreMismatch` with the differences when it holds labels of another spec.
    """
    try:
        store = open_store(path)
    except StoreNotFound:
        return _create(path, spec)
    check_spec(store, spec)
    if store.fingerprint != spec.fingerprint:  # a run that planned nothing left it: it is empty
        shutil.rmtree(path / "labels.zarr")
        return _create(path, spec)
    return store


def check_spec(store: Store, spec: LabelSpec) -> None:
    """Raise :class:`StoreMismatch` if the store holds anything under another spec; it shows what differs."""
    shards = store.path / "labels.zarr" / "shards"
    empty = not any(
        path.name != "zarr.json" for folder in (store.path / "commits", shards) for path in _entries(folder)
    )
    if store.fingerprint == spec.fingerprint or empty:
        return
    differences = "; ".join(_differences(store.spec.to_json(), spec.to_json()))
    raise StoreMismatch(
        f"{store.path} holds labels of another label spec, and two never mix in one store ({differences}); "
        "name a new store, or use the teacher and options it was made with"
    )


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


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
    return text if len(text) <= 40 else f"{text[:16]}...{text[-4:]}"


def _create(path: Path, spec: LabelSpec) -> Store:
    attempt = files.scratch_name(path / "tmp", "labels.zarr")
    sealed = seal(
        {
            "format": schema.FORMAT,
            "format_version": schema.FORMAT_VERSION,
            "label_spec": spec.to_json(),
            "fingerprint": spec.fingerprint,
        }
    )
    root = zarr.create_group(attempt, zarr_format=3, attributes=json.loads(sealed))
    root.create_group("shards")
    for written in (attempt / "shards" / "zarr.json", attempt / "shards", attempt / "zarr.json", attempt):
        files.sync(written)
    attempt.rename(path / "labels.zarr")
    files.sync(path)
    return open_store(path)


def add_generation(
    store: Store,
    shards: Sequence[plan.PlannedShard],
    rejected: Sequence[RejectedImage],
    sources: Mapping[str, str],
    profile: NumericsProfile,
    removed: Sequence[str] = (),
) -> plan.Generation:
    """Write a plan and its rejects, then the record that commits them. ``removed`` are ids that leave the store."""
    number = len(store.generations())
    plan_bytes = plan.encode_plan(shards, removed)
    rejected_bytes = plan.encode_rejected(rejected)
    path = store.plan_path(number)
    scratch = store.path / "tmp"
    for folder in ("commits", "plan"):
        (store.path / folder).mkdir(exist_ok=True)
    files.write_atomic(path, plan_bytes, scratch)
    files.write_atomic(path.with_suffix(".rejected.parquet"), rejected_bytes, scratch)
    generation = plan.Generation(
        number=number,
        fingerprint=store.fingerprint,
        plan_sha256=files.sha256_of(path),
        rejected_sha256=files.sha256_of(path.with_suffix(".rejected.parquet")),
        images=sum(len(planned.shard.images) for planned in shards),
        rejected=len(rejected),
        removed=len(removed),
        shards=len(shards),
        sources=sources,
        profile=profile,
    )
    record = store.path / "commits" / f"generation-{number:04d}.json"
    if not files.write_exclusive(record, seal(generation.to_json()), scratch):
        raise StoreMismatch(f"{record} appeared while generation {number} was planned; run the same command again")
    return generation


def clear_scratch(path: Path) -> None:
    """Remove what attempts that died left under ``tmp``.

    Each is renamed first: a worker that outlived its run either has moved its group away already, or fails to.
    """
    for entry in _entries(path / "tmp"):
        trash = files.scratch_name(path / "tmp", "trash")
        try:
            entry.rename(trash)
        except FileNotFoundError:
            continue
        if trash.is_dir():
            shutil.rmtree(trash, ignore_errors=True)
        else:
            trash.unlink(missing_ok=True)


def write_index(store: Store) -> None:
    """Bring ``index.parquet``, which is for other tools, up to date. It is derived and can be deleted at any time."""
    target = store.path / "index.parquet"
    table = build_index(store)
    with contextlib.suppress(OSError, pa.ArrowException):
        if pq.read_table(BytesIO(target.read_bytes())).equals(table):
            return
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    files.write_atomic(target, buffer.getvalue(), store.path / "tmp")
