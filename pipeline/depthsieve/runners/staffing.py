"""What a worker needs, what a cluster has, and why there is no worker, in words. It knows neither Ray nor a clock."""

from collections.abc import Sequence
from dataclasses import dataclass

LASTS = "the run ends in {left}, exit code 4,"
"""How a wait for workers or nodes would end."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a worker takes of a node."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        return _amounts(self.cpus, self.gpus)

    @property
    def least(self) -> str:
        """What a node must have at least to be of use at all."""
        return _amounts(1, min(self.gpus, 1)) if self.gpus else "CPUs"

    def fits(self, cpus: float, gpus: float) -> bool:
        """Whether so much is enough for one."""
        return cpus >= self.cpus and gpus >= self.gpus


@dataclass(frozen=True, slots=True)
class ClusterOffer:
    """What the nodes of a cluster have: (CPUs, GPUs) of each, and what is ``free`` of them, where that is known."""

    nodes: tuple[tuple[int, int], ...]
    free: tuple[tuple[float, float], ...] | None = None

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(gpus for _, gpus in self.nodes)

    def workers(self, cpus_per_worker: int, gpu: bool) -> int:
        """How many workers find room, at least 1: one a GPU, or as many as there are CPUs for."""
        return max(
            1, sum(min(gpus, cpus // cpus_per_worker) if gpu else cpus // cpus_per_worker for cpus, gpus in self.nodes)
        )

    def has_room(self, need: Need) -> bool:
        """Whether a node is large enough for a worker, be it busy or not."""
        return any(need.fits(*node) for node in self.nodes)

    def can_work(self, need: Need) -> bool:
        """Whether any node has CPUs, and a GPU where one is needed."""
        return any(cpus and (gpus or not need.gpus) for cpus, gpus in self.nodes)

    def shortage(self, need: Need) -> str:
        """Why no worker finds room, and what to do about it; "" where one should find it."""
        if not any(cpus for cpus, _ in self.nodes):
            return f"each needs {need}, and the cluster has no CPUs ({_of_nodes(len(self.nodes))})"
        if not self.has_room(need):
            cpus, gpus = max(self.nodes, key=lambda node: (min(node[1], need.gpus), node[0]))
            has = _amounts(cpus, gpus, need.gpus > 0)
            largest = f"each needs {need}, and the largest of {_of_nodes(len(self.nodes))} has {has}"
            if gpus < need.gpus:
                return f"{largest}; --device cpu labels without GPUs"
            return f"{largest}; --threads {cpus} would fit"
        if self.free is not None and not any(need.fits(*node) for node in self.free):
            most = _amounts(*max(self.free, key=lambda node: (min(node[1], need.gpus), node[0])), need.gpus > 0)
            return f"each needs {need}, and no node has more than {most} free: others use this cluster"
        return ""


def why_no_worker(offer: ClusterOffer, need: Need, loading: Sequence[str], doubted: Sequence[str], death: str) -> str:
    """Why no worker labels: those ``loading`` the teacher or ``doubted`` are named by where they are, and ``death`` is
    why the last one ended, "" where none did."""
    if loading:
        return f"{_some(loading)} loads the teacher"
    if doubted:
        return f"{_some(doubted)} cannot be reached, and Ray finds out whether it lives"
    ended = f"; the last one ended: {death}" if death else ""
    return (offer.shortage(need) or "Ray is starting one") + ended


def _some(places: Sequence[str]) -> str:
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"the one on {places[0]}{more}"


def _of_nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


def _amounts(cpus: float, gpus: float, even_none: bool = False) -> str:
    """``4 CPUs``, ``1 CPU and 0.5 GPUs``; GPUs are named where there are any, or ``even_none``."""
    words = [f"{number:g} {unit}{'s' * (number != 1)}" for number, unit in ((cpus, "CPU"), (gpus, "GPU"))]
    return " and ".join(words if gpus or even_none else words[:1])
