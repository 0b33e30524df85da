"""What a store needs of the place where its files are."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its key below the root, its bytes, and when it was last written, by the place's own clock (seconds)."""

    key: str
    size: int
    modified: float


class Root(Protocol):
    """A folder of files, on a disk or in an object store. Safe to use from several threads; can be pickled.

    What goes wrong is an :class:`OSError`: :class:`FileNotFoundError` for a key that is not there,
    :class:`PermissionError` for what may not be done. A key that does not end in a name is never given.
    """

    location: str
    """What messages show: an absolute path, or a URL without credentials."""

    path: Path | None
    """The folder, where it is one."""

    def read(self, key: str) -> bytes:
        """A whole file."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes of a file, at least one, from ``start`` on; fewer, or :class:`OSError`, where it ends."""

    def entry(self, key: str) -> Entry | None:
        """A file's size and age; None if there is none."""

    def names(self, folder: str, after: str = "") -> list[str]:
        """Names of files and folders directly in a folder, sorted; none if it is not there. Those up to ``after``, in
        the order of their bytes, are left out, and not even listed where that can be had."""

    def entries(self, folder: str) -> Iterator[Entry]:
        """All files below a folder (all of the root's for ""), in no certain order; none if it is not there."""

    def write(self, key: str, data: bytes) -> None:
        """Replace a file in one step, or make it. On return it lasts: a crash or a power cut does not lose it."""

    def create(self, key: str, data: bytes, lasting: bool = True) -> bool:
        """Make a file, whole and lasting, if there is none of that name; False, and nothing done, if there is.

        One that need not be ``lasting`` may be lost in a power cut.
        """

    def scratch(self, stem: str) -> AbstractContextManager[Path]:
        """A path on a local disk, unused, from which :meth:`publish` can take a folder; removed at the end."""

    def publish(self, folder: Path, key: str, listed: Mapping[str, Mapping[str, Any]]) -> None:
        """Bring a finished local folder, flushed already, to ``key``; ``listed`` has sha256 and bytes of each file.

        ``key`` is named by that content, so what is there already is the same, but may be torn: it is completed. A
        reader may see a part of it meanwhile; nothing names it before the commit record does.
        """

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""

    def remove_folder(self, folder: str) -> None:
        """Remove all files below a folder, and the folder."""

    def prepare(self) -> None:
        """See that files can be written here, and make the folder if it is one. Raises :class:`OSError`."""

    def clear_scratch(self) -> None:
        """Remove what attempts of dead processes left, and nothing else."""

    def left_scratch(self) -> list[str]:
        """Names, below ``tmp``, of what attempts of dead processes left."""

    def zarr(self, key: str) -> Any:
        """What ``zarr.open_array`` takes to read the array at ``key``."""

    def free_bytes(self) -> int | None:
        """Room that is left; None where there is no limit to be seen."""
