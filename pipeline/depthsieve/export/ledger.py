"""What an output folder knows of itself, in ``OUT/.depthsieve``: what was asked for, where images go, what is done.

    .depthsieve/export.json                  target, options, the store's fingerprint
    .depthsieve/round-0000.parquet           a row an image: id, path, part; a round more each time the store has grown
    .depthsieve/part-0000-000000.json        what was written of a part of a round; written last
    .depthsieve/done.json                    all is there, and the files that were written at the end
    .depthsieve/tmp/                         files in flight

Files are written to ``tmp/`` and renamed. A part without its record is written again, to the same bytes.
"""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depthsieve.core.errors import RunError, UsageError
from depthsieve.export.photos import PhotoFile
from depthsieve.export.settings import Link

FOLDER = ".depthsieve"
FORMAT = 1
_ASKED = "export.json"

_SCHEMA = pa.schema([("id", pa.string()), ("path", pa.string()), ("part", pa.int32())])


@dataclass(frozen=True, slots=True)
class Part:
    """Images that are written, and recorded, together: ``number`` counts the parts of a ``round``. Ids and paths."""

    round: int
    number: int
    images: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """What its record is called."""
        return f"part-{self.round:04d}-{self.number:06d}"


def parts_of(number: int, images: Iterable[tuple[str, str]], parts: Iterable[int]) -> list[Part]:
    """The parts of a round, by its images, ids and paths, and the number of the part that each is in."""
    found: dict[int, list[tuple[str, str]]] = {}
    for image, part in zip(images, parts, strict=True):
        found.setdefault(part, []).append(image)
    return [Part(number, part, tuple(members)) for part, members in sorted(found.items())]


def without_replaced(rounds: Sequence[Sequence[Part]]) -> list[list[Part]]:
    """The parts of each round but those that a later round has anew: a clip that has grown is written again, whole."""
    later: set[str] = set()
    kept: list[list[Part]] = []
    for parts in reversed(rounds):
        kept.insert(0, [part for part in parts if part.images[0][0] not in later])
        later.update(image_id for part in parts for image_id, _ in part.images)
    return kept


def exported_for(out: Path) -> str | None:
    """The target that a folder was exported for, as it says itself; None where it says nothing that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        body = json.loads((out / FOLDER / _ASKED).read_bytes())
        if isinstance(body, dict) and isinstance(body.get("target"), str):
            return str(body["target"])
    return None


class Ledger:
    """The record of one output folder. Threads may write files at once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._folder = out / FOLDER
        self._count = 0
        self._lock = threading.Lock()
        self._held: Any = None

    def open(self, asked: Mapping[str, Any]) -> None:
        """Make the folder for what is ``asked``, or go on with one that was made for the same.

        Raises :class:`UsageError` where the folder holds anything else, and :class:`RunError` where it cannot be
        written, or another process writes it.
        """
        self.check(asked)
        with _told(self.out):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._take()
            if self.check(asked):
                self._empty()
            shutil.rmtree(self._folder / "tmp", ignore_errors=True)
            (self._folder / "tmp").mkdir()
            if not (self._folder / _ASKED).exists():
                self.write_json(_ASKED, {"format": FORMAT, **asked})

    def check(self, asked: Mapping[str, Any]) -> bool:
        """Whether the folder is of an export with other options that has no image, so that this one may take it over.

        Raises :class:`UsageError` where the folder holds what was not ``asked`` for. Writes nothing.
        """
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out} is a file; name a new folder")
        known = self._read(_ASKED)
        if known is None:
            found = [one.name for one in (self.out.iterdir() if self.out.is_dir() else ()) if one.name != FOLDER]
            if found:
                raise UsageError(
                    f"{self.out} is not empty, and no export that can be resumed ({sorted(found)[0]!r} is in it); name "
                    "a new folder"
                )
            return False
        if known.pop("format", None) != FORMAT:
            raise UsageError(f"{self.out} was written by another version of depthsieve; name a new folder")
        changed = [name for name in {**known, **asked} if known.get(name) != asked.get(name)]
        if changed and not self._has_no_image():
            listed = ", ".join(_difference(name, known.get(name), asked.get(name)) for name in changed)
            raise UsageError(f"{self.out} was exported {listed}; export into another folder, or remove it")
        return bool(changed)

    def _has_no_image(self) -> bool:
        """Whether all that was begun is recorded, and no image of it was written."""
        records = (self._read(f"{part.name}.json") for parts in self.rounds() for part in parts)
        return all(record is not None and not record["images"] for record in records)

    def _empty(self) -> None:
        """Remove what an export without any image has written."""
        for path in (self._read("done.json") or {"files": {}})["files"]:
            (self.out / path).unlink(missing_ok=True)
        for path in self._folder.iterdir():
            if path.name != "lock" and not path.is_dir():
                path.unlink()

    def _take(self) -> None:
        """Hold the folder until :meth:`close`: a lock that ends with the process."""
        with contextlib.suppress(ImportError):
            import fcntl  # which some systems do not have

            self._held = (self._folder / "lock").open("w")
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._held.close()
                raise RunError(f"another process exports into {self.out}; wait until it is done") from None
            except OSError:  # a file system without locks
                pass

    def close(self) -> None:
        """Let others have the folder."""
        shutil.rmtree(self._folder / "tmp", ignore_errors=True)
        if self._held is not None:
            self._held.close()

    def rounds(self) -> list[list[Part]]:
        """The parts of each round."""
        found: list[list[Part]] = []
        while (path := self._folder / f"round-{len(found):04d}.parquet").exists():
            table = pq.read_table(path)
            ids, places, parts = (table[name].to_pylist() for name in _SCHEMA.names)
            found.append(parts_of(len(found), [*zip(ids, places, strict=True)], parts))
        return without_replaced(found)

    def add_round(self, number: int, images: Sequence[tuple[str, str]], parts: Sequence[int]) -> list[Part]:
        """A new round of these images, ids and paths in order, and the number of each one's part, written before any of
        them is exported."""
        ids, paths = ([image[side] for image in images] for side in (0, 1))
        table = pa.table([ids, paths, parts], schema=_SCHEMA)
        with self._renamed(self._folder / f"round-{number:04d}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return parts_of(number, images, parts)

    def record(self, part: Part) -> dict[str, Any]:
        """What was written of a part; nothing where its record is not there."""
        return self._read(f"{part.name}.json") or {"images": [], "failed": [], "volume": {}}

    def write_json(self, name: str, body: Mapping[str, Any]) -> None:
        """Write a record."""
        data = json.dumps(body, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
        with self._renamed(self._folder / name) as temporary:
            temporary.write_bytes(data)

    def done(self) -> dict[str, Any] | None:
        """What was written at the end; None where something is left to do, or a file of it is not there."""
        body = self._read("done.json")
        return body if body is not None and self.has(body["files"]) else None

    def undo(self) -> None:
        """There is something left to do."""
        with contextlib.suppress(FileNotFoundError):
            (self._folder / "done.json").unlink()

    def has(self, files: Mapping[str, int]) -> bool:
        """Whether files are there, of these sizes."""
        for path, size in files.items():
            try:
                if (self.out / path).stat().st_size != size:
                    return False
            except OSError:
                return False
        return True

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            body: dict[str, Any] = json.loads((self._folder / name).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self._folder / name} cannot be read ({error}); export into a new folder") from error
        return body

    def write(self, path: str, content: bytes | PhotoFile, link: Link = "copy") -> int:
        """Write a file of the folder, or link to it; returns its size."""
        target = self.out / path
        with self._renamed(target) as temporary:
            original = content.original if isinstance(content, PhotoFile) else None
            data = content.data if isinstance(content, PhotoFile) else content
            if original is None or link == "copy":
                temporary.write_bytes(data)
            elif link == "symlink":
                temporary.symlink_to(original)
            else:
                try:
                    os.link(original.resolve(), temporary)
                except OSError as error:
                    raise RunError(
                        f"{original} cannot be linked from {self.out} ({error.strerror}): a hard link needs one file "
                        "system for both; say --link symlink, or leave --link out to copy"
                    ) from error
        return len(data)

    @contextlib.contextmanager
    def volume(self, path: str) -> Iterator[Path]:
        """A place for a file to be written to; it is renamed to ``path`` at the end."""
        target = self.out / path
        with self._renamed(target) as temporary:
            yield temporary

    @contextlib.contextmanager
    def _renamed(self, target: Path) -> Iterator[Path]:
        with self._lock:
            self._count += 1
            temporary = self._folder / "tmp" / f"{self._count}{target.suffix[:20]}"
        try:
            with _told(target):
                yield temporary
                try:
                    temporary.replace(target)
                except FileNotFoundError:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    temporary.replace(target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system says of a file that cannot be written, as one line."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def _difference(name: str, was: Any, now: Any) -> str:
    """How an option of an earlier export differs from that of this one."""
    if was is None:
        return f"without {name}, not with {name} {now}"
    return f"with {name} {was}, not {'without' if now is None else now}"


def free_bytes(out: Path) -> int:
    """What is free where a folder is, or will be."""
    there = out
    while not there.exists() and there != there.parent:
        there = there.parent
    return shutil.disk_usage(there).free


def all_ids(rounds: Iterable[Sequence[Part]]) -> Iterator[tuple[str, str]]:
    """Ids and paths of all images of some rounds."""
    return (image for parts in rounds for part in parts for image in part.images)
