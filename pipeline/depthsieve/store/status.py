"""The state of a store, read beside a run: nothing is written, opened for writing or locked."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from depthsieve.core.errors import DepthsieveError
from depthsieve.core.processes import Process
from depthsieve.core.records import DatasetNote, ImageFailure
from depthsieve.storage import open_root
from depthsieve.store import schema
from depthsieve.store.layers import find_layer, layer_names
from depthsieve.store.leases import at_work_since, left_leases
from depthsieve.store.reader import Store, open_store
from depthsieve.store.standing import Seen, standing

RECENT_S = 600.0
"""Over how many seconds the throughput is taken."""


@dataclass(frozen=True, slots=True)
class LayerState:
    """A layer of a store: of what ``kind`` ("signals", "reliability", or "damaged"), how many of the committed shards
    it has, and whether its calibration was ``transferred`` to a teacher that it was not fitted on."""

    name: str
    kind: str
    shards: int
    transferred: bool = False


@dataclass(frozen=True)
class StoreStatus:
    """The state of a store. ``labelled``, ``pending`` and ``failed`` (by id, with reasons) are images.

    ``at_work`` are the living processes that hold leases. ``images_per_second`` is that of the shards
    committed in the last ten minutes and since the first of those processes began, from the first such commit to the
    last (None where no process works, or before the second one), and ``seconds_left`` what the pending ones take at
    that rate. ``reliability`` says what reliability comes from; ``layers`` are those of the store, by name;
    ``datasets`` says where the images of a source come from and under which terms, by its name.
    """

    store: str
    labelled: int
    pending: int
    failed: tuple[ImageFailure, ...]
    shards: int
    shards_committed: int
    images_per_second: float | None
    seconds_left: float | None
    at_work: tuple[str, ...]
    reliability: str = ""
    layers: tuple[LayerState, ...] = ()
    datasets: Mapping[str, DatasetNote] = field(default_factory=dict)


def status(store: str | Path, seen: Seen | None = None) -> StoreStatus:
    """The state of a store now; it may be in use. Raises :class:`StoreNotFound` where there is none.

    Callers that ask repeatedly pass the same ``seen``, empty at first: then only new commit records are read.
    """
    opened = open_store(open_root(store))
    stands = standing(opened, seen)
    left = opened.pending()
    shards = sum(generation.shards for generation in opened.generations())
    workers = {lease.holder for lease in left_leases(opened.root) if lease.alive and lease.holder is not None}
    rate = _rate(opened, workers) if workers else None
    return StoreStatus(
        store=opened.location,
        labelled=stands.labelled,
        pending=stands.pending,
        failed=stands.unlabelled,
        shards=shards,
        shards_committed=shards - len(left),
        images_per_second=rate,
        seconds_left=stands.pending / rate if rate else None,
        at_work=tuple(sorted(map(str, workers))),
        reliability=opened.reliability_from,
        layers=_layers(opened),
        datasets=opened.datasets(),
    )


def _layers(store: Store) -> tuple[LayerState, ...]:
    names = layer_names(store.root)
    committed = store.committed() if names else set()
    found = []
    for name in names:
        try:
            layer = find_layer(store.root, name, store.fingerprint)
        except DepthsieveError:  # `verify` says what is wrong with it
            found.append(LayerState(name, "damaged", 0))
            continue
        if layer is not None:
            transferred = bool((layer.spec.detail or {}).get("transferred"))
            found.append(LayerState(name, layer.spec.kind, len(layer.shards() & committed), transferred))
    return tuple(found)


def _rate(store: Store, workers: set[Process]) -> float | None:
    """Images a second of what was committed lately, by the records' own times, while these processes were at work."""
    begun = [at_work_since(store.root, worker.token) for worker in workers]
    since = max(time.time() - RECENT_S, min((one for one in begun if one is not None), default=0.0))
    tables = {generation.number: store.shard_table(generation) for generation in store.generations()}
    recent = []
    for entry in store.root.entries(schema.COMMITS):
        name = entry.key.rpartition("/")[2].removesuffix(".json")
        if not name.startswith("generation-") and entry.modified > since:
            generation, number = schema.shard_number(name)
            if generation in tables and number < len(tables[generation].images_S):
                recent.append((entry.modified, int(tables[generation].images_S[number])))
    if len(recent) < 2:
        return None
    recent.sort()
    seconds = recent[-1][0] - recent[0][0]
    return sum(images for _, images in recent[1:]) / seconds if seconds > 0 else None
