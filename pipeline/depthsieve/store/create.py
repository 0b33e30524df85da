"""Make a store and add generations to it. Only the holder of the store's lock calls these."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import zarr

from depthsieve.errors import StoreError, StoreMismatch, StoreNotFound
from depthsieve.records import LabelSpec, NumericsProfile, RejectedImage, seal
from depthsieve.store import files, plan, schema
from depthsieve.store.index import build_index
from depthsieve.store.reader import Store, open_store


def prepare_folder(path: Path) -> None:
    """Make the folder of a store, or see that it is one. Raises :class:`StoreError` where nothing can be written."""
    try:
        if path.is_dir():
            if not (path / "labels.zarr").exists() and {entry.name for entry in path.iterdir()} - {"lock", "tmp"}:
                raise StoreError(f"{path} is not empty and not a label store; name a new folder for the labels")
        else:
            path.mkdir(parents=True)
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
    if store.fingerprint != spec.fingerprint:
        shutil.rmtree(path / "labels.zarr")  # a run that planned nothing left it: it is empty
        return _create(path, spec)
    return store


def check_spec(store: Store, spec: LabelSpec) -> None:
    """Raise :class:`StoreMismatch` if the store has a plan under another spec; the message shows what differs."""
    if store.fingerprint == spec.fingerprint or not list((store.path / "commits").glob("*.json")):
        return
    differences = "; ".join(_differences(store.spec.to_json(), spec.to_json()))
    raise StoreMismatch(
        f"{store.path} holds labels of another label spec, and two never mix in one store ({differences}); "
        "name a new store, or use the teacher and options it was made with"
    )


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
    for folder in ("commits", "plan"):
        (path / folder).mkdir(exist_ok=True)
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
) -> plan.Generation:
    """Write a plan and its rejects, then the record that commits them."""
    number = len(store.generations())
    plan_bytes = plan.encode_plan(shards)
    rejected_bytes = plan.encode_rejected(rejected)
    path = store.plan_path(number)
    scratch = store.path / "tmp"
    files.write_atomic(path, plan_bytes, scratch)
    files.write_atomic(path.with_suffix(".rejected.parquet"), rejected_bytes, scratch)
    generation = plan.Generation(
        number=number,
        fingerprint=store.fingerprint,
        plan_sha256=files.sha256_of(path),
        rejected_sha256=files.sha256_of(path.with_suffix(".rejected.parquet")),
        images=sum(len(planned.shard.images) for planned in shards),
        rejected=len(rejected),
        shards=len(shards),
        sources=sources,
        profile=profile,
    )
    record = store.path / "commits" / f"generation-{number:04d}.json"
    if not files.write_exclusive(record, seal(generation.to_json()), scratch):
        raise StoreMismatch(f"{record} appeared while generation {number} was planned; run the same command again")
    return generation


def clear_scratch(path: Path) -> None:
    """Remove what attempts that died left under ``tmp``."""
    shutil.rmtree(path / "tmp", ignore_errors=True)


def write_index(store: Store) -> None:
    """Write ``index.parquet`` for other tools. It is derived: it can be deleted and is written again by every run."""
    target = files.scratch_name(store.path / "tmp", "index")
    pq.write_table(build_index(store), target, compression="zstd")
    target.replace(store.path / "index.parquet")
