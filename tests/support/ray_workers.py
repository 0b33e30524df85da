"""Ray workers that meet a fate at certain shards; else they label like any other. For tests of the driver alone."""

import os
import signal
import threading
import time
from pathlib import Path

from depthsieve.core.records import ShardResult
from depthsieve.runners.ray_worker import RayWorker, Readiness

ORDERS = "DEPTHSIEVE_TEST_ORDERS"
"""The variable with the folder of orders: a file named by a shard holds what befalls the worker that gets it."""


def order(folder: Path, shard_id: str, fate: str) -> None:
    """``fate`` befalls workers at the shard; with " once" at its end, the first of them only."""
    (folder / shard_id).write_text(fate)


def begun(folder: Path) -> list[tuple[str, int]]:
    """(shard, process) of all that was begun, in order."""
    lines = (folder / "log").read_text().split() if (folder / "log").exists() else []
    return [(shard_id, int(pid)) for shard_id, pid in (line.split(":") for line in lines)]


class OrderedWorker(RayWorker):
    """Follows the orders, except that an isolating one labels in peace unless it is told "even isolated".

    It is at one shard at a time, so that what befalls it is about that one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._one_at_a_time = threading.Lock()

    def prepare(self, version: str, pickled_job: bytes, roots: tuple[str, ...], isolates: bool) -> Readiness:
        self._isolates = isolates
        return super().prepare(version, pickled_job, roots, isolates)

    def label(self, shard_id: str) -> ShardResult | None:
        with self._one_at_a_time:
            return self._label(shard_id)

    def _label(self, shard_id: str) -> ShardResult | None:
        if self._stop.requested:
            return super().label(shard_id)
        folder = Path(os.environ[ORDERS])
        with (folder / "log").open("a") as log:
            log.write(f"{shard_id}:{os.getpid()}\n")
        file = folder / shard_id
        fate = file.read_text() if file.exists() else (folder / "all").read_text()
        if self._isolates and "even isolated" not in fate:
            fate = ""
        if fate.endswith(" once"):
            file.unlink()
        if fate.startswith("hang"):
            time.sleep(3600)
        if fate.startswith("creep"):
            for _ in range(10):
                time.sleep(0.6)
                self._count(shard_id, 1)
        if fate.startswith("raise"):
            raise ArithmeticError("a bug\nof two lines")
        result = None if fate.startswith("killed") else super().label(shard_id)
        if fate.startswith("slow"):
            time.sleep(1.0)
        if fate.startswith(("killed", "commits, then killed")):
            time.sleep(0.5)  # what it answered before is on its way; an answer lost with it would be a wrong suspect
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return result
