"""The worker side of the Ray runner: the actor's class, and what its death says about the shard it was working on."""

import os
import pickle
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import ActorDiedError, RayError, WorkerCrashedError

from depthsieve.core.errors import DepthsieveError
from depthsieve.core.records import LabelJob, ShardResult
from depthsieve.core.stopping import Abandoned, Stop
from depthsieve.core.version import __version__
from depthsieve.core.waiting import WAITS, Waited
from depthsieve.labelling.isolation import label_isolated
from depthsieve.labelling.shard import ShardLabeller, Watch
from depthsieve.runners.ledger import Death
from depthsieve.runners.ray_session import one_line
from depthsieve.store import open_store

INNOCENT = ("NODE_OUT_OF_MEMORY", "INTENDED_SYSTEM_EXIT", "SIGTERM")
"""What Ray says of a worker process whose end had nothing to do with what it was doing."""

CUT_OFF = ("its owner has died", "all references to the actor were removed")
"""What Ray says of an actor whose owner, the driver, it takes for dead; the driver that reads it lives."""

NODE_ID = re.compile(r" Node Id: [0-9a-f]{56}")
"""Which tells a user nothing; the address does."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a worker answers when it is asked to get ready: where it is, and what the user must fix, if anything."""

    where: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How a worker stands: where it is, images done so far of each shard in flight, what it waits for, and the shards
    that are labelled and on their way to the store. One whose counts change is alive, however slow."""

    where: str
    images: dict[str, int]
    waits: tuple[Waited, ...]
    sending: frozenset[str] = frozenset()


class RayWorker:
    """An actor: the labeller with its teacher, loaded once; one that isolates starts processes of its own instead.

    One shard is labelled at a time, in a thread, while others may be committed; :meth:`stop` and :meth:`report` are
     answered meanwhile.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which stops its workers
        self._work: Callable[[str], ShardResult] | None = None
        self._images: dict[str, int] = {}
        self._sending: set[str] = set()
        self._stop = Stop()

    def prepare(self, version: str, pickled_job: bytes, roots: tuple[str, ...], isolates: bool) -> Readiness:
        """Check that this process can do the job, and load the teacher unless it isolates.

        ``version`` is the driver's; the job is pickled, since another version might not be able to read it. ``roots``
        are those of sources that the driver sees.
        """
        where = _here()
        if version != __version__:
            return Readiness(where, f"it has depthsieve {__version__}, this run {version}; give every node the same")
        job: LabelJob = pickle.loads(pickled_job)
        try:
            if open_store(job.store).fingerprint != job.fingerprint:
                return Readiness(where, f"{job.store} is another store there than here; share one between all nodes")
            for root in roots:
                if not holds_something(root):
                    return Readiness(where, f"it does not see the images in {root}; mount them there, at the same path")
            if isolates:
                self._work = partial(label_isolated, job, stop=self._stop)
            else:
                self._work = ShardLabeller(
                    job, watch=Watch(self._images.__setitem__, self._stop, sends=self._sending.add)
                )
        except (DepthsieveError, OSError) as error:
            return Readiness(where, one_line(error))
        return Readiness(where)

    def label(self, shard_id: str) -> ShardResult | None:
        """Label one shard; None if a stop came before it started, or the grace period was over."""
        assert self._work is not None
        try:
            return self._work(shard_id)
        except Abandoned:
            return None
        finally:
            self._images.pop(shard_id, None)
            self._sending.discard(shard_id)

    def stop(self, seconds: float) -> None:
        """Start no other shard, and give those in flight so many seconds."""
        self._stop.grace_s = seconds
        self._stop.request()

    def report(self) -> Report:
        """How it stands; also answered while it gets ready."""
        return Report(_here(), self._images.copy(), WAITS.report(), frozenset(self._sending.copy()))


def _here() -> str:
    return f"node {ray.util.get_node_ip_address()}, process {os.getpid()}"


def holds_something(root: str) -> bool:
    """Whether a source's root is there; False also for an empty folder, as a disk that is not mounted leaves it."""
    path = Path(root)
    try:
        return any(path.iterdir()) if path.is_dir() else path.exists()
    except OSError:
        return False


def death_of(error: RayError) -> Death:
    """What the error of an actor's call says about its end.

    A process that ends by a signal or an exit code may have been killed by what it was working on. Innocent: the node
    is gone, was pre-empted or drained, the machine ran out of memory and Ray chose this worker to kill, or it got a
    SIGTERM, as from a scheduler.
    """
    if isinstance(error, WorkerCrashedError):
        return Death(one_line(error), blames=True)
    if not isinstance(error, ActorDiedError):
        return Death(one_line(error), blames=False)
    text = NODE_ID.sub("", " ".join(str(error).split()).partition(" Some common causes")[0])
    head, _, cause = text.partition(" The actor ")  # the first words are "The actor died unexpectedly"
    ip = head.rpartition(" ip: ")[2] if " ip: " in head else "unknown"
    reason = cause.partition(" Worker exit detail: ")[2] or f"The actor {cause}"
    innocent = error.preempted or any(word in cause for word in INNOCENT)
    return Death(f"{reason} (node {ip})", blames="its worker process has died" in cause and not innocent)


def is_cut_off(error: RayError) -> bool:
    """Whether an actor ended because the cluster takes the process that started it for dead, which asks here."""
    return isinstance(error, ActorDiedError) and any(words in str(error) for words in CUT_OFF)


def misfit(error: RayError) -> Death:
    """The death of a worker that cannot load this depthsieve."""
    reason = f"a Ray worker cannot load depthsieve {__version__}: {one_line(error)}; give every node the same version"
    return Death(reason, blames=False)
