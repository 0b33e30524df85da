"""Maps in files: which is an image's, and what is in it. A folder of any tool's files, or an export of depthsieve.

Input is hostile. Axes: H row, W column.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import IMAGE_FAULTS, GroundTruthError, ImageRejected, SourceError, UsageError
from depthsieve.core.records import LabelSpec, Quantity, RejectedImage
from depthsieve.evaluation.ground_truth.folder import listed_files, read_values
from depthsieve.evaluation.ground_truth.hdf5 import dataset_in, opened
from depthsieve.evaluation.ground_truth.names import FileNames, paths_of
from depthsieve.evaluation.ground_truth.readers import one_map
from depthsieve.evaluation.ground_truth.settings import ANY_FOLDER, SUFFIXES
from depthsieve.export.codecs import png_text
from depthsieve.export.ledger import exported_for
from depthsieve.export.metric_codes import decode_log
from depthsieve.jobs.importing.settings import PlaceSettings, ValueSettings, settings_in
from depthsieve.jobs.importing.values import RawMap
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.sources import Listed
from depthsieve.sources.folder import FolderSource
from depthsieve.sources.ids import decode_path, encode_path
from depthsieve.storage import expand, is_url

FILES, EXPORT = "files", "depthsieve export"
"""The two formats."""

QUANTITIES = get_args(Quantity)

READABLE = ("png", "npy", "npz", "hdf5", "exr")
"""The targets of ``depthsieve export`` whose folders say all that an import needs."""

INDICES = ("depth.json", "index.json")
"""What ``depthsieve export`` calls the list of what it wrote."""

_SOURCE = "maps"
_ANY_SCALE = 1.0
"""For readers that refuse whole numbers without a scale, of maps that need none."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where an image's map is within the folder of maps, and its confidence map if it has one."""

    map: str
    confidence: str | None = None


class Maps(Protocol):
    """Maps of depth below ``location``."""

    location: str

    def find(self, image_id: str) -> Where | None:
        """Where the map of an image is; None without one. Raises :class:`ImageRejected` where its confidence map is
        not there, and :class:`SourceError` where there are two."""

    def looked_for(self, image_id: str) -> str:
        """In words, where :meth:`find` looks."""

    def places(self) -> Iterable[str]:
        """The maps that are there, confidence maps too, sorted."""

    def state(self, where: Where) -> tuple[int, int]:
        """Bytes and time of the files: unless these change, nothing has. Raises :class:`ImageRejected`."""

    def load(self, where: Where) -> RawMap:
        """The map. Raises :class:`ImageRejected` for what is none, and :class:`OSError`."""


@dataclass(frozen=True)
class Opened:
    """Maps, what they hold, the settings that count for them, and their format; ``code_version`` is that of the label
    spec which their reliability codes are of, or will be."""

    maps: Maps
    quantity: Quantity
    values: ValueSettings
    format: str
    code_version: int = CODE_VERSION


def open_maps(location: str | Path, quantity: Quantity | None, places: PlaceSettings, values: ValueSettings) -> Opened:
    """The maps at a user's path. Raises :class:`SourceError`, and :class:`UsageError` for what is not told or told in
    vain."""
    if is_url(location):
        raise SourceError(f"{location}: maps are read from this machine's disks; copy them to a folder")
    root = Path(os.path.realpath(expand(location)))
    if not root.is_dir():
        raise SourceError(f"{location}: no such folder of maps")
    export = None if places.pattern is not None else find_export(root)
    if export is None:
        if quantity is None:
            _check_no_export(root)
            raise UsageError(
                "say what the maps hold with --quantity: depth (metres, larger is farther) or disparity (inverse depth "
                "up to scale and shift, larger is nearer)"
            )
        if (places.confidence is None) != (values.confidence_means is None):
            raise UsageError(
                "--confidence, where the confidence maps are, and --confidence-means, what they hold, go together"
            )
        if values.distance_to_depth is not None and quantity != "depth":
            raise UsageError(f"distance_to_depth is for maps of depth, not of {quantity}")
        return Opened(FolderMaps(root, places, values, quantity), quantity, values, FILES)
    told = [name for name in values.to_json() if name not in ("made_by", "max_value")]
    told += [name for name in ("confidence", "replace", "strip") if getattr(places, name)]
    if quantity not in (None, export.quantity) or told:
        raise UsageError(
            f"{root} is an export of depthsieve, which says itself that it holds {export.quantity}, in which unit, and "
            f"how reliable it is; leave out {'--quantity' if not told else '--' + told[0].replace('_', '-')} (or name "
            "its files with --pattern)"
        )
    values = dataclasses.replace(values, confidence_means="code")
    return Opened(export, export.quantity, values, EXPORT, export.code_version)


def reopen_maps(location: str, spec: LabelSpec) -> Maps:
    """The maps that a store was made of, to read those that its plan names. Raises :class:`SourceError`."""
    values, made_of = settings_in(spec)
    if not Path(location).is_dir():
        raise SourceError(f"its maps are not at {location}")
    if made_of == FILES:
        return FolderMaps(Path(location), PlaceSettings(), values, spec.quantity)
    export = find_export(Path(location))
    if export is None:
        raise SourceError(f"{location} is no export of depthsieve any more")
    return export


class FolderMaps:
    """A file an image, below ``root``. Suffixes are those of ground truth."""

    def __init__(self, root: Path, places: PlaceSettings, values: ValueSettings, quantity: Quantity) -> None:
        self.location = str(root)
        self._places, self._values, self._quantity = places, values, quantity
        # Whole numbers are metres in no format; of disparity, which has no unit, nobody need say what they are.
        self._scale = values.scale if quantity == "depth" else values.scale or _ANY_SCALE
        self._reader = FolderSource(_SOURCE, self.location)

    @functools.cached_property
    def _files(self) -> FileNames:
        others: Counter[str] = Counter()
        try:
            files = FileNames(listed_files(self.location, others))
        except GroundTruthError as error:
            raise SourceError(str(error)) from error
        if not len(files):
            there = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(3))
            raise SourceError(
                f"{self.location} holds no map: no {', '.join(SUFFIXES)} file in it"
                + (f", but {there}: convert to one of these" if there else "")
            )
        return files

    def find(self, image_id: str) -> Where | None:
        """See :class:`Maps`."""
        found = [file for path in self._candidates(image_id) for file in self._files.find(path)]
        if not found:
            return None
        self._check_one(image_id, found, "maps", "--pattern")
        if self._places.confidence is None:
            return Where(encode_path(found[0]))
        (path,) = paths_of(image_id, self._places.confidences, self._places.confidences.patterns, ())
        beside = self._files.find(path)
        if not beside:
            raise ImageRejected(f"its confidence map {_shown(path)} is not there")
        self._check_one(image_id, beside, "confidence maps", "--confidence")
        return Where(encode_path(found[0]), encode_path(beside[0]))

    def _check_one(self, image_id: str, found: list[str], what: str, option: str) -> None:
        if len(found) > 1:
            first, second = (encode_path(path) for path in found[:2])
            raise SourceError(
                f"{image_id} has two {what} in {self.location}, {first} and {second}; say which with {option}, such as "
                "'{dir}/{stem}" + Path(first).suffix + "'"
            )

    def looked_for(self, image_id: str) -> str:
        """See :class:`Maps`."""
        paths = [_shown(path) for path in self._candidates(image_id)]
        return paths[0] + "".join(f"|{Path(path).suffix}" for path in paths[1:])

    def places(self) -> Iterable[str]:
        """See :class:`Maps`."""
        return [encode_path(path) for path in self._files.all()]

    def state(self, where: Where) -> tuple[int, int]:
        """See :class:`Maps`."""
        return _state(self._reader, (where.map, *([where.confidence] if where.confidence is not None else [])))

    def load(self, where: Where) -> RawMap:
        """See :class:`Maps`."""
        values = self._values
        digest = hashlib.sha256()
        data = _bytes(self._reader, where.map)
        digest.update(data)
        values_HW = self._read_map(data, where.map)
        confidence_HW = None
        if where.confidence is not None:
            data = _bytes(self._reader, where.confidence)
            digest.update(data)
            confidence_HW = _read(
                "confidence map", data, where.confidence, _ANY_SCALE, values.confidence_dataset, (8, 16)
            )
            if confidence_HW.shape != values_HW.shape:
                sizes = " and its confidence map ".join(
                    f"{width}x{height}" for height, width in (values_HW.shape, confidence_HW.shape)
                )
                raise ImageRejected(f"its map is {sizes}")
        return RawMap(values_HW, confidence_HW, digest.hexdigest())

    def _read_map(self, data: bytes, place: str) -> NDArray[Any]:
        """Values as they are stored, but for those that are logarithmic, which become depth in the file's own unit."""
        texts: Mapping[str, str] = {}
        if place.lower().endswith(".png"):
            with contextlib.suppress(ValueError):  # whoever reads its pixels says what is damaged
                texts = png_text(data)
        if "depthsieve:scale" in texts:
            raise ImageRejected(
                f"its map {place}: it has a scale of its own, as `depthsieve export` writes it; name the folder that "
                f"holds {INDICES[0]}"
            )
        if not {"near", "far"} <= texts.keys():
            return _read("map", data, place, self._scale, self._values.dataset, (16,))
        near, far = (_number(texts[name]) for name in ("near", "far"))
        if not 0 < near < far or self._quantity != "depth":
            raise ImageRejected(
                f"its map {place} is depth, logarithmic between a near and a far of its own ({texts['near'][:20]} and "
                f"{texts['far'][:20]}), as MoGe writes it: that is --quantity depth, and far is more than near"
            )
        return decode_log(_read("map", data, place, _ANY_SCALE, None, (16,)), near, far)

    def _candidates(self, image_id: str) -> list[str]:
        return paths_of(image_id, self._places.maps, self._places.maps.patterns, SUFFIXES)


def find_export(root: Path) -> "ExportMaps | None":
    """What ``depthsieve export`` wrote there; None where it did not. Raises :class:`SourceError` for an index that is
    damaged."""
    for name in INDICES:
        try:
            body = json.loads((root / name).read_bytes())
        except FileNotFoundError:
            continue
        except (ValueError, RecursionError, OSError) as error:
            raise SourceError(f"{root / name} is not whole, so this is no export to import: {error}") from error
        if isinstance(body, dict) and isinstance(body.get("images"), list) and body.get("quantity") in QUANTITIES:
            return ExportMaps(root, body)
    return None


def _check_no_export(root: Path) -> None:
    """Raise :class:`SourceError` for an export that does not say what an import needs."""
    target = exported_for(root)
    if target is None:
        return
    if target in READABLE:
        raise SourceError(
            f"{root} is an export of depthsieve for {target} that is not finished: it has no {' or '.join(INDICES)}; "
            "run that export again, it resumes"
        )
    raise SourceError(
        f"{root} is an export of depthsieve for {target}, which cannot be imported; exports for {', '.join(READABLE)} "
        "can (if it holds depth maps that import reads, say what they are with --quantity, --scale and --pattern)"
    )


class ExportMaps:
    """What ``depthsieve export`` wrote for one of :data:`READABLE` below ``root``. A place is an id."""

    def __init__(self, root: Path, index: Mapping[str, Any]) -> None:
        self.location = str(root)
        self.quantity: Quantity = index["quantity"]
        self.code_version = int(index.get("code_version", 1))
        rows = (row for row in index["images"] if isinstance(row, dict))
        self._rows = {row["id"]: row for row in rows if isinstance(row.get("id"), str)}
        self._reader = FolderSource(_SOURCE, self.location)

    @functools.cached_property
    def _volumes(self) -> dict[str, str]:
        """The file that has each group of an HDF5 export."""
        found: dict[str, str] = {}
        for path in sorted(Path(self.location).glob("labels-*.h5")):
            with opened(path) as file:
                groups = (row["group"] for row in self._rows.values() if isinstance(row.get("group"), str))
                found |= {group: path.name for group in groups if group in file}
        return found

    def find(self, image_id: str) -> Where | None:
        """See :class:`Maps`."""
        return Where(image_id) if image_id in self._rows else None

    def looked_for(self, image_id: str) -> str:
        """See :class:`Maps`."""
        return f"the id {image_id}"

    def places(self) -> Iterable[str]:
        """See :class:`Maps`."""
        return sorted(self._rows)

    def state(self, where: Where) -> tuple[int, int]:
        """See :class:`Maps`."""
        return _state(self._reader, self._files(where.map))

    def load(self, where: Where) -> RawMap:
        """See :class:`Maps`."""
        row, files = self._row(where.map), self._files(where.map)
        try:
            if "group" in row:
                maps = [self._from_volume(files[0], f"{row['group']}/{name}") for name in ("depth", "reliability")]
            elif "labels" in row:
                data = _bytes(self._reader, files[0])
                maps = [read_values(data, files[0], _ANY_SCALE, name) for name in ("depth", "reliability")]
            elif "channels" in row:
                data = _bytes(self._reader, files[0])
                maps = [read_values(data, files[0], _ANY_SCALE, name) for name in (None, "reliability")]
                maps[1] = np.where(np.isin(maps[1], np.arange(256)), maps[1], 0).astype(np.uint8)
            else:
                maps = [read_values(_bytes(self._reader, one), one, _ANY_SCALE, None, (8, 16)) for one in files]
            values_HW, codes_HW = maps
            if "scale" in row:
                known_HW = values_HW > 0
                values_HW = float(row["offset"]) + float(row["scale"]) * values_HW.astype(np.float64)
                values_HW = np.where(known_HW, values_HW, np.nan)
        except (GroundTruthError, KeyError, TypeError, ValueError) as error:
            raise ImageRejected(f"its map in {self.location}: {error}") from error
        if values_HW.shape != codes_HW.shape:
            raise ImageRejected(f"its map in {self.location} and its reliability differ in size")
        digest = hashlib.sha256(np.ascontiguousarray(values_HW).tobytes())
        digest.update(np.ascontiguousarray(codes_HW).tobytes())
        return RawMap(values_HW, codes_HW, digest.hexdigest())

    def _row(self, image_id: str) -> Mapping[str, Any]:
        if image_id not in self._rows:
            raise ImageRejected(f"it is no longer in {self.location}")
        row: Mapping[str, Any] = self._rows[image_id]
        return row

    def _files(self, image_id: str) -> tuple[str, ...]:
        row = self._row(image_id)
        try:
            if "group" in row:
                return (encode_path(self._volumes[row["group"]]),)
            one = next((name for name in ("labels", "channels") if name in row), None)
            return tuple(encode_path(str(row[name])) for name in ((one,) if one else ("depth", "reliability")))
        except (KeyError, TypeError, GroundTruthError) as error:
            raise ImageRejected(f"its map in {self.location} is not there: {error}") from error

    def _from_volume(self, name: str, dataset: str) -> NDArray[Any]:
        with opened(Path(self.location, os.fsdecode(decode_path(name)))) as file:
            held = dataset_in(file, dataset)
            return np.asarray(held[()]).reshape(one_map(held.shape, held.dtype, _ANY_SCALE))


def _state(reader: FolderSource, places: Iterable[str]) -> tuple[int, int]:
    found = [reader.now(Listed(f"{_SOURCE}/{place}", 0, 0)) for place in places]
    for one in found:
        if isinstance(one, RejectedImage):
            raise ImageRejected(f"its map {one.id.partition('/')[2]}: {one.reason}")
    return sum(one.size for one in found), max(one.mtime_ns for one in found)


def _bytes(reader: FolderSource, place: str) -> bytes:
    try:
        return reader.read(f"{_SOURCE}/{place}")
    except SourceError as error:
        raise ImageRejected(f"its map {place} is a link that leads out of the folder of maps") from error
    except OSError as error:
        if error.errno not in IMAGE_FAULTS:
            raise
        raise ImageRejected(f"its map {place} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _read(
    what: str, data: bytes, place: str, scale: float | None, dataset: str | None, bits: tuple[int, ...]
) -> NDArray[Any]:
    try:
        return read_values(data, place, scale, dataset, bits)
    except GroundTruthError as error:
        raise ImageRejected(f"its {what} {place}: {error}") from error


def _number(text: str) -> float:
    """A finite number that a text holds; NaN for any other text."""
    with contextlib.suppress(ValueError):
        return float(text) if math.isfinite(float(text)) else math.nan
    return math.nan


def _shown(path: str) -> str:
    return encode_path(path.replace(ANY_FOLDER, "*"))
