"""Which process this is, which cores it may use, and whether another one still lives."""

import contextlib
import functools
import hashlib
import math
import os
import posixpath
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: those that it may run on, or fewer where the CPU quota of its container, or of
    another control group, is less; a part of a core counts as one. ``root`` has the folders ``proc`` and ``sys``."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *(math.ceil(quota) for quota in _cpu_quotas(root))])


def _cpu_quotas(root: Path) -> Iterator[float]:
    """The CPU quotas that hold for this process, in cores: of its control groups and those above, where they have one.

    A container may see its own group at the top of the tree, and its place in the host's tree as its path; then only
    the top is there.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers or "cpu" in controllers.split(","):
            group = posixpath.normpath(f"/{path}").strip("/")
            mounts = ("cpu", controllers) if controllers else ("", "unified")
            for top in (root / "sys/fs/cgroup" / mount for mount in mounts):
                for folder in (top / group, *(top / group).parents):
                    if folder.is_relative_to(top):
                        yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """The quota of one control group, of version 2 or 1; nothing where it has none."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            if int(quota) > 0:  # -1 in version 1: none
                yield int(quota) / int(period)


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told apart from all others: ``machine`` is a digest of host, boot and namespace of process ids, and
    ``started`` when it began, so that neither a reboot nor a used-again ``pid`` is taken for it."""

    host: str
    machine: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def token(self) -> str:
        """A short name for it that is valid in file names."""
        return f"{self.machine}-{self.pid}-{self.started}"

    @classmethod
    def current(cls) -> "Process":
        """This process."""
        return cls(socket.gethostname(), _machine(), os.getpid(), started_at(os.getpid()) or 0)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Process":
        """The process that ``dataclasses.asdict`` wrote. Raises :class:`KeyError`, :class:`TypeError`."""
        return cls(str(body["host"]), str(body["machine"]), int(body["pid"]), int(body["started"]))


def is_alive(token: str) -> bool | None:
    """Whether the process of a :attr:`Process.token` lives; None where that cannot be told from here: another machine,
    or text that is no token."""
    machine, _, rest = token.partition("-")
    pid, _, started = rest.partition("-")
    if machine != _machine() or not (pid.isdecimal() and started.isdecimal()):
        return None
    return started_at(int(pid)) == int(started)


def started_at(pid: int) -> int | None:
    """When a process of this machine began, in the kernel's ticks (0 where the system does not tell); None if there is
    none. One that has ended and was not waited for counts as none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        with contextlib.suppress(ProcessLookupError):  # a system without /proc
            with contextlib.suppress(PermissionError):
                os.kill(pid, 0)
            return 0
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


@functools.cache
def _machine() -> str:
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
