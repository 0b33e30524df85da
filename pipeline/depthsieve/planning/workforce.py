"""Who labels, on which devices, and the numerics profile of a new generation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from depthsieve.core.processes import cores
from depthsieve.core.records import NumericsProfile
from depthsieve.labelling.numerics import (
    SMALL_JOB,
    TrialSettings,
    find_batch_size,
    images_per_second,
    make_profile,
    threads_a_lane,
)
from depthsieve.planning.draft import Draft
from depthsieve.planning.options import LabelOptions
from depthsieve.reliability.kinds import SIGNALS, full_views
from depthsieve.teachers import Teacher, resolve_device

SHARD_S = 60.0
"""Seconds that a shard should take one worker at most, so that little is lost when it is abandoned."""

FEWEST_A_SHARD, MOST_A_SHARD = 16, 256

CLUSTER_BATCH = 16
"""Images a forward pass where the GPUs are a cluster's and the driver has none to try on; a larger one is split."""


@dataclass(frozen=True, slots=True)
class Workforce:
    """Who labels: ``workers`` of ``threads`` cores each, sharing ``gpus``. They are processes ``apart`` from this one,
    or there is one, which is this process.

    On a cluster ``workers`` None is as many as find room, and what this machine has does not count.
    """

    apart: bool
    workers: int | None
    threads: int
    gpus: int
    on_cluster: bool = False

    @classmethod
    def choose(
        cls, teacher: Teacher, options: LabelOptions, cluster: Sequence[tuple[int, int]] | None = None
    ) -> "Workforce":
        """What the options ask for: one worker a GPU where nobody says how many, and always one in this process.

        ``cluster`` has the (CPUs, GPUs) of each node of the cluster that is to label, None without one. ``--device
        cuda:1`` names one GPU, and so one worker.
        """
        if cluster is not None:
            return cls.of_cluster(options, cluster)
        gpus = 0
        if teacher.device.type == "cuda":
            gpus = 1 if ":" in options.device else torch.cuda.device_count()
        workers = options.workers or max(1, gpus)
        apart = workers > 1 if options.runner == "auto" else options.runner != "local"
        if not apart:
            workers = 1
        return cls(apart, workers, options.threads or max(1, cores() // workers), gpus)

    @classmethod
    def of_cluster(cls, options: LabelOptions, cluster: Sequence[tuple[int, int]]) -> "Workforce":
        """What to request from a cluster whose nodes have these (CPUs, GPUs)."""
        wanted = options.device == "auto" or options.device.startswith("cuda")
        gpus = sum(each for _, each in cluster) if wanted else 0
        fair = [cpus // each for cpus, each in cluster if each] if gpus else [cpus for cpus, _ in cluster if cpus]
        return cls(True, options.workers, options.threads or max(1, min(fair, default=1)), gpus, on_cluster=True)

    @property
    def device(self) -> str | None:
        """The kind of device that a cluster's workers use; None where this process is asked."""
        return ("cuda" if self.gpus else "cpu") if self.on_cluster else None

    def profile(self, teacher: Teacher, batch_size: int, threads: int, videos: bool) -> NumericsProfile:
        """The profile of these workers and these versions, with ``videos`` of what decodes them too."""
        profile = make_profile(teacher, batch_size, threads, videos=videos)
        if self.device in (None, profile.device_kind):
            return profile
        return replace(profile, device_kind=self.device or "", device_model="the cluster's")


def device_kind(options: LabelOptions, cluster: Sequence[tuple[int, int]] | None) -> str:
    """The kind of device that labels: "cpu", "cuda" or "mps"."""
    if cluster is not None:
        return Workforce.of_cluster(options, cluster).device or "cpu"
    return resolve_device(options.device).type


def _trial_settings(teacher: Teacher, options: LabelOptions, draft: Draft, workforce: Workforce) -> TrialSettings:
    settings = TrialSettings(draft.largest, draft.images)
    if workforce.device in (None, "cpu") and teacher.device.type == "cpu":
        threads = threads_a_lane(workforce.threads, draft.images)
        return replace(settings, threads=threads, lanes=workforce.threads // threads)
    return replace(settings, views=full_views(options.signal_names))  # they go in one batch


def choose_shard_size(
    teacher: Teacher, options: LabelOptions, draft: Draft, workforce: Workforce, profile: NumericsProfile
) -> tuple[int, bool]:
    """How many images a shard of a new generation may hold, and whether a trial says so.

    A shard is lost as a whole when a run is interrupted, so it should take one worker no longer than about
    :data:`SHARD_S`: the power of two below what a trial does in that time, at least :data:`FEWEST_A_SHARD` and at most
    :data:`MOST_A_SHARD`. With a batch size that is given there is no trial, so that the same options always give the
    same bytes; nor is there one where no more than a shard's fewest images are of one shape.
    """
    if options.shard_size is not None:
        return options.shard_size, False
    is_here = workforce.device in (None, teacher.device.type)
    if options.batch_size is not None or not is_here or max(draft.buckets.values(), default=0) <= FEWEST_A_SHARD:
        return MOST_A_SHARD, False
    settings = _trial_settings(teacher, options, draft, workforce)
    batch_size = profile.batch_size if draft.images >= SMALL_JOB else 1  # a small job's trial must cost little
    rate = images_per_second(teacher, settings, batch_size)
    passes = 1 + sum(SIGNALS[name].passes for name in options.signal_names)
    images = SHARD_S * rate * settings.views / passes
    return shard_size_for(images), True


def shard_size_for(images: float) -> int:
    """The size of shards where a worker labels so many images in the time that a shard should take: a power of two, so
    that a trial that is a little faster or slower seldom gives another."""
    return min(MOST_A_SHARD, max(FEWEST_A_SHARD, 1 << int(math.log2(max(1.0, images)))))


def choose_profile(
    teacher: Teacher, options: LabelOptions, draft: Draft, workforce: Workforce, progress: bool
) -> NumericsProfile:
    """The profile of a new generation: as the options say, else found by a trial."""
    batch_size, settings = options.batch_size, _trial_settings(teacher, options, draft, workforce)
    if batch_size is None and workforce.device in (None, teacher.device.type):
        batch_size = find_batch_size(teacher, settings, progress)
    return workforce.profile(teacher, batch_size or CLUSTER_BATCH, settings.threads, draft.has_frames)


def differences_from(
    profile: NumericsProfile, teacher: Teacher, options: LabelOptions, workforce: Workforce
) -> list[str]:
    """What is asked for, or is true of this machine, and is not as in the profile that a plan was made with."""
    notes = []
    if options.batch_size not in (None, profile.batch_size):
        notes.append(f"was planned with --batch-size {profile.batch_size} and keeps it")
    now = workforce.profile(teacher, profile.batch_size, profile.threads, videos="pyav" in profile.versions)
    here = {"device": f"{now.device_kind} ({now.device_model})", **now.versions}
    there = {"device": f"{profile.device_kind} ({profile.device_model})", **profile.versions}
    notes += [
        f"was planned with {name} {there.get(name)}, this is {here.get(name)}: labels may differ in their last bits"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]
    return notes
