"""Mend what an inspection found in layers: write records anew, take out of a layer what is damaged."""

from collections.abc import Iterable
from typing import NamedTuple

import zarr

from depthsieve.core.errors import DepthsieveError
from depthsieve.core.records import seal
from depthsieve.jobs.verify.findings import Finding
from depthsieve.store.arrays import ShardReader
from depthsieve.store.layer_kinds import KINDS
from depthsieve.store.layers import Layer, find_layer, record_body
from depthsieve.store.reader import Store
from depthsieve.store.writer import whole_group

_TAKE_OUT = {kind.remedy for kind in KINDS.values()}


class TakenOut(NamedTuple):
    """A shard that a layer has no more."""

    layer: str
    shard: str


def mend_layers(store: Store, findings: Iterable[Finding]) -> list[TakenOut]:
    """Mend the layers; returns what they lost. Of kept signals that is lost for good, of reliability and features
    it can be made again."""
    damaged: dict[TakenOut, set[str]] = {}
    for finding in findings:
        if finding.shard and (finding.remedy == "layer record" or finding.remedy in _TAKE_OUT):
            damaged.setdefault(TakenOut(finding.key.split("/")[1], finding.shard), set()).add(finding.remedy)
    out = []
    for one, remedies in sorted(damaged.items()):
        layer = find_layer(store.root, one.layer, store.fingerprint)
        if layer is None or (remedies == {"layer record"} and _write_record(store, layer, one.shard)):
            continue
        store.root.remove(layer.commit_key(one.shard))
        for group in store.root.names(layer.shards_key):
            if group.startswith(f"{one.shard}-"):
                store.root.remove_folder(layer.group_key(group))
        out.append(one)
    return out


def _write_record(store: Store, layer: Layer, shard_id: str) -> bool:
    """Write the layer's record of a shard anew, from the one group that is whole and belongs to the labels."""
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
