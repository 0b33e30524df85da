"""Files that are whole or absent: atomic and exclusive writes, digests, the lock of a store."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from depthsieve.errors import StoreBusy

NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def sha256_of(path: Path) -> str:
    """Lower-case hex sha256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def scratch_name(folder: Path, stem: str) -> Path:
    """A path under ``folder`` that no other attempt uses."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{stem}-{uuid.uuid4().hex[:12]}"


def write_atomic(path: Path, data: bytes, scratch: Path) -> None:
    """Replace ``path`` by ``data`` in one step, flushed to the disk. ``scratch`` is on the same file system."""
    with _written(path.name, data, scratch) as temporary:
        temporary.replace(path)
    sync(path.parent)


def write_exclusive(path: Path, data: bytes, scratch: Path) -> bool:
    """Create ``path`` with ``data``, whole, if it does not exist yet; False if it does.

    A hard link of a finished file fails when the name is taken, so that no reader ever sees half a record. File systems
    without hard links (exFAT, some network disks) get an exclusive create, which a crash can leave torn.
    """
    with _written(path.name, data, scratch) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            if not _create_exclusive(path, data):
                return False
    sync(path.parent)
    return True


def _create_exclusive(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def _written(stem: str, data: bytes, scratch: Path) -> Iterator[Path]:
    temporary = scratch_name(scratch, stem)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def store_lock(path: Path) -> Iterator[None]:
    """Hold the one lock of a store while labelling. The kernel frees it when the holder dies, however it dies.

    Raises :class:`StoreBusy` naming the holder.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = _holder(file.read())
            raise StoreBusy(f"{path.parent} is being labelled by {holder}; wait until it has ended") from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(text: str) -> str:
    try:
        body = json.loads(text)
        return f"process {body['pid']} on {body['host']}"
    except (ValueError, TypeError, KeyError):
        return "another process"
