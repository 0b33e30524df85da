"""Where the images of samples are read from: the store, or their sources."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.sources import is_remote, reopen_source, root_of
from depthsieve.store import Store
from depthsieve.store.layer_kinds import IMAGES
from depthsieve.store.layers import find_layer
from depthsieve.store.stored_images import StoredImages
from depthsieve.training.selection import Selection

Images = str | Path | Mapping[str, str | Path] | Literal[False] | None
"""The option ``images`` of :class:`depthsieve.PseudoLabelDataset`."""


@dataclass(frozen=True)
class ImagePlaces:
    """``stored``: in the store. ``roots``: at these roots of their sources, by name. Neither: samples have no image."""

    stored: bool = False
    roots: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str | None:
        """ "stored", "source" or None, as a saved state has it."""
        return "stored" if self.stored else "source" if self.roots else None


def find_images(store: Store, selection: Selection, images: Images) -> ImagePlaces:
    """Where the selected images are read from, by the ``images`` of a dataset.

    Raises :class:`UsageError` for an invalid ``images``, and :class:`LoaderError` where they are not there.
    """
    if images is False:
        return ImagePlaces()
    if images == "stored" or (images is None and find_layer(store.root, IMAGES, store.fingerprint) is not None):
        problem = _lacks(store, selection)
        if problem is None:
            return ImagePlaces(stored=True)
        if images is not None:
            raise LoaderError(problem)
        try:
            return ImagePlaces(roots=_source_roots(store, selection, None))
        except LoaderError as error:
            raise LoaderError(f"{problem}; {error}") from error
    return ImagePlaces(roots=_source_roots(store, selection, None if images == "source" else images))


def _lacks(store: Store, selection: Selection) -> str | None:
    """Which of the selected images the store does not have, and what to do about it; None where it has them all."""
    stored = StoredImages(store)
    missing = stored.missing(selection.images_of_shards())
    if missing:
        return (
            f"{store.location} has no stored images of {len(missing)} shards in use (the first is {missing[0]}); "
            "`depthsieve label --store-images` adds them, images='source' reads the sources"
        )
    lacking = selection.reasons(stored.lacking())
    if not lacking:
        return None
    number, reason = lacking[0]
    return (
        f"{store.location} has no stored image of {len(lacking)} of {len(selection)} images (the first is "
        f"{selection[number].id}: {reason}); `depthsieve label --store-images --retry-failed` tries again, "
        "images='source' reads the sources, a subset may leave them out"
    )


def _source_roots(store: Store, selection: Selection, images: Any) -> dict[str, str]:
    """The root of every source that the selected images come from, each checked to be there."""
    recorded, used = store.sources(), selection.source_names
    if images is None:
        moved: dict[str, Any] = {}
    elif isinstance(images, Mapping):
        moved = dict(images)
    elif isinstance(images, str | Path) and len(used) == 1:
        moved = {used[0]: images}
    else:
        raise UsageError(
            f"images must be None, False, 'stored', 'source', a mapping from names of sources to paths, or (for one "
            f"source) a path, not {images!r}; these images come from {', '.join(used)}"
        )
    for name, path in moved.items():
        if not isinstance(path, str | os.PathLike):
            raise UsageError(
                f"images must give a path for the source {name!r}, not {path!r}; leave out what did not move"
            )
    unknown = sorted(set(moved) - set(recorded), key=repr)
    if unknown:
        raise UsageError(f"images names the source {unknown[0]!r}; this store has {', '.join(sorted(recorded))}")
    roots = {name: root_of(moved[name]) if name in moved else recorded[name] for name in used}
    for name, root in roots.items():
        if not (reopen_source(name, root).is_there() if is_remote(root) else Path(root).exists()):
            raise LoaderError(
                f"the images of the source {name!r} are not at {root}; if they moved, pass images={{{name!r}: PATH}}, "
                "for labels without images pass images=False"
            )
    return roots
