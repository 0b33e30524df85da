"""Batches of a dataset, made by threads or worker processes, with a position that can be saved. Axes as there."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.training.arguments import check_flag, whole_number
from depthsieve.training.delivery import Delivery, Ranks
from depthsieve.training.engine import Job, ahead
from depthsieve.training.epoch import EpochPlan, plan_epoch, rank_share
from depthsieve.training.expand import THRESHOLD, expand
from depthsieve.training.sample_set import SampleSet
from depthsieve.training.samples import Pixels, Sample, SampleKey, with_axes

_Made = tuple[dict[str, Any], list[Pixels] | None]
"""A batch, and what the pixels of its samples are, where that was counted."""


class BatchLoader:
    """One rank's batches, epoch after epoch. Make it with :meth:`PseudoLabelDataset.loader`.

    Each pass over it is one epoch, in an order and with windows of its own; the next pass is the next epoch. A pass
    that was left before its last batch is gone on with by the next one. A batch is a dict: ``image_BCHW``,
    ``depth_BHW``, ``reliability_BHW``, ``mask_BHW`` (see :class:`PseudoLabelDataset`), and ``id``, a list.

    ``global_batch`` is the number of images that all ranks take together in a step; each takes
    ``global_batch / world_size``. The global batches, in their order, do not depend on ranks or workers. In an epoch
    every image comes once, but for the tails: without crops each label shape has one smaller batch, somewhere in the
    epoch; with crops the epoch ends in one. It is cut to a multiple of ``world_size``, or left out where ``drop_last``
    says so; :attr:`left_out` counts those images. Every rank gets as many batches, and of the same sizes, as others.

    Batches are made ahead by ``threads`` of this process (None: as many as it has cores), ``prefetch`` of them (2) at
    most. With ``num_workers`` of 1 or more that many worker processes of a torch ``DataLoader`` make them, and its
    other options (``multiprocessing_context``, ``persistent_workers``, ...) are taken too. Random numbers are not taken
    from torch's or numpy's global state. An error comes in the place of the batch it belongs to; the next pass tries
    that batch again.

    With ``device`` batches come on that device: images are shipped there as uint8 and depth as float16, and are made
    what they are, and masked, there. The values are the same. ``pin_memory`` (by default where the device is a GPU)
    makes them in memory that a GPU can fetch from while the program goes on.

    Raises:
        UsageError: a global batch that the ranks cannot share, or an option that is the loader's own.
        LoaderError: the tails are all there is.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        samples: SampleSet,
        global_batch: int,
        ranks: Ranks,
        drop_last: bool = False,
        delivery: Delivery | None = None,
    ) -> None:
        count = whole_number(global_batch)
        if count is None or count < 1 or count % ranks.world_size:
            raise UsageError(
                f"global_batch counts the images of a step over all ranks: a whole number, and a multiple of the world "
                f"size {ranks.world_size}, not {global_batch!r}"
            )
        self.dataset = dataset
        self._samples = samples
        self.global_batch = count
        self.ranks = ranks
        self.drop_last = check_flag("drop_last", drop_last)
        self.epoch = 0
        self._delivery = delivery or Delivery()
        self._next_batch = 0
        self._pass = 0
        self._under_way: Generator[_Made, None, None] | None = None
        self._pixels = Pixels()
        self._buckets_N = samples.buckets()
        self._planned: tuple[int, EpochPlan] | None = None
        sizes_M = self._plan(0).sizes_M
        self._length = int(np.count_nonzero(sizes_M))
        self.left_out = len(samples) - int(sizes_M.sum())
        if not self._length:
            raise LoaderError(
                f"no batch is left: {len(samples)} images in {int(self._buckets_N.max()) + 1} label shapes do not fill "
                f"one for {ranks.world_size} ranks (drop_last={self.drop_last}); use a crop, so that shapes mix"
            )
        self._asked = _KeysOfPass(self._length)
        self._workers = self._worker_processes() if self._delivery.num_workers else None

    def __len__(self) -> int:
        """Batches of a whole epoch, the same in each."""
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._pass += 1
        self.epoch, self._next_batch = self._position()  # one that was left after its last batch is over
        return self._rest(self._pass)

    def _rest(self, this_pass: int) -> Iterator[dict[str, Any]]:
        """The batches of the current epoch that were not delivered yet. A batch counts when it is handed out."""
        self._check_newest(this_pass)
        if self._under_way is not None:
            self._under_way.close()  # the threads of a pass that nobody goes on with
        self._under_way = made = self._by_threads() if self._workers is None else self._by(self._workers)
        if self._next_batch == 0:
            self._pixels = Pixels()
        try:
            for number in self._numbers_left():
                yield self._hand_out(number, next(made))  # no name here holds on to the batch while it is used
                self._check_newest(this_pass)
        finally:
            made.close()
        self.epoch, self._next_batch = self._position()

    def _hand_out(self, number: int, made: _Made) -> dict[str, Any]:
        """A batch on its device, and counted."""
        batch, pixels_B = made
        if self._delivery.device is not None:
            batch = expand(batch, self._delivery.device)
        self._next_batch = number + 1
        self._pixels += pixels_of(batch) if pixels_B is None else sum(pixels_B, Pixels())
        return batch

    def _by_threads(self) -> Generator[_Made, None, None]:
        self._samples.reader()  # once, and not in each thread at once
        return ahead(map(self._job, self.keys_left()), self._delivery.threads, self._delivery.prefetch)

    def _by(self, workers: "DataLoader[Sample]") -> Generator[_Made, None, None]:
        self._asked.keys = self.keys_left()
        for batch in workers:
            yield batch, None

    def _job(self, keys: list[SampleKey]) -> Job[_Made]:
        """One batch to be made."""
        maps = self._samples.empty_maps(keys[0], len(keys), self._delivery.pin_memory)
        arrays = {name: value.numpy() for name, value in maps.items()}
        batch: dict[str, Any] = {"id": [""] * len(keys)} | with_axes(maps, "B")
        if keys[0].compact:
            batch[f"{THRESHOLD}B"] = torch.tensor([key.code for key in keys], dtype=torch.uint8)
        pixels_B = [Pixels()] * len(keys)

        def fill(place: int) -> None:
            out = {name: array[place] for name, array in arrays.items()}
            entry, pixels_B[place] = self._samples.fill(keys[place], out)
            batch["id"][place] = entry.id

        return Job(len(keys), fill, (batch, pixels_B))

    def _worker_processes(self) -> "DataLoader[Sample]":
        options = dict(self._delivery.options)
        if (
            self._samples.is_remote
        ):  # which a forked process could not read; a fork server has an environment of its own
            options.setdefault("multiprocessing_context", "spawn")
        return DataLoader(
            self._samples,
            batch_sampler=self._asked,
            collate_fn=collate,
            generator=torch.Generator(),
            num_workers=self._delivery.num_workers,
            pin_memory=self._delivery.pin_memory,
            **options,
        )

    def _check_newest(self, this_pass: int) -> None:
        if this_pass != self._pass:
            raise LoaderError("a newer pass over this loader began, or a state was loaded; go on with the newest pass")

    def masked_share(self) -> float:
        """The fraction of valid pixels that is really masked, before crops, over the batches of all ranks in the
        current epoch (at scopes ``image`` and ``dataset``: over all images of the dataset)."""
        if self._samples.thresholds.scope != "batch":
            return self._samples.thresholds.masked_share()
        plan = self._plan(self.epoch)
        numbers = np.flatnonzero(plan.sizes_M).tolist()
        counts = (self._samples.thresholds.count_batch(plan.batch(number)) for number in numbers)
        return sum(counts, Pixels()).masked_share

    @property
    def delivered_share(self) -> float:
        """The fraction of valid pixels that is masked in the batches that this rank was given in the current epoch (or
        since a state was loaded), after crops. A new epoch counts anew when its first batch is asked for."""
        return self._pixels.masked_share

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, as plain values: batches that were delivered count, prefetched ones do not. Neither
        the rank nor the number of ranks and workers is in it."""
        epoch, batch = self._position()
        return self._settings() | {"epoch": epoch, "batch": batch}

    def _position(self) -> tuple[int, int]:
        """The epoch and the number of the next batch: the next epoch's first one after the last that these ranks get.

        Training loops ask for as many batches as the loader's length says, and not for the end behind them.
        """
        last = int(np.flatnonzero(self._plan(self.epoch).sizes_M)[-1])
        return (self.epoch, self._next_batch) if self._next_batch <= last else (self.epoch + 1, 0)

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
        epoch, batch = whole_number(state["epoch"]), whole_number(state["batch"])
        if epoch is None or batch is None or min(epoch, batch) < 0 or batch > len(self._plan(epoch)):
            raise LoaderError(
                f"the state's position is not in an epoch: epoch {state['epoch']!r}, batch {state['batch']!r}"
            )
        self._pass += 1
        self.epoch, self._next_batch, self._pixels = epoch, batch, Pixels()
        self.epoch, self._next_batch = self._position()  # for fewer ranks a tail may be left, for more of them not

    def _settings(self) -> dict[str, Any]:
        return self._samples.identity() | {"global_batch": self.global_batch, "drop_last": self.drop_last}

    def _plan(self, epoch: int) -> EpochPlan:
        """The global batches of an epoch, without what these ranks leave out: some may be empty.

        Positions count these batches, empty ones too, so that they mean the same for any number of ranks.
        """
        if self._planned is None or self._planned[0] != epoch:
            plan = plan_epoch(self._buckets_N, self.global_batch, self._samples.seed, epoch)
            plan = plan.without_tails(self.ranks.world_size, self.global_batch if self.drop_last else 1)
            self._planned = (epoch, plan)
        return self._planned[1]

    def _numbers_left(self) -> list[int]:
        """Which of the current epoch's batches are still to come."""
        numbers_M = np.flatnonzero(self._plan(self.epoch).sizes_M)
        return [int(number) for number in numbers_M[numbers_M >= self._next_batch]]

    def keys_left(self) -> Iterator[list[SampleKey]]:
        """The keys of each batch of this rank that the current epoch still has."""
        plan = self._plan(self.epoch)
        batches = [plan.batch(number) for number in self._numbers_left()]
        shares = [rank_share(batch, self.ranks.rank, self.ranks.world_size) for batch in batches]
        return _keys(self._samples, self.epoch, batches, shares, self._delivery.device is not None)


class _KeysOfPass:
    """What the ``DataLoader`` asks for keys: those of the pass that begins.

    Neither this nor the keys know the loader. In a circle of references, worker processes that live on would outlive it
    until garbage is collected.
    """

    def __init__(self, length: int) -> None:
        self.keys: Iterator[list[SampleKey]] = iter(())
        self._length = length

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self.keys

    def __len__(self) -> int:
        return self._length


def _keys(
    samples: SampleSet,
    epoch: int,
    batches: Sequence[NDArray[np.uint32]],
    shares: Sequence[NDArray[np.uint32]],
    compact: bool,
) -> Iterator[list[SampleKey]]:
    """The keys of each of ``shares``, a rank's parts of ``batches``; what is remote is fetched ahead of them."""
    uses = 0
    with samples.prefetching(shares) as prefetch:
        for batch, share in zip(batches, shares, strict=True):
            if prefetch is not None:
                prefetch.advance(uses)
                uses += len(share)
            yield samples.keys(epoch, share, batch, compact=compact)


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Samples of one shape as a batch: ``image_CHW`` stacks to ``image_BCHW``, the maps likewise, ``id`` to a list."""
    batch: dict[str, Any] = {"id": [sample["id"] for sample in samples]}
    for name in samples[0]:
        if name != "id":
            stem, _, axes = name.rpartition("_")
            batch[f"{stem}_B{axes}"] = torch.stack([sample[name] for sample in samples])
    return batch


def pixels_of(batch: Mapping[str, Any]) -> Pixels:
    """How many pixels of a batch are valid and kept."""
    return Pixels(*(int(torch.count_nonzero(batch[name])) for name in ("reliability_BHW", "mask_BHW")))
