"""Batches of a dataset through a torch ``DataLoader``, with a position that can be saved. Axes as in the dataset."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from depthsieve.errors import LoaderError, UsageError
from depthsieve.loader.epoch import EpochPlan, plan_epoch, rank_share, smallest_type
from depthsieve.loader.samples import Sample, SampleKey
from depthsieve.masking import masked_share

if TYPE_CHECKING:
    from depthsieve.loader.dataset import PseudoLabelDataset

_OURS = ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "collate_fn", "generator", "in_order")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes that train together this is."""

    rank: int
    world_size: int

    @classmethod
    def find(cls, rank: int | None, world_size: int | None) -> "Ranks":
        """As given; else as ``torch.distributed`` has it, where it is initialised; else the only one.

        Raises :class:`UsageError` for one without the other, or a rank that is not below the world size.
        """
        if (rank is None) != (world_size is None):
            raise UsageError("give rank and world_size together, or neither (then torch.distributed is asked)")
        if rank is None or world_size is None:
            running = torch.distributed.is_available() and torch.distributed.is_initialized()
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size()) if running else cls(0, 1)
        if not 0 <= rank < world_size:
            raise UsageError(f"rank must be from 0 up to, but not including, world_size: {rank} of {world_size}")
        return cls(rank, world_size)


class BatchLoader:
    """One rank's batches, epoch after epoch. Make it with :meth:`PseudoLabelDataset.loader`.

    Each pass over it is one epoch, in an order and with windows of its own; the next pass is the next epoch. A pass
    that was left early is gone on with by the next one. A batch is a dict: ``image_BCHW``, ``depth_BHW``,
    ``reliability_BHW``, ``mask_BHW`` (see :class:`PseudoLabelDataset`), and ``id``, a list.

    ``global_batch`` is the number of images that all ranks take together in a step; each takes
    ``global_batch / world_size``. The global batches, in their order, do not depend on ranks or workers. In an epoch
    every image comes once, but for the tails: without crops each label shape has one smaller batch, somewhere in the
    epoch; with crops the epoch ends in one. It is cut to a multiple of ``world_size``, or left out where ``drop_last``
    says so; :attr:`left_out` counts those images. Every rank gets as many batches, and of the same sizes, as others.

    ``options`` go to torch's ``DataLoader`` (``num_workers``, ``pin_memory``, ``multiprocessing_context``, ...).
    Random numbers are not taken from torch's or numpy's global state.

    Raises:
        UsageError: a global batch that the ranks cannot share, or an option that is the loader's own.
        LoaderError: the tails are all there is.
    """

    def __init__(
        self,
        dataset: "PseudoLabelDataset",
        global_batch: int,
        ranks: Ranks,
        drop_last: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        options = dict(options or {})
        taken = [name for name in _OURS if name in options]
        if taken:
            raise UsageError(f"{taken[0]} is the loader's own; say global_batch, drop_last, rank, world_size, seed")
        if not isinstance(global_batch, int) or global_batch < 1 or global_batch % ranks.world_size:
            raise UsageError(
                f"global_batch counts the images of a step over all ranks: a whole number, and a multiple of the world "
                f"size {ranks.world_size}, not {global_batch!r}"
            )
        self.dataset = dataset
        self.global_batch = global_batch
        self.ranks = ranks
        self.drop_last = bool(drop_last)
        self.epoch = 0
        self._next_batch = 0
        self._pass = 0
        self._buckets_N = _buckets(dataset)
        self._planned: tuple[int, EpochPlan] | None = None
        sizes_M = self._plan(0).sizes_M
        self._length = int(np.count_nonzero(sizes_M))
        self.left_out = len(dataset) - int(sizes_M.sum())
        if not self._length:
            raise LoaderError(
                f"no batch is left: {len(dataset)} images in {int(self._buckets_N.max()) + 1} label shapes do not fill "
                f"one for {ranks.world_size} ranks (drop_last={self.drop_last}); use a crop, so that shapes mix"
            )
        if options.get("num_workers") and dataset.is_remote:  # which a forked process could not read
            options.setdefault("multiprocessing_context", "forkserver")
        self._batches = DataLoader(
            dataset,
            batch_sampler=_RestOfEpoch(self),
            collate_fn=collate,
            generator=torch.Generator(),
            **options,
        )

    def __len__(self) -> int:
        """Batches of a whole epoch, the same in each."""
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._pass += 1
        return self._rest(self._pass)

    def _rest(self, this_pass: int) -> Iterator[dict[str, Any]]:
        """The batches of the current epoch that were not delivered yet. A batch counts when it is handed out."""
        self._check_newest(this_pass)
        for number, batch in zip(self._numbers_left(), self._batches, strict=True):
            self._check_newest(this_pass)
            self._next_batch = number + 1
            yield batch
        self._check_newest(this_pass)
        self.epoch, self._next_batch = self.epoch + 1, 0

    def _check_newest(self, this_pass: int) -> None:
        if this_pass != self._pass:
            raise LoaderError("a newer pass over this loader began, or a state was loaded; go on with the newest pass")

    def masked_share(self) -> float:
        """The fraction of valid pixels that is really masked, before crops, over the batches of all ranks in the
        current epoch (at scopes ``image`` and ``dataset``: over all images of the dataset)."""
        if self.dataset.thresholds_N is not None:
            return self.dataset.masked_share()
        plan = self._plan(self.epoch)
        batches = [plan.batch(number) for number in range(len(plan)) if plan.sizes_M[number]]
        keys = [key for batch in batches for key in self.dataset.keys(self.epoch, batch, batch)]
        thresholds_N = np.array([key.threshold for key in keys])
        return share_masked(self.dataset.histograms[[key.index for key in keys]], thresholds_N)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, as plain values: batches that were delivered count, prefetched ones do not. Neither
        the rank nor the number of ranks and workers is in it."""
        return self._settings() | {"epoch": self.epoch, "batch": self._next_batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken. Raises :class:`LoaderError` that names what differs, and changes nothing,
        unless store, snapshot, subset and settings are the same."""
        expected = self.state_dict()
        if not isinstance(state, Mapping) or set(state) != set(expected):
            raise LoaderError(f"not a state of this loader: its keys must be exactly {', '.join(sorted(expected))}")
        differences = [
            f"{name} is {value!r} here and {state[name]!r} in the state"
            for name, value in self._settings().items()
            if state[name] != value
        ]
        if differences:
            raise LoaderError(f"the state was taken with other data or settings: {'; '.join(differences)}")
        epoch, batch = state["epoch"], state["batch"]
        whole = all(isinstance(number, int) and number >= 0 for number in (epoch, batch))
        if not whole or batch > len(self._plan(epoch)):
            raise LoaderError(f"the state's position is not in an epoch: epoch {epoch!r}, batch {batch!r}")
        self._pass += 1
        self.epoch, self._next_batch = epoch, batch

    def _settings(self) -> dict[str, Any]:
        return self.dataset.identity() | {"global_batch": self.global_batch, "drop_last": self.drop_last}

    def _plan(self, epoch: int) -> EpochPlan:
        """The global batches of an epoch, without what these ranks leave out: some may be empty.

        Positions count these batches, empty ones too, so that they mean the same for any number of ranks.
        """
        if self._planned is None or self._planned[0] != epoch:
            plan = plan_epoch(self._buckets_N, self.global_batch, self.dataset.seed, epoch)
            plan = plan.without_tails(self.ranks.world_size, self.global_batch if self.drop_last else 1)
            self._planned = (epoch, plan)
        return self._planned[1]

    def _numbers_left(self) -> list[int]:
        """Which of the current epoch's batches are still to come."""
        numbers_M = np.flatnonzero(self._plan(self.epoch).sizes_M)
        return [int(number) for number in numbers_M[numbers_M >= self._next_batch]]

    def keys_left(self) -> Iterator[list[SampleKey]]:
        """The keys of each batch of this rank that the current epoch still has."""
        epoch, plan = self.epoch, self._plan(self.epoch)
        for number in self._numbers_left():
            batch = plan.batch(number)
            yield self.dataset.keys(epoch, rank_share(batch, self.ranks.rank, self.ranks.world_size), batch)


class _RestOfEpoch:
    """What the ``DataLoader`` asks for keys, anew for each pass."""

    def __init__(self, loader: BatchLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self._loader.keys_left()

    def __len__(self) -> int:
        return len(self._loader)


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Samples of one shape as a batch: ``image_CHW`` stacks to ``image_BCHW``, the maps likewise, ``id`` to a list."""
    batch: dict[str, Any] = {"id": [sample["id"] for sample in samples]}
    for name in samples[0]:
        if name != "id":
            stem, _, axes = name.rpartition("_")
            batch[f"{stem}_B{axes}"] = torch.stack([sample[name] for sample in samples])
    return batch


def _buckets(dataset: "PseudoLabelDataset") -> NDArray[Any]:
    """[N] each image's bucket: its label shape; all in one where crops make them alike."""
    if dataset.crop is not None:
        return np.zeros(len(dataset), np.uint8)
    shapes_N2 = dataset.selection.label_shapes()
    sides_N = shapes_N2[:, 0] << 32 | shapes_N2[:, 1]  # one number sorts much faster than a row of two
    return smallest_type(np.unique(sides_N, return_inverse=True)[1].reshape(-1))


def share_masked(histograms_N256: NDArray[Any], thresholds_N: NDArray[Any]) -> float:
    """The fraction of valid pixels below their image's threshold, over all images; 0 if no pixel is valid."""
    valid_N = histograms_N256[:, 1:].sum(axis=1, dtype=np.int64)
    pairs = zip(histograms_N256, thresholds_N.tolist(), strict=True)
    share_N = np.array([masked_share(histogram_256, threshold) for histogram_256, threshold in pairs])
    return float((share_N * valid_N).sum() / max(int(valid_N.sum()), 1))
