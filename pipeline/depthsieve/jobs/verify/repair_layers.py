"""Repair what an inspection found in layers: rewrite records, take damaged shards out of a layer."""

from collections.abc import Iterable
from dataclasses import dataclass

import zarr

from depthsieve.core.errors import DepthsieveError
from depthsieve.core.records import seal
from depthsieve.jobs.verify.findings import Finding
from depthsieve.store.arrays import ShardReader
from depthsieve.store.layers import Layer, find_layer, record_body
from depthsieve.store.reader import Store
from depthsieve.store.writer import whole_group


@dataclass(frozen=True, slots=True)
class TakenOut:
    """A shard that a layer no longer has, and the command that adds it again; None where that needs new labels."""

    layer: str
    shard: str
    add_again: str | None


def repair_layers(store: Store, findings: Iterable[Finding]) -> list[TakenOut]:
    """Repair the layers; returns what they lost."""
    damaged: dict[tuple[str, str], set[str]] = {}
    for finding in findings:
        if finding.shard and finding.remedy in ("layer record", "take out"):
            damaged.setdefault((finding.key.split("/")[1], finding.shard), set()).add(finding.remedy)
    out = []
    for (name, shard_id), remedies in sorted(damaged.items()):
        layer = find_layer(store.root, name, store.fingerprint)
        if layer is None or (remedies == {"layer record"} and _rewrite_record(store, layer, shard_id)):
            continue
        store.root.remove(layer.commit_key(shard_id))
        for group in store.root.names(layer.shards_key):
            if group.startswith(f"{shard_id}-"):
                store.root.remove_folder(layer.group_key(group))
        out.append(TakenOut(name, shard_id, layer.add_again))
    return out


def _rewrite_record(store: Store, layer: Layer, shard_id: str) -> bool:
    """Rewrite the layer's record of a shard from the one group that is whole and belongs to the labels."""
    key = layer.commit_key(shard_id)
    found = whole_group(store.root, layer.shards_key, shard_id, store.root.read(key).decode(errors="replace"))
    if found is None:
        return False
    folder = layer.group_key(found[0])
    try:
        labels = store.commit_record(shard_id)["content_sha256"]
        reader = ShardReader(store.root, folder)
        arrays = {spec.name: reader.whole(spec) for spec in layer.spec.arrays}
    except (OSError, DepthsieveError):
        return False
    if zarr.open_group(store.root.zarr(folder), mode="r").attrs.get("labels") != labels:
        return False
    store.root.write(key, seal(record_body(layer, shard_id, labels, arrays, found)))
    return True
