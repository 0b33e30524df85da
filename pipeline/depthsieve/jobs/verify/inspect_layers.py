"""Read every byte of a store's layers, as :mod:`depthsieve.jobs.verify.inspect` does for the labels."""

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor

from depthsieve.core.errors import DepthsieveError, StoreDamaged
from depthsieve.core.records import unseal
from depthsieve.jobs.verify.findings import DAMAGED, THREADS, Look, bounded, record_fault
from depthsieve.store import schema
from depthsieve.store.lacking import LACKING, folder_of_lacking, rows_in
from depthsieve.store.layer_kinds import KINDS, spec_in
from depthsieve.store.layers import FOLDER, LEASE, Layer, document_key, shards_document_key
from depthsieve.store.reader import Store

_SHARD_RECORD = re.compile(r"\d{4}-\d{6}\.json")
_GROUP = re.compile(r"\d{4}-\d{6}-[0-9a-f]{12}")


def inspect_layers(look: Look, store: Store) -> None:
    """Add what is wrong with the layers of a store to the findings."""
    for name in store.root.names(FOLDER):
        if store.root.entry(f"{FOLDER}/{name}") is not None:
            look.stray(f"{FOLDER}/{name}")
            continue
        layer = _documents(look, store, name)
        if layer is not None:
            _LayerInspector(look, store, layer).run()


def _documents(look: Look, store: Store, name: str) -> Layer | None:
    """The layer, after its documents and their copies were checked; None where no copy can be read."""
    root = store.root
    places = (document_key(name), schema.copy_key(document_key(name)))
    lacking = [key for key in places if root.entry(key) is None]
    if lacking and not root.names(f"{FOLDER}/{name}/{schema.COMMITS}"):
        look.at_leases()
        if look.in_hand or len(lacking) == len(places):  # it is being created, or its creation was cut off
            look.explained.update(schema.copy_key(key) for key in (shards_document_key(name), document_key(name)))
            if not look.in_hand and root.entry(document_key(name)) is None:
                problem = "left by a process that died before it had created the layer"
                look.found(f"{FOLDER}/{name}", problem, "remove", harmless=True)
            return None
    look.twice(shards_document_key(name), lambda data: None if data == schema.group_document({}) else DAMAGED)

    def fault(data: bytes) -> str | None:
        try:
            spec = spec_in(data, document_key(name))
        except DepthsieveError:
            return DAMAGED
        if (spec.name, spec.fingerprint) != (name, store.fingerprint):
            return "belongs to another layer or store"
        of_labels = KINDS[spec.kind].of_labels
        if of_labels is not None and spec != of_labels(store.spec):
            return "does not fit the label spec"
        return None if data == spec.document() else DAMAGED

    data = look.twice(document_key(name), fault)
    return None if data is None else Layer(root, spec_in(data, name))


class _LayerInspector:
    def __init__(self, look: Look, store: Store, layer: Layer) -> None:
        self._look = look
        self._store = store
        self._layer = layer

    def run(self) -> None:
        root, layer = self._store.root, self._layer
        folder = f"{FOLDER}/{layer.name}"
        for name in root.names(folder):
            if name == LACKING:
                self._lacking()
            elif name not in ("zarr.json", "shards", schema.COMMITS):
                self._look.stray(f"{folder}/{name}")
        shard_ids = []
        for name in root.names(f"{folder}/{schema.COMMITS}"):
            if _SHARD_RECORD.fullmatch(name):
                shard_ids.append(name.removesuffix(".json"))
            else:
                self._look.stray(f"{folder}/{schema.COMMITS}/{name}")
        groups: set[str] = set()
        with ThreadPoolExecutor(THREADS) as pool:
            for shard_id, group in bounded(pool, lambda one: (one, self._shard(one)), shard_ids):
                mine = {name for name in root.names(layer.shards_key) if name.startswith(f"{shard_id}-")}
                groups |= {group} if group else mine  # a damaged record is rewritten from one of its groups
        self._orphans(groups)

    def _lacking(self) -> None:
        """Check the records of rows without an image. Without one, a reader learns of the gap only when it reads the
        row; the next backfill writes it again."""
        folder = folder_of_lacking(self._layer)
        for name in self._store.root.names(folder):
            key = f"{folder}/{name}"
            if not _SHARD_RECORD.fullmatch(name):
                self._look.stray(key)
                continue
            data = self._look.read(key)
            self._look.explained.discard(key)
            try:
                rows_in(data or b"", key)
            except StoreDamaged:
                self._look.found(key, DAMAGED, "remove")

    def _orphans(self, groups: set[str]) -> None:
        layer = self._layer
        listed = self._store.root.names(layer.shards_key)
        self._look.at_leases()  # after the list: a group in it is recorded, in hand, or an orphan
        for group in listed:
            if group in groups or group == "zarr.json":
                continue
            if not _GROUP.fullmatch(group):
                self._look.stray(layer.group_key(group))
                continue
            shard_id = group[: len("0000-000000")]
            if shard_id in self._look.in_hand or LEASE + layer.name in self._look.in_hand:
                continue
            with contextlib.suppress(OSError, DepthsieveError):
                record = layer.record(shard_id)
                if record is not None and record["group"] == group:  # by now
                    continue
            problem = "no commit record of the layer names this group"
            self._look.found(layer.group_key(group), problem, "remove", harmless=True)

    def _shard(self, shard_id: str) -> str | None:
        """Check one shard of the layer; returns its group's name, or None if its record is damaged."""
        look, layer = self._look, self._layer
        key = layer.commit_key(shard_id)
        data = look.read(key)
        look.explained.discard(key)  # which must not grow with the shards
        problem = "is missing" if data is None else record_fault(data, key, dict(layer.names_in_record(shard_id)))
        if data is not None and not problem:
            try:
                layer.record(shard_id)
            except DepthsieveError:
                problem = "does not say what it commits"
        if data is None or problem:
            look.found(key, problem or "", "layer record", shard=shard_id)
            return None
        record = unseal(data, key)
        group = layer.group_key(record["group"])
        if self._is_left_behind(shard_id):
            for left in (key, group):
                look.found(left, "its shard was never committed", "remove", harmless=True)
            return str(record["group"])
        with contextlib.suppress(OSError, DepthsieveError):  # of the labels' record: found already
            if self._store.commit_record(shard_id)["content_sha256"] != record["labels"]:
                self._damaged(shard_id, key, "belongs to other labels than those committed")
                return str(record["group"])
        for name, problem in look.file_faults(group, record["files"]).items():
            if problem:
                self._damaged(shard_id, f"{group}/{name}", problem)
        for entry in self._store.root.entries(group):
            if entry.key.removeprefix(f"{group}/") not in record["files"]:
                look.found(entry.key, "is not listed in the layer's record of the shard", "remove", shard=shard_id)
        return str(record["group"])

    def _damaged(self, shard_id: str, key: str, problem: str) -> None:
        self._look.found(key, problem, "take out", shard=shard_id, add_again=self._layer.add_again)

    def _is_left_behind(self, shard_id: str) -> bool:
        """Whether the shard's own record is missing although nobody has it in hand. Leases are read first: they are
        given back last."""
        if self._store.is_committed(shard_id):
            return False
        self._look.at_leases()
        return shard_id not in self._look.in_hand and not self._store.is_committed(shard_id)
