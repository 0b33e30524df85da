"""Fuse the labels of one shard. Axes: N images of a shard, K parents, H and W the label shape."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from depthsieve.core.errors import StoreMismatch
from depthsieve.core.records import LabelSpec, Shard, digest_of
from depthsieve.jobs.committing import Arrays, ShardMaker
from depthsieve.reliability.code import encode_error, histogram
from depthsieve.reliability.fusion import shipped_calibration
from depthsieve.reliability.merging import MERGE, OneLabel, merge_labels
from depthsieve.store import Store, open_store, schema
from depthsieve.store.arrays import ShardReader

SIGNALS = ("teachers",)
COLUMNS = ("focal_px", "content_sha256")
"""What is taken from the first parent's row as it stands."""


def fused_spec(parents: Sequence[Store]) -> LabelSpec:
    """What decides the labels that are fused of these stores, in this order."""
    first = parents[0].spec
    weights = digest_of([parent.spec.weights_digest for parent in parents])
    return LabelSpec(
        weights_digest=weights,
        quantity=first.quantity,
        unit=first.unit,
        dtype="float32",
        preprocessing={"merge": MERGE},
        signals=SIGNALS,
        calibration=shipped_calibration().name(SIGNALS, weights),
        encoding=first.encoding,
        kind="fused",
        parents=tuple(parent.fingerprint for parent in parents),
        spec_version=max(parent.code_version for parent in parents),
    )


def open_parents(store: Store) -> tuple[Store, ...]:
    """The stores that a fused store was made of, where it was last told that they lie.

    Raises :class:`StoreNotFound` where one is gone, and :class:`StoreMismatch` where another one lies there.
    """
    locations = store.generations()[-1].parents
    parents = tuple(open_store(location) for location in locations)
    for parent, fingerprint in zip(parents, store.spec.parents, strict=True):
        if parent.fingerprint != fingerprint:
            raise StoreMismatch(f"{parent.location} is not the store that {store.location} was fused of")
    return parents


@dataclass(frozen=True)
class _Found:
    """A parent's shard: its labels, and the columns that are looked at."""

    reader: ShardReader
    columns: Mapping[str, np.ndarray[Any, Any]]


class ShardFuser(ShardMaker):
    """Fuses the labels that the parents have of a shard's images. A parent's label that cannot be read is an error."""

    title = "fuse"

    def __init__(
        self, store: Store, parents: Sequence[Store], threads: int, on_image: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(store, threads, on_image)
        self._parents = parents
        self._calibration = shipped_calibration()

    def begin(self, shard: Shard, rows: pa.Table, arrays: Arrays) -> Callable[[int], object]:
        """Fuses the labels of a row."""
        places = list(zip(rows["parent_shards"].to_pylist(), rows["parent_rows"].to_pylist(), strict=True))
        found = [self._found(parent, {shards[k] for shards, _ in places}) for k, parent in enumerate(self._parents)]

        def fuse_row(row: int) -> None:
            shards, parent_rows = places[row]
            self._fuse(arrays, row, [(found[k][shards[k]], parent_rows[k]) for k in range(len(found))])

        return fuse_row

    def _found(self, parent: Store, shard_ids: set[str]) -> dict[str, _Found]:
        return {
            shard_id: _Found(reader, {name: reader.column(name) for name in (*COLUMNS, "status", "id")})
            for shard_id in sorted(shard_ids)
            for reader in [parent.reader(shard_id)]
        }

    def _fuse(self, arrays: Arrays, row: int, places: list[tuple[_Found, int]]) -> None:
        """Fuse the label of one row into ``arrays``; or say there why it has none."""
        first, first_row = places[0]
        for name in COLUMNS:
            arrays[name][row] = first.columns[name][first_row]
        contents = {str(found.columns["content_sha256"][at]) for found, at in places}
        depth_HW = code_HW = torch.zeros(0)
        if len(contents) > 1:
            fault = "the stores labelled different contents of this file; label it anew in the older one"
        else:
            labels = [
                OneLabel(
                    torch.from_numpy(found.reader.depth(at)),
                    torch.from_numpy(found.reader.reliability(at)),
                    parent.spec.quantity,
                    bool(parent.spec.signals),
                    parent.code_version,
                )
                for parent, (found, at) in zip(self._parents, places, strict=True)
            ]
            depth_HW, e_HW = merge_labels(labels, self._calibration)
            code_HW = encode_error(e_HW, version=self.store.code_version)
            depth_HW = torch.where(code_HW > 0, depth_HW, 0.0)
            fault = _fault(depth_HW, code_HW)
        if fault:
            arrays["status"][row] = schema.STATUS_FAILED
            arrays["reason"][row] = fault
            arrays["histogram"][row, 0] = arrays["depth"][row].size
        else:
            arrays["depth"][row] = depth_HW
            arrays["reliability"][row] = code_HW
            arrays["histogram"][row] = histogram(code_HW[None])[0]


def _fault(depth_HW: torch.Tensor, code_HW: torch.Tensor) -> str:
    """Why a merged map is no label; empty if it is one."""
    known = depth_HW[code_HW > 0]
    if not len(known):
        return "none of its labels is valid anywhere"
    if known.amin() == known.amax():
        return f"the merged label is {float(known[0]):g} at every pixel"
    most = float(known.abs().amax())
    return f"the merged label reaches {most:g}, more than float16 holds" if most > schema.MAX_DEPTH else ""
