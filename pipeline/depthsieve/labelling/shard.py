"""Label one shard: decode -> teacher -> reliability -> encode -> write. Knows neither Ray nor the whole run.

Axes: C channels, H and W the label shape; batches are rows [kB, (k+1)B) of the shard.
"""

import contextlib
import errno
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.cameras import Camera
from depthsieve.core.errors import DepthsieveError, ImageRejected, StoreError, TeacherError
from depthsieve.core.processes import cores
from depthsieve.core.records import (
    Alpha,
    ImageRecord,
    LabelJob,
    LabelSpec,
    NumericsProfile,
    Shape,
    Shard,
    ShardResult,
    digest_of,
)
from depthsieve.core.stopping import Abandoned, Stop
from depthsieve.core.threads import torch_threads
from depthsieve.labelling.ahead import fetched_ahead
from depthsieve.labelling.batch import LabelWork, PreparedImage, feature_arrays, label_batch
from depthsieve.labelling.image import Prepared, Readable, Unreadable, black_image, prepare_image
from depthsieve.labelling.lanes import GPU_LANES, Lanes
from depthsieve.labelling.metric import MetricInput, cameras_taken, fit_batch, metric_spec
from depthsieve.labelling.numerics import make_profile
from depthsieve.labelling.predicting import is_out_of_memory
from depthsieve.labelling.remarks import DIM, NO_METRES, OTHER_FOCAL, TRANSPARENT, Remarks, add_remarks
from depthsieve.reliability.fusion import calibration_for
from depthsieve.sources import Source, reopen_source
from depthsieve.storage import Root, is_url
from depthsieve.storage.together import together
from depthsieve.store import open_store, schema
from depthsieve.store.cameras import camera_arrays
from depthsieve.store.layer_kinds import (
    CAMERAS,
    FEATURES,
    IMAGES,
    METRIC,
    METRIC_COLUMNS,
    SIGNALS,
    LayerSpec,
    cameras_spec,
    features_spec,
    signals_spec,
)
from depthsieve.store.layers import Layer, make_layer, pack_for_layer, record_in_layer
from depthsieve.store.networks import network_of
from depthsieve.store.stored_images import images_spec, pack_images
from depthsieve.store.writer import (
    CommitContext,
    PackedGroup,
    ShardArrays,
    create_record,
    empty_arrays,
    pack_group,
)
from depthsieve.teachers import Teacher

Done = TypeVar("Done")

IN_MEMORY = 2
"""Shards of a worker whose arrays are in memory: one with the teacher, and one being packed."""


def label_spec(work: LabelWork, encoding: str = schema.ENCODING, alpha: Alpha = "respect") -> LabelSpec:
    """What decides the labels of such work, in this encoding, with transparency respected or ignored."""
    teacher, signals, network = work.teacher, work.signals, work.network
    fused = calibration_for(teacher.quantity, signals if network is None else ())
    more = {"alpha": "ignore"} if alpha == "ignore" else {}  # as it was before there was a choice
    more |= cameras_taken(teacher)
    return LabelSpec(
        weights_digest=teacher.weights_digest,
        quantity=teacher.quantity,
        unit=teacher.unit,
        dtype=teacher.dtype,
        preprocessing={**teacher.preprocessing, **more},
        signals=signals,
        calibration=network.name(teacher.weights_digest) if network else fused.name(signals, teacher.weights_digest),
        encoding=encoding,
        second=_second_spec(work.second) if work.second else None,
        calibration_digest=network.digest if network else "",
        spec_version=work.code_version,
    )


def _second_spec(second: Teacher) -> dict[str, Any]:
    names = ("weights_digest", "quantity", "unit", "dtype", "preprocessing")
    body = {name: getattr(second, name) for name in names}
    return body | {"preprocessing": {**second.preprocessing, **cameras_taken(second)}}


def kept_layers(job: LabelJob, spec: LabelSpec, work: LabelWork, root: Root | None = None) -> tuple[LayerSpec, ...]:
    """The layers that a job adds to with each shard, in the store at ``root`` if there is one yet.
    :attr:`Labelled.layers` has the arrays of each that has something to say of the shard."""
    kept = [features_of(work.teacher, spec)]
    if job.keep_signals:
        kept.append(signals_spec(spec))
    if job.image_quality is not None:
        kept.append(images_spec(spec.fingerprint, job.image_quality))
    if job.metric is not None and work.metric is not None:
        kept.append(metric_spec(root, spec, job.metric, work.metric))
    kept.append(cameras_spec(spec))  # of shards with an image whose camera is known
    return tuple(kept)


def features_of(teacher: Teacher, spec: LabelSpec) -> LayerSpec:
    """The layer of features that a teacher's labels have."""
    return features_spec(spec, teacher.embedding_size, teacher.embedding_method)


@dataclass(frozen=True)
class Care:
    """How a shard is labelled whose images may crash the process: decoded one by one, each step announced beforehand.

    ``tell`` gets the steps "decode", "predict" and "commit", with the rows that each is about. Rows that are
    ``quarantined`` fail with the reason given. Batches that begin with a row in ``singly`` go through the teacher one
    image at a time. With ``only``, that row alone is taken through, in its place, and the others are left out; if it is
    quarantined, a black picture goes in its place.
    """

    tell: Callable[[str, Sequence[int]], None]
    quarantined: Mapping[int, str] = field(default_factory=dict)
    singly: frozenset[int] = frozenset()
    only: int | None = None


@dataclass(frozen=True)
class Watch:
    """Callbacks of a worker. ``images`` gets, after each batch, the shard and how many of its images are done so far,
    ``sends`` a shard whose labels are on this machine's disk and go to the store now; ``stop`` ends the work early."""

    images: Callable[[str, int], None] = lambda shard_id, count: None
    stop: Stop | None = None
    care: Care | None = None
    sends: Callable[[str], None] = lambda shard_id: None


@dataclass(frozen=True)
class Labelled:
    """The content of a shard, and the batches that were split: (first row, rows, images at a time). ``layers`` holds
    what is kept beside it: by the layer's name, its arrays by theirs."""

    content: ShardArrays
    split_batches: tuple[tuple[int, int, int], ...] = ()
    layers: Mapping[str, Mapping[str, np.ndarray[Any, Any]]] = field(default_factory=dict)
    remarks: Remarks = ()


class ShardLabeller:
    """Labels and commits the shards of a job, one call a shard, in this process.

    ``work`` is the job's, where its teachers are loaded already. Several threads may call it at once: while shards are
    being committed, another is with the teacher.
    """

    def __init__(self, job: LabelJob, work: LabelWork | None = None, watch: Watch | None = None) -> None:
        self._job = job
        self._watch = watch or Watch()
        self._store = open_store(job.store)
        if work is None:
            network = network_of(self._store.root, self._store.spec)
            version = self._store.spec.spec_version
            work = LabelWork.load(job.teacher, job.signals, job.keep_signals, job.metric, network, version)
        self._work = work
        if self._store.fingerprint != job.fingerprint:
            raise StoreError(f"{job.store} is another store than when the run began; run the same command again")
        if label_spec(self._work, self._store.spec.encoding, self._store.spec.alpha).fingerprint != job.fingerprint:
            raise TeacherError(
                f"a worker found other weights or settings for teacher {job.teacher.name!r} than the run was planned "
                "with; give every worker the same checkpoint"
            )
        self._made: set[str] = set()
        self._making = threading.Lock()
        self._in_memory = threading.BoundedSemaphore(IN_MEMORY)
        self._kept = kept_layers(job, self._store.spec, self._work, self._store.root)
        self._sources = {name: reopen_source(name, root) for name, root in job.sources}
        self._profiles = {generation.number: generation.profile for generation in self._store.generations()}
        self._lanes = lanes_of(self._work.teacher, job, list(self._profiles.values())[-1])
        self.turn = self._lanes.turn

    def __call__(self, shard_id: str) -> ShardResult:
        """Wait for the turn, then label one shard and commit it.

        A transient fault comes back as ``error``; the caller may retry. Raises :class:`Abandoned` when it was stopped
        before the commit began.
        """
        with self.turn.taken():
            if self._watch.stop and self._watch.stop.requested:
                raise Abandoned
            return self._label_and_commit(shard_id)

    def _label_and_commit(self, shard_id: str) -> ShardResult:
        try:
            with contextlib.ExitStack() as scratch:
                packed = self._label_and_pack(shard_id, scratch)
                far, stop = is_url(self._store.root.location), self._watch.stop
                if far and stop and stop.seconds_left() <= 0:  # on a disk a commit takes no time to speak of
                    raise Abandoned
                self._watch.sends(shard_id)
                self._commit(shard_id, packed)
                return packed.result
        except DepthsieveError as error:
            return ShardResult(shard_id, error=str(error), fatal=True)
        except OSError as error:
            return ShardResult(shard_id, error=f"{type(error).__name__}: {error}")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            hint = "out of memory with one image at a time; free memory, or use a smaller --size in a new store"
            return ShardResult(shard_id, error=hint, fatal=True)

    def _label_and_pack(self, shard_id: str, scratch: contextlib.ExitStack) -> "_Packed":
        """Label a shard, and leave its files on this machine's disk until ``scratch`` ends. Its arrays are no longer in
        memory then: of a worker's shards at most :data:`IN_MEMORY` are, however many are being uploaded."""
        with self._in_memory:
            shard, planned = self._planned(shard_id)
            done = self._label(shard, planned, self._watch)
            context = self._context(done, planned)
            if self._watch.care:
                self._watch.care.tell("commit", ())
            with self._store_named():
                group = pack_group(self._store.root, shard, done.content, context, scratch)
                labels, layers = group.body["content_sha256"], []
                for spec in (one for one in self._kept if one.name in done.layers):
                    layer = Layer(self._store.root, spec)
                    of = (shard_id, labels)
                    packed = pack_for_layer(layer, of, done.layers[spec.name], context.encoding, scratch)
                    layers.append((layer, packed))
        notes = tuple(
            f"shard {shard_id}: batch of rows {first}..{first + rows - 1} did not fit into memory and was labelled in "
            f"parts of {part}; its labels may differ in the last bits"
            for first, rows, part in done.split_batches
        )
        labelled = len(shard.images) - len(done.content.failures)
        return _Packed(group, tuple(layers), ShardResult(shard_id, labelled, notes=notes, remarks=done.remarks))

    def try_rows(self, shard_id: str, rows: Sequence[int]) -> None:
        """Take each of the rows from file to label, alone in its place, and commit nothing. Needs care."""
        assert self._watch.care
        shard, planned = self._planned(shard_id)
        for row in rows:
            with contextlib.suppress(OSError):
                self._label(shard, planned, replace(self._watch, care=replace(self._watch.care, only=row)))

    def label_only(self, shard_id: str) -> tuple[Shard, ShardArrays, CommitContext]:
        """A shard, its labels, and what its commit record would say besides; nothing is committed."""
        shard, planned = self._planned(shard_id)
        done = self._label(shard, planned, self._watch)
        return shard, done.content, self._context(done, planned)

    def _planned(self, shard_id: str) -> tuple[Shard, NumericsProfile]:
        return self._store.planned_shard(shard_id), self._profiles[schema.shard_number(shard_id)[0]]

    def _label(self, shard: Shard, planned: NumericsProfile, watch: Watch) -> Labelled:
        spec = self._store.spec
        work = ShardWork(self._work, self._sources, self._job, planned, watch, spec.encoding, spec.alpha)
        return label_shard(shard, work, self._lanes)

    def _context(self, done: Labelled, planned: NumericsProfile) -> CommitContext:
        actual = make_profile(
            self._work.teacher, planned.batch_size, planned.threads, videos="pyav" in planned.versions
        ).to_json()
        if done.split_batches:
            actual["split_batches"] = done.split_batches
        return CommitContext.of(self._store.spec, digest_of(actual), done.split_batches)

    def _commit(self, shard_id: str, packed: "_Packed") -> None:
        """Upload all files, then write the records of layers, and last the shard's own."""
        root = self._store.root
        with self._store_named():
            known: list[Callable[[], Any]] = [partial(self._store.is_committed, shard_id)]
            known += [partial(self._layer_before, layer, shard_id) for layer, _ in packed.layers]
            committed, *before = together(root, known)
            if committed:  # by a faster attempt
                return
            together(root, [group.publish for group in (packed.group, *(group for _, group in packed.layers))])
            # Layers first: whoever sees the shard's own record finds them too, wherever a run was killed. What an
            # attempt left that went no further is written again, since no repair looks at layers of labels that were
            # never committed; files that are sound stay.
            records = zip(packed.layers, before, strict=True)
            together(root, [partial(record_in_layer, layer, one.body, old) for (layer, one), old in records])
            create_record(root, shard_id, packed.group.body)

    def _layer_before(self, layer: Layer, shard_id: str) -> dict[str, Any] | None:
        """The layer's record of a shard, if any. The layer is made while its first shard is in hand, as verify
        expects."""
        with self._making:
            if layer.name not in self._made:
                make_layer(layer.root, layer.spec)
                self._made.add(layer.name)
        return layer.record(shard_id)

    @contextlib.contextmanager
    def _store_named(self) -> Iterator[None]:
        """Raise what cannot be written as a :class:`StoreError` that names the store."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"cannot write to {self._store.location}: {_why_not(error, self._store.root)}") from error


def _why_not(error: OSError, root: Root) -> str:
    """What stopped a commit. Before a bucket gets a shard, this machine's own disk does."""
    if is_url(root.location) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        here = f"{tempfile.gettempdir()} on {socket.gethostname()}"
        return f"no room in {here}, where shards are put together first; make room there, or set TMPDIR"
    return error.strerror or str(error)


@dataclass(frozen=True)
class _Packed:
    """A shard whose files are on this machine's disk, and what is told of it once it is committed."""

    group: PackedGroup
    layers: tuple[tuple[Layer, PackedGroup], ...]
    result: ShardResult


def lanes_of(teacher: Teacher, job: LabelJob, profile: NumericsProfile) -> Lanes:
    """Lanes that keep the cores of this worker, or its GPU, busy."""
    mine = job.cores or cores()
    if teacher.device.type == "cpu":
        return Lanes(max(1, mine // profile.threads))
    return Lanes(GPU_LANES, decoders=mine)


@dataclass(frozen=True)
class ShardWork:
    """What a shard is labelled with: ``profile`` is that of its plan, ``encoding`` and ``alpha`` the label spec's."""

    how: LabelWork
    sources: Mapping[str, Source]
    job: LabelJob
    profile: NumericsProfile
    watch: Watch = Watch()
    encoding: str = schema.ENCODING
    alpha: Alpha = "respect"


def label_shard(shard: Shard, work: ShardWork, lanes: Lanes) -> Labelled:
    """The arrays of a shard. A failed image keeps its row and its place in the batch, all zero.

    Batches are rows [kB, (k+1)B) of the plan, so that no label depends on what failed or came before; one that does not
    fit into memory is split. A turn that this thread holds is passed on when the lanes have room for another shard.
    Raises :class:`OSError` for a transient fault of the file system, and :class:`Abandoned` when it was stopped and the
    rest would take longer than the grace period.
    """
    how = work.how
    arrays = empty_arrays(shard)
    kept = {name: np.zeros_like(arrays["depth"]) for name in (how.signals if how.keep_signals else ())}
    features = feature_arrays(len(shard.images), how.teacher.embedding_size)
    size, watch = work.profile.batch_size, work.watch
    spans = [range(start, min(start + size, len(shard.images))) for start in range(0, len(shard.images), size)]
    jpegs = [b""] * len(shard.images)
    cameras: list[Camera | None] = [None] * len(shard.images)
    seen_N4 = np.full((len(shard.images), 4), np.nan, np.float32)  # by the teacher
    fit_NC = np.full((len(shard.images), len(METRIC_COLUMNS)), np.nan)
    began: list[float] = []
    remarks: list[tuple[str, int, str]] = []

    def prepare(row: int) -> Prepared:
        image, job = shard.images[row], work.job
        last, quality = job.last_attempt, job.image_quality
        photo = how.network is not None
        given = shard.cameras[row] if shard.cameras else None
        return prepare_image(
            image, shard.shape, sources, how.teacher, last, quality, how.second, work.alpha, how.metric, photo, given
        )

    def predict(span: range, prepared: list[Prepared]) -> tuple[int, list[Unreadable]]:
        began.append(time.monotonic())
        most = 1 if watch.care and span.start in watch.care.singly else size
        with torch_threads(work.profile.threads):
            part = label_batch(arrays | kept | features | {"intrinsics": seen_N4}, span, prepared, how, most)
            if how.metric is not None:
                rows = slice(span.start, span.stop)
                fit_NC[rows] = fit_batch(
                    arrays["depth"][rows], arrays["reliability"][rows], _metric_inputs(prepared), how.metric, most
                )
        for row, image in zip(span, prepared, strict=True):
            if isinstance(image, PreparedImage) and arrays["status"][row] == schema.STATUS_LABELLED:
                jpegs[row] = image.jpeg
                cameras[row] = image.camera or _predicted(seen_N4[row], shard.images[row], shard.shape)
                if image.is_apart:
                    remarks.append((OTHER_FOCAL, 1, shard.images[row].id))
                if image.hole_HW is not None and image.hole_HW.any():
                    remarks.append((TRANSPARENT, 1, shard.images[row].id))
                if image.is_dim:
                    remarks.append((DIM, 1, shard.images[row].id))
                if how.metric is not None and not fit_NC[row, 0] > 0:
                    remarks.append((NO_METRES, 1, shard.images[row].id))
        return part, [image for image in prepared if isinstance(image, Unreadable)]

    unreadable: list[Unreadable] = []
    split: list[tuple[int, int, int]] = []
    with contextlib.ExitStack() as stack:
        sources: Mapping[str, Readable] = work.sources
        if watch.care:
            blank = partial(black_image, shard.shape, how.teacher, how.second)
            batches = _one_by_one(spans, prepare, predict, watch.care, blank)
        else:
            sources = stack.enter_context(fetched_ahead(work.sources, shard.images))
            batches = lanes.run(spans, [image.width * image.height for image in shard.images], prepare, predict)
        stack.enter_context(contextlib.closing(batches))
        for done, (span, (part, not_read)) in enumerate(batches, 1):
            unreadable += not_read
            if part < len(span):
                split.append((span.start, len(span), part))
            watch.images(shard.id, span.stop)
            _check_stop(watch.stop, (time.monotonic() - began[0]) / done * (len(spans) - done))
    if len(unreadable) == len(shard.images):
        raise OSError(errno.EIO, f"none of {len(unreadable)} images can be read; is the disk there? {unreadable[0]}")
    layers: dict[str, Mapping[str, np.ndarray[Any, Any]]] = {FEATURES: features}
    if kept:
        layers[SIGNALS] = kept
    if work.job.image_quality is not None:
        layers[IMAGES] = pack_images(jpegs)
    if how.metric is not None:
        fit_NC[arrays["status"] != schema.STATUS_LABELLED] = np.nan
        layers[METRIC] = {"fit": fit_NC}
    if any(cameras):
        layers[CAMERAS] = camera_arrays(cameras)
    return Labelled(ShardArrays(arrays), tuple(split), layers, add_remarks(tuple(sorted(remarks))))


def _predicted(intrinsics_4: NDArray[np.float32], image: ImageRecord, shape: Shape) -> Camera | None:
    """The camera of a source by what the teacher predicts of it at label shape; None where it does not."""
    fx, fy, cx, cy = map(float, intrinsics_4)
    if not (np.isfinite(intrinsics_4).all() and min(fx, fy) > 0):
        return None
    return Camera(fx, fy, cx, cy, "teacher").scaled(image.width / shape[1], image.height / shape[0])


def _metric_inputs(prepared: Sequence[Prepared]) -> list[MetricInput | None]:
    return [image.metric if isinstance(image, PreparedImage) else None for image in prepared]


def _check_stop(stop: Stop | None, seconds: float) -> None:
    """Raise :class:`Abandoned` if a stop is requested and the rest, so many seconds, does not fit into its grace."""
    if stop and stop.requested and seconds and seconds >= stop.seconds_left():
        raise Abandoned


def _one_by_one(
    spans: list[range],
    prepare: Callable[[int], Prepared],
    predict: Callable[[range, list[Prepared]], Done],
    care: Care,
    blank: Callable[[], Prepared],
) -> Generator[tuple[range, Done], None, None]:
    """What ``predict`` returns for each batch, in this thread; images are decoded one by one, each announced first.

    A quarantined row that is taken alone is replaced by a ``blank`` picture: does the teacher survive that one?
    """
    for span in spans if care.only is None else [span for span in spans if care.only in span]:
        prepared: list[Prepared] = []
        for row in span:
            if care.only not in (None, row):
                prepared.append(ImageRejected("left out"))
            elif row in care.quarantined and care.only is not None:
                prepared.append(blank())
            elif row in care.quarantined:
                prepared.append(ImageRejected(care.quarantined[row]))
            else:
                care.tell("decode", (row,))
                prepared.append(prepare(row))
        care.tell("predict", span if care.only is None else (care.only,))
        yield span, predict(span, prepared)
