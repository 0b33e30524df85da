"""The Ray runner: one actor a worker, a window of two shards an actor. The only file that imports ray."""

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from depthsieve.errors import DepthsieveError, RunError
from depthsieve.labelling import ShardLabeller
from depthsieve.records import LabelJob, ShardResult, ShardTask
from depthsieve.runners import Runner
from depthsieve.stopping import Stop

WINDOW = 2

LONGEST_BASE = 24
"""Bytes of a temporary folder's path under which Ray's sockets still fit into the 107 that the kernel allows."""


START_S = 300.0
"""Seconds in which at least one worker must have loaded its teacher."""


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How many actors, and what they may use. ``address`` None starts a private Ray on this machine."""

    workers: int
    cpus_per_worker: int
    gpus: int = 0
    address: str | None = None

    @property
    def gpus_per_worker(self) -> float:
        """A whole GPU, or such a part that all workers find room: two workers, never two thirds, to a GPU."""
        return 1 / math.ceil(self.workers / self.gpus) if self.gpus else 0.0


class _Worker:
    """An actor's state: the labeller, with its teacher loaded once."""

    def __init__(self) -> None:
        self._labeller: ShardLabeller | None = None

    def prepare(self, job: LabelJob) -> str | None:
        """Load the teacher. Returns what a person must mend, if it cannot be."""
        try:
            self._labeller = ShardLabeller(job)
        except DepthsieveError as error:
            return str(error)
        return None

    def label(self, shard_id: str) -> ShardResult:
        assert self._labeller is not None
        return self._labeller(shard_id)


def ray_runner(options: RayOptions) -> Runner:
    """A runner on actors of a Ray cluster, started for the run and stopped after it unless an address is given."""

    def run(job: LabelJob, tasks: Iterator[ShardTask], stop: Stop) -> Iterator[ShardResult]:
        shard_ids = [task.shard_id for task in tasks]
        with _connected(options), contextlib.closing(_Actors(options, job, len(shard_ids))) as actors:
            yield from actors.label(shard_ids)

    return run


class _Actors:
    """The actors of one run, gone after :meth:`close`. Shards go to those that have loaded their teacher."""

    def __init__(self, options: RayOptions, job: LabelJob, shards: int) -> None:
        actor_class = ray.remote(
            num_cpus=options.cpus_per_worker, num_gpus=options.gpus_per_worker, max_restarts=0, max_concurrency=1
        )(_Worker)
        self._actors = [actor_class.remote() for _ in range(min(options.workers, shards))]
        self._starting = {actor.prepare.remote(job): actor for actor in self._actors}
        self._wanted = f"{options.cpus_per_worker} CPUs and {options.gpus_per_worker:g} GPUs"

    def label(self, shard_ids: list[str]) -> Iterator[ShardResult]:
        """Keep a window of shards at every actor; an actor that fails gets no more.

        Raises :class:`RunError` when no actor starts within :data:`START_S`, or a teacher cannot be loaded.
        """
        waiting = deque(shard_ids)
        flying: dict[Any, tuple[Any, str]] = {}
        deadline, started = time.monotonic() + START_S, False

        def send(actor: Any) -> None:
            if waiting:
                shard_id = waiting.popleft()
                flying[actor.label.remote(shard_id)] = (actor, shard_id)

        while flying or (waiting and self._starting):
            timeout = None if started else max(0.0, deadline - time.monotonic())
            done, _ = ray.wait([*flying, *self._starting], num_returns=1, timeout=timeout)
            if not done:
                raise RunError(f"Ray started no worker in {START_S:.0f} s: each wants {self._wanted}, {_offered()}")
            (reference,) = done
            if reference in self._starting:
                for actor in self._ready(reference):
                    started = True
                    for _ in range(WINDOW):
                        send(actor)
                continue
            actor, shard_id = flying.pop(reference)
            try:
                result = ray.get(reference)
            except RayError as error:
                yield ShardResult(shard_id, error=f"a Ray worker failed: {_first_line(error)}")
            else:
                send(actor)
                yield result
        for shard_id in waiting:
            yield ShardResult(shard_id, error="all Ray workers have died")

    def _ready(self, reference: Any) -> list[Any]:
        """The actor that has loaded its teacher, or none if it died."""
        actor = self._starting.pop(reference)
        try:
            problem = ray.get(reference)
        except RayError:
            return []
        if problem:
            raise RunError(problem)
        return [actor]

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)


def _offered() -> str:
    resources = ray.cluster_resources()
    return f"the cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs in all"


def _first_line(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__


@contextlib.contextmanager
def _connected(options: RayOptions) -> Iterator[None]:
    if ray.is_initialized():
        yield  # the caller's own session, from a notebook
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(private=options.address is None))
        settings: dict[str, Any] = {"address": options.address}
        if options.address is None:
            settings = {
                "address": "local",
                "num_cpus": options.workers * options.cpus_per_worker,
                "num_gpus": options.gpus,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": stack.enter_context(_session_folder()),
            }
        try:
            with _signals_kept():
                ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError, RayError) as error:
            raise RunError(f"cannot reach Ray at {settings['address']}: {_first_line(error)}") from error
        stack.callback(ray.shutdown)
        yield


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Undo Ray's own SIGTERM handler, which would end the command without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _session_folder() -> Iterator[str]:
    """Where a private Ray keeps its logs and sockets."""
    base = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="dsray-", dir=base if len(os.fsencode(base)) <= LONGEST_BASE else "/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _environment(private: bool) -> Iterator[None]:
    """Keep a private Ray private: a token of its own, made here and never written to HOME; no usage reports.

    Ray turns token authentication on for local sessions by itself (and sets RAY_AUTH_MODE), from 2.59 on.
    """
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if private:
        wanted["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    before = {name: os.environ.get(name) for name in (*wanted, "RAY_AUTH_MODE")}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
