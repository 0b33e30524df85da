"""Everything that can be set about a labelling run, and the summary that it ends with."""

from dataclasses import dataclass

from depthsieve.core.encodings import ENCODINGS, EncodingName
from depthsieve.core.errors import UsageError
from depthsieve.core.records import ImageFailure, TeacherSettings

SIGNALS = ("flip", "lowres", "photometric", "teachers", "native", "edges", "none")


@dataclass(frozen=True)
class LabelOptions(TeacherSettings):
    """The options of :func:`depthsieve.label`; the command line has the same names and defaults. Those of the teacher
    are inherited; ``dtype`` "auto" is the store's where there is one.

    ``batch_size`` None is found by a trial; ``threads`` None is all cores (Ray: the cores divided by the workers).
    ``signals`` is a comma-separated list; a ``second_teacher`` adds "teachers" to it. ``keep_signals`` keeps them
    beside the labels, for another calibration without the teacher. ``encoding`` None is the store's, and for a new
    store "fast"; "small" takes fewer bytes, and longer to write and to read (docs/encoding.md). ``moved`` says that
    the images of a known source now lie under a new root. ``prune`` lets images leave the store that are no longer in
    the source, ``prune_most`` even where those are more than half of them. ``check_content`` compares the content of
    every labelled image, and not only of those whose size or time has changed. ``store_images`` keeps the images too,
    at label shape, as JPEG of ``image_quality`` (1 to 100; None is the store's, or 90), and adds those of what was
    labelled without. ``part`` "i/n" labels the i-th of n parts of a plan that is written, and adds nothing to it.
    Raises :class:`UsageError` for a value that cannot be meant.
    """

    teacher: str = "depth-anything-v2-small"
    batch_size: int | None = None
    threads: int | None = None
    shard_size: int = 256
    signals: str = "flip"
    second_teacher: str | None = None
    keep_signals: bool = False
    encoding: EncodingName | None = None
    store_images: bool = False
    image_quality: int | None = None
    runner: str = "auto"
    workers: int | None = None
    address: str | None = None
    name: str = "default"
    root: str | None = None
    moved: bool = False
    retry_failed: bool = False
    prune: bool = False
    prune_most: bool = False
    check_content: bool = False
    part: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("batch_size", "threads", "workers", "shard_size"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{option} must be a whole number of at least 1, not {value!r}")
        choices: dict[str, tuple[str | None, ...]] = {"encoding": (None, *ENCODINGS)}
        choices |= {"runner": ("auto", "local", "ray")}
        for option, known in choices.items():
            if getattr(self, option) not in known:
                listed = ", ".join(one for one in known if one)
                raise UsageError(f"{option} must be one of {listed}, not {getattr(self, option)!r}")
        if not isinstance(self.signals, str):
            raise UsageError(f"signals is a comma-separated list, such as 'flip', not {self.signals!r}")
        unknown = sorted(set(self.signals.split(",")) - set(SIGNALS))
        if unknown:
            raise UsageError(f"unknown signal {unknown[0]!r}; there are: {', '.join(SIGNALS)}")
        if "teachers" in self.signal_names and self.second_teacher is None:
            raise UsageError("signal 'teachers' compares two teachers; name the other one: --second-teacher NAME")
        if self.keep_signals and not self.signal_names:
            raise UsageError("there are no signals to keep with --signals none")
        if self.image_quality is not None and not self.store_images:
            raise UsageError("image_quality is that of stored images; say store_images (--store-images) with it")
        quality = self.image_quality
        if quality is not None and not (isinstance(quality, int) and 1 <= quality <= 100):
            raise UsageError(f"image_quality must be a whole number of 1 to 100, not {quality!r}")
        if self.part is not None and self.share is None:
            raise UsageError(f"part must be I/N, the I-th of N parts counted from 1, such as '2/8', not {self.part!r}")
        planned = ("retry_failed", "moved", "prune", "prune_most", "check_content")
        if self.part is not None and (said := [option for option in planned if getattr(self, option)]):
            raise UsageError(f"a part adds nothing to the plan: say {said[0]} to plan() or label() without part")
        if self.runner == "local" and (self.address or (self.workers or 1) > 1):
            raise UsageError("the local runner has one worker and no address; use --runner ray for more")

    @property
    def share(self) -> tuple[int, int] | None:
        """``part`` as numbers (i, n) with 1 <= i <= n; None without one, or where it is none."""
        first, slash, count = (self.part or "").partition("/")
        if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
            return None
        return int(first), int(count)

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The chosen signals, sorted, without "none"."""
        second = {"teachers"} if self.second_teacher is not None else set()
        return tuple(sorted(set(self.signals.split(",")) - {"none"} | second))


@dataclass(frozen=True)
class LabelSummary:
    """What a run did, and how the store stands after it.

    ``stored_now`` counts the images that this run added to what was labelled before, and ``not_stored`` are those of
    them that could not be, each with its reason. ``labelled_now`` and ``seconds`` are this run's, ``planned_now``
    counts the images it added to the plan, ``changed`` those among them whose file has changed on the disk, ``removed``
    the images that left the store;
    ``labelled``, ``failed`` (each with its reason) and ``pending`` are the whole store's. ``skipped_hidden`` and
    ``skipped_other`` count files of the source that are hidden or do not look like images. ``errors`` says why shards
    are still pending, ``notes`` are lines that a person should see. ``interrupted``: the run was asked to
    stop, and left something.
    """

    store: str
    labelled_now: int
    planned_now: int
    seconds: float
    labelled: int
    failed: tuple[ImageFailure, ...]
    pending: int
    skipped_hidden: int
    skipped_other: int
    errors: tuple[str, ...]
    notes: tuple[str, ...]
    interrupted: bool = False
    stored_now: int = 0
    not_stored: tuple[ImageFailure, ...] = ()
    changed: int = 0
    removed: int = 0


@dataclass(frozen=True)
class PlanSummary:
    """What labelling would take: images, shards, and about how many bytes and hours are left to be written and spent.

    ``changed`` counts those among the images whose file has changed since it was labelled, ``removed`` images that
    leave the store. ``free_bytes`` is the room there is (None: no limit to be seen), ``rejected`` are the files that
    were refused, each with its reason, ``written`` says whether the plan is fixed in the store. Hours and
    ``bytes_range`` come of a trial on ``tried`` of the images, and are (least, likely, most): ``worker_hours`` are
    those of all workers together, ``hours`` what the clock will show with ``workers`` of them, ``gpu_hours`` what they
    take of GPUs. They are None where nothing was tried, which is so without images, without a trial, and where the
    workers' device is not here.
    """

    store: str
    images: int
    shards: int
    bytes: int
    free_bytes: int | None
    rejected: tuple[ImageFailure, ...]
    written: bool
    workers: int | None = None
    tried: int = 0
    bytes_range: tuple[float, float, float] | None = None
    worker_hours: tuple[float, float, float] | None = None
    hours: tuple[float, float, float] | None = None
    gpu_hours: tuple[float, float, float] | None = None
    changed: int = 0
    removed: int = 0
