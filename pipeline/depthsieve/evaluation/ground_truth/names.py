"""Which file is an image's: its path by the settings, and the files whose names are that path."""

import os
import unicodedata
from collections.abc import Iterable, Sequence

from depthsieve.evaluation.ground_truth.settings import ANY_FOLDER, TruthSettings, fill
from depthsieve.sources.ids import decode_path


def name_fields(image_id: str, settings: TruthSettings) -> dict[str, str]:
    """What ``{dir}``, ``{stem}``, ``{name}`` and ``{source}`` stand for, after ``strip`` and ``replace``; as
    ``os.fsdecode`` returns them. A member of a container has the container's path as its folder."""
    source, _, encoded = image_id.partition("/")
    decoded = (os.fsdecode(decode_path(part)).strip("/") for part in encoded.split("::"))
    *folders, name = "/".join(part for part in decoded if part).split("/")
    path = "/".join([*folders[settings.strip :], name])
    for old, new in settings.replace:
        path = path.replace(old, new)
    folder, _, name = path.rpartition("/")
    return {"dir": folder, "stem": name.rpartition(".")[0] or name, "name": name, "source": source}


def paths_of(image_id: str, settings: TruthSettings, patterns: Sequence[str], suffixes: Iterable[str]) -> list[str]:
    """Relative paths at which the file of an image may be: those of the patterns, or without any
    ``{dir}/{stem}`` with each of ``suffixes``."""
    fields = name_fields(image_id, settings)
    return [fill(each, fields) for each in patterns or [f"{{dir}}/{{stem}}{suffix}" for suffix in suffixes]]


class FileNames:
    """Files by their relative paths.

    The same letters may be composed or decomposed (macOS decomposes them), and a suffix may be in capitals: a name that
    is not there as it stands is looked for without these differences.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._by_key: dict[str, list[str]] = {}
        for path in sorted(self._paths):
            self._by_key.setdefault(file_key(path), []).append(path)
        self._by_shape: dict[tuple[int, tuple[int, ...]], dict[tuple[str, ...], list[str]]] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def all(self) -> list[str]:
        """Every path, sorted."""
        return sorted(self._paths)

    def find(self, path: str) -> list[str]:
        """The files that a filled pattern names; several where names differ in those ways only, or by ``*``."""
        if ANY_FOLDER in path:
            return self._find_anywhere(file_key(path).split("/"))
        return [path] if path in self._paths else self._by_key.get(file_key(path), [])

    def _find_anywhere(self, parts: list[str]) -> list[str]:
        """Files are looked up by the folders that are named, of all paths that are as deep."""
        anywhere = tuple(place for place, part in enumerate(parts) if part == ANY_FOLDER)
        shape = (len(parts), anywhere)
        if shape not in self._by_shape:
            table = self._by_shape[shape] = {}
            for key, paths in self._by_key.items():
                if key.count("/") + 1 == len(parts):
                    table.setdefault(_named(key.split("/"), anywhere), []).extend(paths)
        return self._by_shape[shape].get(_named(parts, anywhere), [])


def file_key(path: str) -> str:
    """A path with its letters composed and its suffix in small letters."""
    start, suffix = os.path.splitext(path)  # noqa: PTH122 (not a Path)
    return unicodedata.normalize("NFC", start) + suffix.lower()


def _named(parts: list[str], anywhere: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(part for place, part in enumerate(parts) if place not in anywhere)
