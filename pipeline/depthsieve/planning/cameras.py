"""Which image has which of the cameras that a user gives, before anything is written."""

from collections.abc import Iterator

import pyarrow as pa

from depthsieve.cameras.given import Found, Photo
from depthsieve.planning.request import LabelRequest
from depthsieve.sources.scan import Scan

_COLUMNS = ("id", "width", "height", "orientation")


def find_cameras(request: LabelRequest, scan: Scan) -> Found:
    """The cameras of a file for the images of a request, those that the store knows too; none without a file.

    Raises :class:`SourceError` for a row of the file that will not do.
    """
    if request.given is None or request.given.file is None:
        return Found()
    return request.given.in_file(_photos(request, scan))


def _photos(request: LabelRequest, scan: Scan) -> Iterator[Photo]:
    """Newest last."""
    names = {source.name for source in request.sources}
    store = request.existing
    for generation in store.generations() if store is not None else ():
        for table in store.read_plan(generation, list(_COLUMNS)) if store is not None else ():
            yield from (photo for photo in _of_table(table) if photo.id.partition("/")[0] in names)
    for table in scan.images():
        yield from _of_table(table)


def _of_table(table: pa.Table) -> Iterator[Photo]:
    columns = (table[name].to_pylist() for name in _COLUMNS)
    yield from (Photo(*row) for row in zip(*columns, strict=True))
