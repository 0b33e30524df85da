"""Arrays of remote shards, whole, in a local folder of bounded size that several processes share.

Each entry is a folder named by what it holds and its bytes. It is fetched under another name, which names the process
that does so, checked against the shard's record, and renamed; so it is there whole or not at all. The entry that is
needed farthest in the future is evicted first, as far as the processes that share the folder know it (Belady's rule). A
reader whose entry was evicted meanwhile fetches it again.

Locks are files, held by the kernel for as long as their holder lives: none outlives a process that was killed.
"""

import contextlib
import hashlib
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthsieve.core.errors import StoreDamaged, StoreError, UsageError
from depthsieve.core.processes import Process, is_alive
from depthsieve.core.records import MEND
from depthsieve.storage import Root

FOLDER, BYTES = "DEPTHSIEVE_CACHE", "DEPTHSIEVE_CACHE_BYTES"
"""Variables of the environment that name another folder and another bound."""
DEFAULT_BYTES = 32 * 10**9
PIECE_BYTES = 16 * 1024 * 1024
STALE_S = 24 * 3600.0
"""Age at which what another machine's process was fetching counts as stale."""

_ENTRY = re.compile(r"([0-9a-f]{32})-(\d+)(?:\.([0-9a-f]{12}-\d+-\d+))?")
_ORDER = "order."
_LOCKS = 64


@dataclass(frozen=True)
class RemoteArray:
    """One array of a shard: the folder ``key`` below ``root``, and bytes and sha256 of the files in it."""

    root: Root
    key: str
    files: Mapping[str, tuple[int, bytes]]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for size, _ in self.files.values())

    @property
    def entry(self) -> str:
        """Its name in a cache: another for other bytes."""
        digests = "".join(f"{name} {sha256.hex()}\n" for name, (_, sha256) in sorted(self.files.items()))
        digest = hashlib.sha256(f"{self.root.location}\n{self.key}\n{digests}".encode()).hexdigest()
        return f"{digest[:32]}-{self.bytes}"


class ShardCache:
    """A folder of entries, of at most ``most`` bytes. Threads and processes may share it; it can be pickled.

    ``next_use`` returns after how many uses this process needs an entry again; None where it does not know.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self.next_use: Callable[[str], int | None] = _unknown

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardCache, (self.folder, self.most)

    @classmethod
    def of_environment(cls) -> "ShardCache":
        """The one of this user. Raises :class:`UsageError` where a variable of the environment is invalid."""
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = Path(os.environ.get(FOLDER) or f"{base}/depthsieve/shards").expanduser().absolute()
        most = os.environ.get(BYTES, "")
        try:
            return cls(folder, int(float(most)) if most else DEFAULT_BYTES)
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{BYTES} must be a number of bytes, such as 2e10, not {most!r}") from error

    def get(self, array: RemoteArray, uses_ahead: int = 0) -> Path | None:
        """Where an array is on the disk, fetched if need be; None where there is no room for it.

        One that is needed only ``uses_ahead`` from now takes no room of what is needed sooner. Raises
        :class:`StoreDamaged` for one that is not what its record says, :class:`OSError` where it cannot be read, and
        :class:`StoreError` where the folder cannot be written.
        """
        place = self.folder / array.entry
        if _touch(place):
            return place
        try:
            with _local():
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked(f"lock-{int(array.entry[:8], 16) % _LOCKS}"):
                if _touch(place):
                    return place
                reserved = self._reserve(array, uses_ahead)
                if reserved is None:
                    return None
                try:
                    _fetch(array, reserved)
                    with _local():
                        reserved.rename(place)
                finally:
                    shutil.rmtree(reserved, ignore_errors=True)
        except _LocalError as error:
            reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error.__cause__
            raise StoreError(f"cannot write to the cache {self.folder} ({reason}); name another by {FOLDER}") from error
        return place

    def drop(self, array: RemoteArray) -> None:
        """Forget an entry: it is damaged."""
        self._evict(array.entry)

    def tell(self, upcoming: Iterable[tuple[str, int]]) -> None:
        """Tell the other processes which entries this one needs, and after how many uses."""
        lines = "".join(f"{entry} {uses}\n" for entry, uses in upcoming)
        name = f"{_ORDER}{Process.current().token}"
        with contextlib.suppress(OSError):  # they do without
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if lines:
                (self.folder / f"new-{name}").write_text(lines)
                (self.folder / f"new-{name}").replace(self.folder / name)
            else:
                (self.folder / name).unlink(missing_ok=True)

    def _reserve(self, array: RemoteArray, uses_ahead: int) -> Path | None:
        """A new folder to fetch into, whose bytes count from now on."""
        with _local(), self._locked("lock"):
            ready, used = self._look()
            free = shutil.disk_usage(self.folder).free
            excess = max(used + array.bytes - self.most, array.bytes - free)
            victims = sorted(ready, key=lambda one: (ready[one][0], -ready[one][1]), reverse=True) if excess > 0 else []
            chosen = []
            for victim in victims:
                if excess <= 0 or ready[victim][0] <= uses_ahead > 0:
                    break
                chosen.append(victim)
                excess -= _bytes_of(victim)
            if excess > 0:
                return None
            for victim in chosen:
                self._evict(victim)
            reserved = self.folder / f"{array.entry}.{Process.current().token}"
            shutil.rmtree(reserved, ignore_errors=True)
            reserved.mkdir()
            return reserved

    def _look(self) -> tuple[dict[str, tuple[float, float]], int]:
        """Of each entry after how many uses it is needed and when it was used last; and the bytes that are taken. What
        dead processes left is removed."""
        uses: dict[str, float] = {}
        ready, used = [], 0
        for name in os.listdir(self.folder):  # noqa: PTH208 - names are enough
            found = _ENTRY.fullmatch(name)
            if found is None:
                if name.startswith(_ORDER):
                    self._read_order(name, uses)
                continue
            if found[3] and self._is_left(name, found[3]):
                shutil.rmtree(self.folder / name, ignore_errors=True)
                continue
            used += int(found[2])
            if not found[3]:
                ready.append(name)
        for name in ready:
            own = self.next_use(name)
            uses[name] = min(uses.get(name, math.inf), math.inf if own is None else own)
        return {name: (uses[name], _touched(self.folder / name)) for name in ready}, used

    def _read_order(self, name: str, uses: dict[str, float]) -> None:
        token = name.removeprefix(_ORDER)
        if token == Process.current().token:
            return  # next_use knows more
        if self._is_left(name, token):
            (self.folder / name).unlink(missing_ok=True)
            return
        with contextlib.suppress(OSError, ValueError):
            for line in (self.folder / name).read_text().splitlines():
                entry, _, after = line.partition(" ")
                uses[entry] = min(uses.get(entry, math.inf), int(after))

    def _is_left(self, name: str, token: str) -> bool:
        alive = is_alive(token)
        return alive is False or (alive is None and time.time() - _touched(self.folder / name) > STALE_S)

    def _evict(self, entry: str) -> None:
        """It is renamed first, to a name that counts as left behind where this process dies meanwhile."""
        going = self.folder / f"{entry}.{Process.current().token}"
        with contextlib.suppress(OSError):  # gone already
            (self.folder / entry).rename(going)
            shutil.rmtree(going, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        import fcntl  # which some systems do not have, that read local stores all the same

        with _local():
            handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


class _LocalError(Exception):
    """The cache's own folder cannot be written."""


@contextlib.contextmanager
def _local() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _LocalError from error


def _fetch(array: RemoteArray, folder: Path) -> None:
    """Fetch all files of an array, a piece at a time, and compare them with their record."""
    for name, (size, sha256) in array.files.items():
        key, digest = f"{array.key}/{name}", hashlib.sha256()
        with _local():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            file = (folder / name).open("xb")
        with file:
            for start in range(0, size, PIECE_BYTES):
                try:
                    data = array.root.read_range(key, start, min(PIECE_BYTES, size - start))
                except FileNotFoundError:
                    raise StoreDamaged(f"{array.root.location}/{key} is missing; {MEND}") from None
                digest.update(data)
                with _local():
                    file.write(data)
        if digest.digest() != sha256:
            raise StoreDamaged(f"{array.root.location}/{key} does not fit its digest; {MEND}")


def _touch(place: Path) -> bool:
    """Whether an entry is there; it then counts as used now."""
    try:
        os.utime(place)
    except FileNotFoundError:
        return False
    except OSError:  # a cache that can only be read
        return place.is_dir()
    return True


def _touched(place: Path) -> float:
    with contextlib.suppress(OSError):
        return place.stat().st_mtime
    return 0.0


def _bytes_of(entry: str) -> int:
    return int(entry.partition("-")[2])


def _unknown(entry: str) -> int | None:
    return None
