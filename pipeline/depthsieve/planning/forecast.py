"""What a whole run would take: a short trial on a sample of the images, by the code that labels them.

Axes: R rounds of the trial, S resamples of them.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.cameras import Camera
from depthsieve.core.errors import DepthsieveError, RunError
from depthsieve.core.progress import progress_bar
from depthsieve.core.records import ImageFailure, ImageRecord, LabelJob, NumericsProfile, Shape, Shard, TeacherRequest
from depthsieve.labelling.lanes import Lanes
from depthsieve.labelling.shard import ShardWork, kept_layers, label_shard, label_spec, lanes_of
from depthsieve.planning.checks import has_moved, pixel_bytes
from depthsieve.planning.draft import Draft
from depthsieve.planning.generation import draft_generation
from depthsieve.planning.request import LabelRequest
from depthsieve.planning.summary import PlanSummary
from depthsieve.planning.workforce import MOST_A_SHARD, choose_profile, choose_shard_size
from depthsieve.sources import reopen_source
from depthsieve.sources.scan import Scan
from depthsieve.storage.local import LocalRoot
from depthsieve.storage.temporary import temporary_folder
from depthsieve.store import Store
from depthsieve.store.layers import Layer, publish_to_layer
from depthsieve.store.pending import Pending
from depthsieve.store.standing import standing
from depthsieve.store.writer import CommitContext, publish_group

Sample = tuple[Shape, Sequence[ImageRecord]]
"""Images of one label shape, as many as all lanes take at a time."""

MOST_ROUNDS = 24

FEWEST_ROUNDS = 2

TRIAL_S = 15.0
"""Seconds after which no more rounds are begun."""

MARGIN = 0.1
"""What the range is wider than the trial's own spread, on each side: a machine's pace is not quite the same all day."""

Range = tuple[float, float, float]
"""The least, the likely and the most."""


@dataclass(frozen=True)
class Trial:
    """What came of it, a value a round: images, pixels of label, seconds from file to stored label, bytes stored; and
    how many ``different`` images that were, as several rounds may have drawn one."""

    different: int
    images_R: NDArray[np.int64]
    pixels_R: NDArray[np.int64]
    seconds_R: NDArray[np.float64]
    bytes_R: NDArray[np.int64]

    def seconds_an_image(self) -> Range:
        """How long one worker takes for an image."""
        return _ratio(self.seconds_R, self.images_R)

    def bytes_a_pixel(self) -> Range:
        """What a pixel of label takes in the store."""
        return _ratio(self.bytes_R, self.pixels_R)


def _ratio(amounts_R: NDArray[np.float64 | np.int64], counts_R: NDArray[np.int64]) -> Range:
    """The ratio of two sums: 5%, all, and 95% of what it is when rounds are drawn anew (bootstrap), and a margin."""
    drawn_SR = np.random.default_rng(0).integers(0, len(counts_R), (1000, len(counts_R)))
    ratio_S = amounts_R[drawn_SR].sum(axis=1) / counts_R[drawn_SR].sum(axis=1)
    low, high = np.quantile(ratio_S, [0.05, 0.95])
    return float(low) * (1 - MARGIN), float(amounts_R.sum() / counts_R.sum()), float(high) * (1 + MARGIN)


@dataclass(frozen=True)
class WorkAhead:
    """What to forecast: what is ``left`` of ``store``, and what is new in ``draft``."""

    request: LabelRequest
    store: Store | None
    left: Pending
    draft: Draft | None = None

    @property
    def images(self) -> int:
        """Images to be labelled."""
        return self.left.images + (self.draft.images if self.draft else 0)

    @property
    def pixels(self) -> int:
        """Pixels of label in them."""
        return self.left.pixels + (self.draft.pixels if self.draft else 0)

    def shards(self, shard_size: int) -> int:
        """Shards they make, where new ones have so many images at most."""
        return len(self.left) + (self.draft.shards(shard_size) if self.draft else 0)


def estimate(request: LabelRequest, scan: Scan, trial: bool, progress: bool) -> PlanSummary:
    """What is left and what is new, with nothing written."""
    store, left = request.existing, Pending({}, {})
    if store is not None:
        has_moved(store, request.sources, scan)
        left = store.pending()
    with draft_generation(request, store, scan, scan.folder / "draft") as draft:
        rejected = zip(draft.rejected["id"].to_pylist(), draft.rejected["reason"].to_pylist(), strict=True)
        summary = _forecast(WorkAhead(request, store, left, draft), rejected, trial, progress)
        return replace(summary, changed=draft.changed, removed=len(draft.gone), notes=draft.planned.notes)


def estimate_left(request: LabelRequest, store: Store, trial: bool, progress: bool) -> PlanSummary:
    """What is left of a plan that is written."""
    rejected = sorted(standing(store).rejected.items())
    summary = _forecast(WorkAhead(request, store, store.pending()), rejected, trial, progress)
    return replace(summary, written=True)


def _forecast(ahead: WorkAhead, rejected: Iterable[tuple[str, str]], trial: bool, progress: bool) -> PlanSummary:
    """What it would take. With a ``trial`` some images are labelled, unless the workers' device is not here."""
    request, workforce = ahead.request, ahead.request.workforce
    here = workforce.device in (None, request.teacher.device.type)
    profile = _profile(ahead, progress) if trial and here and ahead.images else None
    shard_size = request.options.shard_size or MOST_A_SHARD
    if profile is not None and ahead.draft is not None:
        shard_size, _ = choose_shard_size(request.teacher, request.options, ahead.draft, workforce, profile)
    tried = _try_some(ahead, profile, progress) if profile is not None else None
    summary = PlanSummary(
        store=request.root.location,
        images=ahead.images,
        shards=ahead.shards(shard_size),
        bytes=int(ahead.pixels * pixel_bytes(request.options, request.spec.encoding)),
        free_bytes=request.root.free_bytes(),
        rejected=tuple(ImageFailure(*one) for one in rejected),
        written=False,
        workers=workforce.workers,
    )
    if tried is None:
        return summary
    size = _times(tried.bytes_a_pixel(), ahead.pixels)
    worker_hours = _times(tried.seconds_an_image(), ahead.images / 3600)
    workers, gpus = workforce.workers, workforce.gpus
    hours = _times(worker_hours, 1 / workers) if workers else None
    on_gpus = _times(hours, min(gpus, workers)) if hours and workers and gpus else None
    return replace(
        summary,
        tried=tried.different,
        bytes=int(size[1]),
        bytes_range=size,
        worker_hours=worker_hours,
        hours=hours,
        gpu_hours=on_gpus,
    )


def _times(values: Range, factor: float) -> Range:
    low, likely, high = values
    return low * factor, likely * factor, high * factor


def _profile(ahead: WorkAhead, progress: bool) -> NumericsProfile:
    """The profile of what is new, else that of the newest generation of which something is left."""
    request = ahead.request
    if ahead.draft is not None and ahead.draft.images:
        return choose_profile(request.teacher, request.options, ahead.draft, request.workforce, progress)
    assert ahead.store is not None
    planned = {generation.number: generation.profile for generation in ahead.store.generations()}
    return planned[max(number for number, left in ahead.left.numbers.items() if len(left))]


def _try_some(ahead: WorkAhead, profile: NumericsProfile, progress: bool) -> Trial | None:
    request, options, teacher = ahead.request, ahead.request.options, ahead.request.teacher
    loaded = TeacherRequest(teacher.name)  # nobody loads it again
    cores = request.workforce.threads
    signals, keep, quality = options.signal_names, bool(options.keep_signals), request.image_quality
    job = LabelJob("", loaded, "", signals, (), True, cores, keep, quality, request.metric)
    sources = {source.name: source for source in request.sources}
    for name, root in (ahead.store.sources() if ahead.store else {}).items():
        sources.setdefault(name, reopen_source(name, root))
    work = ShardWork(request.work, sources, job, profile, encoding=request.spec.encoding)
    lanes = lanes_of(teacher, job, profile)
    samples = draw_samples(ahead.draft, ahead.store, ahead.left, lanes.count * profile.batch_size)
    try:
        with progress_bar("trial", unit="rounds", shown=progress) as bar:
            return try_out(samples, work, lanes, bar.update)
    except DepthsieveError:
        raise
    except (OSError, MemoryError, RuntimeError) as error:  # a full disk, the teacher's memory or device
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"the trial failed: {reason}; --no-trial plans without one") from error


def try_out(samples: Iterator[Sample], work: ShardWork, lanes: Lanes, round_done: Callable[[], object]) -> Trial | None:
    """Label and store samples, one a round, until :data:`TRIAL_S` is over; None where there are none.

    The first round is done twice and counted once, as whatever is done only once delays it.
    """
    rows: list[tuple[int, int, float, int]] = []
    seen: set[str] = set()
    first = next(samples, None)
    if first is None:
        return None
    with temporary_folder() as folder:
        began = time.perf_counter()
        for number, (shape, images) in enumerate(itertools.chain([first, first], samples)):
            start = time.perf_counter()
            shard = Shard(f"0000-{number:06d}", shape, tuple(images))
            if (
                work.how.takes_cameras
            ):  # any will do: labels are thrown away, and a teacher that needs one must not refuse
                cameras = tuple(Camera.centred(one.width, one.width, one.height, "given") for one in images)
                shard = replace(shard, cameras=cameras)
            stored = _label_and_store(shard, work, lanes, folder)
            end = time.perf_counter()
            rows.append((len(images), len(images) * shape[0] * shape[1], end - start, stored))
            seen.update(image.id for image in images)
            round_done()
            if end - began > TRIAL_S and number >= FEWEST_ROUNDS:
                break
    columns = zip(*rows[1:], strict=True)
    return Trial(len(seen), *(np.array(column) for column in columns))


def _label_and_store(shard: Shard, work: ShardWork, lanes: Lanes, folder: Path) -> int:
    """Returns how many bytes it takes."""
    done, root = label_shard(shard, work, lanes), LocalRoot(folder)
    how, teacher = work.how, work.how.teacher
    context = CommitContext("", teacher.quantity, teacher.unit, "", encoding=work.encoding)
    records = [publish_group(root, shard, done.content, context)]
    for spec in (one for one in kept_layers(work.job, label_spec(how, work.encoding), how) if one.name in done.layers):
        records.append(publish_to_layer(Layer(root, spec), shard.id, "", done.layers[spec.name], work.encoding))
    return sum(int(entry["bytes"]) for record in records for entry in record["files"].values())


def draw_samples(draft: Draft | None, store: Store | None, pending: Pending, size: int) -> Iterator[Sample]:
    """At most :data:`MOST_ROUNDS` samples of ``size`` images of what is drafted and what is pending, at random but the
    same each time: each image has about the same chance, and those of a sample have one label shape."""
    random = np.random.default_rng(0)
    new, left = draft.images if draft is not None else 0, pending.images
    rounds = min(MOST_ROUNDS, -(-(new + left) // size))
    of_new = round(rounds * new / max(1, new + left))
    samples: list[Sample] = []
    if draft is not None and of_new:
        samples += _of_draft(draft, of_new, size, random)
    if store is not None and rounds > of_new:
        samples += _of_pending(store, pending, rounds - of_new, size, random)
    random.shuffle(samples)
    return iter(samples)


def _of_draft(draft: Draft, rounds: int, size: int, random: np.random.Generator) -> Iterator[Sample]:
    shapes = list(draft.buckets)
    share = np.array([draft.buckets[shape] for shape in shapes]) / draft.images
    for number, count in enumerate(np.bincount(random.choice(len(shapes), rounds, p=share), minlength=len(shapes))):
        drawn = draft.sample(shapes[number], int(count) * size)
        for start in range(0, len(drawn), size):
            yield shapes[number], drawn[start : start + size]


def _of_pending(
    store: Store, pending: Pending, rounds: int, size: int, random: np.random.Generator
) -> Iterator[Sample]:
    names = list(pending)
    images = np.array([pending.images_of(name) for name in names])
    for number in random.choice(len(names), rounds, p=images / images.sum()):
        shard = store.planned_shard(names[number])
        start = int(random.integers(-(-len(shard.images) // size))) * size
        yield shard.shape, shard.images[start : start + size]
