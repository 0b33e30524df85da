"""How batches get to the one who trains: which rank's, made by threads or by worker processes, on which device."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from depthsieve.core.errors import UsageError
from depthsieve.core.processes import cores
from depthsieve.training.arguments import whole_number
from depthsieve.training.expand import check_device

_LOADERS_OWN = ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "collate_fn", "generator", "in_order")

PREFETCH = 2
"""Batches that threads make ahead."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes that train together this is."""

    rank: int
    world_size: int

    @classmethod
    def find(cls, rank: int | None, world_size: int | None) -> "Ranks":
        """As given; else as ``torch.distributed`` has it, where it is initialised; else the only one.

        Raises :class:`UsageError` for one without the other, what is no whole number, or a rank that is not below the
        world size.
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


@dataclass(frozen=True)
class Delivery:
    """By threads of this process (``num_workers`` 0), or by worker processes of a torch ``DataLoader``, which takes
    ``options``. None of it changes a sample. ``device``: see :class:`BatchLoader`."""

    num_workers: int = 0
    threads: int = field(default_factory=cores)
    prefetch: int = PREFETCH
    device: torch.device | None = None
    pin_memory: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, num_workers: int, device: Any, options: Mapping[str, Any]) -> "Delivery":
        """Raises :class:`UsageError` for an option that is the loader's own, or does not go with the others."""
        options = {name: value for name, value in options.items() if value is not None}
        for name in _LOADERS_OWN:
            if name in options:
                raise UsageError(f"{name} is the loader's own; say global_batch, drop_last, rank, world_size, seed")
        workers = whole_number(num_workers)
        if workers is None or workers < 0:
            raise UsageError(f"num_workers must be a whole number of at least 0, not {num_workers!r}")
        found = None if device is None else check_device(device)
        pin = bool(options.pop("pin_memory", found is not None and found.type == "cuda"))
        pin = pin and torch.cuda.is_available()  # memory is pinned for a GPU, and by its driver
        ours = {name: options.pop(name) for name in ("threads", "prefetch") if name in options}
        for name, value in ours.items():
            if workers:
                raise UsageError(f"{name} is for num_workers=0; worker processes have one thread, and prefetch_factor")
            ours[name] = whole_number(value)
            if ours[name] is None or ours[name] < 1:
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
        if options and not workers:
            raise UsageError(
                f"{next(iter(options))} is no option, or one for worker processes: then give num_workers=1 or more"
            )
        return cls(workers, device=found, pin_memory=pin, options=options, **ours)
