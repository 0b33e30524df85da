"""Which labels of a store to look at: named ones, the worst, the best, some at random, or a few at even distances."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.errors import NoLabel, StoreError, UsageError
from depthsieve.core.settings import whole_number
from depthsieve.curation.table import empty_table, image_table
from depthsieve.curation.where import where as select
from depthsieve.store import Store
from depthsieve.store.index import settled_index

FEW = 8
"""Labels that are shown where nobody says how many."""

MOST = 200
"""Labels that one sheet shows at most."""


@dataclass(frozen=True)
class Choice:
    """Which labels to show. ``worst`` and ``best`` go by mean reliability, ``random`` by ``seed``; they add up. Raises
    :class:`UsageError` for a count that is none."""

    worst: int | None = None
    best: int | None = None
    random: int | None = None
    seed: int = 0
    where: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.counts.items():
            if whole_number(value) is None or value < 1:
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
        if sum(self.counts.values()) > MOST:
            raise UsageError(f"a sheet shows at most {MOST} labels, not {sum(self.counts.values()):,}")

    @property
    def counts(self) -> dict[str, int]:
        """How many are asked for, by how."""
        asked = {"worst": self.worst, "best": self.best, "random": self.random}
        return {name: value for name, value in asked.items() if value is not None}


def choose(store: Store, ids: Sequence[str], choice: Choice, drop: float, progress: bool) -> tuple[list[str], str]:
    """The ids to show, in order, and in words which these are.

    Each of ``ids`` is an image, or the beginning of ids: all that begin so. Raises :class:`NoLabel` for one that is
    neither, and :class:`StoreError` where no label is left to show.
    """
    if not len(store):
        raise StoreError(f"{store.location} has no labelled image; label into it first")
    named, is_exact = _named(store, ids)
    if is_exact and not choice.counts and choice.where is None:
        if len(named) > MOST:
            raise UsageError(f"a sheet shows at most {MOST} labels, not {len(named):,}")
        return named, _words(named, f"{len(named):,} labels")
    index, _ = settled_index(store)
    if choice.where is not None:
        select(empty_table(index), choice.where)  # what is wrong with it is told before anything takes long
    table = image_table(store, index, drop, progress)
    whose = " labels"
    if ids:
        table = table.filter(pc.is_in(table["id"], value_set=pa.array(named)))
        whose += " whose ids begin so"
    if choice.where is not None:
        table = table.filter(pa.array(select(table, choice.where)))
        whose += f" where {choice.where}"
    if not len(table):
        raise StoreError(f"{store.location} has no{whose}; it has {len(store):,} in all")
    order = np.argsort(table["reliability"].to_numpy(), kind="stable")
    places, how = _picked(order, choice)
    names = table["id"].to_pylist()
    chosen = [names[place] for place in places]
    some = f"{len(chosen):,} of" if len(chosen) < len(table) else "all"
    return chosen, _words(chosen, f"{some} {len(table):,}{whose}{how}")


def _words(chosen: Sequence[str], many: str) -> str:
    return chosen[0] if len(chosen) == 1 else many


def _named(store: Store, ids: Sequence[str]) -> tuple[list[str], bool]:
    """The ids that are meant, each once, and whether each was named itself."""
    known, is_exact = list(store), True
    found: dict[str, None] = {}
    for asked in ids:
        if asked in store:
            found[store.label(asked).id] = None
            continue
        beginnings = [asked, *(f"{source}/{asked}" for source in store.sources())]
        matching = [image for image in known if image.startswith(tuple(beginnings))] if asked else []
        if not matching:
            store.label(asked)  # says why there is none, and which ids are like it
            raise NoLabel(f"{store.location} has no image {asked!r}")
        found |= dict.fromkeys(matching)
        is_exact = False
    return list(found), is_exact and bool(ids)


def _picked(order: np.ndarray[tuple[int], np.dtype[np.int64]], choice: Choice) -> tuple[list[int], str]:
    """Places out of ``order``, which goes from the least to the most reliable; and how, in words."""
    count = len(order)
    if not choice.counts:
        few = min(FEW, count)
        spread = np.round(np.linspace(0, count - 1, few)).astype(int)
        how = ", at even distances from the least to the most reliable" if few < count else ", least reliable first"
        return order[spread].tolist(), how
    picked = {
        "worst": order[: choice.worst or 0],
        "best": order[::-1][: choice.best or 0],
        "random": np.random.default_rng([choice.seed, 16]).permutation(count)[: choice.random or 0],
    }
    places = list(dict.fromkeys(int(place) for name in choice.counts for place in picked[name]))
    words = {"worst": "the {:,} least reliable", "best": "the {:,} most reliable", "random": "{:,} at random"}
    return places, ": " + ", ".join(words[name].format(len(picked[name])) for name in choice.counts)
