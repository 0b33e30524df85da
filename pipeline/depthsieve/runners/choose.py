"""The one place that knows which runners there are. Another one is a module of its own and a row of :data:`RUNNERS`.

This imports neither torch nor ray: the command line reads the names here.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from depthsieve.core.errors import RunError, UsageError
from depthsieve.runners.staffing import Need

if TYPE_CHECKING:
    from depthsieve.labelling.batch import LabelWork
    from depthsieve.runners.dispatch import MakeRunner

AUTO = "auto"
"""The name for: as fits, :data:`LOCAL` for one worker without an address, else :data:`APART`."""

LOCAL, APART = "local", "ray"


@dataclass(frozen=True, slots=True)
class Workers:
    """How many workers (None: as many as the cluster at ``address`` has room for), each with so many ``threads``, and
    the ``gpus`` that they share. A run without any of them ends after ``wait_s`` seconds."""

    count: int | None
    threads: int
    gpus: int
    address: str | None = None
    wait_s: float = math.inf


Nodes = Sequence[tuple[int, int]]
"""The (CPUs, GPUs) of each node of a cluster."""


@dataclass(frozen=True, slots=True)
class RunnerKind:
    """A kind of runner. ``summary`` is for the help, ``make`` takes loaded work and the workers. ``nodes`` asks
    the cluster at an address what its nodes have, and raises :class:`RunError` where it cannot be reached; for so many
    seconds it waits for the first node that a worker with such a :class:`Need` could use. It is None for a runner that
    is one process, this one. ``check`` raises :class:`RunError` where a package that it needs is not installed."""

    summary: str
    make: "Callable[[LabelWork, Workers], MakeRunner]"
    nodes: Callable[[str, Need, float], Nodes] | None = None
    check: Callable[[], None] = lambda: None


def _local(work: "LabelWork", workers: Workers) -> "MakeRunner":
    from depthsieve.runners.local import local_runner

    return partial(local_runner, work)


def _ray(work: "LabelWork", workers: Workers) -> "MakeRunner":
    from depthsieve.runners.ray import RayOptions, ray_runner  # heavy, and a laptop does without

    options = RayOptions(workers.count, workers.threads, workers.gpus, workers.address, wait_s=workers.wait_s)
    return partial(ray_runner, options)


def _check_ray() -> None:
    """Ray is an extra of the package: it is a fifth of what is installed, and most need one worker."""
    if importlib.util.find_spec("ray") is None:
        raise RunError(
            "several workers, and clusters, need Ray, which is not installed: pip install 'depthsieve[ray]'; "
            "without it --runner local labels in this process, and --part I/N in several"
        )


def _ray_nodes(address: str, need: Need, wait_s: float) -> Nodes:
    _check_ray()
    from depthsieve.runners.ray_session import cluster_offer

    return cluster_offer(address, need, wait_s).nodes


RUNNERS: Mapping[str, RunnerKind] = {
    LOCAL: RunnerKind("this process", _local),
    "ray": RunnerKind("worker processes", _ray, _ray_nodes, _check_ray),
}


def find_nodes(runner: str, address: str | None, workers: int | None, need: Need, wait_s: float) -> Nodes | None:
    """What the nodes of the cluster at ``address`` have, once one of them could have a worker; None without a cluster.

    Raises :class:`UsageError` for a runner that does not exist or cannot do what is asked, :class:`RunError` where the
    cluster cannot be reached, and :class:`RunInterrupted` where no such node joins it in ``wait_s`` seconds.
    """
    if runner not in (AUTO, *RUNNERS):
        raise UsageError(f"runner must be one of {', '.join((AUTO, *RUNNERS))}, not {runner!r}")
    nodes = RUNNERS[APART if runner == AUTO else runner].nodes
    if nodes is None and (address or (workers or 1) > 1):
        raise UsageError(f"the {runner} runner has one worker and no address; use --runner {APART} for more")
    return None if address is None or nodes is None else nodes(address, need, wait_s)


def check_runner(runner: str, apart: bool) -> None:
    """Raises :class:`RunError` where the runner by that name needs a package that is not installed."""
    RUNNERS[_resolved(runner, apart)].check()


def make_runner(runner: str, apart: bool, work: "LabelWork", workers: Workers) -> "MakeRunner":
    """The runner by that name, for these workers; they are processes ``apart`` from this one, or it is this process,
    with the teachers of ``work``, which are loaded already."""
    return RUNNERS[_resolved(runner, apart)].make(work, workers)


def _resolved(runner: str, apart: bool) -> str:
    return runner if runner != AUTO else APART if apart else LOCAL
