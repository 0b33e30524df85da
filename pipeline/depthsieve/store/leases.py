"""Leases: which process works on what in a store. Advice, not safety: what is committed is safe without them.

A lease is a file ``leases/<name>.<k>.json`` that is created exclusively and names its holder. It is taken over from a
holder that has died by creating the one of ``k + 1``, so of several that try just one gets it, and ``k`` counts the
holders that died while they held it. A holder on this machine is known to be dead at once; one on another machine when
its heartbeat, ``leases/alive-<process>``, has not been renewed for :data:`STALE_S`, by the clock of the store's own
disk or server. The heartbeat says since when its process has been working.
"""

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from depthsieve.core.errors import StoreBusy
from depthsieve.core.processes import Process, is_alive
from depthsieve.core.records import canonical_json
from depthsieve.core.stopping import Stop
from depthsieve.core.waiting import waiting
from depthsieve.storage import Root
from depthsieve.storage.together import together

FOLDER = "leases"
RENEW_S = 15.0
STALE_S = 120.0
SIGN_S = 1.0
"""Seconds between two looks for a sign of life."""

_SIGN = "alive-"

PLAN = "plan"
"""Held by the one process that may add generations."""

INDEX = "index"
"""Held by the one process that writes the index after labelling."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Something that this process holds. ``deaths`` counts the holders before it that died."""

    name: str
    deaths: int


class Leases:
    """The leases that this process takes of one store. A context manager: its heartbeat is renewed within it."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._me = Process.current()
        self._sign = _sign_key(self._me.token)
        self._since = b""
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None

    def __enter__(self) -> "Leases":
        self._since = f"{time.time():.3f}".encode()
        self._root.write(self._sign, self._since)
        self._remove_old_signs()
        self._renewing = threading.Thread(target=self._renew, name="depthsieve-leases", daemon=True)
        self._renewing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()
        with contextlib.suppress(OSError):
            self._root.remove(self._sign)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with contextlib.suppress(OSError):  # a full disk: others may take us for dead, and do work twice
                self._root.write(self._sign, self._since)

    def _remove_old_signs(self) -> None:
        """Those of processes that died without a lease, which nobody takes over."""
        for name in self._root.names(FOLDER):
            token = name.removeprefix(_SIGN)
            if token != name and self._is_gone(token):
                self._root.remove(_sign_key(token))

    def forget(self, is_settled: Callable[[str], bool]) -> None:
        """Remove dead holders' leases on what is settled, such as a worker's that outlived its driver."""
        for left in left_leases(self._root):
            if not left.alive and left.name and left.name != PLAN and is_settled(left.name):
                self._root.remove(left.key)

    def take(self, name: str) -> Lease | Process:
        """The lease, or the process that holds it. Raises :class:`OSError` where the store cannot be written."""
        body = canonical_json({"holder": dataclasses.asdict(self._me)}).encode()
        deaths = 0
        while not self._root.create(_key(name, deaths), body, lasting=False):
            try:
                holder = Process.from_json(json.loads(self._root.read(_key(name, deaths)))["holder"])
            except FileNotFoundError:  # released just now
                continue
            except (ValueError, KeyError, TypeError):  # damaged: its holder is unknown
                holder = None
            if holder is not None:
                if not self._is_gone(holder.token):
                    return holder
                self._root.remove(_sign_key(holder.token))
            deaths += 1
        return Lease(name, deaths)

    def take_or_raise(self, name: str) -> Lease:
        """The lease. Raises :class:`StoreBusy` naming its holder, once that has given a sign of life."""
        while isinstance(taken := self.take(name), Process):
            if not self.outlived(taken):
                raise StoreBusy(f"{self._root.location} is being labelled by {taken}; wait until it has ended")
        return taken

    def outlived(self, holder: Process, stop: Stop | None = None) -> bool:
        """Whether the holder of a lease is gone: waits until it gives a sign of life, or its leases expire.

        That of a process on this machine is known at once. Once a ``stop`` is requested the answer is False.
        """
        if is_alive(holder.token) is not None:
            return self._is_gone(holder.token)
        first = self._root.entry(_sign_key(holder.token))
        ends = f"goes on in {{left}}, or ends once {holder} gives one"
        with waiting(f"a sign of life of {holder}, which has leases on this store", ends, limit_s=STALE_S + RENEW_S):
            while first is not None and not self._is_gone(holder.token):
                sign = self._root.entry(_sign_key(holder.token))
                if sign is not None and sign.modified != first.modified:
                    return False
                if (stop or Stop()).wait(SIGN_S):
                    return False
        return True

    def give_back(self, lease: Lease, settled: bool) -> None:
        """Release a lease. ``settled``: nobody will want it again, so the deaths before it are forgotten too."""
        for number in range(lease.deaths, -1 if settled else lease.deaths - 1, -1):
            self._root.remove(_key(lease.name, number))

    def _is_gone(self, token: str) -> bool:
        alive = is_alive(token)
        if alive is not None:
            return not alive
        sign, mine = self._root.entry(_sign_key(token)), self._root.entry(self._sign)
        return sign is None or (mine is not None and mine.modified - sign.modified > STALE_S)


@dataclass(frozen=True, slots=True)
class Left:
    """A lease found in a store: of what, its holder if that can be read, and whether that is alive."""

    key: str
    name: str
    holder: Process | None
    alive: bool


def left_leases(root: Root) -> list[Left]:
    """All leases, and heartbeats of dead processes. Nothing is written: the age of another machine's heartbeat is
    measured by this machine's clock."""
    names = root.names(FOLDER)
    tokens = [name.removeprefix(_SIGN) for name in names if name.startswith(_SIGN)]
    held = together(root, [partial(_left, root, name) for name in names if not name.startswith(_SIGN)])
    dead = [token for token in tokens if not _seems_alive(root, token)]
    return [*held, *(Left(_sign_key(token), "", None, False) for token in dead)]


def _left(root: Root, name: str) -> Left:
    key, holder = f"{FOLDER}/{name}", None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        holder = Process.from_json(json.loads(root.read(key))["holder"])
    return Left(key, name.rsplit(".", 2)[0], holder, holder is not None and _seems_alive(root, holder.token))


def at_work_since(root: Root, token: str) -> float | None:
    """When a process began to work in a store, by its own clock; None where its heartbeat does not say."""
    try:
        return float(root.read(_sign_key(token)))
    except (OSError, ValueError):
        return None


def _seems_alive(root: Root, token: str) -> bool:
    alive = is_alive(token)
    if alive is None:
        sign = root.entry(_sign_key(token))
        return sign is not None and time.time() - sign.modified < STALE_S
    return alive


def _key(name: str, number: int) -> str:
    return f"{FOLDER}/{name}.{number}.json"


def _sign_key(token: str) -> str:
    return f"{FOLDER}/{_SIGN}{token}"
