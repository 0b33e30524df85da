"""A root that is a folder: flush and rename, exclusive creation by hard link, scratch below ``tmp/``."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from depthsieve.core.processes import Process, is_alive
from depthsieve.storage.protocol import Entry

NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""EXDEV: file systems that link within one folder only, such as AFS."""

SCRATCH = "tmp"

_OWNER = re.compile(r"\.([0-9a-f]{12}-\d+-\d+)$")

STALE_S = 24 * 3600.0
"""Age at which scratch of another machine, whose processes cannot be seen from here, counts as stale."""


class LocalRoot:
    """See :class:`~depthsieve.storage.protocol.Root`."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self._path = path
        self.location = str(path)

    def __repr__(self) -> str:
        return f"LocalRoot({self.location!r})"

    def read(self, key: str) -> bytes:
        return (self._path / key).read_bytes()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        with (self._path / key).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def entry(self, key: str) -> Entry | None:
        try:
            status = (self._path / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(key, status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None

    def names(self, folder: str, after: str = "") -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self._path / folder) if name > after)  # noqa: PTH208 - Path objects for 250,000 names take seconds
        return []

    def entries(self, folder: str) -> Iterator[Entry]:
        waiting = [folder]
        while waiting:
            below = waiting.pop()
            try:
                listed = os.scandir(self._path / below)
            except FileNotFoundError:
                continue
            with listed:
                for found in listed:
                    key = f"{below}/{found.name}" if below else found.name
                    if found.is_dir(follow_symlinks=False):
                        waiting.append(key)
                        continue
                    with contextlib.suppress(FileNotFoundError):  # gone since
                        status = found.stat(follow_symlinks=False)
                        yield Entry(key, status.st_size, status.st_mtime)

    def write(self, key: str, data: bytes) -> None:
        target = self._target(key)
        with self._written(target.name, data) as temporary:
            temporary.replace(target)
        sync(target.parent)

    def create(self, key: str, data: bytes, lasting: bool = True) -> bool:
        """A hard link of a finished file fails when the name is taken, so that no reader ever sees half a record. File
        systems without hard links (exFAT, some network disks) get an exclusive create, which a crash can leave torn.

        Over NFS the answer to a call that succeeded may be lost, and the call that is sent again fails: then the file
        has its second name all the same (see *O_EXCL* in open(2)).
        """
        target = self._target(key)
        with self._written(target.name, data, lasting) as temporary:
            try:
                target.hardlink_to(temporary)
            except FileExistsError:
                if _links(temporary) < 2:
                    return False
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                if not _create_exclusive(target, data):
                    return False
        if lasting:
            sync(target.parent)
        return True

    @contextlib.contextmanager
    def scratch(self, stem: str) -> Iterator[Path]:
        attempt = self._scratch_name(stem)
        try:
            yield attempt
        finally:
            shutil.rmtree(attempt, ignore_errors=True)

    def publish(self, folder: Path, key: str, listed: Mapping[str, Mapping[str, Any]]) -> None:
        final = self._target(key)
        if final.is_dir():
            self._make_whole(folder, final, listed)
        else:
            folder.rename(final)
            sync(final.parent)

    def _make_whole(self, folder: Path, final: Path, listed: Mapping[str, Mapping[str, Any]]) -> None:
        """File by file, so that at no moment less can be read than before."""
        there = list_folder(final)
        for name, file in listed.items():
            if there.get(name) != file:
                (final / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).replace(final / name)
        for name in set(there) - set(listed):
            (final / name).unlink()
        if there != listed:
            sync_folder(final)

    def remove(self, key: str) -> None:
        (self._path / key).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        shutil.rmtree(self._path / folder, ignore_errors=True)

    def prepare(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        probe = self._scratch_name("probe")
        probe.touch()
        probe.unlink()

    def clear_scratch(self) -> None:
        """Each is renamed first: a worker that outlived its run has moved its group away already, or will fail to."""
        for name in self.left_scratch():
            with contextlib.suppress(FileNotFoundError):
                trash = self._scratch_name("trash")
                (self._path / SCRATCH / name).rename(trash)
                if trash.is_dir():
                    shutil.rmtree(trash, ignore_errors=True)
                else:
                    trash.unlink(missing_ok=True)

    def left_scratch(self) -> list[str]:
        left = []
        for name in self.names(SCRATCH):
            owner = _OWNER.search(name)
            alive = is_alive(owner[1]) if owner else False
            with contextlib.suppress(FileNotFoundError):
                age = time.time() - (self._path / SCRATCH / name).stat().st_mtime
                if alive is False or (alive is None and age > STALE_S):
                    left.append(name)
        return left

    def zarr(self, key: str) -> Any:
        return self._path / key

    def free_bytes(self) -> int | None:
        above = next(folder for folder in (self._path, *self._path.parents) if folder.exists())
        return shutil.disk_usage(above).free

    def _target(self, key: str) -> Path:
        target = self._path / key
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _scratch_name(self, stem: str) -> Path:
        """A path below ``tmp`` that no other attempt uses and that names its process."""
        folder = self._path / SCRATCH
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{stem}-{uuid.uuid4().hex[:12]}.{Process.current().token}"

    @contextlib.contextmanager
    def _written(self, stem: str, data: bytes, lasting: bool = True) -> Iterator[Path]:
        temporary = self._scratch_name(stem)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def list_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file below a folder: its sha256 and its size in bytes, by ``/``-separated path below it."""
    listed = {}
    for where, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = Path(where, name)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            listed[path.relative_to(folder).as_posix()] = {"sha256": digest, "bytes": path.stat().st_size}
    return listed


def sync_folder(folder: Path) -> None:
    """Flush every file and folder below ``folder``, and itself, to the disk."""
    for where, _, names in os.walk(folder):
        for name in names:
            sync(Path(where, name))
        sync(Path(where))


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _links(path: Path) -> int:
    """How many names a file has. It is opened for that: an NFS client then asks the server, not its own cache."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_nlink


def _create_exclusive(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True
