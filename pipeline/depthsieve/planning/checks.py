"""What is checked before anything is written: source, store, signals and room; and what a user should be told."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.parquet as pq

from depthsieve.core.errors import RunError, SourceError, StoreNotFound, UsageError
from depthsieve.core.tables import IMAGES_SCHEMA
from depthsieve.images.headers import A_VIDEO
from depthsieve.planning.options import LabelOptions
from depthsieve.reliability.fusion import UNCALIBRATED
from depthsieve.reliability.kinds import KEPT_BYTES_PER_PIXEL
from depthsieve.sources import Source
from depthsieve.sources.manifest import Manifest, is_manifest, open_manifest
from depthsieve.sources.scan import Scan
from depthsieve.storage import Root, is_url
from depthsieve.store import Store, open_store
from depthsieve.store.layer_kinds import IMAGES, METRIC, SIGNALS
from depthsieve.store.layers import find_layer
from depthsieve.store.schema import encoding_of

TABLES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xls", ".xlsx", ".yaml", ".yml", ".feather"}
VIDEOS = {".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"}
"""Suffixes of files that people name as a source by mistake."""

IMAGE_BYTES_PER_PIXEL = 0.6
"""What a pixel of a stored image takes, a generous estimate: 0.26 on 16 photos at the default quality."""


def find_manifest(path: str | Path, options: LabelOptions) -> Manifest | None:
    """The manifest that a user names as a source; None for another source.

    Raises :class:`UsageError` for options that a manifest settles itself.
    """
    if not is_manifest(path):
        return None
    if options.name != LabelOptions.name or options.root is not None:
        raise UsageError(f"{path} is a manifest, and says itself what its sources are called and where they are")
    if options.exclude:
        raise UsageError(f"{path} is a manifest, and lists what to label: say --exclude to `depthsieve scan`")
    if options.frames is not None:
        raise UsageError(
            f"{path} is a manifest, and lists which frames to label: say {options.frames.option} to `depthsieve scan`"
        )
    return open_manifest(path)


def what_it_is(path: str) -> str | None:
    """What a file is that was named as a source by mistake, and what to do; None where nobody knows."""
    suffix = PurePath(path).suffix.lower()
    if suffix in TABLES:
        return "is a table, not an image; a list of images is a text file with a path on each line, called .txt"
    if suffix in VIDEOS:
        return f"is {A_VIDEO}"
    if suffix == ".parquet" and not is_url(path):
        with contextlib.suppress(OSError, pa.ArrowException):
            if set(IMAGES_SCHEMA.names) <= set(pq.read_schema(path).names):
                return (
                    "looks like a manifest of `depthsieve scan` that has lost its metadata, as when another program "
                    "wrote it again; keep the schema's metadata when you write it, or scan again"
                )
    return None


def find_store(root: Root) -> Store | None:
    """The store at ``root``, or None if there is none yet."""
    try:
        return open_store(root)
    except StoreNotFound:
        return None


def check_source(source: Source, root: Root, store: Store | None, moved: bool) -> None:
    """Raise unless ``source`` may be labelled into the store at ``root``: apart from it, and under its own name."""
    here, images = _parts(root.location if root.path is None else root.path.resolve()), _parts(source.root)
    inside = here[: len(images)] == images and not source.is_one_file
    if inside or images[: len(here)] == here:
        raise UsageError(
            f"the store {root.location} and the images {source.root} may not lie inside each other; name another store"
        )
    known = store.sources().get(source.name) if store is not None else None
    if known is not None and known != source.root and not moved:
        raise SourceError(
            f"the store knows source {source.name!r} as {known}, not {source.root}; give the new folder its own "
            "--name, or say --moved if the same images now lie there"
        )


def _parts(location: str | Path) -> tuple[str, ...]:
    return (
        tuple(location.rstrip("/").split("/"))
        if isinstance(location, str) and is_url(location)
        else Path(location).parts
    )


def has_moved(store: Store, sources: Sequence[Source], scan: Scan) -> bool:
    """Whether a source lies under another root than the store knows.

    Raises :class:`SourceError` where none of the images that the store knows are there.
    """
    known = store.sources()
    moved = [source for source in sources if known.get(source.name, source.root) != source.root]
    if moved and not scan.tally.known + scan.tally.changed:
        name, root = moved[0].name, moved[0].root
        raise SourceError(f"none of the images of source {name!r} lie in {root}; is it the right folder?")
    return bool(moved)


def check_gone(source: Source, scan: Scan, options: LabelOptions) -> None:
    """Raise :class:`SourceError` where so many images are gone that it looks like a disk that is not there."""
    gone, there = scan.tally.gone, scan.tally.known + scan.tally.changed
    if gone > there and not options.prune_most:
        raise SourceError(
            f"{gone} of the {gone + there} images that the store knows of source {source.name!r} are not in "
            f"{source.root}; is the disk there? If they are gone for good, say --prune-most"
        )


def pixel_bytes(options: LabelOptions, encoding: str) -> float:
    """What a pixel takes on disk, on the large side."""
    signals = len(options.signal_names) if options.keep_signals else 0
    images = IMAGE_BYTES_PER_PIXEL if options.store_images else 0.0
    return encoding_of(encoding).pixel_bytes + signals * KEPT_BYTES_PER_PIXEL + images


def check_space(root: Root, pixels: int, images: int, pixel: float) -> None:
    """Raise :class:`RunError` where labels of so many pixels, each of ``pixel`` bytes, will not fit."""
    needed, free = int(pixels * pixel), root.free_bytes()
    if free is not None and needed > free:
        raise RunError(
            f"{root.location}: {images} labels take about {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; "
            "make room or name a store on another disk"
        )


def signals_notes(store: Store, options: LabelOptions, left_open: bool, todo: int) -> Iterator[str]:
    """What a user should know of signals that are not calibrated, and of kept ones; ``todo`` shards are left.
    ``left_open``: signals are kept, or not, as the store does it."""
    if todo and store.spec.calibration.endswith(UNCALIBRATED):
        yield (
            f"reliability from signals {', '.join(store.spec.signals)} is not calibrated: it orders the pixels of an "
            "image, but its codes are no expected errors and do not compare with other stores"
        )
    if not options.keep_signals or (left_open and not todo):
        return
    if left_open:
        yield "signals are kept, as this store does: --no-keep-signals leaves them out"
    if without := _shards_without(store, SIGNALS):
        yield (
            f"{without} of the shards were labelled without --keep-signals and stay without; `depthsieve recalibrate` "
            "skips them (for all of them, label into a new store)"
        )


def images_notes(store: Store, options: LabelOptions, left_open: bool, todo: int) -> Iterator[str]:
    """What a user should know of stored images; ``todo`` shards are left. ``left_open``: images are stored, or not, as
    the store does it."""
    if not options.store_images:
        return
    if left_open and todo:
        yield "images are stored too, as this store does: --no-store-images leaves them out"
    if (left_open or options.part is not None) and (without := _shards_without(store, IMAGES)):
        alone = " without --part" if options.part is not None else ""
        yield f"{without} of the committed shards have no stored images; `label --store-images`{alone} adds them"


def metric_notes(store: Store, options: LabelOptions, left_open: bool) -> Iterator[str]:
    """What a user should know of labels without a scale to metres. ``left_open``: they get one as the store does it."""
    if (left_open or options.part is not None) and (without := _shards_without(store, METRIC)):
        alone = " without --part" if options.part is not None else ""
        yield (
            f"{without} of the committed shards have no scale to metres; `label --metric-from {options.metric_from}`"
            f"{alone} adds it"
        )


def _shards_without(store: Store, name: str) -> int:
    """How many committed shards a layer does not have; all of them where there is no layer."""
    layer = find_layer(store.root, name, store.fingerprint)
    return len(store.committed() - (layer.shards() if layer else set()))
