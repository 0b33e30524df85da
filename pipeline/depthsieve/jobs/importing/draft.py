"""Which maps belong to which images, what of that a store does not have yet, and the rows of its plan.

Memory grows with the number of images: about a kilobyte each.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.core.progress import progress_bar
from depthsieve.core.records import ImageFailure, RejectedImage, Shape
from depthsieve.core.tables import IMAGES_SCHEMA, PLAN_SCHEMA
from depthsieve.jobs.importing.maps import FILES, Maps, Opened, Where
from depthsieve.jobs.importing.settings import PlaceSettings
from depthsieve.jobs.importing.values import to_label
from depthsieve.planning.sharding import cut_shards
from depthsieve.sources import Source
from depthsieve.sources.scan import Scan
from depthsieve.store import Store
from depthsieve.store.plan import MAPS_SCHEMA
from depthsieve.store.standing import standing

SAME_ASPECT = 0.02
"""By what share the aspects of a map and its photo may differ, beyond :data:`ROUNDED` and :data:`MOST_ROUNDED`."""

ROUNDED, MOST_ROUNDED = 16, 0.1
"""By so many pixels a side of a map may be off, but not by more than this share of it: models round sides to multiples
of up to 32."""

_PLANNED = [name for name in PLAN_SCHEMA.names if name not in ("shard", "row")]
_TABLE = pa.schema([*(PLAN_SCHEMA.field(name) for name in _PLANNED), *MAPS_SCHEMA])


@dataclass
class ImportDraft:
    """What a new generation of an imported store would hold.

    ``rows`` are those of its plan, without shards; ``rejected`` are images whose map or photo is no good, with the
    reason, where the store does not know that yet. ``paired`` counts all images that have a map. ``without_map`` are
    images without a map, ``unused`` maps without an image. ``zeros`` counts maps that hold 0 where they are valid,
    ``largest`` pixels of the largest value of their type (see :class:`ImportedLabel`) and ``largest_in`` their maps.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[RejectedImage] = field(default_factory=list)
    paired: int = 0
    without_map: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    zeros: int = 0
    largest: int = 0
    largest_in: int = 0

    @property
    def pixels(self) -> int:
        """Pixels of label in its rows."""
        return sum(row["label_height"] * row["label_width"] for row in self.rows)

    @property
    def failures(self) -> tuple[ImageFailure, ...]:
        """The rejected images."""
        return tuple(ImageFailure(one.id, one.reason) for one in self.rejected)

    def tables(self, generation: int, shard_size: int) -> Iterator[pa.Table]:
        """The rows of the plan, in order, each table of whole shards."""
        rows = sorted(self.rows, key=lambda row: (row["label_height"], row["label_width"], row["id"]))
        if rows:
            for table in cut_shards([pa.Table.from_pylist(rows, schema=_TABLE)], generation, shard_size):
                yield table.select([*PLAN_SCHEMA.names, *MAPS_SCHEMA.names])


def draft_import(
    scan: Scan,
    source: Source,
    opened: Opened,
    places: PlaceSettings,
    store: Store | None,
    threads: int,
    progress: bool,
) -> ImportDraft:
    """Match images and maps, and read every map that the ``store`` does not have, to know its shape and its digest.

    Raises :class:`SourceError` for two images with one map, an image with two, or no image with any.
    """
    draft = ImportDraft()
    known = _known(store) if store is not None else {}
    refused = dict(standing(store).rejected) if store is not None else {}
    todo, used = [], _Used()
    photos: set[str] = set()
    for table in scan.rejected():
        for row in table.to_pylist():
            if _find(opened.maps, row["id"], used) == (None, None):
                draft.without_map.append(row["id"])
            else:
                draft.paired += 1
                _reject(draft, refused, row, row["reason"])
    for table in scan.images():
        for row in table.select(IMAGES_SCHEMA.names).to_pylist():
            photos.add(row["id"].partition("/")[2])
            where, reason = _find(opened.maps, row["id"], used)
            if reason is not None:
                draft.paired += 1
                _reject(draft, refused, row, reason)
            elif where is None:
                draft.without_map.append(row["id"])
            else:
                draft.paired += 1
                if not _is_same_file(source, opened.maps, row["id"], where):
                    todo.append((row, where))
                else:
                    _reject(
                        draft,
                        refused,
                        row,
                        "it is its own map, one and the same file; say with --pattern where maps are",
                    )
    draft.without_map.sort()
    if not draft.paired:
        raise SourceError(_nothing(opened.maps, source, draft.without_map))
    images = photos if source.root == opened.maps.location else set()
    draft.unused = [place for place in opened.maps.places() if place not in used.places and place not in images]
    look = _Look(opened, places, source, store, known)
    with (
        ThreadPoolExecutor(threads) as pool,
        progress_bar("read maps", total=len(todo), shown=progress and bool(todo)) as bar,
    ):
        for row, (found, zeros, largest) in zip(todo, pool.map(lambda one: look(*one), todo), strict=True):
            if isinstance(found, str):
                _reject(draft, refused, row[0], found)
            elif found is not None:
                draft.rows.append(found)
                draft.zeros += zeros > 0
                draft.largest += largest
                draft.largest_in += largest > 0
            bar.update()
    return draft


@dataclass
class _Used:
    """The maps that images have, by their owners."""

    owner: dict[str, str] = field(default_factory=dict)
    places: set[str] = field(default_factory=set)

    def add(self, image_id: str, where: Where) -> None:
        if where.map in self.owner:
            raise SourceError(
                f"{self.owner[where.map]} and {image_id} have the same map, {where.map}; tell them apart with "
                "--pattern, by {source}, {dir} or {name}"
            )
        self.owner[where.map] = image_id
        self.places |= {where.map, *([where.confidence] if where.confidence is not None else [])}


def _find(maps: Maps, image_id: str, used: _Used) -> tuple[Where | None, str | None]:
    """Where the map of an image is, or why what is there is no good."""
    try:
        where = maps.find(image_id)
    except ImageRejected as error:
        return None, str(error)
    if where is not None:
        used.add(image_id, where)
    return where, None


def _reject(draft: ImportDraft, refused: Mapping[str, str], row: Mapping[str, Any], reason: str) -> None:
    if refused.get(row["id"]) != reason:
        draft.rejected.append(RejectedImage(row["id"], row["size"], row["mtime_ns"], reason))


def _is_same_file(source: Source, maps: Maps, image_id: str, where: Where) -> bool:
    return source.root == maps.location and image_id.partition("/")[2] == where.map


@dataclass(frozen=True)
class _Known:
    """An image as the newest plan has it."""

    where: Where
    state: tuple[int, int]
    sha256: str
    photo: tuple[int, int]


def _known(store: Store) -> dict[str, _Known]:
    found: dict[str, _Known] = {}
    for generation in store.generations():
        for table in store.read_plan(generation, ["id", "size", "mtime_ns", *MAPS_SCHEMA.names]):
            for row in table.to_pylist():
                found[row["id"]] = _Known(
                    Where(row["map"], row["confidence"]),
                    (row["map_size"], row["map_mtime_ns"]),
                    row["map_sha256"],
                    (row["size"], row["mtime_ns"]),
                )
    return found


@dataclass(frozen=True)
class _Look:
    """Looks at one image and its map: a row of the plan, the reason why there is none, or None where the store has it;
    and how many pixels hold 0 where they are valid, and the largest value of their type."""

    opened: Opened
    places: PlaceSettings
    source: Source
    store: Store | None
    known: Mapping[str, _Known]

    def __call__(self, row: dict[str, Any], where: Where) -> tuple[dict[str, Any] | str | None, int, int]:
        before = self.known.get(row["id"])
        try:
            size, mtime_ns = self.opened.maps.state(where)
            same = before is not None and before.where == where and before.photo == (row["size"], row["mtime_ns"])
            if before is not None and same and before.state == (size, mtime_ns):
                return None, 0, 0
            raw = self.opened.maps.load(where)
            if before is not None and before.sha256 == raw.sha256 and (same or self._same_photo(row["id"])):
                return None, 0, 0
            shape: Shape = (raw.values_HW.shape[0], raw.values_HW.shape[1])
            if not self.places.stretched and self.opened.format == FILES:  # an export is of whole labels
                check_aspect(shape, (row["height"], row["width"]))
            label = to_label(raw, self.opened.quantity, self.opened.values)
        except ImageRejected as error:
            return str(error), 0, 0
        planned = {
            "action": "add" if before is None else "replace",
            "label_height": shape[0],
            "label_width": shape[1],
            "map": where.map,
            "confidence": where.confidence,
            "map_size": size,
            "map_mtime_ns": mtime_ns,
            "map_sha256": raw.sha256,
        }
        return row | planned, label.zeros, label.largest

    def _same_photo(self, image_id: str) -> bool:
        """Whether the photo, whose size or time is another, is the one that the store knows."""
        if self.store is None or image_id not in self.store:
            return False
        label = self.store.label(image_id)
        digest = self.store.reader(label.shard).column("content_sha256")[label.row]
        try:
            return hashlib.sha256(self.source.read(image_id)).hexdigest() == str(digest)
        except (OSError, SourceError):
            return False


def check_aspect(map_shape: Shape, photo_shape: Shape) -> None:
    """Raise :class:`ImageRejected` where a map cannot cover its whole photo, upright."""
    if _same_aspect(map_shape, photo_shape):
        return
    sizes = "{1}x{0} and its photo {3}x{2}".format(*map_shape, *photo_shape)
    turned = _same_aspect(map_shape[::-1], photo_shape)
    why = "it lies on its side" if turned else "it shows another part, or is stretched"
    remedy = "turn it as the photo's EXIF orientation says" if turned else "--stretched takes it for the whole photo"
    raise ImageRejected(f"its map is {sizes}: {why}; {remedy}")


def _same_aspect(map_shape: Shape, photo_shape: Shape) -> bool:
    """Whether the aspects are alike, or would be if no side of the map were rounded."""
    height, width = map_shape
    height_off, width_off = (max(1, min(ROUNDED, MOST_ROUNDED * side)) for side in map_shape)
    wanted = photo_shape[1] / photo_shape[0]
    least, most = (width - width_off) / (height + height_off), (width + width_off) / max(height - height_off, 0.5)
    return least * (1 - SAME_ASPECT) <= wanted <= most * (1 + SAME_ASPECT)


def _nothing(maps: Maps, source: Source, without_map: list[str]) -> str:
    if not without_map:
        return f"no image in {source.shown}"
    there = next(iter(maps.places()), "nothing")
    return (
        f"no image of {source.shown} has a map in {maps.location}; for {without_map[0]} looked for "
        f"{maps.looked_for(without_map[0])}, and what is there begins with {there}; --replace, --strip and --pattern "
        "say how names differ"
    )
