"""Batches for training, made by threads or worker processes, with a position that can be saved.

Axes: N images, M batches of an epoch, B images of a batch.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from depthsieve.core.errors import DepthsieveError, LoaderError, UsageError
from depthsieve.core.settings import whole_number
from depthsieve.training.arguments import check_flag
from depthsieve.training.delivery import Delivery, Ranks
from depthsieve.training.engine import Job, ahead
from depthsieve.training.epoch import EpochPlan, plan_epoch, rank_share
from depthsieve.training.expand import expand
from depthsieve.training.sample_set import SampleSet
from depthsieve.training.samples import THRESHOLD, Batch, Pixels, Sample, SampleKey

_Made = tuple[dict[str, Any], list[Pixels] | None]
"""A batch, and what the pixels of its samples are, where that was counted."""


class BatchLoader:
    """One rank's batches, epoch after epoch. Make it with :meth:`depthsieve.PseudoLabelDataset.loader`.

    Each pass over it is one epoch, in an order and with windows of its own; the next pass is the next epoch. A pass
    that was left before its last batch is resumed by the next one. Each batch is a dict, see
    :class:`~depthsieve.training.samples.Batch`.

    The global batches and their order do not depend on ranks, threads or workers. In an epoch every image comes once.
    Without a crop each label shape has one smaller batch, its tail, somewhere in the epoch; with a crop the epoch ends
    in one. ``drop_last`` leaves tails out; :attr:`left_out` counts their images. Every rank gets as many batches as the
    others, of the same sizes: where a tail is no multiple of the ranks, some of its images come to two of them, as with
    torch's ``DistributedSampler``; :attr:`repeated` counts these.

    An error comes in the place of the batch it belongs to; the next pass tries that batch again. Random numbers are not
    taken from torch's or numpy's global state.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        samples: SampleSet,
        global_batch: int,
        ranks: Ranks,
        drop_last: bool,
        delivery: Delivery,
    ) -> None:
        count = whole_number(global_batch)
        if count is None or count < 1 or count % ranks.world_size:
            raise UsageError(
                f"global_batch counts the images of a step over all ranks: a whole number, and a multiple of the world "
                f"size {ranks.world_size}, not {global_batch!r}"
            )
        self.dataset = dataset
        self.global_batch = count
        self.ranks = ranks
        self.drop_last = check_flag("drop_last", drop_last)
        self.epoch = 0
        self._samples = samples
        self._delivery = delivery
        self._next_batch = 0
        self._pass = 0
        self._in_flight: Generator[_Made, None, None] | None = None
        self._pixels = Pixels()
        self._buckets_N = samples.buckets()
        self._planned: tuple[int, EpochPlan] | None = None
        sizes_M = self._plan(0).sizes_M
        self._length = int(np.count_nonzero(sizes_M))
        self.left_out = len(samples) - int(sizes_M.sum())
        self.repeated = int((-sizes_M % ranks.world_size).sum())
        if not self._length:
            raise LoaderError(
                f"no batch is left: {len(samples)} images in {int(self._buckets_N.max()) + 1} label shapes do not fill "
                f"a batch of {count}, and drop_last=True leaves out smaller ones; use a crop, so that shapes mix, or "
                "drop_last=False"
            )
        self._asked = _KeysOfPass(self._length)
        self._workers = self._worker_processes() if delivery.num_workers else None

    def __repr__(self) -> str:
        rank = f", rank {self.ranks.rank} of {self.ranks.world_size}" if self.ranks.world_size > 1 else ""
        epoch, batch = self._position()
        return (
            f"BatchLoader({self._length} batches of {self.global_batch} an epoch{rank}, next: epoch {epoch}, "
            f"batch {batch}, of {self.dataset!r})"
        )

    def __len__(self) -> int:
        """Batches of a whole epoch, the same in each."""
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        self._pass += 1
        self.epoch, self._next_batch = self._position()  # one that was left after its last batch is over
        return self._rest(self._pass)

    def _rest(self, this_pass: int) -> Iterator[Batch]:
        """The batches of the current epoch that were not delivered yet. A batch counts when it is handed out."""
        self._check_newest(this_pass)
        if self._in_flight is not None:
            self._in_flight.close()  # the threads of a pass that was left early
        self._in_flight = made = self._by_threads() if self._workers is None else self._by(self._workers)
        if self._next_batch == 0:
            self._pixels = Pixels()
        try:
            for number in self._numbers_left():
                yield self._hand_out(number, next(made))  # no name here holds on to the batch while it is used
                self._check_newest(this_pass)
        finally:
            made.close()
        self.epoch, self._next_batch = self._position()

    def _hand_out(self, number: int, made: _Made) -> Batch:
        """A batch on its device, and counted."""
        batch, pixels_B = made
        if self._delivery.torch_device is not None:
            batch = expand(batch, self._delivery.torch_device)
        self._next_batch = number + 1
        self._pixels += _pixels_of(batch) if pixels_B is None else sum(pixels_B, Pixels())
        return cast(Batch, batch)

    def _by_threads(self) -> Generator[_Made, None, None]:
        self._samples.reader()  # once, and not in each thread at once
        return ahead(map(self._job, self._keys_left()), self._delivery.thread_count, self._delivery.batches_ahead)

    def _by(self, workers: "DataLoader[dict[str, Any]]") -> Generator[_Made, None, None]:
        self._asked.keys = self._keys_left()
        try:
            for batch in workers:
                yield batch, None
        except DepthsieveError as error:  # torch has put the worker's whole traceback into its message
            raise type(error)(str(error).strip().rpartition("\n")[2].removeprefix(_full_name(error))) from error

    def _job(self, keys: list[SampleKey]) -> Job[_Made]:
        """One batch to be made."""
        maps = self._samples.empty_maps(keys[0], len(keys), self._delivery.pins)
        arrays = {name: value.numpy() for name, value in maps.items()}
        if keys[0].compact:
            maps[THRESHOLD] = torch.tensor([key.code for key in keys], dtype=torch.uint8)
        ids = [""] * len(keys)
        pixels_B = [Pixels()] * len(keys)

        def fill(place: int) -> None:
            out = {name: array[place] for name, array in arrays.items()}
            entry, pixels_B[place] = self._samples.fill(keys[place], out)
            ids[place] = entry.id

        return Job(len(keys), fill, ({**maps, "id": ids}, pixels_B))

    def _worker_processes(self) -> "DataLoader[dict[str, Any]]":
        options = self._delivery.worker_options()
        if self._samples.is_remote:  # a forked process could not read it; a fork server has an environment of its own
            options["multiprocessing_context"] = options["multiprocessing_context"] or "spawn"
        return DataLoader(
            self._samples,
            batch_sampler=self._asked,
            generator=torch.Generator(),
            pin_memory=self._delivery.pins,
            **options,
        )

    def _check_newest(self, this_pass: int) -> None:
        if this_pass != self._pass:
            raise LoaderError("a newer pass over this loader began, or a state was loaded; continue with that pass")

    def masked_share(self) -> float:
        """The fraction of valid pixels that is really masked, before crops, over the global batches of the current
        epoch (at scopes ``image`` and ``dataset``: over all images of the dataset)."""
        if self._samples.thresholds.scope != "batch":
            return self._samples.thresholds.masked_share()
        plan = self._plan(self.epoch)
        numbers = np.flatnonzero(plan.sizes_M).tolist()
        counts = (self._samples.thresholds.count_batch(plan.batch(number)) for number in numbers)
        return sum(counts, Pixels()).masked_share

    @property
    def delivered_share(self) -> float:
        """The fraction of valid pixels that is masked in the batches that this rank was given in the current epoch (or
        since a state was loaded), after crops. It is reset when the first batch of a new epoch is asked for."""
        return self._pixels.masked_share

    def state_dict(self) -> dict[str, Any]:
        """The settings and the position, as plain values: batches that were delivered count, those made ahead do not.
        Neither the rank nor the number of ranks, threads or workers is in it."""
        epoch, batch = self._position()
        return self._settings() | {"epoch": epoch, "batch": batch}

    def _position(self) -> tuple[int, int]:
        """The epoch and the number of the next batch; behind the last one, the next epoch's first.

        Training loops ask for as many batches as the loader's length says, and not for the end behind them.
        """
        last = int(np.flatnonzero(self._plan(self.epoch).sizes_M)[-1])
        return (self.epoch, self._next_batch) if self._next_batch <= last else (self.epoch + 1, 0)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where ``state`` was taken. Raises :class:`LoaderError` that names what differs, and changes nothing,
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
        self.epoch, self._next_batch = self._position()

    def _settings(self) -> dict[str, Any]:
        return self._samples.identity() | {"global_batch": self.global_batch, "drop_last": self.drop_last}

    def _plan(self, epoch: int) -> EpochPlan:
        """The global batches of an epoch. Positions count them all, also those that ``drop_last`` empties."""
        if self._planned is None or self._planned[0] != epoch:
            plan = plan_epoch(self._buckets_N, self.global_batch, self._samples.seed, epoch)
            self._planned = (epoch, plan.without_tails(self.global_batch) if self.drop_last else plan)
        return self._planned[1]

    def _numbers_left(self) -> list[int]:
        """The numbers of the current epoch's batches that are still to come."""
        numbers_M = np.flatnonzero(self._plan(self.epoch).sizes_M)
        return [int(number) for number in numbers_M[numbers_M >= self._next_batch]]

    def _keys_left(self) -> Iterator[list[SampleKey]]:
        """The keys of each batch of this rank that the current epoch still has."""
        plan = self._plan(self.epoch)
        batches = [plan.batch(number) for number in self._numbers_left()]
        shares = [rank_share(batch, self.ranks.rank, self.ranks.world_size) for batch in batches]
        return _keys(self._samples, self.epoch, batches, shares, self._delivery.torch_device is not None)


class _KeysOfPass:
    """What the ``DataLoader`` asks for keys: those of the pass that begins.

    Neither this nor the keys know the loader. In a circle of references, persistent workers would outlive it until
    garbage is collected.
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


def _full_name(error: DepthsieveError) -> str:
    """What a traceback's last line has before the message."""
    return f"{type(error).__module__}.{type(error).__qualname__}: "


def _pixels_of(batch: Mapping[str, Any]) -> Pixels:
    """How many pixels of a batch are valid and kept."""
    return Pixels(*(int(torch.count_nonzero(batch[name])) for name in ("reliability", "mask")))
