"""Which process this is, which cores it may use, and whether another one still lives."""

import contextlib
import functools
import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
