"""Which labels a dataset serves: the labelled images of a store's snapshot, or those of a subset of them.

Axes: N images, in the order of their ids.
"""

import functools
import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.core.nearest import near_ids
from depthsieve.core.records import Shape
from depthsieve.storage import expand
from depthsieve.store import Store
from depthsieve.store.index import settled_index
from depthsieve.store.schema import encoding_of

_SIDES = ("height", "width", "label_height", "label_width")
_COLUMNS = ("id", "shard", "row", "size", *_SIDES)
_AT_ONCE = 1 << 16
_CARRIED = ("fingerprint", "snapshot")
_NAMED = 3
"""How many ids a message names."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one image's label is, and what its source was when it was labelled (shapes in pixels, size in bytes)."""

    id: str
    shard: str
    row: int
    label_shape: Shape
    source_shape: Shape
    source_size: int


class Selection:
    """The images of a dataset, sorted by id. Can be pickled; a store that grows later does not change it.

    ``shards`` are ids of shards; ``shard_N`` is the number of the one that has an image's label, ``row_N`` its row.
    """

    def __init__(self, table: pa.Table, snapshot: str) -> None:
        self.snapshot = snapshot
        shard = table["shard"].combine_chunks()
        shard = shard if pa.types.is_dictionary(shard.type) else shard.dictionary_encode()
        used, shard_N = np.unique(shard.indices.to_numpy(), return_inverse=True)
        self.shards: list[str] = shard.dictionary.take(pa.array(used)).to_pylist()
        self.shard_N = shard_N.astype(np.int32)
        self.row_N = table["row"].to_numpy().astype(np.int32)
        self._ids = table["id"].combine_chunks()
        self._sides = {name: table[name].to_numpy().astype(np.int32) for name in _SIDES}
        self._size_N = table["size"].to_numpy()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Entry:
        height, width, label_height, label_width = (int(self._sides[name][index]) for name in _SIDES)
        shard, row, size = self.shards[self.shard_N[index]], int(self.row_N[index]), int(self._size_N[index])
        return Entry(self._ids[int(index)].as_py(), shard, row, (label_height, label_width), (height, width), size)

    @property
    def ids(self) -> list[str]:
        """The images' ids, sorted."""
        return self._ids.to_pylist()  # type: ignore[no-any-return]

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the ids, in order, a line each."""
        digest = hashlib.sha256()
        for start in range(0, len(self), _AT_ONCE):
            lines = pc.binary_join_element_wise(self._ids[start : start + _AT_ONCE], "", "\n")
            _, offsets, text = lines.buffers()
            digest.update(memoryview(text)[: np.frombuffer(offsets, np.int32)[len(lines)]])
        return digest.hexdigest()

    @property
    def source_names(self) -> list[str]:
        """Names of the sources that the images come from, sorted."""
        names: list[str] = []
        at = 0
        while at < len(self):
            names.append(self._ids[at].as_py().partition("/")[0])
            after = f"{names[-1]}{chr(ord('/') + 1)}"  # greater than all ids of the source
            at = bisect_left(range(len(self)), after, lo=at, key=lambda index: self._ids[index].as_py())
        return sorted(names)

    def images_of_shards(self) -> dict[str, int]:
        """How many of the images each shard holds, by its id."""
        return dict(zip(self.shards, np.bincount(self.shard_N, minlength=len(self.shards)).tolist(), strict=True))

    def rows_of_shards(self) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Each shard's number, and the rows of it that are served."""
        order_N = np.argsort(self.shard_N, kind="stable")
        ends = np.cumsum(np.bincount(self.shard_N, minlength=len(self.shards)))[:-1]
        yield from enumerate(np.split(self.row_N[order_N], ends))

    def reasons(self, rows: Mapping[str, Mapping[int, str]]) -> list[tuple[int, str]]:
        """Which of these rows of shards are served: the images' numbers, in order, each with the row's reason."""
        found = []
        for shard in set(rows) & set(self.shards):
            for number in np.flatnonzero(self.shard_N == self.shards.index(shard)).tolist():
                row = int(self.row_N[number])
                if row in rows[shard]:
                    found.append((number, rows[shard][row]))
        return sorted(found)

    def label_shapes(self) -> NDArray[np.int64]:
        """[N,2] height and width of each label, in pixels."""
        return np.stack([self._sides[name] for name in _SIDES[2:]], axis=1).astype(np.int64)

    def label_bytes(self, store: Store) -> int:
        """About how many bytes the labels of these images take, rather too many than too few."""
        return int(self.label_shapes().prod(axis=1).sum() * encoding_of(store.spec.encoding).pixel_bytes)


def select(store: Store, subset: Collection[str] | str | Path | None) -> Selection:
    """The labelled images of the store as it is now, or those that ``subset`` keeps.

    Raises :class:`LoaderError` where nothing is left, or the subset does not fit the store, and :class:`UsageError` for
    a subset that is neither ids nor a path.
    """
    labelled, snapshot = settled_index(store, _COLUMNS, "labelled")
    if not len(labelled):
        states = sorted(Counter(store.index()["status"].to_pylist()).items())
        listed = ", ".join(f"{count} {state}" for state, count in states) or "it is empty"
        raise LoaderError(f"{store.location} has no labelled image ({listed}); label images first: `depthsieve label`")
    if subset is None:
        return Selection(labelled, snapshot)
    wanted = (
        _kept_ids(Path(expand(subset)), store, snapshot) if isinstance(subset, str | Path) else _checked_ids(subset)
    )
    ids = pa.array(wanted, pa.string())
    unknown = ids.filter(pc.invert(pc.is_in(ids, value_set=labelled["id"])))
    if len(unknown):
        raise LoaderError(_unknown(unknown.to_pylist(), len(ids), store))
    return Selection(labelled.filter(pc.is_in(labelled["id"], value_set=ids)), snapshot)


def _checked_ids(subset: Any) -> list[str]:
    if not isinstance(subset, Iterable):
        raise UsageError(f"subset must hold image ids (text) or be the path of a Parquet file, not {subset!r}")
    ids = list(subset)
    other = next((image_id for image_id in ids if not isinstance(image_id, str)), None)
    if other is not None:
        raise UsageError(f"subset must hold image ids (text) or be the path of a Parquet file; it holds {other!r}")
    if not ids:
        raise LoaderError("the subset is empty; pass None to train on all labelled images")
    for image_id in ids:
        try:
            image_id.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"subset holds {image_id!r}, which is not an image id: a byte of a file name that is not UTF-8 is "
                "written %FF in it, and not as a lone surrogate"
            ) from error
    return ids


def _kept_ids(path: Path, store: Store, snapshot: str) -> list[str]:
    """The ids that a subset file keeps, once its fingerprint and snapshot, where it has them, are the store's."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise LoaderError(f"there is no subset file {path}; for single images pass a list of their ids") from error
    except (OSError, pa.ArrowException) as error:
        raise LoaderError(f"subset {path} cannot be read as Parquet: {error}") from error
    types = {name: table[name].type for name in ("id", "keep") if table.column_names.count(name) == 1}
    fits = _is_text(types.get("id", pa.null())) and types.get("keep") == pa.bool_()
    if not fits or table["id"].null_count or table["keep"].null_count:
        raise LoaderError(f"subset {path} needs the columns id (text) and keep (true or false), both without nulls")
    metadata = {key: value.decode(errors="backslashreplace") for key, value in (table.schema.metadata or {}).items()}
    carried = {name: metadata[name.encode()] for name in _CARRIED if name.encode() in metadata}
    for name, here in (("fingerprint", store.fingerprint), ("snapshot", snapshot)):
        if carried.get(name, here) != here:
            raise LoaderError(
                f"subset {path} was made for another {name} of the labels ({carried[name][:12]}..., "
                f"{store.location} has {here[:12]}...); make the subset again from this store"
            )
    try:
        ids = table["id"].cast(pa.string())
        repeated = [name for name, count in Counter(ids.to_pylist()).items() if count > 1]
    except (UnicodeDecodeError, pa.ArrowException) as error:
        raise LoaderError(f"subset {path} has ids that cannot be read as text: {error}") from error
    if repeated:
        raise LoaderError(f"subset {path} names {len(repeated)} ids more than once: {_listed(repeated)}")
    kept = ids.filter(table["keep"]).to_pylist()
    if not kept:
        raise LoaderError(f"subset {path} keeps none of its {len(table)} images")
    return kept  # type: ignore[no-any-return]


def _is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text, however it is stored: pandas, polars and others differ."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _unknown(unknown: list[str], count: int, store: Store) -> str:
    index = store.index(features=False)
    known = index.filter(pc.is_in(index["id"], value_set=pa.array(unknown, pa.string())))
    states = dict(zip(known["id"].to_pylist(), known["status"].to_pylist(), strict=True))
    named = [f"{one} ({states.get(one) or _not_in(index['id'], one)})" for one in unknown[:_NAMED]]
    return (
        f"{len(unknown)} of the subset's {count} ids have no label in {store.location}: {_listed(named, len(unknown))}"
    )


def _not_in(ids: pa.ChunkedArray, unknown: str) -> str:
    near = near_ids(ids, unknown)
    return f"not in the store; did you mean {near[0]}?" if near else "not in the store"


def _listed(names: list[str], count: int | None = None) -> str:
    count = len(names) if count is None else count
    return ", ".join(names[:_NAMED]) + (f" and {count - _NAMED} more" if count > _NAMED else "")
