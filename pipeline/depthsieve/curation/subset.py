"""The subset file: which images of a store stay, and why each other one does not."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from depthsieve.core.errors import RunError, UsageError
from depthsieve.curation.funnel import LABELLED, Funnel

SCHEMA = pa.schema([("id", pa.string()), ("keep", pa.bool_()), ("step", pa.string()), ("reason", pa.string())])


def subset_table(funnel: Funnel, without: pa.Table, states: list[str], carried: Mapping[str, Any]) -> pa.Table:
    """A row for each image of the store, sorted by id; ``step`` and ``reason`` are empty for those that stay."""
    chosen = pa.table(
        [
            funnel.table["id"],
            pa.array((funnel.step_N == "").astype(np.bool_)),
            pa.array(funnel.step_N, pa.string()),
            pa.array(funnel.reason_N, pa.string()),
        ],
        schema=SCHEMA,
    )
    count = len(without)
    rest = pa.table(
        [without["id"], pa.repeat(False, count), pa.repeat(LABELLED, count), pa.array(states, pa.string())],
        schema=SCHEMA,
    )
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in carried.items()
    }
    return pa.concat_tables([chosen, rest]).sort_by("id").combine_chunks().replace_schema_metadata(texts)


def check_target(path: Path) -> None:
    """Raise :class:`UsageError` where ``path`` holds something that is not a subset file, is named as if it would, or
    lies nowhere."""
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder; name the subset file in one that is there")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file, such as {path / 'subset.parquet'}")
    if path.suffix not in ("", ".parquet"):
        raise UsageError(f"a subset file's name ends in .parquet, not {path.name!r}")
    if not path.exists():
        return
    try:
        names = pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        names = []
    if not {"id", "keep"} <= set(names) or "shard" in names:
        raise UsageError(f"{path} is there and is no subset file; name another one, or remove it")


def write_subset(path: Path, table: pa.Table) -> None:
    """Write the file whole or not at all. Raises :class:`RunError` where it cannot be written."""
    attempt = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            pq.write_table(table, attempt, compression="zstd")
            with attempt.open("rb+") as file:
                os.fsync(file.fileno())
            attempt.replace(path)
        finally:
            with contextlib.suppress(OSError):
                attempt.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; name another place with -o") from error
