"""What `label` and `plan` return: how a run ended and how the store stands, or what labelling would take."""

from dataclasses import dataclass

from depthsieve.core.records import ImageFailure


@dataclass(frozen=True)
class LabelSummary:
    """What a run did, and how the store stands after it.

    ``stored_now`` counts the images that this run added to what was labelled before, and ``not_stored`` are those of
    them that could not be, each with its reason; ``scaled_now`` and ``not_scaled`` say the same of scales to metres.
    ``labelled_now`` and ``seconds`` are this run's, ``planned_now``
    counts the images it added to the plan, ``changed`` those among them whose file has changed on the disk, ``removed``
    the images that left the store, ``gone`` those that are no longer in the source and stay in the store.
    ``labelled``, ``failed`` (each with its reason) and ``pending`` are the whole store's. ``skipped_hidden`` and
    ``skipped_other`` count files of the source that are hidden or do not look like images. ``errors`` says why shards
    are still pending, ``notes`` are lines that a person should see. ``interrupted``: the run was asked to
    stop, and left something; ``discarded`` counts images that had been labelled in shards which it did not finish.
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
    scaled_now: int = 0
    not_scaled: tuple[ImageFailure, ...] = ()
    changed: int = 0
    removed: int = 0
    gone: int = 0
    discarded: int = 0


@dataclass(frozen=True)
class PlanSummary:
    """What labelling would take: images, shards, and about how many bytes and hours are left to be written and spent.

    ``changed`` counts those among the images whose file has changed since it was labelled, ``removed`` images that
    leave the store, ``gone`` images that are no longer in the source and stay. ``notes`` are lines that a person should
    see. ``free_bytes`` is the room there is (None: no limit to be seen), ``rejected`` are the files that
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
    gone: int = 0
    notes: tuple[str, ...] = ()
