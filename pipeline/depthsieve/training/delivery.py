"""How batches are delivered: to which rank, made by threads or by worker processes, on which device."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from numbers import Real
from typing import Any

import torch

from depthsieve.core.errors import UsageError
from depthsieve.core.processes import cores
from depthsieve.core.settings import whole_number
from depthsieve.training.arguments import check_flag
from depthsieve.training.expand import check_device

PREFETCH = 2
"""Batches that threads make ahead."""

_FOR_WORKERS = ("persistent_workers", "prefetch_factor", "multiprocessing_context", "timeout", "worker_init_fn")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which one of how many processes that train together this is."""

    rank: int
    world_size: int

    @classmethod
    def find(cls, rank: int | None, world_size: int | None) -> "Ranks":
        """As given; else as ``torch.distributed`` has it, where it is initialised; else the only one.

        Raises :class:`UsageError` for one without the other, what is not a whole number, or a rank that is not below
        the world size.
        """
        if (rank is None) != (world_size is None):
            raise UsageError("give rank and world_size together, or neither (then torch.distributed is asked)")
        if rank is None or world_size is None:
            running = torch.distributed.is_available() and torch.distributed.is_initialized()
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size()) if running else cls(0, 1)
        number, count = whole_number(rank), whole_number(world_size)
        if number is None or count is None:
            raise UsageError(f"rank and world_size must be whole numbers, not {rank!r} and {world_size!r}")
        if not 0 <= number < count:
            raise UsageError(f"rank must be from 0 up to, but not including, world_size: {number} of {count}")
        return cls(number, count)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How a loader makes its batches; see :meth:`depthsieve.PseudoLabelDataset.loader`. None of it changes a sample.

    Raises :class:`UsageError` for a value out of range, or an option that does not go with ``num_workers``.
    """

    num_workers: int = 0
    threads: int | None = None
    prefetch: int | None = None
    device: torch.device | str | int | None = None
    pin_memory: bool | None = None
    persistent_workers: bool = False
    prefetch_factor: int | None = None
    multiprocessing_context: str | BaseContext | None = None
    timeout: float = 0
    worker_init_fn: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        workers = whole_number(self.num_workers)
        if workers is None or workers < 0:
            raise UsageError(f"num_workers must be a whole number of at least 0, not {self.num_workers!r}")
        self._set("num_workers", workers)
        for name in ("threads", "prefetch", "prefetch_factor"):
            self._set(name, _count(name, getattr(self, name)))
        check_flag("persistent_workers", self.persistent_workers)
        method, methods = self.multiprocessing_context, multiprocessing.get_all_start_methods()
        if not isinstance(method, BaseContext | None) and method not in methods:
            raise UsageError(
                f"multiprocessing_context must be one of {', '.join(methods)}, or such a context, not {method!r}"
            )
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, Real) or not self.timeout >= 0:
            raise UsageError(f"timeout must be a number of seconds, 0 for none, not {self.timeout!r}")
        if workers:
            for name in ("threads", "prefetch"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"{name} is for num_workers=0; worker processes have one thread, and prefetch_factor"
                    )
        else:
            for name in _FOR_WORKERS:
                if getattr(self, name):
                    raise UsageError(f"{name} is for worker processes; add num_workers=1 or more")
        if self.device is not None:
            self._set("device", check_device(self.device))
        if self.pin_memory is not None:
            check_flag("pin_memory", self.pin_memory)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def torch_device(self) -> torch.device | None:
        """The device that batches are brought to; None: they stay where they are made."""
        return self.device  # type: ignore[return-value]  # __post_init__ made one of it

    @property
    def pins(self) -> bool:
        """Whether batches are made in pinned memory: only where there is a GPU, whose driver pins it."""
        wanted = self.pin_memory
        if wanted is None:
            wanted = self.torch_device is not None and self.torch_device.type == "cuda"
        return bool(wanted) and torch.cuda.is_available()

    @property
    def thread_count(self) -> int:
        """Threads that make batches where no worker processes do."""
        return self.threads or cores()

    @property
    def batches_ahead(self) -> int:
        """Batches that those threads make ahead."""
        return self.prefetch or PREFETCH

    def worker_options(self) -> dict[str, Any]:
        """What torch's ``DataLoader`` takes for its worker processes."""
        return {"num_workers": self.num_workers, **{name: getattr(self, name) for name in _FOR_WORKERS}}


def _count(name: str, value: int | None) -> int | None:
    number = whole_number(value)
    if value is not None and (number is None or number < 1):
        raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
    return number
