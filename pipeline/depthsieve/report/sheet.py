"""The contact sheet of some labels of a store: photo, depth, reliability and mask, side by side on one PNG."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from depthsieve.images.panels import Panels
from depthsieve.images.sheet import draw_sheet
from depthsieve.store import Store, open_store


def label_panels(store: Store | str | Path, image_ids: Sequence[str], drop: float = 0.10) -> Iterator[Panels]:
    """The labels of ``image_ids`` as pictures, in that order, each with its mask at ``drop`` of its own pixels.

    Raises :class:`NoLabel` for an id without a label, and :class:`StoreDamaged` for a label that cannot be read. A
    photo that cannot be read is None.
    """
    opened = store if isinstance(store, Store) else open_store(store)
    for image_id in image_ids:
        yield opened.label(image_id).panels(drop)


def contact_sheet(store: Store | str | Path, image_ids: Sequence[str], path: str | Path, drop: float = 0.10) -> Path:
    """Write a PNG with a row for each of ``image_ids``: photo, depth, reliability, and what ``drop`` masks.

    ``path`` is overwritten. Raises as :func:`label_panels`.
    """
    sheet = draw_sheet(list(label_panels(store, image_ids, drop)), drop)
    path = Path(path)
    sheet.save(path, "PNG")
    return path
