"""The subset file: which images of a store stay, and why each other one does not."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depthsieve.core.errors import RunError, UsageError
from depthsieve.curation.funnel import LABELLED, Funnel, Step
from depthsieve.curation.settings import CUTS

SCHEMA = pa.schema([("id", pa.string()), ("keep", pa.bool_()), ("step", pa.string()), ("reason", pa.string())])

LEFT_OUT = "left out"
"""The step of images that a subset file drops without saying why: one that curation did not write."""

_ORDER = (
    LABELLED,
    "where",
    *(cut.option.replace("_", "-") for cut in CUTS),
    "near-frames",
    "near-duplicates",
    "balance",
    "max",
)


@dataclass(frozen=True)
class Dropped:
    """What a subset file says of the images that it does not keep: the ``step`` and the ``reason`` of each, by id.
    ``kept`` counts the others."""

    step: Mapping[str, str]
    reason: Mapping[str, str]
    kept: int

    def steps(self) -> tuple[Step, ...]:
        """The funnel: its steps in the order of curation, without those that dropped nothing, which no row tells of."""
        left, found = self.kept + len(self.step), []
        for name, dropped in sorted(Counter(self.step.values()).items(), key=lambda one: (_place(one[0]), one[0])):
            found.append(Step(name, left, dropped))
            left -= dropped
        return tuple(found)


def _place(step: str) -> int:
    """Where in the funnel a step stands, by the name that it begins with."""
    name = step.rstrip(",").split(" ")[0]
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def read_dropped(path: Path) -> Dropped:
    """What a subset file drops; :func:`depthsieve.training.selection.select` has checked that it is one."""
    names = pq.read_schema(path).names
    told = [name for name in ("step", "reason") if name in names]
    table = pq.read_table(path, columns=["id", "keep", *told])
    rest = table.filter(pc.invert(table["keep"]))
    ids = rest["id"].to_pylist()
    steps = rest["step"].to_pylist() if "step" in told else [None] * len(ids)
    reasons = rest["reason"].to_pylist() if "reason" in told else [None] * len(ids)
    return Dropped(
        {one: str(step or LEFT_OUT) for one, step in zip(ids, steps, strict=True)},
        {one: str(reason or "no reason is recorded") for one, reason in zip(ids, reasons, strict=True)},
        len(table) - len(ids),
    )


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
