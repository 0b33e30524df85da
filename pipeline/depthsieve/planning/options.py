"""Everything that can be set about a labelling run."""

from dataclasses import dataclass

from depthsieve.core.encodings import ENCODINGS, EncodingName
from depthsieve.core.errors import UsageError
from depthsieve.core.records import TeacherSettings
from depthsieve.reliability.kinds import parse_signals


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
        if self.encoding not in (None, *ENCODINGS):
            raise UsageError(f"encoding must be one of {', '.join(ENCODINGS)}, not {self.encoding!r}")
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
        return tuple(sorted({*parse_signals(self.signals), *second}))
