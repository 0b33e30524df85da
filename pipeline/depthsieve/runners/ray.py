"""The Ray runner: one actor a worker, a window of two shards an actor. The only file that imports ray."""

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from depthsieve.errors import RunError
from depthsieve.labelling import ShardLabeller
from depthsieve.records import LabelJob, ShardResult
from depthsieve.runners import Runner

WINDOW = 2

LONGEST_BASE = 24
"""Bytes of a temporary folder's path under which Ray's sockets still fit into the 107 that the kernel allows."""


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How many actors, and what each may use. ``address`` None starts a private Ray on this machine."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: float = 0.0
    address: str | None = None


class _Worker:
    """An actor's state: the labeller, with its teacher loaded once."""

    def __init__(self, job: LabelJob) -> None:
        self._labeller = ShardLabeller(job)

    def label(self, shard_id: str) -> ShardResult:
        return self._labeller(shard_id)


def ray_runner(options: RayOptions) -> Runner:
    """A runner on actors of a Ray cluster, started for the run and stopped after it unless an address is given."""

    def run(job: LabelJob, shard_ids: Sequence[str]) -> Iterator[ShardResult]:
        with _connected(options), contextlib.closing(_Actors(options, job, len(shard_ids))) as actors:
            yield from actors.label(shard_ids)

    return run


class _Actors:
    """The actors of one run, gone after :meth:`close`."""

    def __init__(self, options: RayOptions, job: LabelJob, shards: int) -> None:
        actor_class = ray.remote(
            num_cpus=options.cpus_per_worker, num_gpus=options.gpus_per_worker, max_restarts=0, max_concurrency=1
        )(_Worker)
        self._actors = [actor_class.remote(job) for _ in range(min(options.workers, shards))]

    def label(self, shard_ids: Sequence[str]) -> Iterator[ShardResult]:
        """Keep a window of shards at every actor; an actor that fails gets no more."""
        waiting = iter(shard_ids)
        flying: dict[Any, tuple[Any, str]] = {}

        def send(actor: Any) -> None:
            shard_id = next(waiting, None)
            if shard_id is not None:
                flying[actor.label.remote(shard_id)] = (actor, shard_id)

        for actor in self._actors * WINDOW:
            send(actor)
        while flying:
            done, _ = ray.wait(list(flying), num_returns=1)
            actor, shard_id = flying.pop(done[0])
            try:
                result = ray.get(done[0])
            except RayError as error:
                yield ShardResult(shard_id, error=f"a Ray worker failed: {_first_line(error)}")
            else:
                send(actor)
                yield result
        for shard_id in waiting:
            yield ShardResult(shard_id, error="all Ray workers have died")

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)


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
                "num_gpus": round(options.workers * options.gpus_per_worker),
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": stack.enter_context(_session_folder()),
            }
        try:
            ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError, RayError) as error:
            raise RunError(f"cannot reach Ray at {settings['address']}: {_first_line(error)}") from error
        stack.callback(ray.shutdown)
        yield


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
