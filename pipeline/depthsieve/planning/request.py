"""A request to label, once all that is cheap to check was checked: options, sources, store, teacher and workforce."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from depthsieve.cameras.given import GivenCameras, given_cameras
from depthsieve.core.encodings import ENCODINGS
from depthsieve.core.errors import TeacherNotFound, UsageError
from depthsieve.core.frames import ALL_FRAMES, FrameChoice
from depthsieve.core.patterns import add_patterns
from depthsieve.core.progress import logger
from depthsieve.core.records import MAX_TOKENS, OVERSIZE, LabelJob, LabelSpec, TeacherRequest, default_dtype
from depthsieve.labelling.batch import LabelWork
from depthsieve.labelling.metric import metric_request, metric_spec
from depthsieve.labelling.shard import label_spec
from depthsieve.planning.calibrated import choose_signals, has_labels, uncalibrated_notes
from depthsieve.planning.checks import (
    check_source,
    find_manifest,
    find_store,
    images_notes,
    metric_notes,
    signals_notes,
)
from depthsieve.planning.options import DEFAULT_SIGNALS, DEFAULT_TEACHER, LabelOptions
from depthsieve.planning.workforce import Workforce, device_kind, differences_from
from depthsieve.reliability.kinds import NETWORK
from depthsieve.reliability.network import confidence_notes
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.sources import Source, open_source
from depthsieve.sources.manifest import Manifest
from depthsieve.storage import Root, open_root
from depthsieve.store import Store
from depthsieve.store.create import check_root, check_spec
from depthsieve.store.layer_kinds import IMAGES, METRIC, SIGNALS
from depthsieve.store.layers import find_layer
from depthsieve.store.pending import Pending
from depthsieve.store.schema import ENCODING, encoding_of
from depthsieve.store.stored_images import QUALITY, quality_of
from depthsieve.teachers import EARLIER, Teacher, full_name, load_requested, name_at

Nodes = Sequence[tuple[int, int]]
"""The (CPUs, GPUs) of each node of a cluster."""


@dataclass(frozen=True)
class LabelRequest:
    """What a run is asked to do, and with what. ``existing`` is the store as it was found, None where it is new;
    ``recalled`` are the options that were taken from it, ``left_open`` those that nobody gave, ``earlier`` the embedded
    teachers of before that labelled it, where they were not named as they are called now. ``given`` is what is said of
    cameras, None where nothing is."""

    options: LabelOptions
    sources: tuple[Source, ...]
    manifest: Manifest | None
    root: Root
    asked: TeacherRequest
    work: LabelWork
    spec: LabelSpec
    existing: Store | None
    workforce: Workforce
    image_quality: int | None
    metric: TeacherRequest | None
    recalled: str
    left_open: frozenset[str]
    earlier: tuple[str, ...] = ()
    calibration_notes: tuple[str, ...] = ()
    given: GivenCameras | None = None

    @classmethod
    def checked(
        cls,
        source: str | Path,
        store: str | Path,
        options: LabelOptions,
        find_nodes: Callable[[LabelOptions], Nodes | None],
    ) -> "LabelRequest":
        """The request, once everything was checked that needs no look at the images. Nothing is written.

        ``find_nodes`` returns the nodes of the cluster that is to label, None without one. Raises
        :class:`UsageError`, :class:`SourceError`, :class:`StoreError`, :class:`TeacherError`, and :class:`RunError`
        where the cluster cannot be reached or has no node that can work.
        """
        manifest = find_manifest(source, options)
        sources = manifest.open_sources() if manifest else (open_source(source, options.name, options.root),)
        root = open_root(store)
        check_root(root)
        given = cameras_said(options)
        nodes = find_nodes(options)
        existing = find_store(root)
        if existing is not None:
            check_spec(existing, replace(existing.spec, kind="teacher"))  # before another teacher is looked for
        left_open = frozenset(one.name for one in fields(options) if getattr(options, one.name) is None)
        said = (options.teacher, options.second_teacher)
        options, taken = recall(as_called_now(options, existing), existing, device_kind(options, nodes))
        asked = teacher_request(options)
        used = (asked.name, asked.second.name if asked.second else None)
        # On a cluster the workers have the device that is asked for, and this process need not have it.
        device = asked.device if nodes is None else "auto"
        metric = metric_asked(asked, options)
        with _named_by(existing, "teacher" in left_open):
            work = LabelWork.load(asked.on(device), (), bool(options.keep_signals))
        options, network = choose_signals(options, existing, work.teacher)
        work = replace(work.with_network(options.signal_names, network), code_version=chosen_version(existing))
        if metric is not None:
            with _metric_named_by(existing, "metric_from" in left_open):
                work = replace(work, metric=load_requested(metric.on(device)))
        work.check()
        logger.info("teacher %s on %s, %s", work.teacher.name, work.teacher.device, work.teacher.dtype)
        spec = label_spec(work, chosen_encoding(existing, options), options.alpha or "respect")
        if existing is not None:
            check_spec(existing, spec)
            if metric is not None and work.metric is not None:
                check_metric_layer(existing, metric, work.metric)
        for images in sources:
            check_source(images, root, existing, options.moved)
        workforce = Workforce.choose(work.teacher, options, nodes)
        is_new = existing is None or not has_labels(existing)
        notes = confidence_notes(network, f"teacher {work.teacher.name!r}")
        if {"signals", "calibration"} <= left_open:
            notes = tuple(uncalibrated_notes(work))
        quality = chosen_quality(existing, options)
        request = cls(
            options=options,
            sources=sources,
            manifest=manifest,
            root=root,
            asked=asked,
            work=work,
            spec=spec,
            existing=existing,
            workforce=workforce,
            image_quality=quality,
            metric=metric,
            recalled=taken,
            left_open=left_open,
            calibration_notes=notes if is_new else (),
            given=given,
            earlier=tuple(one.name for one in EARLIER.values() if one.name in used and one.name not in said),
        )
        _ = request.frames  # raises where others are asked for than the store has
        return request

    @property
    def teacher(self) -> Teacher:
        """The teacher that labels."""
        return self.work.teacher

    @functools.cached_property
    def excluded(self) -> Mapping[str, tuple[str, ...]]:
        """By the names of sources, the patterns of what is left out of them: those said now and those remembered.

        As it was before the run wrote anything: a store without a plan may be made again with another label spec.
        """
        if self.manifest is not None:
            return dict.fromkeys(self.manifest.sources, self.manifest.exclude)
        known = self.existing.excluded() if self.existing is not None else {}
        name = self.options.name
        return {name: add_patterns(known.get(name, ()), self.options.exclude)}

    @functools.cached_property
    def frames(self) -> Mapping[str, FrameChoice]:
        """By the names of sources, which frames of their videos are taken, as said now or remembered.

        Raises :class:`UsageError` where the store has frames that would be left out now.
        """
        if self.manifest is not None:
            return self.manifest.frames
        known = self.existing.frames() if self.existing is not None else {}
        name, said = self.options.name, self.options.frames
        before = FrameChoice.parse(known[name]) if name in known else None
        if said is not None and before is not None and not said.holds(before):
            raise UsageError(
                f"{self.root.location} has the frames of source {name!r} that {before.option} takes, and {said.option} "
                f"leaves some of them out: say what takes more, such as --every 1, or label into a new store"
            )
        return {name: said or before or ALL_FRAMES}

    @property
    def recalled_notes(self) -> tuple[str, ...]:
        """What was taken from the store, in a line, and one for each teacher that has another name now."""
        lines = self.given.notes if self.given is not None else ()
        lines += (f"as {self.root.location} was begun: {self.recalled}",) if self.recalled else ()
        return lines + tuple(
            f"{self.root.location} holds labels of {name}, the `tiny` of before, and resumes with it; a new store gets "
            "today's `tiny`"
            for name in self.earlier
        )

    def job(self, store: Store) -> LabelJob:
        """What a worker has to know to label shards of the store."""
        device = self.workforce.device or (self.teacher.device.type if self.workforce.apart else self.asked.device)
        return LabelJob(
            self.root.location,
            self.asked.on(device),
            self.spec.fingerprint,
            self.spec.signals,
            tuple(store.sources().items()),
            cores=self.workforce.threads,
            keep_signals=bool(self.options.keep_signals),
            image_quality=self.image_quality,
            metric=self.metric and self.metric.on(device),
        )

    def notes(self, store: Store, todo: Pending) -> Iterator[str]:
        """How this machine and these options differ from what the pending generations were planned with."""
        for generation in store.generations():
            if len(todo.numbers.get(generation.number, ())):
                for difference in differences_from(generation.profile, self.teacher, self.options, self.workforce):
                    yield f"generation {generation.number} {difference}"
        yield from signals_notes(store, self.options, "keep_signals" in self.left_open, len(todo))
        yield from self.calibration_notes
        yield from images_notes(store, self.options, "store_images" in self.left_open, len(todo))
        if self.metric is not None:
            yield from metric_notes(store, self.options, "metric_from" in self.left_open)


@contextlib.contextmanager
def _named_by(store: Store | None, was_open: bool) -> Iterator[None]:
    """Say of a teacher that is not there that it is the store that names it, or that it is the default, where that is
    so."""
    try:
        yield
    except TeacherNotFound as error:
        if not was_open:
            raise
        if store is not None and store.generations():
            raise TeacherNotFound(
                f"{error}; {store.location} was begun with it: name where it is now, --teacher NAME"
            ) from error
        raise TeacherNotFound(f"no --teacher is given, and the default cannot be had: {error}") from error


@contextlib.contextmanager
def _metric_named_by(store: Store | None, was_open: bool) -> Iterator[None]:
    """The same of the metric teacher."""
    try:
        yield
    except TeacherNotFound as error:
        if store is None or not was_open:
            raise
        raise TeacherNotFound(
            f"{error}; the labels of {store.location} have their metres from it: name where it is now, --metric-from "
            "NAME, or leave them without: --metric-from none"
        ) from error


def as_called_now(options: LabelOptions, store: Store | None) -> LabelOptions:
    """The options with ``tiny`` as it is called now, where another teacher had that name when it labelled the store."""
    if store is None or not store.generations():
        return options
    teacher, second = options.teacher, options.second_teacher
    return replace(
        options,
        teacher=teacher and name_at(teacher, store.spec.weights_digest),
        second_teacher=second and name_at(second, (store.spec.second or {}).get("weights_digest", "")),
    )


def recall(options: LabelOptions, store: Store | None, device_kind: str) -> tuple[LabelOptions, str]:
    """The options with what they leave open filled in, as the store was labelled before, else by default; and those
    that are the store's and not the default, as a user would write them.

    What is known of the store's teacher does not count where another one is named.
    """
    defaults: dict[str, Any] = {
        "teacher": DEFAULT_TEACHER,
        "signals": None,  # see choose_signals
        "dtype": default_dtype(device_kind),
        "max_tokens": MAX_TOKENS,
        "oversize": OVERSIZE,
        "keep_signals": False,
        "store_images": False,
        "alpha": "respect",
    }
    known = _known_of(store, options) if store is not None else {}
    if options.calibration is not None:  # where the store's labels have others, it is shown that these differ
        known = {name: value for name, value in known.items() if name not in ("signals", "second_teacher")}
    values: dict[str, Any] = {}
    of_disparity = store is not None and store.spec.quantity == "disparity"
    usual = defaults | {"signals": NETWORK if of_disparity else DEFAULT_SIGNALS}
    taken = []
    for name in {**defaults, **known}:
        if getattr(options, name) not in (None, "auto"):
            continue
        value = known.get(name)
        if value is None:
            value = defaults.get(name)
        elif value != usual.get(name) and not isinstance(value, bool):  # of those, see the notes
            taken.append(f"--{name.replace('_', '-')} {value}")
        values[name] = value
    if store is not None and options.encoding is None and store.spec.encoding == ENCODINGS["small"].text:
        taken.append("--encoding small")  # see chosen_encoding
    return replace(options, **values), " ".join(taken)


def _known_of(store: Store, options: LabelOptions) -> dict[str, Any]:
    """How a store was labelled, by the names of the options; nothing where it never was."""
    made_by = store.generations()[-1].teacher if store.generations() else None
    if made_by is None:
        return {}
    known = {
        "signals": ",".join(store.spec.signals) or "none",
        "dtype": store.spec.dtype,
        "alpha": store.spec.alpha,
        "second_teacher": made_by.second.name if made_by.second else None,
        "keep_signals": find_layer(store.root, SIGNALS, store.fingerprint) is not None,
        "store_images": find_layer(store.root, IMAGES, store.fingerprint) is not None,
        "metric_from": _metric_of(store),
    }
    if options.teacher is not None and full_name(options.teacher) != made_by.name:
        return known
    own = ("revision", "size", "max_tokens", "oversize", "quantity")
    return known | {"teacher": made_by.name} | {name: getattr(made_by, name) for name in own}


def _metric_of(store: Store) -> str | None:
    layer = find_layer(store.root, METRIC, store.fingerprint)
    return metric_request(layer.spec.detail or {}).name if layer is not None else None


def metric_asked(asked: TeacherRequest, options: LabelOptions) -> TeacherRequest | None:
    """The metric teacher that the options ask for, with the settings of the one that labels where they are no one's
    own."""
    if options.metric_from in (None, "none"):
        return None
    return replace(asked, name=full_name(options.metric_from), revision=None, size=None, quantity=None, second=None)


def check_metric_layer(store: Store, asked: TeacherRequest, metric: Teacher) -> None:
    """Raise :class:`UsageError` where the store has its metres of another teacher."""
    layer = find_layer(store.root, METRIC, store.fingerprint)
    if layer is not None and metric_spec(store.root, store.spec, asked, metric) != layer.spec:
        has = metric_request(layer.spec.detail or {}).name
        raise UsageError(
            f"the labels of {store.location} have their metres from teacher {has!r}, with other weights, dtype or "
            f"preprocessing than {asked.name!r} has here; say --metric-from none, or remove the folders layers/metric "
            "and copies/layers/metric first to fit all labels again"
        )


def teacher_request(options: LabelOptions) -> TeacherRequest:
    """The teacher that the options ask for. A folder is named by its whole path, since a worker has another working
    folder."""
    teacher = TeacherRequest(full_name(options.teacher or DEFAULT_TEACHER), **options.settings())
    if options.second_teacher is None:
        return teacher
    second = replace(teacher, name=full_name(options.second_teacher), revision=None, size=None, quantity=None)
    return replace(teacher, second=second)


def cameras_said(options: LabelOptions) -> GivenCameras | None:
    """What the options say of cameras, None where they say nothing. Raises :class:`SourceError` for a file that will
    not do."""
    if not options.says_cameras:
        return None
    file = None if options.cameras == "none" else options.cameras
    return given_cameras(file, options.focal_length, options.fov)


def chosen_encoding(store: Store | None, options: LabelOptions) -> str:
    """What labels are packed in, as the label spec has it: as the options say, else as the store began."""
    if options.encoding is not None:
        return ENCODINGS[options.encoding].text
    return encoding_of(store.spec.encoding).text if store is not None else ENCODING


def chosen_version(store: Store | None) -> int:
    """The version of the label spec, which says what codes stand for: as the store began."""
    return store.spec.spec_version if store is not None and has_labels(store) else CODE_VERSION


def chosen_quality(store: Store | None, options: LabelOptions) -> int | None:
    """The JPEG quality of the images to be stored: as the options say, else as the store began; None for no images.

    Raises :class:`UsageError` where the store has images of another quality.
    """
    if not options.store_images:
        return None
    layer = find_layer(store.root, IMAGES, store.fingerprint) if store is not None else None
    if layer is None:
        return options.image_quality or QUALITY
    has = quality_of(layer.spec)
    if options.image_quality not in (None, has):
        raise UsageError(
            f"{layer.root.location} has images of quality {has}, not {options.image_quality}; leave out "
            "--image-quality, or remove the folders layers/images and copies/layers/images first"
        )
    return has
