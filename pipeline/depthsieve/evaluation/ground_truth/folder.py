"""A folder of ground truth, one file per image. Input is hostile: names, links and what stands behind them."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import GroundTruthError, ImageRejected, SourceError
from depthsieve.evaluation.ground_truth.exr import read_exr
from depthsieve.evaluation.ground_truth.hdf5 import read_hdf5
from depthsieve.evaluation.ground_truth.names import FileNames, file_key, name_fields, paths_of
from depthsieve.evaluation.ground_truth.readers import read_mask, read_npy, read_npz, read_pfm, read_png
from depthsieve.evaluation.ground_truth.scales import settings_at
from depthsieve.evaluation.ground_truth.settings import ANY_FOLDER, SUFFIXES, TruthSettings, fill
from depthsieve.evaluation.ground_truth.times import NANOSECONDS, associate, timestamp
from depthsieve.evaluation.ground_truth.values import StereoCalibration, TruthMap, read_calibration, to_metres
from depthsieve.sources.folder import FolderSource
from depthsieve.sources.ids import decode_path, encode_path

_SOURCE = "truth"
_TIME = "\0"
"""Stands for the time in a path."""


class FolderTruth:
    """The files below ``root`` that end in one of ``SUFFIXES``; hidden ones are skipped, linked folders not entered."""

    def __init__(self, root: Path, settings: TruthSettings) -> None:
        self.location = str(root)
        self._settings = settings
        self._reader = FolderSource(_SOURCE, os.path.realpath(root))
        others: Counter[str] = Counter()
        self._files = FileNames(listed_files(self.location, others))
        self._calibrations: dict[str, StereoCalibration] = {}
        if not len(self._files):
            there = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(3))
            raise GroundTruthError(
                f"{self.location} holds no ground truth: no {', '.join(SUFFIXES)} file in it"
                + (f", but {there}: convert to one of these" if there else "")
            )

    def place(self, image_id: str) -> str | None:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        found = [file for path in self._candidates(image_id) for file in self._files.find(path)]
        self._check_one(image_id, found)
        return encode_path(found[0]) if found else None

    def looked_for(self, image_id: str) -> str:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        paths = [_shown(path) for path in self._candidates(image_id)]
        suffixes = "".join(f"|{os.path.splitext(path)[1]}" for path in paths[1:])  # noqa: PTH122 (not a Path)
        return paths[0] + suffixes

    def nearest(self, image_ids: Iterable[str]) -> dict[str, tuple[str, float]]:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`. A group of files is those whose paths
        differ in the time alone."""
        by_folder: dict[str, list[str]] = {}
        for path in self._files.all():
            by_folder.setdefault(file_key(path).rpartition("/")[0], []).append(path)
        groups: dict[str, list[tuple[int, str]]] = {}
        wanted = []
        for image_id in image_ids:
            for path, time in self._timed_candidates(image_id):
                wanted.append((image_id, time, path))
                if path not in groups:
                    groups[path] = _files_of_group(path, by_folder.get(path.rpartition("/")[0], []))
        chosen = associate(wanted, groups, round((self._settings.associate or 0) * NANOSECONDS))
        for image_id, (path, _) in chosen.items():
            start = os.path.splitext(path)[0]  # noqa: PTH122 (not a Path)
            suffixes = () if self._settings.patterns else SUFFIXES
            self._check_one(image_id, [file for suffix in suffixes for file in self._files.find(start + suffix)])
        return {image_id: (encode_path(path), apart / NANOSECONDS) for image_id, (path, apart) in chosen.items()}

    def places(self) -> Iterator[str]:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        return iter(sorted(encode_path(path) for path in self._files.all()))

    def mask_place(self, image_id: str) -> str | None:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        if self._settings.mask_pattern is None:
            return None
        (path,) = paths_of(image_id, self._settings, [self._settings.mask_pattern or ""], ())
        found = self._files.find(path)
        return encode_path(found[0]) if found else None

    def file(self, place: str) -> Path | None:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        return Path(self.location, os.fsdecode(decode_path(place)))

    def read(self, place: str, image_id: str) -> TruthMap:
        """See :class:`~depthsieve.evaluation.ground_truth.protocol.GroundTruth`."""
        settings = settings_at(self._settings, place)
        calibration = self._calibration(image_id) if settings.calib_pattern is not None else None
        values_HW = read_values(self._bytes(place), place, settings.scale, settings.dataset)
        truth = to_metres(values_HW, settings, calibration)
        if settings.mask_pattern is None:
            return truth
        valid_HW = self._mask(image_id)
        if valid_HW.shape != truth.metres_HW.shape:
            sizes = " and its mask ".join(
                f"{width}x{height}" for height, width in (truth.metres_HW.shape, valid_HW.shape)
            )
            raise GroundTruthError(f"it is {sizes}")
        return TruthMap(np.where(valid_HW, truth.metres_HW, np.float32(np.nan)), truth.largest)

    def _check_one(self, image_id: str, found: list[str]) -> None:
        if len(found) > 1:
            first, second = (encode_path(path) for path in found[:2])
            raise GroundTruthError(
                f"{image_id} has two ground truths in {self.location}, {first} and {second}; say which with "
                "--pattern, such as '{dir}/{stem}" + Path(first).suffix + "'"
            )

    def _mask(self, image_id: str) -> NDArray[np.bool_]:
        place = self.mask_place(image_id)
        if place is None:
            (path,) = paths_of(image_id, self._settings, [self._settings.mask_pattern or ""], ())
            raise GroundTruthError(f"its mask {_shown(path)} is not there")
        try:
            return read_mask(self._bytes(place), place)
        except GroundTruthError as error:
            raise GroundTruthError(f"its mask {place}: {error}") from error

    def _calibration(self, image_id: str) -> StereoCalibration:
        (path,) = paths_of(image_id, self._settings, [self._settings.calib_pattern or ""], ())
        place = encode_path(path)
        if place not in self._calibrations:
            try:
                self._calibrations[place] = read_calibration(self._bytes(place))
            except GroundTruthError as error:
                raise GroundTruthError(f"{place}: {error}") from error
        return self._calibrations[place]

    def _bytes(self, place: str) -> bytes:
        try:
            return self._reader.read(f"{_SOURCE}/{place}")
        except SourceError:
            raise GroundTruthError("a symbolic link that leads out of the folder of the ground truth") from None
        except (ImageRejected, OSError) as error:
            raise GroundTruthError(str(getattr(error, "strerror", None) or error)) from error

    def _candidates(self, image_id: str) -> list[str]:
        return paths_of(image_id, self._settings, self._settings.patterns, SUFFIXES)

    def _timed_candidates(self, image_id: str) -> Iterator[tuple[str, int]]:
        """Keys of the paths at which the map of an image may be, with ``_TIME`` for its time; none for a name without
        one."""
        fields = name_fields(image_id, self._settings)
        found = timestamp(fields["stem"])
        if found is not None:
            before, time = found
            stem = {**fields, "stem": before + _TIME}
            patterns = self._settings.patterns or ["{dir}/{stem}" + end for end in SUFFIXES]
            yield from ((file_key(fill(pattern, stem)), time) for pattern in patterns)


def _shown(path: str) -> str:
    return encode_path(path.replace(ANY_FOLDER, "*"))


def read_values(
    data: bytes, name: str, scale: float | None, dataset: str | None, png_bits: tuple[int, ...] = (16,)
) -> NDArray[Any]:
    """The values [H,W] of a file of that name, as they are stored. Raises :class:`GroundTruthError` for what is not one
    map of numbers."""
    suffix = name.lower()[name.rfind(".") :]
    if suffix == ".png":
        return read_png(data, scale, png_bits)
    if suffix in (".npy", ".pfm"):
        return (read_npy if suffix == ".npy" else read_pfm)(data, scale)
    named = {".npz": read_npz, ".exr": read_exr}
    return named.get(suffix, read_hdf5)(data, scale, dataset)


def _files_of_group(path: str, files: list[str]) -> list[tuple[int, str]]:
    """Time and path of the ``files`` of one folder whose paths are ``path`` with a time in it, sorted."""
    before, after = (re.escape(part) for part in path.split(_TIME))
    form = re.compile(rf"{before}(\d+(?:\.\d+)?){after}")
    found = ((form.fullmatch(file_key(file)), file) for file in files)
    timed = ((timestamp(match[1]), file) for match, file in found if match is not None)
    return sorted((time[1], file) for time, file in timed if time is not None)


def listed_files(root: str, others: Counter[str]) -> Iterator[str]:
    """Relative paths of all files that may be ground truth, ``/``-separated. Suffixes of others are counted."""

    def refuse(error: OSError) -> None:
        raise GroundTruthError(f"{error.filename!r} cannot be listed: {error.strerror}") from error

    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        within = os.path.relpath(folder, root)
        for name in names:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 (not a Path)
            if name.startswith("."):
                continue
            if suffix in SUFFIXES:
                yield name if within == "." else f"{within}/{name}"
            elif suffix:
                others[encode_path(suffix)] += 1
