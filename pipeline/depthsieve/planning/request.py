"""From a source to a generation: which images are new, their label shapes, shards and numerics profile."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from depthsieve.core.encodings import ENCODINGS
from depthsieve.core.errors import RunError, SourceError, StoreNotFound, UsageError
from depthsieve.core.processes import cores
from depthsieve.core.records import DatasetNote, NumericsProfile, TeacherRequest, default_dtype
from depthsieve.labelling.numerics import TrialSettings, find_batch_size, make_profile, threads_a_lane
from depthsieve.planning.draft import Draft, draft_batches
from depthsieve.planning.options import LabelOptions
from depthsieve.reliability import shipped_calibration
from depthsieve.sources import Source
from depthsieve.sources.scan import Scan
from depthsieve.storage import Root, is_url
from depthsieve.store import Store, open_store
from depthsieve.store.create import add_generation
from depthsieve.store.layer_kinds import IMAGES, SIGNALS
from depthsieve.store.layers import find_layer
from depthsieve.store.schema import ENCODING, encoding_of
from depthsieve.store.standing import Again
from depthsieve.store.stored_images import QUALITY, quality_of
from depthsieve.teachers import EMBEDDED, Teacher, find_preset, resolve_device

SIGNAL_BYTES_PER_PIXEL = 1.7
"""What a pixel of one kept signal takes on disk: up to 1.64 on 16 photos (flip)."""


IMAGE_BYTES_PER_PIXEL = 0.6
"""What a pixel of a stored image takes, on the large side: 0.26 on 16 photos at the quality that nobody chose."""

CLUSTER_BATCH = 16
"""Images a forward pass where the GPUs are a cluster's and the driver has none to try on; a larger one is split."""


@dataclass(frozen=True, slots=True)
class Workforce:
    """Who labels: ``workers`` of ``threads`` (cores) each, on Ray or (one) in this process, sharing ``gpus``.

    On a cluster ``workers`` None is as many as find room, and what is in this machine says nothing.
    """

    on_ray: bool
    workers: int | None
    threads: int
    gpus: int
    on_cluster: bool = False

    @classmethod
    def choose(
        cls, teacher: Teacher, options: LabelOptions, cluster: Sequence[tuple[int, int]] | None = None
    ) -> "Workforce":
        """What the options ask for; auto is Ray for an address, more than one worker, or more than one GPU.

        ``cluster`` has the (CPUs, GPUs) of each node at the address. ``--device cuda:1`` names one GPU, and so one
        worker.
        """
        if cluster is not None:
            return cls.of_cluster(options, cluster)
        gpus = 0
        if teacher.device.type == "cuda":
            gpus = 1 if ":" in options.device else torch.cuda.device_count()
        workers = options.workers or max(1, gpus)
        on_ray = options.runner == "ray" or (options.runner == "auto" and workers > 1)
        if not on_ray:
            workers = 1
        return cls(on_ray, workers, options.threads or max(1, cores() // workers), gpus)

    @classmethod
    def of_cluster(cls, options: LabelOptions, cluster: Sequence[tuple[int, int]]) -> "Workforce":
        """What a cluster with so many (CPUs, GPUs) a node is asked for."""
        wanted = options.device == "auto" or options.device.startswith("cuda")
        gpus = sum(each for _, each in cluster) if wanted else 0
        fair = [cpus // each for cpus, each in cluster if each] if gpus else [cpus for cpus, _ in cluster if cpus]
        return cls(True, options.workers, options.threads or max(1, min(fair, default=1)), gpus, on_cluster=True)

    @property
    def device(self) -> str | None:
        """The kind of device that a cluster's workers use; None where this process is asked."""
        return ("cuda" if self.gpus else "cpu") if self.on_cluster else None

    def profile(self, teacher: Teacher, batch_size: int, threads: int) -> NumericsProfile:
        """The profile of these workers and these versions."""
        profile = make_profile(teacher, batch_size, threads)
        if self.device in (None, profile.device_kind):
            return profile
        return replace(profile, device_kind=self.device or "", device_model="the cluster's")


def device_kind(options: LabelOptions, cluster: Sequence[tuple[int, int]] | None) -> str:
    """The kind of device that labels: "cpu", "cuda" or "mps"."""
    if cluster is not None:
        return Workforce.of_cluster(options, cluster).device or "cpu"
    return resolve_device(options.device).type


def teacher_request(
    options: LabelOptions, existing: Store | None, cluster: Sequence[tuple[int, int]] | None
) -> TeacherRequest:
    """The teacher that the options ask for; what they leave open is as the store has it, else as suits the device. A
    folder is named by its whole path, since a worker has another working folder."""
    settings = options.settings()
    if options.dtype == "auto":
        settings["dtype"] = (
            existing.spec.dtype if existing is not None else default_dtype(device_kind(options, cluster))
        )
    name = _found(options.teacher)
    made_by = [generation.teacher for generation in existing.generations()] if existing is not None else []
    if options.quantity is None and made_by and made_by[-1] is not None and made_by[-1].name == name:
        settings["quantity"] = made_by[-1].quantity
    teacher = TeacherRequest(name, **settings)
    if options.second_teacher is None:
        return teacher
    own = {"revision": None, "size": None, "quantity": None}
    return replace(teacher, second=TeacherRequest(_found(options.second_teacher), **settings | own))


def _found(name: str) -> str:
    is_folder = name != EMBEDDED.name and find_preset(name) is None and Path(name).is_dir()
    return str(Path(name).absolute()) if is_folder else name


def check_signals(teacher: Teacher, options: LabelOptions) -> None:
    """Raise :class:`UsageError` for a signal that the teacher cannot give, or that nobody has calibrated."""
    if "native" in options.signal_names:
        raise UsageError(
            f"teacher {teacher.name!r} gives no confidence of its own, as no model does that transformers loads; leave "
            "out signal 'native'"
        )
    if teacher.second is not None and (teacher.quantity, teacher.second.quantity) == ("depth", "disparity"):
        raise UsageError(
            f"second teacher {teacher.second.name!r} gives disparity and cannot judge the metres of teacher "
            f"{teacher.name!r}; name a metric one"
        )
    if "lowres" in options.signal_names and teacher.half_shape((1, 1)) is None:
        raise UsageError(
            f"teacher {teacher.name!r} works at its processor's sizes only, and signal 'lowres' needs half of them; "
            "use --signals flip"
        )
    if options.signal_names:
        shipped_calibration().weights_of(teacher.quantity, options.signal_names)


def find_store(root: Root) -> Store | None:
    """The store at ``root``, or None if there is none yet."""
    try:
        return open_store(root)
    except StoreNotFound:
        return None


def check_source(source: Source, root: Root, store: Store | None, moved: bool) -> None:
    """Raise unless ``source`` may be labelled into the store at ``root``: apart from it, and under its own name."""
    here, images = _parts(root.location if root.path is None else root.path.resolve()), _parts(source.root)
    inside = here[: len(images)] == images and not source.is_one_file
    if inside or images[: len(here)] == here:
        raise UsageError(
            f"the store {root.location} and the images {source.root} may not lie inside each other; name another store"
        )
    known = store.sources().get(source.name) if store is not None else None
    if known is not None and known != source.root and not moved:
        raise SourceError(
            f"the store knows source {source.name!r} as {known}, not {source.root}; give the new folder its own "
            "--name, or say --moved if the same images now lie there"
        )


def _parts(location: str | Path) -> tuple[str, ...]:
    return (
        tuple(location.rstrip("/").split("/"))
        if isinstance(location, str) and is_url(location)
        else Path(location).parts
    )


def has_moved(store: Store, sources: Sequence[Source], scan: Scan) -> bool:
    """Whether a source lies under another root than the store knows.

    Raises :class:`SourceError` where none of the images that the store knows are there.
    """
    known = store.sources()
    moved = [source for source in sources if known.get(source.name, source.root) != source.root]
    if moved and not scan.tally.known + scan.tally.changed:
        name, root = moved[0].name, moved[0].root
        raise SourceError(f"none of the images of source {name!r} lie in {root}; is it the right folder?")
    return bool(moved)


@contextlib.contextmanager
def draft_generation(
    store: Store | None,
    sources: Sequence[Source],
    scan: Scan,
    teacher: Teacher,
    options: LabelOptions,
    folder: Path,
) -> Iterator[Draft]:
    """What the scan found and the store, if there is one yet, does not know. ``folder`` is made and used until the end.

    Where ``options.retry_failed`` asks for it, images that stand failed are tried again as "replace" rows, and those
    whose file is gone leave the store; and so do all that the scan found to be gone.
    """

    whole = {source.name for source in sources if not source.is_one_file}

    def leaves(image: str) -> bool:
        return image.partition("/")[0] in whole

    again = Again.of(store, options.retry_failed) if store is not None else Again()
    found = (scan.images(), scan.rejected())
    with draft_batches(*found, teacher.label_shape, folder, store, again, leaves, scan.gone()) as draft:
        yield draft


def write_generation(
    store: Store,
    draft: Draft,
    sources: Mapping[str, str],
    profile: NumericsProfile,
    request: TeacherRequest,
    shard_size: int,
    datasets: Mapping[str, DatasetNote] | None = None,
) -> None:
    """Fix a draft in the store, as its newest generation. ``sources`` are the names and roots that it adds,
    ``datasets`` what it adds to what is known of them."""
    add_generation(
        store,
        draft.tables(len(store.generations()), shard_size),
        draft.rejected,
        draft.gone,
        dict(store.sources()) | dict(sources),
        profile,
        request,
        datasets,
    )


def chosen_encoding(store: Store | None, options: LabelOptions) -> str:
    """What labels are packed in, as the label spec has it: as the options say, else as the store began."""
    if options.encoding is not None:
        return ENCODINGS[options.encoding].text
    return encoding_of(store.spec.encoding).text if store is not None else ENCODING


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


def pixel_bytes(options: LabelOptions, encoding: str) -> float:
    """What a pixel takes on disk, on the large side."""
    signals = len(options.signal_names) if options.keep_signals else 0
    images = IMAGE_BYTES_PER_PIXEL if options.store_images else 0.0
    return encoding_of(encoding).pixel_bytes + signals * SIGNAL_BYTES_PER_PIXEL + images


def check_space(root: Root, pixels: int, images: int, pixel: float) -> None:
    """Raise :class:`RunError` where labels of so many pixels, each of ``pixel`` bytes, will not fit."""
    needed, free = int(pixels * pixel), root.free_bytes()
    if free is not None and needed > free:
        raise RunError(
            f"{root.location}: {images} labels take about {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; "
            "make room or name a store on another disk"
        )


def signals_notes(store: Store, keep_signals: bool, todo: int) -> Iterator[str]:
    """What a person should know of shards with kept signals beside shards without; ``todo`` of them are left."""
    layer = find_layer(store.root, SIGNALS, store.fingerprint)
    if keep_signals:  # else the shards need not be listed, of which there may be many
        without = store.committed() - (layer.shards() if layer else set())
        if without:
            yield (
                f"{len(without)} shards were labelled without --keep-signals and stay without; `depthsieve "
                "recalibrate` leaves them out (for all of them, label into a new store)"
            )
    elif layer and todo:
        yield "this store keeps signals, and what is labelled now is without them, as --keep-signals was not given"


def images_notes(store: Store, options: LabelOptions, todo: int) -> Iterator[str]:
    """What a person should know of shards with stored images beside shards without; ``todo`` of them are left."""
    layer = find_layer(store.root, IMAGES, store.fingerprint)
    if options.store_images and options.part is not None:
        if store.committed() - (layer.shards() if layer else set()):
            yield "a part stores the images of what it labels; `label --store-images` without --part adds the others"
    elif layer and todo and not options.store_images:
        yield "this store keeps images, and what is labelled now is without them, as --store-images was not given"


def choose_profile(
    teacher: Teacher, options: LabelOptions, draft: Draft, workforce: Workforce, progress: bool
) -> NumericsProfile:
    """The profile of a new generation: as the options say, else found by a trial."""
    batch_size, settings = options.batch_size, TrialSettings(draft.largest, draft.images)
    if workforce.device in (None, "cpu") and teacher.device.type == "cpu":
        threads = threads_a_lane(workforce.threads, draft.images)
        settings = replace(settings, threads=threads, lanes=workforce.threads // threads)
    else:
        views = 1 + len({"flip", "photometric"} & set(options.signal_names))  # in one batch, see forward.py
        settings = replace(settings, views=views)
    if batch_size is None and workforce.device in (None, teacher.device.type):
        batch_size = find_batch_size(teacher, settings, progress)
    return workforce.profile(teacher, batch_size or CLUSTER_BATCH, settings.threads)


def differences_from(
    profile: NumericsProfile, teacher: Teacher, options: LabelOptions, workforce: Workforce
) -> list[str]:
    """What is asked for, or is true of this machine, and is not as in the profile that a plan was made with."""
    notes = []
    if options.batch_size not in (None, profile.batch_size):
        notes.append(f"was planned with --batch-size {profile.batch_size} and goes on with it")
    now = workforce.profile(teacher, profile.batch_size, profile.threads)
    here = {"device": f"{now.device_kind} ({now.device_model})", **now.versions}
    there = {"device": f"{profile.device_kind} ({profile.device_model})", **profile.versions}
    notes += [
        f"was planned with {name} {there.get(name)}, this is {here.get(name)}: labels may differ in their last bits"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]
    return notes
