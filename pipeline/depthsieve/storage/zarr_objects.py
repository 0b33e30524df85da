"""A Zarr store over objects, to read from: the only file of storage that knows zarr."""

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, StorePath

from depthsieve.storage.objects import Objects


class ZarrObjects(ObjectStore):  # type: ignore[type-arg]
    """Reads arrays and groups below ``objects``. What goes wrong is an :class:`OSError`, as with a file."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects.store(), read_only=True)
        self._objects = objects

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            with self._objects.waited_for():
                return await super().get(key, prototype, byte_range)
        except Exception as error:
            raise self._objects.fault(error, key) from None


def open_zarr(objects: Objects, key: str) -> StorePath:
    """The array or group at ``key``, through the connections that ``objects`` has already."""
    return StorePath(ZarrObjects(objects), key)
