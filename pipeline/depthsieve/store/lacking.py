"""Which labelled images the layer of stored images lacks, and why: a record a shard, of the shards that lack some.

So that every run and every data set knows at once, without a look into each shard.
"""

from collections.abc import Mapping

from depthsieve.core.errors import StoreDamaged
from depthsieve.core.records import MEND, seal, unseal
from depthsieve.store.layers import FOLDER, Layer

LACKING = "lacking"

_SUFFIX = ".json"


def folder_of_lacking(layer: Layer) -> str:
    """Where the records lie."""
    return f"{FOLDER}/{layer.name}/{LACKING}"


def write_lacking(layer: Layer, shard_id: str, reasons: Mapping[int, str]) -> None:
    """Note which rows of a shard lack their image. To be done before the layer has the shard, and where it lacks none,
    after. Raises :class:`OSError`."""
    key = _key(layer, shard_id)
    if reasons:
        rows = {str(row): reason for row, reason in sorted(reasons.items())}
        layer.root.write(key, seal(layer.names_in_record(shard_id) | {"rows": rows}))
    else:
        layer.root.remove(key)


def read_lacking(layer: Layer) -> dict[str, dict[int, str]]:
    """For each shard of the layer that lacks images: their rows, and why. Raises :class:`StoreDamaged`."""
    noted = shards_noted(layer)
    keys = {shard_id: _key(layer, shard_id) for shard_id in sorted(noted & layer.shards())} if noted else {}
    return {shard_id: rows_in(layer.root.read(key), f"{layer.root.location}/{key}") for shard_id, key in keys.items()}


def shards_noted(layer: Layer) -> set[str]:
    """The shards that there are records of, whether or not the layer has them."""
    return {name.removesuffix(_SUFFIX) for name in layer.root.names(folder_of_lacking(layer))}


def rows_in(data: bytes, where: str) -> dict[int, str]:
    """What a record says; ``where`` is for the message. Raises :class:`StoreDamaged`."""
    try:
        return {int(row): str(reason) for row, reason in unseal(data, where)["rows"].items()}
    except (KeyError, AttributeError, ValueError) as error:
        raise StoreDamaged(f"{where} does not name rows; {MEND}") from error


def _key(layer: Layer, shard_id: str) -> str:
    return f"{folder_of_lacking(layer)}/{shard_id}{_SUFFIX}"
