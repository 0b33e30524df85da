"""Everything that can be set about a labelling run, and the summary that it ends with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from depthsieve.errors import UsageError
from depthsieve.records import ImageFailure

SIGNALS = ("flip", "none")


@dataclass(frozen=True)
class LabelOptions:
    """The options of :func:`depthsieve.label`; the command line has the same names and defaults.

    ``batch_size`` None is found by a trial; ``threads`` None is all cores (Ray: the cores divided by the workers).
    ``signals`` is a comma-separated list. ``moved`` says that the images of a known source now lie under a new root.
    Raises :class:`UsageError` for a value that cannot be meant.
    """

    teacher: str = "depth-anything-v2-small"
    revision: str | None = None
    size: int | None = None
    device: str = "auto"
    dtype: str = "float32"
    batch_size: int | None = None
    threads: int | None = None
    shard_size: int = 256
    signals: str = "flip"
    max_tokens: int = 16384
    oversize: Literal["reject", "shrink"] = "reject"
    runner: str = "auto"
    workers: int | None = None
    address: str | None = None
    name: str = "default"
    moved: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        for option in ("batch_size", "threads", "workers", "shard_size", "max_tokens"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{option} must be a whole number of at least 1, not {value!r}")
        choices = {"runner": ("auto", "local", "ray"), "oversize": ("reject", "shrink")}
        for option, known in choices.items():
            if getattr(self, option) not in known:
                raise UsageError(f"{option} must be one of {', '.join(known)}, not {getattr(self, option)!r}")
        if not isinstance(self.signals, str):
            raise UsageError(f"signals is a comma-separated list, such as 'flip', not {self.signals!r}")
        unknown = sorted(set(self.signals.split(",")) - set(SIGNALS))
        if unknown:
            raise UsageError(f"unknown signal {unknown[0]!r}; there are: {', '.join(SIGNALS)}")
        if self.runner == "local" and (self.address or (self.workers or 1) > 1):
            raise UsageError("the local runner has one worker and no address; use --runner ray for more")

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The chosen signals, sorted, without "none"."""
        return tuple(sorted(set(self.signals.split(",")) - {"none"}))


@dataclass(frozen=True)
class LabelSummary:
    """What a run did, and how the store stands after it.

    ``labelled_now`` and ``seconds`` are this run's, ``planned_now`` counts the images it added to the plan;
    ``labelled``, ``failed`` (each with its reason) and ``pending`` are the whole store's. ``skipped_hidden`` and
    ``skipped_other`` count files of the source that are hidden or do not look like images. ``errors`` says why shards
    are still pending, ``notes`` are lines that a person should see.
    """

    store: Path
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
